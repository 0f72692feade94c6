"""Units asked together: one pass over the text reads all of them."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from neuronaut.tools.corpus import Split
from neuronaut.tools.errors import ToolFailed
from neuronaut.tools.look.activations import batches
from neuronaut.tools.registry import Array, ToolContext, continued
from neuronaut.tools.targets.base import Site
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.trials.nulls import comparison_indices
from neuronaut.tools.units import Unit

Text = tuple[Split, int | None, int | None]  # split, block, tokens of the sample

BATCH_TOKENS = 4096  # so that the neurons of all layers fit beside each other


@dataclass
class BatchContext(ToolContext):
    """A context that reads all its units, and those they are compared with, in one pass when the first is asked for.

    shared_forwards: forwards of these passes, which belong to no unit alone.
    """

    units: tuple[Unit, ...] = ()
    shared_forwards: float = 0.0
    _shared: dict[Text, dict[int, Array]] = field(default_factory=dict, repr=False)

    def activations(self, unit: Unit, split: Split, *, block: int | None = None, n_tokens: int | None = None) -> Array:
        """As ToolContext gives them."""
        if unit.with_sign(1) not in self.units:
            return super().activations(unit, split, block=block, n_tokens=n_tokens)
        at = int(np.searchsorted(self._wanted[unit.layer], unit.index))
        return unit.sign * self._values(split, block, n_tokens)[unit.layer][at]

    def activations_beside(
        self, unit: Unit, indices: Array, split: Split, *, block: int | None = None, n_tokens: int | None = None
    ) -> Array:
        """As ToolContext gives them."""
        wanted = self._wanted.get(unit.layer, np.array([], dtype=np.int64))
        if unit.with_sign(1) not in self.units or not np.isin(indices, wanted).all():
            return super().activations_beside(unit, indices, split, block=block, n_tokens=n_tokens)
        return unit.sign * self._values(split, block, n_tokens)[unit.layer][np.searchsorted(wanted, indices)]

    @cached_property
    def _wanted(self) -> dict[int, Array]:
        """Layer to the neurons that are read there, in rising order."""
        d_mlp = self.target.spec.d_mlp
        return {
            layer: np.union1d([u.index for u in self.units if u.layer == layer], comparison_indices(d_mlp, layer))
            for layer in sorted({unit.layer for unit in self.units})
        }

    def _values(self, split: Split, block: int | None, n_tokens: int | None) -> dict[int, Array]:
        """Layer to (n_wanted, n_windows, n_pos), sign +1, 0 at padding."""
        key = (split, block, n_tokens)
        if key not in self._shared:
            tokens = self.tokens(split, block) if n_tokens is None else self.sample(split, n_tokens)
            before = self.target.forwards
            smaller = [self._shared[other] for other in self._shared if other[:2] == key[:2]]
            self._shared[key] = self._read_on(tokens, smaller)
            self.shared_forwards += self.target.forwards - before
        return self._shared[key]

    def _read_on(self, tokens: Tokens, smaller: list[dict[int, Array]]) -> dict[int, Array]:
        """The values on `tokens`; what one of some smaller samples of the same text has told is not read again."""
        known = max(smaller, key=lambda one: next(iter(one.values())).shape[1], default=None)
        n = 0 if known is None else next(iter(known.values())).shape[1]
        if known is None or n >= len(tokens):
            return self._read_all(tokens)
        rest = self._read_all(tokens.select(range(n, len(tokens))))
        return {layer: continued(values, rest[layer], tokens) for layer, values in known.items()}

    def _read_all(self, tokens: Tokens) -> dict[int, Array]:
        sites = {layer: Site("neurons", layer) for layer in self._wanted}
        values = {
            layer: np.zeros((len(indices), *tokens.ids.shape), dtype=np.float32)
            for layer, indices in self._wanted.items()
        }
        for rows in batches(tokens, BATCH_TOKENS):
            width = int(tokens.lengths[rows].max(initial=1))
            ids = torch.from_numpy(np.maximum(tokens.ids[rows, :width], 0)).long()
            read = self.target.run(ids, read=list(sites.values()), stop=max(sites) + 1).read
            for layer, indices in self._wanted.items():
                chosen = read[sites[layer]][:, :, torch.from_numpy(indices)]
                values[layer][:, rows, :width] = chosen.permute(2, 0, 1).float().numpy()
        for of_layer in values.values():
            if not np.isfinite(of_layer).all():
                raise ToolFailed("activations are not finite on this text")
            of_layer[:, tokens.ids < 0] = 0.0
        return values
