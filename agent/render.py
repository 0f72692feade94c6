"""An answer as people read it in a terminal."""

import io
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from neuronaut.agent.answer import ORDER
from neuronaut.agent.claim_numbers import numbers_of, score_of, short_number, short_reason
from neuronaut.agent.cost import asked
from neuronaut.agent.known import known_line
from neuronaut.agent.view import visible
from neuronaut.memory.cases import HOLDS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

STYLES = {"SUPPORTED": "bold green", "PARTIAL": "yellow", "UNRESOLVED": "magenta", "REFUTED": "red", "ABSTAINED": "dim",
          "MEASURED": "cyan"}  # fmt: skip
BECAME = {"survived": "bold green", "lost": "red", "undecided": "magenta", "no control": "yellow"}
BUILT_IN = ("grammar", "design effects", "design attention", "design losses", "pruning", "revision", "the question",
            "direct attribution", "an earlier run")  # fmt: skip
SHOWN_PROPOSALS = 4
SHOWN_KNOWN = 12
COLUMN, PIPED_WIDTH = 12, 120
HEAD_DIGITS = 16


def render(answer: dict[str, Any]) -> None:
    """Print the answer: what held first, every other verdict, examples, what is left over, and where to go on."""
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
    with console.capture() as printed:
        _print(console, answer)
    print("\n".join(line.rstrip() for line in printed.get().splitlines()), flush=True)


def text_of(answer: dict[str, Any], *, width: int = PIPED_WIDTH) -> str:
    """What `render` prints, without colours."""
    from rich.console import Console

    file = io.StringIO()
    _print(Console(file=file, highlight=False, width=width, color_system=None, force_jupyter=False), answer)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def _print(console: "Console", answer: dict[str, Any]) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console.print(Text(visible(answer["question"]), style="bold") + Text(f"  ·  {visible(answer['target']['name'])}"))
    console.print()
    grid = Table.grid(padding=(0, 2))
    grid.add_column(width=COLUMN, no_wrap=True)
    grid.add_column()
    for label, body in _rows(answer):
        grid.add_row(label, body)
    console.print(Padding(grid, (0, 0, 0, 1)))
    console.print()
    for line in _footer(answer):
        console.print(Text(f" {line}", style="dim"), soft_wrap=True)


def _rows(answer: dict[str, Any]) -> "Iterator[tuple[Text, Text]]":
    from rich.text import Text

    measured = answer.get("measured", [])
    dreams = [found for found in measured if found["tool"] == "dream"]  # the question: claims go on from it
    yield from _measured(dreams)
    yield from _claims(answer)
    for outcome in answer["outcomes"]:
        body = Text(f"{visible(outcome['unit'])} {outcome['side']}: {visible(outcome['reason'])}")
        yield Text(outcome["status"], style=STYLES.get(outcome["status"], "")), body
    yield from _measured(found for found in measured if found not in dreams)
    if again := answer.get("survived"):
        yield from _survived(again)
    for other in answer.get("asked_of", []):
        yield from _asked_of(other)
    yield from _known(answer)
    if words := answer["words"]:
        yield from _in_words(words)
    for note in answer["notes"]:
        yield Text("note", style="dim"), Text(visible(note))
    yield from _left_over(answer)
    yield from _not_tested(answer)


def _claims(answer: dict[str, Any]) -> "Iterator[tuple[Text, Text]]":
    from rich.text import Text

    seen: set[tuple[str, str]] = set()
    for claim in sorted(answer["claims"], key=lambda c: (ORDER.index(c["status"]), -score_of(c))):
        first = (claim["unit"], claim["side"]) not in seen
        seen.add((claim["unit"], claim["side"]))
        named = "" if claim["side"] == "circuit" else f"{visible(claim['unit'])} "
        body = Text(f"{named}{visible(claim['claim'])}", style="" if first else "dim")
        if claim["author"] not in BUILT_IN:
            wrote = f", who wrote: {visible(claim['author_words'])}" if claim["author_words"] else ""
            body.append(f" (proposed by {visible(claim['author'])}{wrote})", style="dim")
        if first:
            body.append(f"\n{numbers_of(claim)}", style="dim")
        if claim["reason"] != HOLDS:
            reason = short_reason(claim["reason"])
            body.append(f"\n{reason}" if first else f" ({short_number(claim)}): {reason.split('; ')[0]}", style="dim")
        yield Text(claim["status"], style=STYLES[claim["status"]]), body
        if first:
            yield from _examples(answer, claim)


