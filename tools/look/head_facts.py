"""What is measured of every head at once: where it looks, beside heads with random weights; what it writes; what changes without it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronaut.tools.intervene.next_token import divergence
from neuronaut.tools.look.attends import RULE, Scored, candidates
from neuronaut.tools.look.attention import Looks, Pattern, count_looks, patterns, random_tokens, repeated_tokens
from neuronaut.tools.look.carried import carried
from neuronaut.tools.look.head_tokens import tokens_to_score
from neuronaut.tools.look.head_weights import Embedding, HeadWeights, own_rank
from neuronaut.tools.look.orders import orders_of, successor_chance, successor_scores
from neuronaut.tools.predicates.attends import Attends, Copies, Successor, To, named_keys
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.stats import percentile_interval, percentile_of, ratio_samples, summed_by
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.trials.random_heads import shares_of_random_heads
from neuronaut.tools.trials.without import edited_log_probs
from neuronaut.tools.units import Unit

Floats = NDArray[np.float64]

OFF_FIRST = 0.5  # of the attention off the first token
PERMUTED = 20  # null orders of the outputs
HURT = 3  # tokens that are said worst without a head
REPEATS = ("duplicate", "induction")


@dataclass(frozen=True)
class Sight:
    """Where a head looks. claim: the best on one half of the text; looks: its counts on the other; anywhere: its share on random
    tokens, None of a claim that names tokens. random: the shares that heads with random weights reach, empty where the bounds fail
    before. rests: mean attention on the first position. carries: what is written of the key, read off the text."""

    claim: Attends
    looks: Looks
    anywhere: float | None
    random: Floats
    rests: float
    carries: str | None

    @property
    def within_bounds(self) -> bool:
        """Whether the share of queries that look, and what it accounts for, are those of a rule."""
        return self.looks.n_queries > 0 and self.looks.share_low >= RULE and self.looks.off_first_low >= OFF_FIRST

    @property
    def percentile(self) -> float | None:
        """Among heads with random weights."""
        return percentile_of(self.looks.share, self.random) if len(self.random) else None


@dataclass(frozen=True)
class Written:
    """Of all heads, (n_layers, n_heads) each: what they write by their weights. spread: standard deviation of the null."""

    copying: Floats
    copying_null: Floats
    copying_spread: Floats
    eigen: Floats
    eigen_null: Floats
    eigen_spread: Floats
    successor: Floats | None
    chance: float | None


@dataclass(frozen=True)
class Loss:
    """What changes when a head carries what it carries elsewhere. kl: nats by which what is said changes at the queries of its claim,
    low, high: its interval over documents, anywhere: the same at all places; rise: of the text's loss; hurt: the tokens whose loss
    rises most in all."""

    kl: float
    low: float
    high: float
    anywhere: float
    rise: float
    hurt: tuple[str, ...]


def halves(tokens: Tokens, seed: int) -> tuple[Tokens, Tokens]:
    """Windows to choose on and to measure on: of different documents, of which explore text always has several."""
    documents = np.random.default_rng([seed, 2]).permutation(np.unique(tokens.documents))
    first = np.isin(tokens.documents, documents[: len(documents) // 2])
    return tokens.select(np.flatnonzero(first)), tokens.select(np.flatnonzero(~first))


def sights_of(context: ToolContext, choose: Tokens, measure: Tokens, seed: int) -> dict[Unit, Sight]:
    """Of all heads. choose, measure: the text on which a claim is chosen, and that on which it is measured."""
    target, rng = context.target, np.random.default_rng(seed)
    synthetic = {False: random_tokens(measure, rng), True: repeated_tokens(measure, rng)}
    found: dict[Unit, Sight] = {}
    for layer in range(target.spec.n_layers):
        chosen, seen = _layer(target, choose, layer), _layer(target, measure, layer)
        made = {twice: _layer(target, texts, layer) for twice, texts in synthetic.items()}
        for head in range(target.spec.n_heads):
            claim = _best(candidates(chosen[:, head], choose))
            looks = count_looks(seen[:, head], named_keys(claim, measure), measure)
            texts = synthetic[twice := claim.key.kind in REPEATS]
            bare = claim.queries is None and not isinstance(claim.key, To)
            drawn = count_looks(made[twice][:, head], named_keys(claim, texts), texts) if bare else None
            anywhere = drawn.share if drawn is not None and drawn.n_queries else None
            rests = float(seen[:, head, :, 0][measure.scored[:, : seen.shape[2]]].mean())
            unit = Unit("head", layer, head)
            sight = Sight(claim, looks, anywhere, np.zeros(0), rests, None)
            found[unit] = (
                _beside_random(target, unit, sight, measure, seen[:, head], seed) if sight.within_bounds else sight
            )
    return found


def _best(found: Sequence[Scored]) -> Attends:
    """Of claims in falling order of worth the first that may hold as a rule; the first of all where none may."""
    may = (one for one in found if one.looks.share_low >= RULE and one.looks.off_first_low >= OFF_FIRST)
    return next(may, found[0]).claim


def _layer(target: TargetModel, tokens: Tokens, layer: int) -> Pattern:
    """(n_windows, n_heads, query, key)."""
    n_pos = tokens.ids.shape[1]
    found = np.zeros((len(tokens), target.spec.n_heads, n_pos, n_pos), dtype=np.float32)
    for rows, read in patterns(target, tokens, [layer]):
        width = read[layer].shape[-1]
        found[rows, :, :width, :width] = read[layer]
    return found


def _beside_random(target: TargetModel, unit: Unit, sight: Sight, tokens: Tokens, pattern: Pattern, seed: int) -> Sight:
    """With the shares of heads with random weights, and what the head writes of what it looks at."""
    random = np.array(shares_of_random_heads(target, unit, sight.claim, tokens, pattern, seed=seed))
    carries = None
    for kind in (Copies(), Successor()):
        counts = carried(target, unit, sight.claim.model_copy(update={"carries": kind}), pattern, tokens)
        if counts is not None and counts.share_low >= RULE and counts.share_low > counts.chance:
            carries = kind.kind
    return replace(sight, random=random, carries=carries)


def written_by(context: ToolContext, embedding: Embedding, seed: int) -> Written:
    """What all heads write by their weights."""
    target, ids = context.target, tokens_to_score(context, seed)
    made = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(ids), generator=made) for _ in range(PERMUTED)]
    rows = [_layer_writes(HeadWeights(target, layer, embedding), ids, orders) for layer in range(target.spec.n_layers)]
    copying, copying_null, copying_spread, eigen, eigen_null, eigen_spread = (
        np.stack([row[at] for row in rows]) for at in range(6)
    )
    series, successor, chance = orders_of(target.vocabulary), None, None
    if series:
        successor, chance = successor_scores(target, series, embedding), successor_chance(series)
    return Written(copying, copying_null, copying_spread, eigen, eigen_null, eigen_spread, successor, chance)


def _layer_writes(weights: HeadWeights, ids: Sequence[int], orders: Sequence[Tensor]) -> list[Floats]:
    """Copying and its null's mean and spread, eigen and the same, (n_heads,) each."""
    values, said = (factor.double() for factor in weights.ov_factors(ids, ids))
    ov, own = values @ said, torch.arange(len(ids))
    nulls = torch.stack([own_rank(ov, order).mean(-1) for order in orders])
    permuted = torch.stack([eigen_scores(values, said[:, :, order]) for order in orders])
    found = [own_rank(ov, own).mean(-1), nulls.mean(0), nulls.std(0)]
    return [one.numpy() for one in (*found, eigen_scores(values, said), permuted.mean(0), permuted.std(0))]


