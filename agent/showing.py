"""The commands show and search: any record of the notebook as a person reads it, and claims found by words."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronaut.agent.layout import print_parts, shown, status_text, table
from neuronaut.agent.reading import open_notebook
from neuronaut.agent.tool_files import write_figures
from neuronaut.agent.unlike import UNLIKE, unlike
from neuronaut.agent.view import print_json, visible
from neuronaut.memory import queries, related
from neuronaut.memory.lookup import Found, look_up
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place, default_place, option_of
from neuronaut.memory.search import facet_counts, search_page
from neuronaut.tools.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    Parts = Iterator[RenderableType]


def show(identifier: str, path: Place | None, *, as_json: bool, figures: Path | None = None, raw: bool = False) -> None:
    """Print a record; of a run its answer and its experiments. figures: a folder for what the run or experiment drew."""
    with open_notebook(path) as notebook:
        found = look_up(notebook, identifier)
        if figures is not None:
            _keep_figures(notebook, found.table, found.row, figures)
        if found.table == "run" and not raw:
            _show_run(notebook, found.row["id"], as_json=as_json)
        elif as_json:
            print_json(_as_json(notebook, found))
        elif raw:
            _print_columns(found)
        else:
            _print_view(notebook, found)


def _as_json(notebook: Notebook, found: Found) -> dict[str, Any]:
    row = {"table": found.table, **{key: _readable(value) for key, value in found.row.items()}}
    if found.table != "unit":
        return row
    around = related.unit(notebook, [found.row["id"], *(one["id"] for one in found.more)])
    return {
        **row,
        **{name: [{k: _readable(v) for k, v in one.items()} for one in rows] for name, rows in around.items()},
    }


def _print_view(notebook: Notebook, found: Found) -> None:
    from neuronaut.agent.record_views import view_of

    try:
        parts = view_of(notebook, found)
        if parts is not None:
            print_parts(list(parts))
            return
    except UNLIKE:  # the notebook may be anybody's, and a result of another form than tools give
        print("it has another form than this version knows; its columns as they are:")
    _print_columns(found)


def _print_columns(found: Found) -> None:
    print(found.table)
    for key, value in found.row.items():
        readable = _readable(value)
        text = json.dumps(readable, ensure_ascii=False) if isinstance(readable, (dict, list)) else str(readable)
        print(f"  {key:<16} {visible(text)}")


def _readable(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, str) and value[:1] in "{[":
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _show_run(notebook: Notebook, run: str, *, as_json: bool) -> None:
    from neuronaut.agent.answer import answer_of
    from neuronaut.agent.render import render

    trail = [
        {
            "id": e["id"], "tool": e["tool"], "args": e["args"], "prediction": e["prediction"],
            "outcome": e["end"]["outcome"] if e["end"] else "unfinished", "error": e["end"]["error"] if e["end"] else None,
            "seconds": e["end"]["seconds"] if e["end"] else None,
            "evidence": [{"id": v["id"], "metric": v["metric"], "value": v["value"], "n": v["n"]} for v in e["evidence"]],
            "figures": e.get("result", {}).get("figures", []),
        }
        for e in queries.experiments(notebook, run)
    ]  # fmt: skip
    try:
        if not as_json and notebook.wanted(run) is not None:
            print_parts(list(_batch(notebook, run)))
            return
        answer = answer_of(notebook, run)
        if not as_json:
            render(answer)
    except UNLIKE as error:  # the notebook may be anybody's
        if as_json:
            raise UserError(f"{unlike(run)}: give --raw") from error
        print(f"{unlike(run)}; what was done in it:")
    if as_json:
        print_json({**answer, "experiments": trail})
    else:
        print_parts(_trail(notebook, run, trail))


def _batch(notebook: Notebook, run: str) -> "Parts":
    """What came of a batch, and which of its items failed."""
    from rich.text import Text

    from neuronaut.agent.label.summary import lines_of, summary_of

    yield Text("\n".join(map(visible, lines_of(summary_of(notebook, run)))), overflow="fold")
    if failed := related.failed_items(notebook, run):
        yield ""
        rows = [(one["id"], one["address"], one["reason"], one["asked"] or "") for one in failed]
        yield table("items that failed", ("id", "unit", "reason", "run"), rows)


def _trail(notebook: Notebook, run: str, trail: list[dict[str, Any]]) -> "Parts":
    """The experiments of a run with their evidence, and its language-model calls."""
    from rich.text import Text

    yield "\n experiments"
    for step in trail:
        seconds = f"{step['seconds']:.1f} s" if step["seconds"] is not None else ""
        line = Text(f"  {step['id']}  ", overflow="fold") + Text(f"{visible(step['tool']):<18} ", style="bold")
        line += status_text(step["outcome"]) + Text(f"{seconds:>9}  {visible(step['error'] or '')}")
        yield line
        for value in step["evidence"]:
            measure = f"{visible(value['metric']):<14} {value['value']:.4g}  (n {value['n']})"
            yield Text(f"      {value['id']}  {measure}", style="dim", overflow="fold")
        for figure in step["figures"]:
            yield Text(f"      figure {visible(figure['name'])}  svg {figure['svg']}", overflow="fold")
    if calls := queries.calls(notebook, run):
        yield ""
        heads, rows = ("id", "for", "model", "tokens", "cost", "error"), [_call(one) for one in calls]
        shown_heads = heads if any(row[-1] for row in rows) else heads[:-1]
        yield table(
            "language-model calls", shown_heads, [row[: len(shown_heads)] for row in rows], right=("tokens", "cost")
        )


def _call(row: Mapping[str, Any]) -> tuple[str, ...]:
    end = row["end"] or {}
    tokens, cost, error = end.get("tokens_out"), end.get("usd_micro"), end.get("error") or ""
    told = f"{end.get('tokens_in') or 0:,} + {tokens:,}" if tokens is not None else "none" if error else "not told"
    paid = "not known" if cost is None else f"${cost / 1e6:.6f}"
    return row["id"], row["purpose"], row["model"], told if end else "never ended", paid, error


def search(
    words: str, path: Place | None, *, as_json: bool, limit: int = 50, after: str | None = None, rebuild: bool = False
) -> None:
    """Print the claims that match, the newest first; for no words, the runs."""
    if rebuild:
        with Notebook(path or default_place()) as writer:
            writer.rebuild_index()
    with open_notebook(path) as notebook:
        if words.strip():
            page = search_page(notebook, words, after=after, limit=limit)
            rows, more = list(page.rows), page.next
        else:
            rows = queries.runs(notebook, after=after, limit=limit + 1)
            rows, more = rows[:limit], rows[limit - 1]["id"] if len(rows) > limit else None
        if as_json:
            print_json([{k: _readable(v) for k, v in row.items()} for row in rows])
            return
        print_parts(_claims(notebook, words, rows) if words.strip() else _runs(rows))
        if more is not None:
            print(f"more: neuronaut search {_quoted(words)}--after {more}{option_of(notebook.place)}")


def _claims(notebook: Notebook, words: str, rows: list[dict[str, Any]]) -> "Parts":
    if not rows:
        yield f"no claim matches {visible(words)!r}"
        return
    from rich.text import Text

    listed = []
    for row in rows:
        score = "" if row["score"] is None else f"{row['score']['metric']} {row['score']['value']:.2f}"
        claim = Text(shown(row["claim"])) + Text(
            f"\n{row['id']} · {visible(row['author'])} · {visible(row['target'])}", style="dim"
        )
        listed.append((status_text(row["status"]), visible(row["address"]), row["side"], score, claim))
    yield table("", ("status", "unit", "side", "score", "claim"), listed)
    counts, newest_only = facet_counts(notebook, words)
    total = sum(n for _, n in counts["status"])
    told = ", ".join(f"{n:,} {status}" for status, n in counts["status"])
    yield ""
    yield Text(
        f"of the newest {total:,} that match: {told}" if newest_only else f"{total:,} match: {told}", style="dim"
    )


def _runs(rows: list[dict[str, Any]]) -> "Parts":
    if not rows:
        yield "no runs"
        return
    listed = []
    for row in rows:
        repeat = f" (repeats {row['parent_run']})" if row["parent_run"] else ""
        listed.append(
            (
                row["id"],
                row["outcome"] or "unfinished",
                f"{row['question']}{repeat}",
                row["target"],
                row["started"][:10],
            )
        )
    yield table("", ("id", "outcome", "question", "model", "began"), listed)


def _quoted(words: str) -> str:
    return f"{shlex.quote(words)} " if words.strip() else ""


def _keep_figures(notebook: Notebook, table: str, row: Mapping[str, Any], folder: Path) -> None:
    """Every figure of a run or an experiment as TOOL-NAME.svg, and as JSON for Plotly; those of one name are numbered."""
    if table not in ("run", "experiment"):
        raise UserError(f"a {table} has no figures: name a run or an experiment")
    run = row["id"] if table == "run" else row["run"]
    files: dict[Path, str] = {}
    for e in queries.experiments(notebook, run):
        if table == "experiment" and e["id"] != row["id"]:
            continue
        for figure in e.get("result", {}).get("figures", []):
            for kind, suffix in (("svg", "svg"), ("plotly", "json")):
                if figure.get(kind):
                    name = str(figure["name"]).removeprefix(f"{e['tool']}_")
                    file = _free(folder / f"{_as_file_name(e['tool'])}-{_as_file_name(name)}.{suffix}", files)
                    files[file] = queries.artifact(notebook, figure[kind]).decode()
    if not files:
        raise UserError(f"{table} {row['id']} drew no figures: leave out --figures")
    write_figures(files, folder)


def _as_file_name(name: str) -> str:
    """The name with nothing in it that leads to another folder: a notebook may be anybody's."""
    return re.sub(r"[^\w-]", "_", name, flags=re.ASCII)


def _free(file: Path, taken: Mapping[Path, str]) -> Path:
    """The file, with a number where its name is taken."""
    number, found = 2, file
    while found in taken:
        found, number = file.with_stem(f"{file.stem}-{number}"), number + 1
    return found
