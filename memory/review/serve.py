"""The pages on this machine: the one place where the server and the guard around the pages meet."""

import contextlib
import socket
import sys
from collections.abc import Callable

import uvicorn

from neuronaut.memory.place import Place
from neuronaut.memory.review.app import create_app
from neuronaut.memory.review.connection import Impatient
from neuronaut.memory.review.guard import Guard, hosts_of, new_token
from neuronaut.memory.review.runner import Runner
from neuronaut.tools.errors import UserError

HOST = "127.0.0.1"
Stop = Callable[[], None]


def serve(
    place: Place,
    port: int,
    *,
    allow_review: bool,
    runner: Runner | None,
    ready: Callable[[str, Stop], None],
) -> None:
    """Answer until Ctrl-C. port: 0 takes a free one; ready: gets the address as soon as the server listens, and what ends
    it from another thread."""
    listening = _socket(port)
    with contextlib.closing(listening):
        bound = int(listening.getsockname()[1])
        app = create_app(place, allow_review=allow_review, runner=runner)
        token = new_token()
        guarded = Guard(app, hosts=hosts_of(bound), token=token, cookie=f"neuronaut_{bound}")
        config = uvicorn.Config(
            guarded, http=Impatient, ws="none", log_level="error", access_log=False, server_header=False, lifespan="on"
        )
        server = uvicorn.Server(config)
        ready(f"http://{HOST}:{bound}/?token={token}", lambda: setattr(server, "should_exit", True))
        server.run(sockets=[listening])


def _socket(port: int) -> socket.socket:
    """A socket that listens on this machine alone. Refuses a port that is taken."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if sys.platform != "win32":
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((HOST, port))
    except OSError as error:
        made.close()
        raise UserError(f"port {port} cannot be used ({error.strerror}): give another --port, or none") from None
    made.listen(128)
    return made
