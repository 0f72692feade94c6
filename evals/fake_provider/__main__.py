"""Start the server by hand, to try a language model without a key: python -m neuronaut.evals.fake_provider --script FILE"""

import argparse
import contextlib
import errno
import json
import sys
import threading
from pathlib import Path
from typing import Any

from neuronaut.agent.llm.base import LanguageModelError
from neuronaut.agent.llm.scripted import Scripted, read_script
from neuronaut.evals.fake_provider.script import Step, fails, says
from neuronaut.evals.fake_provider.server import Loopback
from neuronaut.evals.fake_provider.trial import answers_itself, check
from neuronaut.tools.errors import UserError


def step(reply: Scripted) -> Step:
    """The answer that a reply of a script is, in any format."""
    if isinstance(reply, LanguageModelError):
        return fails(500, str(reply))
    text, calls = (reply, ()) if isinstance(reply, str) else (reply.text, reply.calls)
    counts = (100, 0, max(1, len(text) // 4))
    return says(text, calls=[(call.name, _given(call.arguments)) for call in calls], tokens=counts)


def _given(arguments: str) -> Any:
    """Arguments as they were written, where they are JSON: a message of Anthropic holds them as an object."""
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def opened(path: Path, port: str) -> Loopback:
    """The server with a script. Refuses a script or a port that cannot be used."""
    script = read_script(path)
    if not script:
        raise UserError(f'the script {str(path)!r} holds no reply: write at least one, for example ["Hello."]')
    if not (port.isascii() and port.isdecimal() and len(port) < 6 and int(port) < 65536):
        raise UserError(f"--port {port!r} is no port: give a number from 0 to 65535, or leave it out for a free one")
    try:
        aside = None if answers_itself(script) else check
        return Loopback(*map(step, script), key=None, port=int(port), aside=aside)
    except OSError as error:
        why = (
            "another program has it"
            if error.errno == errno.EADDRINUSE
            else (error.strerror or "no reason given").lower()
        )
        raise UserError(
            f"port {port} cannot be opened ({why}): give another, or leave --port out for a free one"
        ) from None


def main() -> int:
    """Serve until Ctrl-C; 2 where the script or the port cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m neuronaut.evals.fake_provider", description=__doc__)
    parser.add_argument("--script", type=Path, required=True, help="A JSON list of replies; the last is repeated.")
    parser.add_argument("--port", default="0", help="A free one where it is left out.")
    chosen = parser.parse_args()
    try:
        server = opened(chosen.script, chosen.port)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with server:
        print(f"openai and compatible: --base-url {server.url}/v1", f"anthropic: --base-url {server.url}", sep="\n")
        print("Any key will do. Ctrl-C ends it.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
