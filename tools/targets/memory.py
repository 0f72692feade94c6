"""How much memory a model needs, known before any weight is read, and whether this machine has it."""

import os
import re
import resource
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.folder import ModelFolder
from neuronaut.tools.targets.weight_files import BUFFERS, EMBEDDINGS, Stored, same_bytes, stored_in

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
PROGRAM = 500_000_000  # the process with torch, transformers and transformer_lens: 475 MiB measured, Linux x86-64
MMAP_BYTES = 32 << 20  # glibc gives smaller pieces of memory back to the system only by chance
_EXPERT_APART = re.compile(r"\.experts\.\d+\.")
_UNEMBEDDINGS = ("lm_head.weight", "embed_out.weight")


@dataclass(frozen=True)
class Estimate:
    """What a model needs in one number format, in bytes.

    weights: all parameters, exactly. joining: more while it is loaded, where experts that are stored one by one are put together.
    streamed: of the weights, when one layer is held at a time: the largest, and all that is outside the layers.
    program: of the process without a model.
    """

    dtype: str
    parameters: int
    weights: int
    joining: int
    streamed: int
    program: int = PROGRAM

    @property
    def to_load(self) -> int:
        """What must be free before the model is loaded."""
        return self.program + self.weights + self.joining

    @property
    def to_stream(self) -> int:
        """What must be free to hold one layer at a time."""
        return self.program + self.streamed


def memory_needed(folder: ModelFolder, dtype: str) -> Estimate:
    """What the model of a folder needs as `dtype`: float32, bfloat16 or float16. Only the headers of its weights are read."""
    return estimate_of(stored_in(folder), folder.config, dtype)


def estimate_of(stored: Iterable[Stored], config: Mapping[str, Any], dtype: str) -> Estimate:
    """What tensors need as `dtype`; packed weights (in 4 bits) stay as they are."""
    item = ITEM_BYTES[dtype]
    kept = _kept(list(stored), tied=bool(config.get("tie_word_embeddings")))
    bytes_of = {one: one.size * item if one.floating else one.n_bytes for one in kept}
    layers: dict[int | None, int] = {}
    for one, n_bytes in bytes_of.items():
        layers[one.layer] = layers.get(one.layer, 0) + n_bytes
    outside = layers.pop(None, 0)
    return Estimate(
        dtype,
        parameters=_parameters(kept, config),
        weights=sum(bytes_of.values()),
        joining=_joining(bytes_of),
        streamed=outside + max(layers.values(), default=0),
    )


def _kept(stored: Sequence[Stored], *, tied: bool) -> list[Stored]:
    """The tensors that a loaded model holds: no buffers of old files, and no copy of a tied embedding. Another unembedding than that
    counts, since it is loaded whatever config.json says."""
    weights = [one for one in stored if not one.name.endswith(BUFFERS)]
    embeddings = [one for one in weights if one.name.endswith(EMBEDDINGS)]
    return [
        one
        for one in weights
        if not (tied and one.name.endswith(_UNEMBEDDINGS) and any(same_bytes(one, each) for each in embeddings))
    ]


def _parameters(stored: Sequence[Stored], config: Mapping[str, Any]) -> int:
    """Numbers of the model; packed ones as what they stand for, without their scales."""
    names, packing = {one.name for one in stored}, config.get("quantization")
    group = int(packing.get("group_size", 64)) if isinstance(packing, Mapping) else 64
    total = 0
    for one in stored:
        stem, _, part = one.name.rpartition(".")
        if f"{stem}.scales" in names and part in ("weight", "scales", "biases"):  # as mlx-lm packs them
            total += one.size * group if part == "scales" else 0
        elif one.name.endswith("_blocks"):  # MXFP4: two in a byte, beside their scales
            total += 2 * one.size
        elif not (one.name.endswith("_scales") and f"{one.name.removesuffix('_scales')}_blocks" in names):
            total += one.size
    return total


def _joining(bytes_of: Mapping[Stored, int]) -> int:
    """Copies of experts that are stored one by one: small ones are not given back (measured: 1.9 times the weights)."""
    apart = {one: n_bytes for one, n_bytes in bytes_of.items() if _EXPERT_APART.search(one.name)}
    small = sum(n_bytes for n_bytes in apart.values() if n_bytes < MMAP_BYTES)
    layers: dict[int | None, int] = {}
    for one, n_bytes in apart.items():
        if n_bytes >= MMAP_BYTES:
            layers[one.layer] = layers.get(one.layer, 0) + n_bytes
    return small + max(layers.values(), default=0)


def available_memory(system: Path = Path("/")) -> int:
    """Bytes that this process can still have: what the system can free, less where a control group allows less.

    Where the system does not say it (a Mac), all memory of the machine. system: where /proc and /sys lie.
    """
    try:
        said = re.search(r"^MemAvailable:\s+(\d+) kB", (system / "proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        said = None
    free = int(said[1]) * 1024 if said else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([free, *_group_limits(system)])


def _group_limits(system: Path) -> list[int]:
    """What is left of the limits of the control groups (version 2) that this process is in; its files in memory can be freed."""
    try:
        own = next(line for line in (system / "proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    folder, found = system / "sys/fs/cgroup" / own.removeprefix("0::").strip("/"), []
    for group in (folder, *folder.parents):
        try:
            limit, used = ((group / f"memory.{part}").read_text().strip() for part in ("max", "current"))
            files = re.search(r"^inactive_file (\d+)", (group / "memory.stat").read_text(), re.MULTILINE)
        except OSError:
            continue
        if limit != "max":
            found.append(max(0, int(limit) - int(used) + (int(files[1]) if files else 0)))
    return found


def check_fits(folder: ModelFolder, dtype: str) -> None:
    """Refuses a model that would not fit into memory, before a weight is read."""
    needed, free = memory_needed(folder, dtype), available_memory()
    has = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if needed.to_load - min(has, needed.program) <= free:
        return
    estimates = {one: memory_needed(folder, one) for one in ITEM_BYTES}
    raise UserError(
        f"not enough memory: {folder.name} needs about {gigabytes(needed.to_load)} to be loaded in {dtype} "
        f"({needed.parameters:,} parameters), and {gigabytes(free)} are available here: {what_to_do(estimates, dtype, free)}"
    )


def what_to_do(estimates: Mapping[str, Estimate], dtype: str, free: int) -> str:
    """What makes a model fit that does not in `dtype`, as the end of a sentence; only what would fit is named."""
    half = estimates["bfloat16"]
    if half.to_load <= free and half.weights < estimates[dtype].weights:
        return f"give --dtype bfloat16 ({gigabytes(half.to_load)}), or end other programs"
    for one in (estimates[dtype], half):
        if one.to_stream <= free:
            command = "neuronaut index build --stream" + ("" if one.dtype == "float32" else f" --dtype {one.dtype}")
            needs = f"which holds one layer at a time ({gigabytes(one.to_stream)})"
            return f"index it with `{command}`, {needs}, or end other programs"
    return "end other programs, or take a machine with more"


def gigabytes(n_bytes: float) -> str:
    """Bytes as people say them: 512 MB, 1.2 GB, 15 GB."""
    if n_bytes < 1e9:
        return f"{n_bytes / 1e6:.0f} MB" if n_bytes >= 1e7 else f"{n_bytes / 1e6:.1f} MB"
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes < 1e11 else f"{n_bytes / 1e9:.0f} GB"
