"""Units asked together: one pass over the text reads all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from time import monotonic

import numpy as np
import torch

from neuronaut.tools.corpus import Split
from neuronaut.tools.errors import ToolFailed
from neuronaut.tools.look.activations import batches
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.registry import Array, ToolContext, continued
from neuronaut.tools.targets.base import Site
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.trials.nulls import comparison_indices
from neuronaut.tools.units import Unit

Text = tuple[Split, int | None, int | None]  # split, block, tokens of the sample
Values = dict[int, Array]

BATCH_TOKENS = 4096  # so that the neurons of all layers fit beside each other


@dataclass
class BatchContext(ToolContext):
    """A context that reads all its units, and those they are compared with, in one pass when the first is asked for.

    shared_forwards, shared_seconds: of the passes for these units, which belong to none of them alone.
    """

    units: tuple[Unit, ...] = ()
    shared_forwards: float = 0.0
    shared_seconds: float = 0.0
    _own: dict[Text, Values] = field(default_factory=dict, repr=False)
    _compared: dict[Text, Values] = field(default_factory=dict, repr=False)

    def take(self, units: Sequence[Unit]) -> None:
        """Go on with other units: what was read of the last ones is forgotten, text and comparison units are kept."""
        self.units, self.shared_forwards, self.shared_seconds = tuple(units), 0.0, 0.0
        self._own.clear()
        self._activations.clear()
        self.__dict__.pop("_wanted", None)

    def activations(self, unit: Unit, split: Split, *, block: int | None = None, n_tokens: int | None = None) -> Array:
        """As ToolContext gives them."""
        if unit.with_sign(1) not in self.units:
            return super().activations(unit, split, block=block, n_tokens=n_tokens)
        at = int(np.searchsorted(self._wanted[unit.layer], unit.index))
        return unit.sign * self._values((split, block, n_tokens))[unit.layer][at]

    def activations_beside(
        self, unit: Unit, indices: Array, split: Split, *, block: int | None = None, n_tokens: int | None = None
    ) -> Array:
        """As ToolContext gives them."""
        compared = comparison_indices(self.target.spec.d_mlp, unit.layer)
        if unit.with_sign(1) not in self.units or not np.isin(indices, compared).all():
            return super().activations_beside(unit, indices, split, block=block, n_tokens=n_tokens)
        text = (split, block, n_tokens)
        self._values(text)  # in the same pass, where they are read there
        if unit.layer not in self._compared.setdefault(text, {}):
            self._compared[text] |= self._read_on(text, {unit.layer: compared})
        return unit.sign * self._compared[text][unit.layer][np.searchsorted(compared, indices)]

    @cached_property
    def _wanted(self) -> dict[int, Array]:
        """Layer to the neurons that are asked about there, in rising order."""
        layers = sorted({unit.layer for unit in self.units})
        return {layer: np.unique([u.index for u in self.units if u.layer == layer]) for layer in layers}

    def _values(self, text: Text) -> Values:
        """Layer to (n_wanted, n_windows, n_pos), sign +1, 0 at padding."""
        if text not in self._own:
            others = self._compared.setdefault(text, {})
            lacking = [layer for layer in self._wanted if layer not in others and _is_compared_on(text)]
            compared = {layer: comparison_indices(self.target.spec.d_mlp, layer) for layer in lacking}
            both = {layer: np.union1d(own, compared.get(layer, own)) for layer, own in self._wanted.items()}
            found = self._read_on(text, both)
            for layer, indices in compared.items():
                others[layer] = found[layer][np.searchsorted(both[layer], indices)]
            self._own[text] = {
                layer: found[layer][np.searchsorted(both[layer], own)] for layer, own in self._wanted.items()
            }
        return self._own[text]

    def _read_on(self, text: Text, wanted: Mapping[int, Array]) -> Values:
        """The values on a text; what a smaller sample of the same text has told is not read again."""
        split, block, n_tokens = text
        tokens = self.tokens(split, block) if n_tokens is None else self.sample(split, n_tokens)
        before, began = self.target.forwards, monotonic()
        smaller = [self._own[other] for other in self._own if other[:2] == text[:2]]
        known = max(smaller, key=lambda one: next(iter(one.values())).shape[1], default=None)
        n = 0 if known is None else next(iter(known.values())).shape[1]
        same = known is not None and all(np.array_equal(wanted.get(layer), self._wanted[layer]) for layer in known)
        if known is None or not same or n >= len(tokens):
            found = self._read_all(tokens, wanted)
        else:
            rest = self._read_all(tokens.select(range(n, len(tokens))), wanted)
            found = {layer: continued(values, rest[layer], tokens) for layer, values in known.items()}
        self.shared_forwards += self.target.forwards - before
        self.shared_seconds += monotonic() - began
        return found

    def _read_all(self, tokens: Tokens, wanted: Mapping[int, Array]) -> Values:
        sites = {layer: Site("neurons", layer) for layer in wanted}
        values = {
            layer: np.zeros((len(indices), *tokens.ids.shape), dtype=np.float32) for layer, indices in wanted.items()
        }
        for rows in batches(tokens, BATCH_TOKENS):
            width = int(tokens.lengths[rows].max(initial=1))
            ids = torch.from_numpy(np.maximum(tokens.ids[rows, :width], 0)).long()
            read = self.target.run(ids, read=list(sites.values()), stop=max(sites) + 1).read
            for layer, indices in wanted.items():
                chosen = read[sites[layer]][:, :, torch.from_numpy(indices)]
                values[layer][:, rows, :width] = chosen.permute(2, 0, 1).float().numpy()
        for of_layer in values.values():
            if not np.isfinite(of_layer).all():
                raise ToolFailed("activations are not finite on this text")
            of_layer[:, tokens.ids < 0] = 0.0
        return values


def _is_compared_on(text: Text) -> bool:
    """Whether comparison units are asked for on this text: where thresholds are set, and where claims are tested."""
    split, _, n_tokens = text
    return split == "confirm" or n_tokens == EXPLORE_TOKENS
