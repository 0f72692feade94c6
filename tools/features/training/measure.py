"""How well a dictionary stands for a site: what it explains, how sparsely, and what the model loses by it.

Measured on text that it was not trained on, at text tokens alone: special tokens are neither encoded nor replaced. Intervals
are 95 % bootstraps over documents.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from neuronaut.tools.features.dictionary import Dictionary
from neuronaut.tools.features.training.settings import find_site
from neuronaut.tools.look.activations import batches, to_ids
from neuronaut.tools.stats import document_weights, percentile_interval
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.tokens import Tokens

MOST_LOGITS = 1 << 25  # held at once
LEAST_DAMAGE = 0.01  # nats that an ablation must cost before a share of it can be recovered
DECADES = range(-6, 0)
COUNTED = ("tokens", "squared", "distance", "norm", "cosine", "active")
LOSSES = ("clean", "reconstructed", "zero", "mean")
Sums = Mapping[str, NDArray[np.float64]]
Floats = NDArray[np.float64]


def _recovered(null: str) -> Callable[[Sums], Floats]:
    def share(s: Sums) -> Floats:
        damage = (s[null] - s["clean"]) / s["predictions"]
        left = (s["reconstructed"] - s["clean"]) / s["predictions"]
        return np.where(damage > LEAST_DAMAGE, 1 - left / np.where(damage > LEAST_DAMAGE, damage, 1.0), np.nan)

    return share


# Of sums over tokens, or over next tokens (predictions) that follow a replaced one.
METRICS: dict[str, Callable[[Sums], Floats]] = {
    "variance_explained": lambda s: 1 - s["squared"] / s["distance"],
    "normalised_mse": lambda s: s["squared"] / s["norm"],
    "cosine": lambda s: s["cosine"] / s["tokens"],
    "l0": lambda s: s["active"] / s["tokens"],
    "loss": lambda s: s["clean"] / s["predictions"],
    "loss_reconstructed": lambda s: s["reconstructed"] / s["predictions"],
    "loss_zero": lambda s: s["zero"] / s["predictions"],
    "loss_mean": lambda s: s["mean"] / s["predictions"],
    "recovered_of_zero": _recovered("zero"),
    "recovered_of_mean": _recovered("mean"),
}


@dataclass(frozen=True)
class Quality:
    """metrics: value and interval by name, None where it is not defined.

    variance_explained: 1 less squared error over squared distance from the mean of the text; null 0. normalised_mse: squared
    error over squared norm; null 1. cosine: of activation and reconstruction. l0: features active at a token. loss…:
    cross-entropy of the next token in nats, of the model as it is and with the site replaced by the reconstruction, by 0 and by
    its mean. recovered_of_zero, recovered_of_mean: 1 where the reconstruction costs nothing, 0 where it costs what that
    ablation does. dead: share of features that fire on none of the tokens. density: features by the share of tokens at which
    they fire, (from, to, number), powers of ten.
    """

    n_tokens: int
    n_documents: int
    metrics: dict[str, tuple[float, float, float] | None]
    dead: float
    density: tuple[tuple[float, float, int], ...]

    def as_json(self) -> dict[str, Any]:
        """The same as JSON, numbers rounded to six places."""
        return {
            "tokens": self.n_tokens,
            "documents": self.n_documents,
            "metrics": {
                name: None if found is None else dict(zip(("value", "low", "high"), found, strict=True))
                for name, found in self.metrics.items()
            },
            "dead": round(self.dead, 6),
            "density": [{"from": low, "to": high, "features": n} for low, high, n in self.density],
        }


def measure(target: TargetModel, dictionary: Dictionary, tokens: Tokens) -> Quality:
    """The quality of a dictionary that reconstructs what it reads, on all text tokens of some text."""
    site = find_site(target.spec, dictionary.layout.reads.name, dictionary.layer)
    mean = _mean(target, site, tokens)
    numbers, at = np.unique(tokens.documents, return_inverse=True)
    sums = {name: np.zeros(len(numbers)) for name in (*COUNTED, "predictions", *LOSSES)}
    fired = torch.zeros(dictionary.width, dtype=torch.int64)
    for rows in _batches(target, tokens):
        batch = _Batch.of(target, site, tokens, rows)
        flat = batch.values.flatten(2)
        features = dictionary.encode(flat)
        out = dictionary.decode(features, flat)
        fired += (features[batch.scored] > 0).sum(dim=0)
        _add(sums, at[rows], batch.counted(flat, out, mean, features))
        _add(
            sums,
            at[rows],
            batch.losses(target, {"reconstructed": out.view_as(batch.values), "zero": 0.0, "mean": mean}),
        )
    n_tokens = int(sums["tokens"].sum())
    return Quality(
        n_tokens, len(numbers), _with_intervals(sums), float((fired == 0).float().mean()), _density(fired, n_tokens)
    )


@dataclass(frozen=True)
class _Batch:
    """ids, scored: (batch, pos); values: the site (batch, pos, …); before: the residual before its layer; logits."""

    site: Site
    ids: Tensor
    scored: Tensor
    values: Tensor
    before: Tensor
    logits: Tensor

    @classmethod
    def of(cls, target: TargetModel, site: Site, tokens: Tokens, rows: NDArray[np.int64]) -> "_Batch":
        ids = to_ids(tokens, rows)
        width = ids.shape[1]
        entry = Site("resid_pre", site.layer)
        run = target.run(ids, read=[site, entry], logits=True)
        assert run.logits is not None
        scored = torch.from_numpy(tokens.scored[rows, :width])
        return cls(site, ids, scored, run.read[site].float(), run.read[entry], run.logits)

    def counted(self, x: Tensor, out: Tensor, mean: Tensor, features: Tensor) -> dict[str, Tensor]:
        """(batch,) sums over the text tokens of each window."""
        found = {
            "tokens": torch.ones(x.shape[:2]),
            "squared": (x - out).square().sum(dim=2),
            "distance": (x - mean.flatten()).square().sum(dim=2),
            "norm": x.square().sum(dim=2),
            "cosine": F.cosine_similarity(x, out, dim=2),
            "active": (features > 0).sum(dim=2),
        }
        return {name: torch.where(self.scored, value.double(), 0.0).sum(dim=1) for name, value in found.items()}

    def losses(self, target: TargetModel, instead: Mapping[str, Tensor | float]) -> dict[str, Tensor]:
        """(batch,) summed cross-entropy of text tokens that follow a text token, as it is and with something instead."""
        found = {"predictions": self._follows.double().sum(dim=1), "clean": self._loss(self.logits)}
        for name, value in instead.items():
            edit = Edit(self.site, "set", value, positions=self.scored)
            logits = target.run(self.ids, edits=[edit], start=(self.site.layer, self.before), logits=True).logits
            assert logits is not None
            found[name] = self._loss(logits)
        return found

    @property
    def _follows(self) -> Tensor:
        return self.scored[:, :-1] & self.scored[:, 1:]

    def _loss(self, logits: Tensor) -> Tensor:
        each = F.cross_entropy(logits[:, :-1].float().transpose(1, 2), self.ids[:, 1:], reduction="none")
        return torch.where(self._follows, each.double(), 0.0).sum(dim=1)


def _batches(target: TargetModel, tokens: Tokens) -> Iterator[NDArray[np.int64]]:
    return batches(tokens, max(1, min(4096, MOST_LOGITS // target.spec.d_vocab)))


def _mean(target: TargetModel, site: Site, tokens: Tokens) -> Tensor:
    """The mean of a site over all text tokens, float32, in the shape of one place."""
    total: Tensor | None = None
    for rows in _batches(target, tokens):
        ids = to_ids(tokens, rows)
        width = ids.shape[1]
        read = target.run(ids, read=[site], stop=site.layer + 1).read[site]
        part = read[torch.from_numpy(tokens.scored[rows, :width])].double().sum(dim=0)
        total = part if total is None else total + part
    assert total is not None, "no text"
    return (total / tokens.n_scored).float()


def _add(sums: dict[str, Floats], at: NDArray[np.int64], found: Mapping[str, Tensor]) -> None:
    for name, values in found.items():
        np.add.at(sums[name], at, values.numpy())


def _with_intervals(sums: dict[str, Floats]) -> dict[str, tuple[float, float, float] | None]:
    drawn = document_weights(len(sums["tokens"]), 0)
    whole, samples = ({name: w @ s for name, s in sums.items()} for w in (np.ones(len(sums["tokens"])), drawn))
    found: dict[str, tuple[float, float, float] | None] = {}
    for name, metric in METRICS.items():
        value, spread = float(metric(whole)), metric(samples)
        if np.isnan(value) or np.isnan(spread).any():
            found[name] = None
        else:
            low, high = percentile_interval(spread)
            found[name] = (round(value, 6), round(float(low), 6), round(float(high), 6))
    return found


def _density(fired: Tensor, n_tokens: int) -> tuple[tuple[float, float, int], ...]:
    edges = [10.0**power for power in DECADES] + [1.0]
    shares = fired[fired > 0].double().numpy() / n_tokens
    counts, _ = np.histogram(np.clip(shares, edges[0], 1.0), bins=np.array(edges))
    return tuple((low, high, int(n)) for low, high, n in zip(edges[:-1], edges[1:], counts, strict=True))
