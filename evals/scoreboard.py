"""The benchmark's scoreboard in Markdown, rendered from the rows of a notebook and nothing else."""

import json
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from neuronaut.agent.view import visible
from neuronaut.evals import registry
from neuronaut.evals.compare import compared, shown
from neuronaut.evals.run import goal_of
from neuronaut.evals.suite import Row, Score
from neuronaut.memory.evaluations import Evaluation, Evaluations
from neuronaut.tools.errors import UserError

FAMILY = re.compile(r"family: ([^,;]+)")  # in the name of a score that is given by family
COSTS = (("calls", "calls"), ("tokens", "tokens"), ("usd", "dollars"))
HERE = Path(__file__).parent


def write_scoreboard(path: Path, notebook: Evaluations, proposer: str, loop: str) -> None:
    """Write the scoreboard of the newest evaluation of each suite by a proposer and loop.

    What stands in NAME-notes.md beside NAME.md was written by hand, and is included as it is.
    """
    notes = path.with_name(f"{path.stem}-notes{path.suffix}")
    written = notes.read_text(encoding="utf-8").strip() if notes.exists() else ""
    text = scoreboard(notebook, proposer, loop, notes=written, notes_file=notes.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"the scoreboard {str(path)!r} cannot be written: {error.strerror}") from None


def scoreboard(notebook: Evaluations, proposer: str, loop: str, *, notes: str, notes_file: str) -> str:
    """The text of the scoreboard."""
    import jinja2

    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    newest = {one.key.suite: one for one in reversed(notebook.find(proposer=proposer, loop=loop))}
    ours = {name: newest[name] for name in registry.SUITES if name in newest}
    suites = [_suite(one, notebook.done(one.id)) for one in ours.values()]
    text = environment.from_string((HERE / "scoreboard.md.j2").read_text(encoding="utf-8")).render(
        date=max((one.started[:10] for one in ours.values()), default="-"),
        proposer=proposer,
        loop=loop,
        models=sorted({_model(one.settings["llm"]) for one in ours.values() if "llm" in one.settings}),
        machines=sorted({_machine(one.settings["machine"]) for one in ours.values()}),
        suites=suites,
        not_run=[name for name in registry.SUITES if name not in ours],
        false_claims=[row for suite in suites for row in suite["false_claims"]],
        ablations=[row for one in ours.values() for row in _ablations(notebook, one)],
        notes=notes,
        notes_file=notes_file,
        published=json.loads((HERE / "published.json").read_text(encoding="utf-8")),
    )
    return text.rstrip("\n") + "\n"


def _suite(evaluation: Evaluation, rows: Sequence[Row]) -> dict[str, Any]:
    name = evaluation.key.suite
    suite = registry.load(registry.SUITES[name])
    scores = suite.scores(rows)
    plain = [score for score in scores if not FAMILY.search(score.name)]
    outcomes = Counter(row["outcome"] for row in rows)
    judged = [score.met for score in scores if score.met is not None]
    errors = Counter(str(row["error"]) for row in rows if row["outcome"] == "failed")
    return {
        "name": name,
        "about": suite.about[:1].upper() + suite.about[1:] + ("" if suite.about.endswith((".", "?")) else "."),
        "seed": evaluation.key.seed,
        "commit": _commit(evaluation),
        "ok": outcomes["ok"],
        "failed": outcomes["failed"],
        "not_attempted": outcomes["not attempted"],
        "goals": f"{sum(judged)} of {len(judged)}" if judged else "-",
        "scores": [_score(score) for score in plain],
        "families": list(_families(scores)),
        "costs": _costs([row for row in rows if row["outcome"] == "ok"]),
        "errors": [(_cell(error), n) for error, n in errors.most_common(5)],
        "false_claims": [
            {"suite": name, "name": _cell(score.name), "false": round(score.value * score.n), "n": score.n}
            for score in plain
            if "false" in score.name and "bound" not in score.name and score.value is not None
        ],
    }


