"""A document of parts in Markdown: as text or as a Jupyter notebook, written where no key would leave with it."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from neuronaut.agent.exporting.markdown import table
from neuronaut.memory.secrets import find_secrets
from neuronaut.tools.errors import UserError


@dataclass(frozen=True)
class Section:
    """A part of a report in Markdown."""

    title: str
    text: str


def refuse_secrets(run: str, parts: dict[str, Any]) -> None:
    """Refuses, with the place where it stands, what looks like a key: it would leave this machine with the report."""
    for where, text in _texts(parts):
        if found := find_secrets(text):
            raise UserError(
                f"the report of run {run} is not written, for it would hold {found[0].what} ({where.strip()}, character "
                f"{found[0].start + 1}): a notebook keeps what it was given, so change that key where it is valid"
            )


def _texts(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _texts(inner, f"{where} {name}")
    elif isinstance(value, (list, tuple)):
        for at, inner in enumerate(value):
            yield from _texts(inner, f"{where} {at}")
    elif isinstance(value, str):
        yield where, value


def how_to_check(run: dict[str, Any], head: str, *commands: str) -> Iterator[str]:
    """The commands that check and repeat a run in its notebook, and what it was made with."""
    yield "With the notebook that it stands in:"
    yield "```sh\n" + "\n".join((f"neuronaut verify --head {head}", *commands)) + "\n```"
    packages = json.loads(run["packages"])
    facts = {
        "run": run["id"], "ledger head": head, "seed": str(run["seed"]), "weights": run["target"]["weights_sha256"],
        "tokenizer": run["target"]["tokenizer_sha256"], "text": run["corpus"]["sha256"],
        "code": f"{run['code_version']} {run['code_commit'] or ''}".strip(),
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items()),
    }  # fmt: skip
    yield table(("what", "value"), [{"what": name, "value": value} for name, value in facts.items()], codes=("value",))


def as_markdown(sections: list[Section]) -> str:
    """One document."""
    first, *rest = sections
    parts = [f"# {first.title}\n\n{first.text}", *(f"## {one.title}\n\n{one.text}" for one in rest)]
    return "\n\n".join(parts) + "\n"


def as_notebook(sections: list[Section], run: str) -> str:
    """A notebook of Markdown cells (nbformat 4.5), and at its end one that opens the run in Python; nothing is executed."""
    first, *rest = sections
    texts = [f"# {first.title}\n\n{first.text}", *(f"## {one.title}\n\n{one.text}" for one in rest)]
    cells: list[dict[str, Any]] = [
        {"cell_type": "markdown", "id": _cell_id(run, at), "metadata": {}, "source": text}
        for at, text in enumerate(texts)
    ]
    opened = (
        f"from neuronaut import Lab\n\nlab = Lab()  # the notebook of findings: Lab(notebook=...)\nlab.answer({run!r})"
    )
    cells.append({
        "cell_type": "code", "id": _cell_id(run, len(texts)), "metadata": {}, "source": opened, "outputs": [],
        "execution_count": None,
    })  # fmt: skip
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return (
        json.dumps(
            {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}, ensure_ascii=False, indent=1
        )
        + "\n"
    )


def _cell_id(run: str, at: int) -> str:
    return hashlib.sha256(f"{run} {at}".encode()).hexdigest()[:8]
