"""Commands that read: verify, tools and models."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuronaut.agent.config import RunConfig, corpus_place
from neuronaut.agent.view import print_json, visible
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place, default_place
from neuronaut.tools.errors import UserError
from neuronaut.tools.figures import Figure
from neuronaut.tools.targets.load import Backend


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
    heads: Sequence[str] = (),
    others: Sequence[str] = (),
    backend: Backend = "torch",
) -> None:
    """Run one tool, explain it, or list them."""
    from neuronaut.agent.registered import registered_in, with_registered
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
    parsed = tool.parse(args)
    if tool.opens_test_text:
        raise UserError(
            f"{name} opens design or confirm text: it is run by `neuronaut ask`, which records what was opened (with "
            "`--llm scripted:FILE` on hypotheses of your own)"
        )
    from neuronaut.tools.corpus import load_corpus, pocket_corpus
    from neuronaut.tools.targets.load import load_target

    place = corpus_place(RunConfig(question=name, model=model, corpus=corpus))
    config = with_registered(RunConfig(question=name, model=model, backend=backend), heads, others)
    target = load_target(model, dictionaries=dictionaries, backend=backend)
    context = ToolContext(
        target,
        pocket_corpus() if place is None else load_corpus(place),
        registered=registered_in(config, target),
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


def list_models(*, as_json: bool) -> None:
    """Print what can be studied, and by which engines."""
    from neuronaut.tools.targets.load import MLX_COMMAND, POCKET, has_mlx, open_folder
    from neuronaut.tools.targets.mlx.families import FAMILIES

    engines = ["torch", *(["mlx"] if has_mlx() else [])]

    rows = [
        {"name": "pocket", "what": "embedded model with its corpus", "present": (POCKET / "model.safetensors").exists()}
    ]
    if rows[0]["present"]:
        rows[0]["weights_sha256"] = open_folder("pocket").weights_sha256
        rows[0]["backends"] = engines
    if as_json:
        print_json(rows)
        return
    print(f"pocket         the embedded model and its corpus ({'present' if rows[0]['present'] else 'MISSING'})")
    print("FOLDER         a Hugging Face folder with config.json, *.safetensors and tokenizer.json; needs --corpus")
    print("OWNER/NAME     a model of the Hugging Face hub, where it can be reached; needs --corpus")
    mlx = "" if has_mlx() else f"; not installed here: {MLX_COMMAND}"
    print(f"--backend mlx  runs {', '.join(FAMILIES)}{mlx}")