def _score(score: Score) -> dict[str, Any]:
    return {
        "name": _cell(score.name),
        "value": shown(score.value),
        "interval": "-" if score.low is None or score.high is None else f"{shown(score.low)} to {shown(score.high)}",
        "n": score.n,
        "goal": goal_of(score) or "-",
        "met": {True: "met", False: "**missed**", None: ""}[score.met],
    }


def _families(scores: Sequence[Score]) -> Iterator[dict[str, str]]:
    """Of each score that is given by family: the median over families, the worst one, and all."""
    found: dict[str, list[tuple[str, Score]]] = defaultdict(list)
    for score in scores:
        if (match := FAMILY.search(score.name)) and score.value is not None:
            found[FAMILY.sub("", score.name).strip(" ,;")].append((match[1].strip(), score))
    for name, parts in found.items():
        values = {family: float(score.value or 0.0) for family, score in parts}
        rising = all(score.at_most is None for _, score in parts)
        worst = (min if rising else max)(values, key=lambda family: values[family])
        yield {
            "name": _cell(name),
            "median": shown(statistics.median(values.values())),
            "worst": f"{_cell(worst)}: {shown(values[worst])}",
            "all": ", ".join(
                f"{_cell(family)} {shown(score.value)} (n {score.n}){' **missed**' if score.met is False else ''}"
                for family, score in parts
            ),
        }


def _costs(rows: Sequence[Row]) -> str:
    """What a case costs, in the middle, and all of them together. A case's part of shared passes counts with its own."""
    forwards = [row["forwards"] + row.get("shared_forwards", 0.0) for row in rows if row.get("forwards") is not None]
    seconds = [row["seconds"] for row in rows if row.get("seconds") is not None]
    if not forwards or not seconds:
        return "No cost was measured."
    minutes = sum(seconds) / 60
    sums = [f"{minutes / 60:.1f} hours of one worker" if minutes >= 60 else f"{minutes:.1f} minutes of one worker"]
    for name, unit in COSTS:
        if numbers := [row[name] for row in rows if row.get(name) is not None]:
            sums.append(f"{shown(sum(numbers))} {unit}")
    middle = f"{shown(statistics.median(forwards))} forwards, {shown(statistics.median(seconds))} seconds"
    return f"Median cost of a case, its part of reading the corpus included: {middle}. All cases together: {', '.join(sums)}."


def _ablations(notebook: Evaluations, ours: Evaluation) -> Iterator[dict[str, Any]]:
    """The newest evaluation of the same suite and seed by each other proposer and loop, against ours, on the cases that both
    have; what is equal in all of them is left out."""
    others = {
        (one.key.proposer, one.key.loop): one
        for one in reversed(notebook.find(suite=ours.key.suite, seed=ours.key.seed))
    }
    for (proposer, loop), other in sorted(others.items()):
        if (proposer, loop) == (ours.key.proposer, ours.key.loop):
            continue
        found = compared((ours, notebook.done(ours.id)), (other, notebook.done(other.id)))
        head = {"suite": ours.key.suite, "asked": f"`{proposer}`, `{loop}`", "n": found.common - found.not_ok}
        for d in found.differences:
            if d.low == d.high == 0:
                continue
            yield {
                **head, "n": d.n, "name": _cell(d.metric), "ours": shown(d.a), "other": shown(d.b),
                "difference": f"{shown(d.difference)} ({shown(d.low)} to {shown(d.high)})",
            }  # fmt: skip
        for name, a, b in found.scores:
            if not FAMILY.search(name) and a != b:
                yield {**head, "name": _cell(name), "ours": shown(a), "other": shown(b), "difference": "-"}


def _commit(evaluation: Evaluation) -> str:
    commit = evaluation.settings["commit"]
    return "-" if commit is None else f"`{commit[:12]}`{' and changes' if evaluation.settings['dirty'] else ''}"


def _model(asked: dict[str, str]) -> str:
    """What was asked beside the search, where, and within which limits."""
    return visible(f"{asked['asked']} at {asked['source']}; a case: {asked['budget']}")


def _machine(machine: dict[str, Any]) -> str:
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}"


def _cell(text: str) -> str:
    """The text in a cell of a table."""
    return visible(text).replace("|", "\\|")
