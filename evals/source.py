"""With what an evaluation is made: the code, the packages, the machine."""

import hashlib
import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

from neuronaut import evals
from neuronaut.memory.provenance import PACKAGES, commit, version

FOLDERS = ("agent", "evals", "memory", "prompts", "tools")
SHOWS = frozenset({"compare.py", "published.json", "scoreboard.md.j2", "scoreboard.py", "seeds.json"})  # of evals


@cache
def code_sha256() -> str:
    """Hash of all files of the package but those of `evals` that only show results: a commit of documents changes nothing."""
    package = Path(evals.__file__).parents[1]
    digest = hashlib.sha256()
    for folder in FOLDERS:
        root = (package / folder).resolve()
        for file in sorted(path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
            if file.parent == root and folder == "evals" and file.name in SHOWS:
                continue
            digest.update(f"{folder}/{file.relative_to(root).as_posix()}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def settings() -> dict[str, Any]:
    """Commit (None where installed), packages and machine; no name of the machine or its user."""
    described = commit()
    return {
        "commit": described and described.removesuffix("-dirty"),
        "dirty": described is not None and described.endswith("-dirty"),
        "packages": {name: version(name) for name in PACKAGES},
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "system": platform.system(),
            "python": platform.python_version(),
        },
    }


def _cpu() -> str:
    """The model of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
