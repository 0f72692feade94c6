"""How far a model in a rounded number format is from the same model in float32, on a short text that is always the same."""

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Self

from neuronaut.tools.errors import UserError
from neuronaut.tools.files import cache_folder, write_whole
from neuronaut.tools.targets.fingerprint import Fingerprint

if TYPE_CHECKING:
    from torch import Tensor

    from neuronaut.tools.targets.base import TargetModel
    from neuronaut.tools.targets.load import Backend

TEXT = (
    "In January, February and March the old bridge was closed. When Mary and John came to the river, Mary gave a letter to John, "
    "who read it twice: 3 + 4 = 7. Der Hund ist auf dem Stuhl."
)
N_TOKENS = 64


@dataclass(frozen=True)
class Drift:
    """Largest and mean difference from float32, of all neurons and of the logits, as shares of the largest and of the mean
    magnitude that they have in float32. 0 is none."""

    neurons_largest: float
    neurons_mean: float
    logits_largest: float
    logits_mean: float

    @classmethod
    def between(cls, rounded: "TargetModel", exact: "TargetModel") -> Self:
        """That of one target against another, of the same model."""
        import torch

        from neuronaut.tools.targets.sites import neuron_sites

        ids = torch.from_numpy(exact.tokenize([TEXT]).ids[:1, :N_TOKENS]).long()
        sites = [site for layer in range(exact.spec.n_layers) for site in neuron_sites(exact.spec, layer)]
        found, expected = (one.run(ids, read=sites, logits=True) for one in (rounded, exact))
        assert found.logits is not None
        assert expected.logits is not None
        pairs = [(found.read[site].float(), expected.read[site].float()) for site in sites]
        return cls(*_apart(pairs), *_apart([(found.logits.float(), expected.logits.float())]))

    def __str__(self) -> str:
        return (
            f"neurons differ from float32 by {self.neurons_mean:.2g} of their mean size and at most {self.neurons_largest:.2g} of "
            f"the largest, logits by {self.logits_mean:.2g} and {self.logits_largest:.2g}"
        )


def _apart(pairs: "list[tuple[Tensor, Tensor]]") -> tuple[float, float]:
    largest = max(float((a - b).abs().max()) for a, b in pairs) / max(float(b.abs().max()) for _, b in pairs)
    total = sum(float((a - b).abs().sum()) for a, b in pairs) / sum(float(b.abs().sum()) for _, b in pairs)
    return largest, total


def kept_drift(fingerprint: Fingerprint) -> Drift | None:
    """That of a target, where it was measured before."""
    try:
        return Drift(**json.loads(_file(fingerprint).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def measured_drift(target: "TargetModel", name: str | Path, backend: "Backend" = "torch") -> Drift | None:
    """That of a target loaded from `name`, measured once and kept; None where it is in float32 itself, or float32 does not fit
    into the memory that is free."""
    from neuronaut.tools.targets.load import load_target, open_folder

    own = target.fingerprint()
    if own.dtype == "float32":
        return None
    if (known := kept_drift(own)) is not None:
        return known
    if 2 * sum(file.stat().st_size for file in open_folder(name).weights) > free_memory() // 2:
        return None
    found = Drift.between(target, load_target(name, backend=backend))
    with contextlib.suppress(UserError):  # what cannot be kept is measured again next time
        write_whole(_file(own), json.dumps(asdict(found)).encode())
    return found


def free_memory() -> int:
    """Bytes that a process may still take; half of all where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            return int(lines["MemAvailable"].split()[0]) * 1024
    return int(os.sysconf("SC_PHYS_PAGES")) * int(os.sysconf("SC_PAGE_SIZE")) // 2


def _file(fingerprint: Fingerprint) -> Path:
    key = sha256(json.dumps([asdict(fingerprint), TEXT, N_TOKENS], sort_keys=True).encode()).hexdigest()[:32]
    return cache_folder().parent / "drift" / f"{key}.json"
