"""Which code made a record: versions of packages and the commit of a source checkout."""

import functools
import importlib.metadata
import subprocess
from pathlib import Path

PACKAGES = ("neuronaut", "torch", "transformer-lens", "transformers", "numpy", "scipy")


@functools.cache
def commit() -> str | None:
    """The commit of a source checkout, with a mark when it was changed; None when installed."""
    folder = Path(__file__).resolve().parent
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def version(name: str) -> str:
    """The installed version of a package, or absent."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"