def _known(answer: dict[str, Any]) -> "Iterator[tuple[Text, Text]]":
    from rich.text import Text

    for known in answer["known"][:SHOWN_KNOWN]:
        yield Text("known", style="dim"), Text(visible(known_line(known)))
    if len(answer["known"]) > SHOWN_KNOWN:
        yield (
            Text("known", style="dim"),
            Text(f"and {len(answer['known']) - SHOWN_KNOWN} more claims: --json lists them"),
        )


def _left_over(answer: dict[str, Any]) -> "Iterator[tuple[Text, Text]]":
    from rich.text import Text

    for left in answer["unexplained"]["units"]:
        tokens = ", ".join(f'"{visible(token)}"' for token in left["examples"])
        rest = f", most of it at {tokens}" if tokens and left["share"] >= 0.01 else ""
        yield (
            Text("left over", style="dim"),
            Text(f"{left['share']:.0%} of the firing of {visible(left['unit'])}{rest}"),
        )


def _not_tested(answer: dict[str, Any]) -> "Iterator[tuple[Text, Text]]":
    from rich.text import Text

    # Whoever asked somebody else wants to see what that one proposed.
    own = sorted(answer["proposed"], key=lambda p: p["author"] in BUILT_IN)
    names = [
        visible(p["claim"] if p["unit"].startswith("task:") else f"{p['unit']} {p['claim']}") + _by(p["author"])
        for p in own
    ]
    if names:
        more = f"; and {len(names) - SHOWN_PROPOSALS} more" if len(names) > SHOWN_PROPOSALS else ""
        yield Text("not tested", style="dim"), Text("; ".join(names[:SHOWN_PROPOSALS]) + more, style="dim")


def _measured(experiments: "Iterable[dict[str, Any]]") -> "Iterator[tuple[Text, Text]]":
    from rich.text import Text

    for found in experiments:
        body = Text(visible(found["title"]))
        for line in found["lines"]:
            body.append(f"\n{visible(line)}", style="dim")
        yield Text("MEASURED", style=STYLES["MEASURED"]), body


def _survived(again: dict[str, Any]) -> "Iterator[tuple[Text, Text]]":
    """What became of findings about earlier weights."""
    from rich.text import Text

    counts = ", ".join(f"{n} {name}" for name, n in again["counts"].items() if n)
    yield (
        Text("asked again", style="bold"),
        Text(f"{len(again['findings'])} findings about earlier weights: {counts or 'none'}"),
    )
    for row in again["findings"]:
        body = Text(f"{visible(row['unit'])} {visible(row['claim'])}")
        cost = "" if row["seconds"] is None else f" ({row['seconds']:.1f} s, {row['forwards']:.0f} forward passes)"
        where = "" if row["now"] is None else f", by {row['now']['split']} in run {visible(row['now']['run'])}"
        verdict = "" if row["now"] is None or row["became"] == "survived" else f"{row['now']['outcome']}: "
        reason = f"{verdict}{visible(row['reason']).split('; ')[0]}"
        body.append(f"\n{reason}{where}{cost}; found in run {visible(row['run'])}", style="dim")
        if row["control"] is not None:
            body.append(f"\n{_control(row['control'])}", style="dim")
        yield Text(row["became"], style=BECAME.get(row["became"], "")), body


