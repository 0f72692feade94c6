"""What every test gets: no network but loopback, temporary folders only, public data where it is."""

import contextlib
import io
import ipaddress
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from neuronaut.agent import cli
from neuronaut.memory.place import File, Place
from neuronaut.tools.targets.load import Backend, has_mlx

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Read when torch is imported, and inherited by workers and commands. The models of tests are small: more threads than
# processors make them wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_NEVER_INHERITED = (
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_BASE_URL",
    "LANGCHAIN_TRACING_V2",
    "LANGSMITH_TRACING",
    "NEURONAUT_LLM_KEY",
    "NEURONAUT_PRICES",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
)


def _refuse_unless_loopback(host: object) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return
    try:
        loopback = ipaddress.ip_address(str(name).partition("%")[0]).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise OSError(f"tests may not reach {name!r}: only this machine")


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    """`method` of a socket whose last argument is an address; local sockets have a path there, not a tuple."""

    def guarded(self: socket.socket, *args: Any) -> Any:
        if isinstance(args[-1], tuple):
            _refuse_unless_loopback(args[-1][0])
        return method(self, *args)

    return guarded


@pytest.fixture(scope="session", autouse=True)
def only_loopback() -> Iterator[None]:
    """A name looked up or an address reached outside this machine fails the test."""
    look_up = socket.getaddrinfo

    def guarded_look_up(host: object, *args: Any, **options: Any) -> Any:
        _refuse_unless_loopback(host)
        return look_up(host, *args, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
        patch.setattr(socket, "getaddrinfo", guarded_look_up)
        yield


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Notebooks and indexes lie in temporary folders, and no key or endpoint of the developer is seen.

    Indexes are shared by the tests of a session: they are named by the hash of what they were built from.
    """
    folder = tmp_path_factory.mktemp("neuronaut")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONAUT_NOTEBOOK", str(folder / "notebook.db"))
        patch.setenv("NEURONAUT_CACHE", str(folder / "cache"))
        for name in _NEVER_INHERITED:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def own_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notebook of a test starts empty."""
    monkeypatch.setenv("NEURONAUT_NOTEBOOK", str(tmp_path / "notebook.db"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of public models and texts; docs/real-models.md says where they come from."""
    named = os.environ.get("NEURONAUT_REAL_DATA")
    if not named:
        pytest.skip("NEURONAUT_REAL_DATA is not set: docs/real-models.md says what it should hold")
    folder = Path(named)
    if not (folder / "models").is_dir() or not (folder / "corpora").is_dir():
        pytest.fail(f"NEURONAUT_REAL_DATA names {named!r}, which has no models/ and corpora/: see docs/real-models.md")
    return folder


@pytest.fixture(scope="session", params=["torch", "mlx"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each engine that runs models."""
    if request.param == "mlx" and not has_mlx():
        if os.environ.get("NEURONAUT_NEEDS_MLX"):
            pytest.fail("mlx and mlx-lm are not installed, and NEURONAUT_NEEDS_MLX says that they must be")
        pytest.skip('mlx and mlx-lm are not installed: pip install "mlx[cpu]" mlx-lm')
    return "mlx" if request.param == "mlx" else "torch"


@pytest.fixture(scope="session")
def server() -> Iterator[Any]:
    """A PostgreSQL server of this session (of this worker, where there are several), see postgres_server.py."""
    tools = runpy.run_path(str(Path(__file__).with_name("postgres_server.py")))
    with contextlib.ExitStack() as open_until_the_end:
        try:
            found = open_until_the_end.enter_context(tools["running"]())
        except (OSError, subprocess.SubprocessError) as error:
            if os.environ.get("NEURONAUT_NEEDS_POSTGRES"):
                raise
            pytest.skip(f"no PostgreSQL server can be started here: {error}")
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty notebook in each of the databases that can keep one; of SQLite no file is there yet."""
    if request.param == "sqlite":
        yield File(tmp_path / "n.db")
    else:
        with request.getfixturevalue("server").place() as found:
            yield found


@dataclass(frozen=True)
class Said:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def neuronaut() -> Callable[..., Said]:
    """The command line, in this process."""

    def command(*argv: object) -> Said:
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.setattr(sys, "argv", ["neuronaut", *map(str, argv)])
            try:
                cli.main()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return Said(code, out.getvalue(), err.getvalue())

    return command


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The options of a command that studies a small random model on 300 short texts: an answer takes a second."""
    folder = tmp_path_factory.mktemp("tiny")
    made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
    model, corpus = made["make_model"]("gpt2", folder / "model"), made["make_corpus"](folder / "corpus.jsonl")
    return ("--model", str(model), "--corpus", str(corpus))
