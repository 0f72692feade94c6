"""A PostgreSQL server that lives for a session of tests: on this machine only, in a temporary folder, by an unprivileged user."""

import contextlib
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from neuronaut.memory.place import Server
from neuronaut.memory.store import Store

USER, PASSWORD = "keeper", "p%w-canary:7431@/"
# Nothing has to outlive the tests.
QUICK = ("fsync=off", "full_page_writes=off", "autovacuum=off", "max_connections=60", "shared_buffers=32MB")


@dataclass
class Running:
    """A running server. Through its socket everyone gets in, over TCP those with the password."""

    folder: Path
    port: int
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def url(self, database: str) -> str:
        return f"postgresql://{USER}@/{database}?host={self.folder}&port={self.port}"

    def tcp_url(self, database: str, password: str) -> str:
        return f"postgresql+psycopg://{USER}:{password}@127.0.0.1:{self.port}/{database}"

    def sql(self, *statements: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """The rows of the last statement, as the server's superuser."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def database(self, options: str = "TEMPLATE kept_empty") -> str:
        """The name of a new database, which by default holds an empty notebook."""
        name = f"n{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} {options}")
        return name

    @contextlib.contextmanager
    def place(self) -> Iterator[Server]:
        """An empty notebook, for a while."""
        name = self.database()
        yield Server(self.url(name))
        self.sql(f"DROP DATABASE {name} WITH (FORCE)")


def binaries() -> Path | None:
    """The folder of the server's programs, of the newest version here."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = Path("/usr/lib/postgresql")
    folders = sorted(versions.glob("*/bin"), key=lambda one: float(one.parent.name)) if versions.is_dir() else []
    return next((one for one in reversed(folders) if (one / "initdb").exists()), None)


def _someone() -> str | None:
    """Whom the server runs as: it refuses root."""
    if os.geteuid() != 0:
        return None
    names = {one.pw_name for one in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running() -> Iterator[Running]:
    """A server with a template `kept_empty`. Raises OSError or CalledProcessError where none can be started."""
    programs = binaries()
    if programs is None:
        raise FileNotFoundError("no initdb in PATH or /usr/lib/postgresql: install PostgreSQL's server")
    someone = _someone()
    folder = Path(tempfile.mkdtemp(prefix="neuronaut-pg-"))
    given = {"user": someone, "group": pwd.getpwnam(someone).pw_gid, "extra_groups": []} if someone else {}
    if someone:
        os.chown(folder, pwd.getpwnam(someone).pw_uid, pwd.getpwnam(someone).pw_gid)
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", "TZ": "UTC"}
    secret = folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    log = (folder / "log").open("w+")
    process = None
    try:
        asked = [
            "--no-sync",
            f"--username={USER}",
            f"--pwfile={secret}",
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
        ]
        subprocess.run(
            [programs / "initdb", "-D", folder / "data", "--encoding=UTF8", *asked], cwd=folder, env=environment, check=True,
            stdout=log, stderr=log, timeout=60, **given,
        )  # fmt: skip
        port = _free_port()
        settings = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", *QUICK]
        command = [programs / "postgres", "-D", folder / "data", *(part for one in settings for part in ("-c", one))]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, **given)
        server = Running(folder, port)
        _wait(server, process, log.name)
        server.sql("CREATE DATABASE kept_empty")
        Store(Server(server.url("kept_empty"))).close()
        yield server
    finally:
        if process is not None:
            process.send_signal(3)  # SIGQUIT: at once
            process.wait(timeout=30)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(server: Running, process: "subprocess.Popen[bytes]", log: str) -> None:
    for _ in range(300):
        if process.poll() is not None:
            raise OSError(f"the server ended: {Path(log).read_text()[-500:]}")
        with contextlib.suppress(psycopg.OperationalError):
            server.sql("SELECT 1")
            return
        time.sleep(0.05)
    raise TimeoutError("the server does not answer after 15 s")