def _control(control: dict[str, Any]) -> str:
    """What the earlier weights got on the same text."""
    reason = visible(control["reason"]).split("; ")[0]
    if control["outcome"] is None:
        return f"no control: {reason}"
    cost = f" ({control['seconds']:.1f} s, {control['forwards']:.0f} forward passes)"
    verb = "still pass on the same text" if control["outcome"] == "SUPPORTED" else "fail on the same text too"
    return f"the earlier weights {verb}, {control['outcome']}: {reason}{cost}"


def _asked_of(other: dict[str, Any]) -> "Iterator[tuple[Text, Text]]":
    """What the same question found in another model."""
    from rich.text import Text

    name = visible(other["other"])
    yield Text("the same", style="dim"), Text(f"asked of {name}: run {visible(other['run'])}", style="dim")
    for claim in sorted(other["claims"], key=lambda c: (ORDER.index(c["status"]), -score_of(c))):
        body = Text(f"in {name}: {visible(claim['unit'])} {visible(claim['claim'])} ({short_number(claim)})")
        yield Text(claim["status"], style=STYLES[claim["status"]]), body
    for outcome in other["outcomes"]:
        body = Text(f"in {name}: {visible(outcome['unit'])} {outcome['side']}: {visible(outcome['reason'])}")
        yield Text(outcome["status"], style=STYLES.get(outcome["status"], "")), body


def _by(author: str) -> str:
    """Who proposed a claim, where it is not the built-in proposer alone."""
    return "" if author in BUILT_IN else f" (proposed by {visible(author)})"


def _in_words(words: dict[str, Any]) -> "Iterator[tuple[Text, Text]]":
    from rich.text import Text

    body = Text(" ".join(visible(one["text"]) for one in words["sentences"]))
    dropped = len(words["left_out"])
    told = (
        f"{len(words['sentences'])} sentences, each with its evidence" if words["sentences"] else "nothing that stands"
    )
    more = f"; {dropped} dropped: {visible(words['left_out'][0])}" if dropped else ""
    body.append(
        f"{chr(10) if words['sentences'] else ''}(told by {visible(words['author'])}: {told}{more})", style="dim"
    )
    yield Text("in words", style="dim"), body


def _examples(answer: dict[str, Any], claim: dict[str, Any]) -> "Iterator[tuple[Text, Text]]":
    """The contexts of the unit's largest activations, its token marked, under its first reads claim."""
    from rich.text import Text

    for at, one in enumerate(answer["examples"].get(claim["unit"], []) if claim["side"] == "reads" else []):
        body = Text(f"{one['activation']:6.2f}  …{visible(one['before'])[-44:]}", style="dim")
        body.append(f"⟦{visible(one['token'])}⟧", style="bold not dim")
        body.append(f"{visible(one['after'])[:24]}…", style="dim")
        yield Text("" if at else "largest", style="dim"), body


def _short_head(head: str) -> str:
    """As much of the head as `verify --head` needs."""
    seq, _, digits = head.partition(":")
    return f"{seq}:{digits[:HEAD_DIGITS]}"


def _footer(answer: dict[str, Any]) -> Iterator[str]:
    run, everywhere = answer["survive"]["run"], answer["survive"]["notebook"]
    if run["predictions"]:
        yield (
            f"of {run['supported']} SUPPORTED here {run['kept']} survive over the run (false ones at most 5 %); "
            f"of {everywhere['supported']} in the notebook {everywhere['kept']}, of {everywhere['predictions']} predictions"
        )
    cost = answer["cost"]
    spent = f"{cost['forwards']:.0f} forward passes" if cost else answer["outcome"]
    if cost and cost["seconds"] is not None:
        spent = f"{cost['seconds']:.0f} s, {spent}"
    if cost and cost["llm_calls"]:
        spent += f", {asked(cost)}"
    head = visible(_short_head(answer["ledger_head"]))
    yield f"run {visible(answer['run'])} · {spent} · notebook {visible(answer['notebook'])} · ledger head {head}"
    yield f"next: {' · '.join(map(visible, answer['next']))}"
