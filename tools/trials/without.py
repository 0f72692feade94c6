"""What changes when a unit carries what it carries elsewhere: at every place at once, in text as it is."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronaut.tools.intervene.next_token import divergence, tokens_at_once
from neuronaut.tools.look.activations import batches, to_ids
from neuronaut.tools.targets.base import Edit, Run, Site, TargetModel
from neuronaut.tools.targets.sites import columns_of, layer_of, site_of, unit_at, width_of
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

N_OTHERS = 4
MAX_TOKENS = 8192  # of the text on which units are taken out


def other_units_of(target: TargetModel, unit: Unit, n: int, seed: int) -> list[Unit]:
    """At most `n` other units of the kind: neurons of the same layer, features of the dictionary, heads of any layer."""
    own = site_of(target, unit)
    sites = [Site("heads", layer) for layer in range(target.spec.n_layers)] if unit.kind == "head" else [own]
    others = [unit_at(site, index) for site in sites for index in range(width_of(target, site))]
    others = [one for one in others if one != unit.with_sign(1)]
    order = np.random.default_rng(seed).permutation(len(others))[:n]
    return [others[i] for i in order]


class Elsewhere:
    """Natural values of units at random places of other documents of the text, for each place of each window."""

    def __init__(self, target: TargetModel, tokens: Tokens, units: Sequence[Unit], seed: int) -> None:
        self._target, self._tokens = target, tokens
        self._values: dict[Unit, Tensor] = {}
        self._read(units)
        self._donors = self._drawn(np.random.default_rng(seed))

    def _read(self, units: Sequence[Unit]) -> None:
        """(n_windows, pos[, d_head]) of each unit, in one pass."""
        places = [columns_of(site_of(self._target, unit), [unit.index]) for unit in units]
        sites = {site for site, _ in places}
        last = max(site.layer for site in sites)
        for rows in batches(self._tokens):
            ids = to_ids(self._tokens, rows)
            width = ids.shape[1]
            read = self._target.run(ids, read=sites, stop=last + 1).read
            for unit, (site, (column,)) in zip(units, places, strict=True):
                own = read[site][:, :, column]
                if unit not in self._values:
                    self._values[unit] = own.new_zeros(*self._tokens.ids.shape, *own.shape[2:])
                self._values[unit][torch.from_numpy(rows), :width] = own

    def _drawn(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """(n_windows, pos, 2) a scored place of another document for each place; of the same where there is one alone."""
        places = np.argwhere(self._tokens.scored)
        documents = self._tokens.documents[places[:, 0]]
        drawn = rng.integers(len(places), size=self._tokens.ids.shape)
        for _ in range(20):
            same = documents[drawn] == self._tokens.documents[:, None]
            if not same.any():
                break
            drawn[same] = rng.integers(len(places), size=int(same.sum()))
        return np.asarray(places[drawn])

    def edit(self, unit: Unit, rows: NDArray[np.int64], width: int) -> Edit:
        """The unit set, at all places of some windows, to what it carries at the places drawn."""
        at = self._donors[rows, :width]
        value = self._values[unit][at[..., 0], at[..., 1]]
        return Edit(site_of(self._target, unit), "set", value, index=unit.index)


def edited_log_probs(
    target: TargetModel, tokens: Tokens, units: Sequence[Unit], seed: int
) -> Iterator[tuple[NDArray[np.int64], Tensor, Iterator[Tensor]]]:
    """Batch by batch: window numbers, (n, pos, d_vocab) log-probabilities, and the same without each of the units, one after
    the other: those of all units at once may not fit into memory."""
    elsewhere = Elsewhere(target, tokens, units, seed)
    layers = {unit: layer_of(target, unit) for unit in units}
    starts = [Site("resid_pre", layer) for layer in sorted(set(layers.values()))]
    for rows in batches(tokens, tokens_at_once(target)):
        ids = to_ids(tokens, rows)
        plain = target.run(ids, read=starts, logits=True)
        edits = ((layers[unit], elsewhere.edit(unit, rows, ids.shape[1])) for unit in units)
        yield rows, _log_probs(plain), (_without(target, ids, plain, layer, edit) for layer, edit in edits)


def _without(target: TargetModel, ids: Tensor, plain: Run, layer: int, edit: Edit) -> Tensor:
    """(n, pos, d_vocab) log-probabilities with an edit in one layer. plain: the run that read what stands before it."""
    start = (layer, plain.read[Site("resid_pre", layer)])
    return _log_probs(target.run(ids, edits=[edit], start=start, logits=True))


def _log_probs(run: Run) -> Tensor:
    assert run.logits is not None
    return torch.log_softmax(run.logits.float(), dim=-1)


def effect_of_heads(
    target: TargetModel, unit: Unit, tokens: Tokens, asked: Bools, *, seed: int
) -> tuple[Floats, Floats]:
    """(n_documents,) mean KL of the next token at the places asked for when the unit is taken out, and (n_others,) the
    mean over documents for other units. asked: (n_windows, pos), somewhere at least. Windows with such places come first."""
    order = np.argsort(~asked.any(axis=1), kind="stable")
    kept = np.sort(order[: max(2, MAX_TOKENS // tokens.ids.shape[1])])
    part, asked = tokens.select(kept), asked[kept]
    units = [unit, *other_units_of(target, unit, N_OTHERS, seed)]
    sums = np.zeros((len(units), len(part)))
    for rows, plain, edited in edited_log_probs(target, part, units, seed):
        here = torch.from_numpy(asked[rows, : plain.shape[1]])
        for number, one in enumerate(edited):
            sums[number, rows] = (divergence(plain, one) * here).sum(dim=1).numpy()
    numbers, inverse = np.unique(part.documents, return_inverse=True)
    count = np.bincount(inverse, weights=asked.sum(axis=1), minlength=len(numbers))
    by = np.stack([np.bincount(inverse, weights=one, minlength=len(numbers)) for one in sums])[:, count > 0]
    means = by / count[count > 0]
    return means[0], means[1:].mean(axis=1)
