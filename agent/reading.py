"""Commands that read: verify, tools and models."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronaut.agent.config import RunConfig, corpus_place
from neuronaut.agent.view import print_json, visible
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place, default_place
from neuronaut.tools.chat.messages import as_chat
from neuronaut.tools.errors import UserError
from neuronaut.tools.figures import Figure
from neuronaut.tools.targets.load import Backend
from neuronaut.tools.targets.placement import DeviceName, DtypeName

if TYPE_CHECKING:
    from neuronaut.tools.registry import Tool


def open_notebook(path: Place | None) -> Notebook:
    """The notebook of a command that reads."""
    return Notebook(path or default_place(), read_only=True)


def verify(path: Place | None, head: str | None, *, as_json: bool) -> int:
    """Print what is wrong with the notebook; 1 if anything is."""
    from neuronaut.memory.verify import verify as find_problems

    with open_notebook(path) as notebook:
        problems, now = find_problems(notebook, head), notebook.head()
    if as_json:
        print_json({"ok": not problems, "problems": problems, "ledger_head": now})
    else:
        for problem in problems:
            print(visible(problem))
        print(
            f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
            if problems
            else f"whole: every row, artifact and verdict checks out; head {now}"
        )
    return 1 if problems else 0


def run_tool(
    name: str | None,
    args: str,
    model: str,
    corpus: str | None,
    *,
    as_json: bool,
    explain: bool = False,
    arrays: Path | None = None,
    figures: Path | None = None,
    dictionaries: Sequence[str] = (),
    others: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    heads: Sequence[str] | None = None,
    backend: Backend = "torch",
    chat: bool = False,
    system: str | None = None,
    dtype: DtypeName = "float32",
    device: DeviceName = "cpu",
) -> None:
    """Run one tool, explain it, or list them. chat: its texts are what a user says to a chat model."""
    from neuronaut.agent.tool_output import help_lines, result_lines
    from neuronaut.tools.registry import ToolContext, find_tool, registry

    if name is None:
        if as_json:
            print_json([tool.schema() for tool in registry().values()])
            return
        for tool in registry().values():
            print(f"{tool.name:<18} {tool.summary}")
        return
    tool = find_tool(name)
    if explain:
        print("\n".join(help_lines(tool)))
        return
    parsed = tool.parse(in_chats(tool, args, system)) if chat or system is not None else tool.parse(args)
    if tool.opens_test_text:
        raise UserError(
            f"{name} opens design or confirm text: it is run by `neuronaut ask`, which records what was opened (with "
            "`--llm scripted:FILE` on hypotheses of your own)"
        )
    from neuronaut.agent.registered import opened, registered_config
    from neuronaut.tools.corpus import load_corpus, pocket_corpus
    from neuronaut.tools.targets.load import chat_texts_of, load_target

    given = RunConfig(question=name, model=model, corpus=corpus, backend=backend, dtype=dtype, device=device)
    config = given.model_copy(update=registered_config(others, labels, heads))
    place = corpus_place(config)
    context = ToolContext(
        load_target(model, dictionaries=dictionaries, backend=backend, dtype=dtype, device=device),
        pocket_corpus() if place is None else load_corpus(place, chats=lambda: chat_texts_of(model)),
        registered=opened(config),
    )
    result = tool.run(context, parsed)
    measurements = [
        {
            "metric": m.metric,
            "value": m.value,
            "unit": m.unit,
            "n": m.n,
            "n_of": m.n_of,
            "ci": m.ci,
            "null": m.null_value,
            "percentile": m.null_percentile,
        }
        for m in result.measurements
    ]
    if arrays is not None:
        _save_arrays(result.arrays, arrays, name)
    if figures is not None:
        _save_figures(result.figures, figures, name)
    if as_json:
        print_json({"tool": name, "measurements": measurements, "result": result.payload})
        return
    print("\n".join(result_lines(result)))


def in_chats(tool: "Tool", args: str, system: str | None) -> dict[str, Any] | str:
    """The arguments with each plain text as what a user says, behind a system message if there is one; as they came, if they
    are no JSON object. Refuses a tool that takes no text, or is given none."""
    fields = [name for name, field in tool.args.model_fields.items() if "Message" in str(field.annotation)]
    try:
        given = json.loads(args)
    except json.JSONDecodeError:
        return args
    if not isinstance(given, dict):
        return args
    if not any(name in given for name in fields):
        takes = f"give {' or '.join(fields)}" if fields else "it takes none"
        raise UserError(
            f"{tool.name} is given no text that could be put through a chat template: {takes}, or leave out --chat"
        )

    def spoken(value: Any) -> Any:
        return [one.model_dump() for one in as_chat(value, system)] if isinstance(value, str) and value else value

    for name in fields:
        if name in given:
            value = given[name]
            given[name] = [spoken(one) for one in value] if isinstance(value, list) else spoken(value)
    return given


def _save_arrays(arrays: Mapping[str, Any], path: Path, name: str) -> None:
    import numpy as np

    if not arrays:
        raise UserError(f"{name} makes no arrays: leave out --arrays")
    if path.exists():
        raise UserError(f"{str(path)!r} is there already, and nothing is overwritten: name another file")
    try:
        with path.open("xb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        raise UserError(f"the arrays cannot be stored in {str(path)!r}: {error.strerror}") from error


def _save_figures(figures: Sequence[Figure], folder: Path, name: str) -> None:
    """NAME.svg, and NAME.json for Plotly where there is one."""
    if not figures:
        raise UserError(f"{name} draws no figures: leave out --figures")
    files = {folder / f"{figure.name}.svg": figure.svg for figure in figures}
    files |= {
        folder / f"{figure.name}.json": json.dumps(figure.plotly) for figure in figures if figure.plotly is not None
    }
    write_figures(files, folder)


def write_figures(files: Mapping[Path, str], folder: Path) -> None:
    """Keep drawings as files of a new folder. Refuses to overwrite."""
    if there := sorted(str(file) for file in files if file.exists()):
        raise UserError(f"{there[0]!r} is there already, and nothing is overwritten: name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            with file.open("x", encoding="utf-8") as opened:
                opened.write(text)
    except OSError as error:
        raise UserError(f"the figures cannot be stored in {str(folder)!r}: {error.strerror}") from error
