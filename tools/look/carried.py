"""What a head writes of what it looks at, read off the vocabulary: does it copy, or write what comes next?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.look.activations import batches, to_ids
from neuronaut.tools.look.attention import Bools, Pattern, looked
from neuronaut.tools.predicates.attends import Attends, Copies, Maps, Successor, named_keys
from neuronaut.tools.stats import ratio_samples
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.tokens import Tokens, Vocabulary
from neuronaut.tools.units import Unit

BATCH_TOKENS = 4096
MOST_PLACES = 2000
MIN_SERIES = 3
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SERIES: tuple[tuple[str, ...], ...] = (
    tuple(LETTERS),
    tuple(LETTERS.upper()),
    tuple("0123456789"),
    ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
     "december"),
    ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
)  # fmt: skip


@dataclass(frozen=True)
class CarriedCounts:
    """Sums by document, (n_documents,) each. asked: queries that look at a named key of which the claim says what is written;
    right: of those, at which it is. chance: `right` were any token of the domain as likely."""

    asked: NDArray[np.float64]
    right: NDArray[np.float64]
    chance: float

    @property
    def share(self) -> float:
        """0 of none."""
        return float(self.right.sum() / max(1.0, self.asked.sum()))

    @property
    def share_low(self) -> float:
        """One-sided 95 % lower bound over documents."""
        return float(np.quantile(ratio_samples(self.right, self.asked), 0.05))


def successors(vocabulary: Vocabulary) -> dict[int, tuple[int, tuple[int, ...]]]:
    """Token id to the id of what comes next in its series, and the ids of the series; the first comes after the last.

    A series ends where the vocabulary lacks its next member. Tokens with and without a space before them are apart.
    """
    found: dict[int, tuple[int, tuple[int, ...]]] = {}
    number = {piece: i for i, piece in enumerate(vocabulary.pieces) if i not in vocabulary.special}
    for series in SERIES:
        for written in (str, str.capitalize) if len(series[1]) > 1 else (str,):
            for space in ("", " "):
                ids: list[int] = []
                for member in series:
                    if (piece := space + written(member)) not in number:
                        break
                    ids.append(number[piece])
                if len(ids) >= MIN_SERIES:
                    found.update({a: (b, tuple(ids)) for a, b in pairwise([*ids, ids[0]])})
    return found


def written_logits(
    target: TargetModel,
    unit: Unit,
    tokens: Tokens,
    windows: Sequence[int],
    positions: Sequence[int],
    domain: Sequence[int],
) -> NDArray[np.float32]:
    """(n_places, n_domain) what the head adds, directly, to the logits of some tokens at some places, up to a scale."""
    found = np.zeros((len(windows), len(domain)), dtype=np.float32)
    out, without = Site("attn_out", unit.layer), Edit(Site("heads", unit.layer), "scale", 0.0, index=unit.index)
    gain, unembed = target.final_norm_gain(), target.unembed[:, list(domain)]
    at = np.array(windows)
    for rows in batches(tokens, BATCH_TOKENS):
        chosen = np.flatnonzero(np.isin(at, rows))
        if not len(chosen):
            continue
        ids = to_ids(tokens, rows)
        whole = target.run(ids, read=[out], stop=unit.layer + 1).read[out]
        rest = target.run(ids, read=[out], edits=[without], stop=unit.layer + 1).read[out]
        row_of = {int(window): row for row, window in enumerate(rows)}
        mine = (whole - rest)[
            [row_of[windows[i]] for i in chosen.tolist()], [positions[i] for i in chosen.tolist()]
        ].float()
        if target.spec.norm == "layernorm":
            mine = mine - mine.mean(dim=-1, keepdim=True)
        found[chosen] = ((mine * gain) @ unembed).numpy()
    return found


def carried(target: TargetModel, unit: Unit, claim: Attends, pattern: Pattern, tokens: Tokens) -> CarriedCounts | None:
    """How often the head writes what the claim says, where it looks at a named key; None where nothing can be asked.

    pattern: (n_windows, query, key). Of several named keys the one that is looked at most counts.
    """
    assert claim.carries is not None
    keys = named_keys(claim, tokens)
    best = np.argmax(np.where(keys, pattern, -1.0), axis=-1)
    places = np.argwhere(looked(pattern, keys) & keys.any(axis=-1))
    token_at = tokens.ids[places[:, 0], best[places[:, 0], places[:, 1]]]
    domains = _domains(claim, tokens)
    kept = np.array([_asks(claim, int(token), domains) for token in token_at], dtype=bool)
    places, token_at = places[kept][:MOST_PLACES], token_at[kept][:MOST_PLACES]
    if not len(places):
        return None
    domain = sorted(
        {int(i) for i in np.unique(tokens.ids[tokens.scored])} | {i for _, ids in domains.values() for i in ids}
    )
    column = {token: i for i, token in enumerate(domain)}
    logits = written_logits(target, unit, tokens, places[:, 0].tolist(), places[:, 1].tolist(), domain)
    inside: dict[int, list[int]] = {}
    right, chance = np.zeros(len(places), dtype=bool), np.zeros(len(places))
    for i, (window, token) in enumerate(zip(places[:, 0].tolist(), token_at.tolist(), strict=True)):
        if isinstance(claim.carries, Copies):
            wanted = token
            among = inside.setdefault(window, [column[t] for t in np.unique(tokens.ids[window][tokens.scored[window]])])
        else:
            wanted, ids = domains[token]
            among = [column[t] for t in ids]
        right[i] = among[int(np.argmax(logits[i, among]))] == column[wanted]
        chance[i] = 1 / len(among)
    return _by_document(tokens, places[:, 0], right, float(chance.mean()))


def _domains(claim: Attends, tokens: Tokens) -> Mapping[int, tuple[int, tuple[int, ...]]]:
    """Token id to what should be written for it and among what; empty of a claim that the head copies."""
    match claim.carries:
        case Successor():
            return successors(tokens.vocabulary)
        case Maps():
            number = {piece: i for i, piece in enumerate(tokens.vocabulary.pieces)}
            pairs = zip(claim.carries.of, claim.carries.to, strict=True)
            known = [(number[a], number[b]) for a, b in pairs if a in number and b in number]
            values = tuple(dict.fromkeys(b for _, b in known))
            return {a: (b, values) for a, b in known}
        case Copies() | None:
            return {}
        case _ as never:
            assert_never(never)


def _asks(claim: Attends, token: int, domains: Mapping[int, tuple[int, tuple[int, ...]]]) -> bool:
    return isinstance(claim.carries, Copies) or token in domains


def _by_document(tokens: Tokens, windows: NDArray[np.int64], right: Bools, chance: float) -> CarriedCounts:
    numbers, inverse = np.unique(tokens.documents[windows], return_inverse=True)
    asked = np.bincount(inverse, minlength=len(numbers)).astype(np.float64)
    return CarriedCounts(asked, np.bincount(inverse, weights=right, minlength=len(numbers)).astype(np.float64), chance)
