"""A notebook with something of everything that pages show: what they should say of it is known."""

import json
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronaut.memory.notebook import Notebook
from neuronaut.tools.units import Unit

Book = runpy.run_path(str(Path(__file__).with_name("filled_notebook.py")))["Book"]

HOSTILE = "<script>alert(1)</script>'\"><img src=x onerror=alert(2)>{{7*7}}\x1b[31m\u202e"
PICTURE = '<svg xmlns="http://www.w3.org/2000/svg" width="80" height="20"><title>grid</title><rect width="80" height="20"/></svg>'


@dataclass(frozen=True)
class Found:
    """The ids of what was filled in."""

    path: Path
    run: str
    claim: str
    refuted: str
    experiment: str
    look: str
    failed: str
    call: str
    lost_call: str
    batch: str
    asked: str
    picture: str


def filled(path: Path, text: str = "") -> Found:
    """A notebook at a path; `text` stands in every field that somebody else may fill."""
    book: Any = Book(path)
    notebook: Notebook = book.notebook
    run = book.run(f"what does neuron 8.481 do {text}", ended=False)
    claim = book.claim(
        run, "8.481", f"fires on names {text}", author=f"grammar {text}", words=f"names of people {text}"
    )
    refuted = book.claim(run, "8.481", f"fires on verbs {text}", status="REFUTED", f1=0.2, predicate="token(' b')")
    book.claim(run, "8.481", f"never tested {text}", status=None, predicate="token(' c')")
    notebook.outcome(run, Unit.parse("8.481-"), "reads", "ABSTAINED", f"this side does not exist {text}")
    look = _look(book, run, text)
    failed = book.begin(run, "test_reads", {"unit": "8.481", "again": text})
    notebook.end_experiment(failed.id, None, error=f"the result holds a number that is not finite {text}")
    call, lost = _calls(notebook, run, text)
    picture = _drawn(notebook, book, run)
    notebook.end_run(
        run,
        "answered",
        f"as asked {text}",
        {"forwards": 1234.0, "seconds": 61.5, "usd": 0.1234, "tokens": 321, "llm_calls": 2},
    )
    batch, asked = _batch(notebook, book, text)
    tests = [row["experiment"] for row in _rows(notebook, claim)]
    notebook.close()
    return Found(path, run, claim, refuted, tests[0], look, failed.id, call, lost, batch, asked, picture)


def _rows(notebook: Notebook, claim: str) -> list[dict[str, Any]]:
    from neuronaut.memory import queries

    (mine,) = (
        row for row in queries.hypotheses(notebook, queries.find(notebook, claim)[1]["run"]) if row["id"] == claim
    )
    return list(mine["verdicts"][-1]["evidence"])


def _look(book: Any, run: str, text: str) -> str:
    """Contexts in four bands, the last of which is a near miss."""
    args = {"unit": "8.481", "claim": None, "k": 5, "context": 12, "seed": 0}

    def context(piece: str, value: float, said: float, **more: Any) -> dict[str, Any]:
        return {"document": 7, "pieces": ["After", f" {piece}{text}", " met"], "activations": [0.0, value, -0.1], "centre": 1,
                "activation": value, "predicted": [0.0, said, 0.0], **more}  # fmt: skip

    bands = {
        "top": context("Mary", 2.07, 1.0), "quantiles": context("Lucy", 1.0, 1.0), "random": context("the", 0.0, 0.0),
        "near_miss": context("Alicia", 0.01, 1.0, note="the claim holds, and it does not fire"),
    }  # fmt: skip
    payload = {
        "unit": "8.481", "threshold": 0.9, "bands": {name: {"rule": f"band {name}", "examples": [one]} for name, one in bands.items()},
        "histogram": {"edges": [0.0, 1.0, 2.0], "counts": [9990, 10]},
    }  # fmt: skip
    begun = book.begin(run, "contexts_of_claim", args)
    book.notebook.end_experiment(begun.id, {"payload": payload, "measurements": []})
    return str(begun.id)


def _calls(notebook: Notebook, run: str, text: str) -> tuple[str, str]:
    """A call that was answered, after the same one that never ended."""
    body = {
        "max_tokens": 9,
        "system": "You name features.",
        "messages": [{"role": "user", "content": f"THE PROMPT {text}"}],
    }
    row = {
        "purpose": "propose",
        "provider": "openai",
        "model": "m",
        "request": json.dumps(body),
        "request_sha256": "r" * 64,
    }
    lost, call = notebook.begin_call(run, row), notebook.begin_call(run, row)
    notebook.end_call(
        call,
        {"answered_by": "m-1", "response": f"THE REPLY {text}", "stop_reason": "stop", "tokens_in": 300, "tokens_out": 21,
         "usd_micro": 123_400, "seconds": 1.5},
    )  # fmt: skip
    return call, lost


def _drawn(notebook: Notebook, book: Any, run: str) -> str:
    picture = notebook.artifact(PICTURE.encode(), "image/svg+xml")
    data = notebook.artifact(b'{"data":[],"layout":{}}', "application/vnd.plotly.v1+json")
    begun = book.begin(run, "importance", {"prompt": "In January", "answer": " March"})
    payload = {"parts": [{"part": "L1.2", "drop": 0.5}, {"part": "L3", "drop": -0.25}], "answer": " March"}
    stored = {"payload": payload, "measurements": [], "figures": [{"name": "grid", "svg": picture, "plotly": data}]}
    notebook.end_experiment(begun.id, stored, spent=(2.5, 10.0))
    return picture


def _batch(notebook: Notebook, book: Any, text: str) -> tuple[str, str]:
    """Four items: one answered, one failed, a null unit, one that waits."""
    batch = book.run(f"neuronaut label --layers 3 {text}", ended=False, seed=5)
    items = [("3.1", None, "a"), ("3.2", None, "a"), ("3.3", "shuffled", "a"), ("3.4", None, "a")]
    notebook.add_items(batch, items)
    leased = notebook.lease(batch, "me", now=0.0, until=1e12, limit=3, alive=lambda _: True)
    asked = ""
    for item in leased:
        inner = book.run(f"what does neuron {item.address} do {text}", seed=item.rank + 10)
        notebook.begin_item(item, inner)
        if item.address == "3.2":
            notebook.end_item(item, "failed", f"the budget of the unit was spent {text}")
            continue
        asked = asked or inner
        book.claim(
            inner, item.address, f"fires on {item.address} {text}", status="PARTIAL" if item.null_kind else "SUPPORTED"
        )
        notebook.end_item(item, "done")
    return batch, asked
