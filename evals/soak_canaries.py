"""Keys that try to get out: services send them back in every place, and they must be nowhere that anybody can read."""

import json
import logging
import os
import random
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from neuronaut.agent.config import RunConfig
from neuronaut.agent.doctor import examine
from neuronaut.agent.llm.gateway import NoReply
from neuronaut.agent.llm.opened import gateway_of
from neuronaut.agent.session import Session
from neuronaut.evals.fake_provider.script import fails, says, sends
from neuronaut.evals.fake_provider.server import Loopback
from neuronaut.evals.soak import Experiment, Result
from neuronaut.evals.soak_http import KEYS, PROVIDERS
from neuronaut.evals.soak_replies import REQUEST
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.base import Fingerprint


@contextmanager
def _listening() -> Iterator[StringIO]:
    """All that is logged, at any level."""
    heard, root = StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(heard), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield heard
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def run_canaries(seed: int, n: int) -> Result:
    """Services that send the key back in every place, asked through commands: it is in no output, log, file or traceback."""
    result = Result()
    for name, provider, script in random.Random(seed).sample(sinks(), n):
        canary = f"sk-canary-{random.Random(f'{seed} {name} {provider}').getrandbits(80):020x}"
        told = _everything(provider, [step(canary) for step in script], canary)
        where = [place for place, text in told.items() if canary in text]
        result.outcomes["nowhere" if not where else "found"] += 1
        result.failures += [f"{name}, {provider}: the key is in {place}" for place in where]
    return result


def sinks() -> list[tuple[str, str, list[Callable[[str], Any]]]]:
    """What a service sends with the key in it, for each format."""
    scripts: dict[str, list[Callable[[str], Any]]] = {
        "errors": [lambda key: fails(400, f"bad key {key}")],
        "a refused key": [lambda key: fails(401, f"Incorrect API key provided: {key}")],
        "an error in no format": [lambda key: sends(key.encode(), status=500)],
        "a reply": [lambda key: says(json.dumps({"number": 7, "more": key}))],
        "the name of the model": [lambda key: says('{"number": 7}', model=key)],
        "a tool call": [lambda _: says('{"number": 7}'), lambda key: says(calls=[(key[:60], {"number": key})])],
        "streamed words": [
            lambda _: says('{"number": 7}'), lambda _: says("x"), lambda key: says(f"one {key} two"),
        ],
        "a stream in pieces": [
            lambda _: says('{"number": 7}'), lambda _: says("x"), lambda key: says(key * 3, piece=5, framing="chunked"),
        ],
        "a body in no format": [lambda key: sends(f'{{"model": "{key}"}}'.encode())],
        "a redirection": [lambda key: fails(307, key, location=f"http://127.0.0.1:9/{key}")],
    }  # fmt: skip
    return [(name, provider, script) for name, script in scripts.items() for provider in PROVIDERS]


def _everything(provider: str, script: list[Any], canary: str) -> dict[str, str]:
    """All that `doctor` leaves behind that tries a language model and looks at a notebook."""
    out, err = StringIO(), StringIO()
    with tempfile.TemporaryDirectory() as folder, _listening() as logged, Loopback(*script, key=canary) as server:
        url = server.url if provider == "anthropic" else f"{server.url}/v1"
        environment = dict.fromkeys(KEYS, canary) | {"NO_PROXY": "*", "NEURONAUT_NOTEBOOK": f"{folder}/n.db"}
        unhurried = mock.patch("neuronaut.agent.llm.again.time.sleep")
        with mock.patch.dict(os.environ, environment), unhurried, redirect_stdout(out), redirect_stderr(err):
            try:
                for as_json in (False, True):
                    examine(None, as_json=as_json, llm=f"{provider}:m", base_url=url)
                rows = _asked(provider, url, Path(folder))
            except UserError as error:
                rows = str(error)
        files = "".join(path.read_text("utf-8", "replace") for path in Path(folder).rglob("*") if path.is_file())
    return {
        "the output": out.getvalue(),
        "the errors": err.getvalue(),
        "the log": logged.getvalue(),
        "a file": files,
        "a row": rows,
    }


def _asked(provider: str, url: str, folder: Path) -> str:
    """The rows that a call leaves in a notebook in `folder`, and its error."""
    config = RunConfig(question="q", llm=f"{provider}:m", base_url=url)
    context: Any = SimpleNamespace(forwards=0.0)
    said: list[tuple[str, str]] = []
    with Notebook(folder / "n.db") as notebook:
        fingerprint = Fingerprint("m", "w", "t", "float32", "torch", "1", "none")
        run = notebook.start_run(config.model_dump(mode="json"), fingerprint, ("c", "s", 1))
        session = Session(run, config, notebook, context, [], lambda *line: said.append(line))
        error = ""
        try:
            gateway_of(session).converse(REQUEST, lambda words: said.append(("heard", words)))
        except (NoReply, UserError) as failed:
            error = "".join(traceback.format_exception(failed))
        return f"{queries.calls(notebook, run)}{said}{error}"


CANARIES = Experiment("canaries", len(sinks()), "leave the key in no output, log, file, row or traceback", run_canaries)
