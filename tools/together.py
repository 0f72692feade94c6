"""Units asked together: one pass over the text reads all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from time import monotonic

import numpy as np

from neuronaut.tools.corpus import Split
from neuronaut.tools.errors import ToolFailed
from neuronaut.tools.heap import trim
from neuronaut.tools.look.activations import batches, to_ids
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.registry import Array, ToolContext, continued
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.targets.sites import columns_of, site_of
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.trials.nulls import candidates
from neuronaut.tools.units import Unit

Text = tuple[Split, int | None, int | None]  # split, block, tokens of the sample
Values = dict[Site, Array]

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
        """Go on with other units: what was read of the last ones is forgotten, text and comparison units of the same sites are
        kept."""
        self.units, self.shared_forwards, self.shared_seconds = tuple(units), 0.0, 0.0
        self._own.clear()
        self._activations.clear()
        self.__dict__.pop("_wanted", None)
        sites = {site_of(self.target, unit) for unit in units}
        for text, others in self._compared.items():
            self._compared[text] = {site: values for site, values in others.items() if site in sites}
        for other in self._others.values():
            assert isinstance(other, BatchContext)
            other.take(units)

    def under(self, target: TargetModel, units: Sequence[Unit] | None = None) -> "BatchContext":
        """The same text, opened once, for another target with the same tokens; of the same units unless others are given."""
        asked = self.units if units is None else tuple(units)
        return BatchContext(target, self.corpus, units=asked, _opened=self._opened, _tokens=self._tokens)

    def activations(self, unit: Unit, split: Split, *, block: int | None = None, n_tokens: int | None = None) -> Array:
        """As ToolContext gives them."""
        if unit.with_sign(1) not in self.units:
            return super().activations(unit, split, block=block, n_tokens=n_tokens)
        site = site_of(self.target, unit)
        at = int(np.searchsorted(self._wanted[site], unit.index))
        return unit.sign * self._values((split, block, n_tokens))[site][at]

    def activations_beside(
        self, unit: Unit, indices: Array, split: Split, *, block: int | None = None, n_tokens: int | None = None
    ) -> Array:
        """As ToolContext gives them."""
        site = site_of(self.target, unit)
        compared = candidates(self.target, site)
        if unit.with_sign(1) not in self.units or not np.isin(indices, compared).all():
            return super().activations_beside(unit, indices, split, block=block, n_tokens=n_tokens)
        text = (split, block, n_tokens)
        self._values(text)  # in the same pass, where they are read there
        if site not in self._compared.setdefault(text, {}):
            self._compared[text] |= self._read_on(text, {site: compared})
        return unit.sign * self._compared[text][site][np.searchsorted(compared, indices)]

    @cached_property
    def _wanted(self) -> Values:
        """Site to the neurons or features that are asked about there, in rising order."""
        asked = [(site_of(self.target, unit), unit.index) for unit in self.units]
        return {
            site: np.unique([index for at, index in asked if at == site]) for site in sorted({at for at, _ in asked})
        }

    def _values(self, text: Text) -> Values:
        """Site to (n_wanted, n_windows, n_pos), sign +1, 0 at padding."""
        if text not in self._own:
            others = self._compared.setdefault(text, {})
            lacking = [site for site in self._wanted if site not in others and _is_compared_on(text)]
            compared = {site: candidates(self.target, site) for site in lacking}
            both = {site: np.union1d(own, compared.get(site, own)) for site, own in self._wanted.items()}
            found = self._read_on(text, both)
            for site, indices in compared.items():
                others[site] = found[site][np.searchsorted(both[site], indices)]
            self._own[text] = {
                site: found[site][np.searchsorted(both[site], own)] for site, own in self._wanted.items()
            }
        return self._own[text]

    def _read_on(self, text: Text, wanted: Mapping[Site, Array]) -> Values:
        """The values on a text; what a smaller sample of the same text has told is not read again."""
        split, block, n_tokens = text
        tokens = self.tokens(split, block) if n_tokens is None else self.sample(split, n_tokens)
        before, began = self.target.forwards, monotonic()
        smaller = [self._own[other] for other in self._own if other[:2] == text[:2]]
        known = max(smaller, key=lambda one: next(iter(one.values())).shape[1], default=None)
        n = 0 if known is None else next(iter(known.values())).shape[1]
        same = known is not None and all(
            site in wanted and np.array_equal(wanted[site], self._wanted[site]) for site in known
        )
        if known is None or not same or n >= len(tokens):
            found = self._read_all(tokens, wanted)
        else:
            rest = self._read_all(tokens.select(range(n, len(tokens))), wanted)
            found = {site: continued(values, rest[site], tokens) for site, values in known.items()}
        trim()
        self.shared_forwards += self.target.forwards - before
        self.shared_seconds += monotonic() - began
        return found

    def _read_all(self, tokens: Tokens, wanted: Mapping[Site, Array]) -> Values:
        read_at = {site: columns_of(site, indices.tolist()) for site, indices in wanted.items()}
        sites, stop = [site for site, _ in read_at.values()], max(site.layer for site in wanted) + 1
        values = {
            site: np.zeros((len(indices), *tokens.ids.shape), dtype=np.float32) for site, indices in wanted.items()
        }
        for rows in batches(tokens, BATCH_TOKENS):
            ids = to_ids(tokens, rows)
            width = ids.shape[1]
            read = self.target.run(ids, read=sites, stop=stop).read
            for site, (place, columns) in read_at.items():
                values[site][:, rows, :width] = read[place][:, :, columns].permute(2, 0, 1).float().numpy()
        for of_site in values.values():
            if not np.isfinite(of_site).all():
                raise ToolFailed("activations are not finite on this text")
            of_site[:, tokens.ids < 0] = 0.0
        return values


def _is_compared_on(text: Text) -> bool:
    """Whether comparison units are asked for on this text: where thresholds are set, and where claims are tested."""
    split, _, n_tokens = text
    return split == "confirm" or n_tokens == EXPLORE_TOKENS
