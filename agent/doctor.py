"""Is everything in place on this machine?"""

import importlib.metadata
import os
import platform
import sqlite3
from typing import Literal

from neuronaut.agent.view import print_json, visible
from neuronaut.memory.migrations import NothingYet
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import DAMAGED, File, Place, default_place
from neuronaut.memory.provenance import PACKAGES
from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.load import MLX_COMMAND, POCKET, has_mlx

Level = Literal["ok", "warning", "error"]
SAFE_SQLITE = (3, 51, 3)  # earlier ones can lose a WAL that is reset while another connection reads it


def examine(path: Place | None, *, as_json: bool, llm: str | None = None, base_url: str | None = None) -> int:
    """Print the checks, of a language model alone where one is named; 1 if one is an error."""
    if llm is None:
        rows = [*_packages(), _mlx(), _sqlite(), _pocket(), _notebook(path or default_place()), *_keys()]
    else:
        from neuronaut.agent.llm.trial import examine_model

        rows = examine_model(llm, base_url)
    if as_json:
        print_json([{"level": level, "what": what, "detail": detail} for level, what, detail in rows])
    else:
        for level, what, detail in rows:
            print(f"{level:<8} {what:<22} {visible(detail)}")
    return 1 if any(level == "error" for level, _, _ in rows) else 0


def _packages() -> list[tuple[Level, str, str]]:
    rows: list[tuple[Level, str, str]] = [("ok", "python", platform.python_version())]
    for name in PACKAGES:
        try:
            rows.append(("ok", name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            rows.append(("error", name, "is not installed"))
    return rows


def _mlx() -> tuple[Level, str, str]:
    if not has_mlx():
        return "ok", "mlx", f"not installed (only needed for --backend mlx): {MLX_COMMAND}"
    return "ok", "mlx", f"{importlib.metadata.version('mlx')}, mlx-lm {importlib.metadata.version('mlx-lm')}"


def _sqlite() -> tuple[Level, str, str]:
    if sqlite3.sqlite_version_info < SAFE_SQLITE:
        return (
            "warning",
            "sqlite",
            f"{sqlite3.sqlite_version}: older than 3.51.3, do not let two processes use one notebook",
        )
    return "ok", "sqlite", sqlite3.sqlite_version


def _pocket() -> tuple[Level, str, str]:
    missing = [
        name
        for name in ("config.json", "model.safetensors", "tokenizer.json", "corpus.jsonl.gz")
        if not (POCKET / name).exists()
    ]
    return ("error", "pocket", f"lacks {', '.join(missing)}: install again") if missing else ("ok", "pocket", "present")


def _notebook(place: Place) -> tuple[Level, str, str]:
    if isinstance(place, File) and not place.path.exists():
        return "ok", "notebook", f"{place} (will be made)"
    try:
        with Notebook(place, read_only=True) as notebook:
            if notebook.file_problems(quick=True):
                return "error", "notebook", f"{place} {DAMAGED}"
            return "ok", "notebook", f"{place}, {notebook.version()}, head {notebook.head()}"
    except NothingYet:
        return "ok", "notebook", f"{place} (empty: its tables will be made)"
    except UserError as error:
        return "error", "notebook", str(error)


def _keys() -> list[tuple[Level, str, str]]:
    return [
        ("ok", name, "set" if os.environ.get(name) else "not set (only needed for --llm)")
        for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")
    ]
