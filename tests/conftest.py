"""What every test gets: no network but loopback, temporary folders only, public data where it is."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_LOOPBACK = ("127.", "::1", "localhost")


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to anything but this machine fails the test."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and not str(address[0]).startswith(_LOOPBACK):
            raise OSError(f"tests may not connect to {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The notebook and the cache of a test lie in temporary folders."""
    folder = tmp_path_factory.mktemp("neuronaut")
    monkeypatch.setenv("NEURONAUT_NOTEBOOK", str(folder / "notebook.db"))
    monkeypatch.setenv("NEURONAUT_CACHE", str(folder / "cache"))
    for key in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2"):
        monkeypatch.delenv(key, raising=False)
    yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of public models and texts; docs/real-models.md says where they come from."""
    folder = os.environ.get("NEURONAUT_REAL_DATA")
    if not folder:
        pytest.skip("NEURONAUT_REAL_DATA is not set: see docs/real-models.md")
    return Path(folder)