def eigen_scores(values: Tensor, said: Tensor) -> Tensor:
    """(n_heads,) sum of the eigenvalues of the map between n tokens that `values` (n_heads, n, d) and `said` (n_heads, d, n) make, over
    the sum of their sizes, in [-1, 1]; each source's mean over outputs is taken off first, since it changes no probability.

    The eigenvalues other than 0 are those of the product the other way round, which is small.
    Source: Elhage et al. 2021, the copying score of the OV circuit.
    """
    found = torch.linalg.eigvals((said - said.mean(dim=-1, keepdim=True)) @ values)
    return found.real.sum(-1) / found.abs().sum(-1).clamp_min(1e-12)


def losses_of(target: TargetModel, tokens: Tokens, sights: Mapping[Unit, Sight], seed: int) -> dict[Unit, Loss]:
    """Of each head, all in one pass over the text and one for each head."""
    units, pieces = list(sights), target.vocabulary.pieces
    asked = np.stack([tokens.scored & named_keys(one.claim, tokens).any(axis=-1) for one in sights.values()])
    there, anywhere = (np.zeros((len(units), len(tokens))) for _ in range(2))
    rises = np.zeros((len(units), len(pieces)))
    for rows, plain, edited in edited_log_probs(target, tokens, units, seed):
        width = plain.shape[1]
        then = torch.from_numpy(np.maximum(tokens.ids[rows, 1:width], 0)).long()
        told = torch.from_numpy(tokens.scored[rows, 1:width])
        for number, one in enumerate(edited):
            kl = divergence(plain, one).double().numpy()
            there[number, rows] = (kl * asked[number][rows, :width]).sum(axis=1)
            anywhere[number, rows] = (kl * tokens.scored[rows, :width]).sum(axis=1)
            rise = (plain - one)[:, :-1].gather(-1, then[..., None])[..., 0]
            np.add.at(rises[number], then[told].numpy(), rise[told].double().numpy())
    n = max(1, int(tokens.scored.sum()))
    found = {}
    for number, unit in enumerate(units):
        worst = [int(i) for i in np.argsort(-rises[number], kind="stable")[:HURT] if rises[number, i] > 0]
        mean, low, high = _by_document(there[number], asked[number].sum(axis=1), tokens)
        hurt = tuple(pieces[i] for i in worst)
        found[unit] = Loss(mean, low, high, float(anywhere[number].sum() / n), float(rises[number].sum() / n), hurt)
    return found


def _by_document(sums: Floats, sizes: NDArray[np.integer], tokens: Tokens) -> tuple[float, float, float]:
    """A mean over places and its 95 % interval over documents; 0 of none. sums, sizes: (n_windows,)."""
    above, below = summed_by(tokens.documents, sums, sizes)
    return float(above.sum() / max(1.0, below.sum())), *percentile_interval(ratio_samples(above, below))
