"""The server of the pages answers or ends every connection, whatever is sent and however slowly."""

import runpy
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from neuronaut.memory.place import File
from neuronaut.memory.review import connection, serve

filled = runpy.run_path(str(Path(__file__).with_name("review_notebook.py")))["filled"]
PATIENCE = 0.5


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where `neuronaut review` answers, with little patience."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", PATIENCE)
    found: list[tuple[str, Callable[[], None]]] = []
    listening = threading.Event()

    def ready(address: str, stop: Callable[[], None]) -> None:
        found.append((address, stop))
        listening.set()

    options = {"allow_review": True, "runner": None, "ready": ready}
    place = File(filled(tmp_path / "n.db").path)
    thread = threading.Thread(target=serve.serve, args=(place, 0), kwargs=options, daemon=True)
    thread.start()
    assert listening.wait(30)
    yield int(found[0][0].split(":")[2].split("/")[0])
    found[0][1]()
    thread.join(30)


def said(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """All that comes back for some bytes until the server ends the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as made:
        for part in parts:
            try:
                made.sendall(part)
            except OSError:
                break
            time.sleep(pause)
        got = b""
        try:
            while piece := made.recv(65536):
                got += piece
        except ConnectionError:
            pass
        return got


def test_an_address_of_any_length_is_answered(port: int) -> None:
    head = f" HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n".encode()
    for n in (100, 8_000, 8_150, 8_300, 12_000, 16_100, 17_000, 70_000):
        for end in (b"\r\n", b"Cookie: "):  # the second is what curl sends where it finds no room for its cookie
            answer = said(port, b"GET /?q=" + b"a" * n + head + end)
            wanted = (b"414", b"400") if n > 8_192 else (b"403",) if end == b"\r\n" else (b"408",)
            assert answer[9:12] in wanted, (n, end, answer[:60])
            assert b"frame-ancestors 'none'" in answer or answer[9:12] == b"400"


def test_headers_that_go_on_for_ever_and_silence_are_ended(port: int) -> None:
    began = time.monotonic()
    dripped = said(port, b"GET / HTTP/1.1\r\n", *[b"A: b\r\n"] * 40, pause=PATIENCE / 10)
    assert dripped[9:12] == b"408" or dripped == b""  # what was sent after the answer may take it away
    assert said(port) == b""
    assert time.monotonic() - began < 8 * PATIENCE + 5


def test_a_whole_request_in_pieces_is_answered_and_the_connection_lives_on(port: int) -> None:
    request = f"GET /static/none HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as made:
        for _ in range(3):
            made.sendall(request[:9])
            time.sleep(PATIENCE / 2)
            made.sendall(request[9:])
            answer = made.recv(65536)
            while b"</html>" not in answer:
                answer += made.recv(65536)
            assert answer[9:12] == b"403"
            time.sleep(PATIENCE * 0.8)
