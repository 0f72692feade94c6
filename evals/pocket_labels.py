"""Do the claims about natural neurons of `pocket` name notions that its world knows? A suite against the true token labels.

A claim may be right about its neuron and yet be no notion of the world ("the second token after ' Le'"), and a neuron may
follow no notion at all: what is counted here is agreement with the labels that the generator of the text wrote down, not
truth of claims. The labels are read on audit text, which neither the proposer nor the test has seen.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuronaut.evals import proposers
from neuronaut.evals.batch import cached_corpus, cached_target
from neuronaut.evals.loop import ask_batch, supported
from neuronaut.evals.pocket.labels import NAMES, token_labels
from neuronaut.evals.pocket.world import corpus_documents
from neuronaut.evals.sample import live_sample, small_claims
from neuronaut.evals.suite import Asking, Batch, Case, Row, Score, Size, share
from neuronaut.evals.truths import truth_f1
from neuronaut.tools.corpus import Corpus
from neuronaut.tools.errors import ToolFailed
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.tree import predicate_from_json
from neuronaut.tools.together import BatchContext
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.trials.reads import needed_rule
from neuronaut.tools.units import Unit

Bools = NDArray[np.bool_]
How = Literal["", "or", "and"]

SAME = 0.8  # F1 from which places count as those of a label
UNITS_A_BATCH = 8


@dataclass(frozen=True)
class LabelSet:
    """One label, or two joined by `how`, and F1 of some places against theirs."""

    names: tuple[str, ...]
    how: How
    f1: float

    def __str__(self) -> str:
        return f" {self.how} ".join(self.names)


@dataclass(frozen=True)
class Labels:
    """True labels of tokens. holds: (n_tokens, n_names)."""

    names: tuple[str, ...]
    holds: Bools

    def best(self, places: Bools) -> LabelSet | None:
        """The label, or the union or conjunction of two, with the largest F1 against `places` (n_tokens,); the simplest
        of equals. None where no label holds at any of the places."""
        inside = self.holds[places].astype(np.float32)
        both, sizes = inside.T @ inside, self._together
        one, n = both.diagonal(), sizes.diagonal()
        total = int(places.sum())
        either, n_either = one[:, None] + one - both, n[:, None] + n - sizes
        f1 = np.stack([_f1(np.diag(one), np.diag(n), total), _f1(either, n_either, total), _f1(both, sizes, total)])
        if f1.max(initial=0.0) <= 0:
            return None
        kind, a, b = np.unravel_index(int(np.argmax(np.round(f1, 9))), f1.shape)
        names = (self.names[a],) if kind == 0 else (self.names[a], self.names[b])
        how: How = ("", "or", "and")[kind]
        return LabelSet(names, how, float(f1[kind, a, b]))

    def places(self, labels: LabelSet) -> Bools:
        """(n_tokens,) where the label set holds."""
        columns = self.holds[:, [self.names.index(name) for name in labels.names]]
        return np.asarray(columns.all(axis=1) if labels.how == "and" else columns.any(axis=1))

    def same(self, first: LabelSet | None, second: LabelSet | None) -> bool:
        """Whether two label sets hold at about the same places; nothing is the same as none."""
        if first is None or second is None:
            return False
        return truth_f1(self.places(first), self.places(second)) >= SAME

    @cached_property
    def _together(self) -> NDArray[np.float32]:
        """(n_names, n_names) tokens at which two labels hold; counts stay far below 2^24, where float32 is exact."""
        held = self.holds.astype(np.float32)
        return held.T @ held


def _f1(both: NDArray[np.float32], sizes: NDArray[np.float32], total: int) -> NDArray[np.float64]:
    return 2.0 * both.astype(np.float64) / np.maximum(sizes.astype(np.float64) + total, 1.0)


def corpus_labels(corpus: Corpus, tokens: Tokens) -> Labels:
    """The true labels of the scored tokens of the audit text of the embedded corpus, in the order of `tokens.scored`.

    Refuses text that the world did not write, and a document that is not one window.
    """
    written = {document.text: document for document in corpus_documents(len(corpus.documents))}
    found = []
    for window, document in enumerate(corpus.of("audit")):
        if tokens.texts[window] != document.text or document.text not in written:
            raise ToolFailed(
                "the corpus is not the text of the embedded world, or a document is longer than the context"
            )
        at = tokens.scored[window]
        offsets = list(zip(tokens.starts[window, at].tolist(), tokens.ends[window, at].tolist(), strict=True))
        found.append(token_labels(written[document.text], offsets, tokens.ids[window, at].tolist()).holds)
    holding = np.concatenate(found)
    there = np.asarray(holding.any(axis=0))
    return Labels(tuple(np.array(NAMES)[there].tolist()), holding[:, there])


@cache
def audit_labels() -> Labels:
    """The true labels of the audit text of `pocket`."""
    corpus = cached_corpus()
    return corpus_labels(corpus, BatchContext(cached_target(), corpus).tokens("audit"))


class PocketLabels:
    """Claims about natural neurons of the embedded model against the labels of its world."""

    name = "pocket-labels"
    about = (
        "How far SUPPORTED claims about natural neurons of the embedded model coincide, on audit text, with the labels that "
        "the generator of its text wrote down (one label, or two joined by or / and): agreement with known notions, "
        "not truth of the claims."
    )
    sizes: Mapping[Size, int] = {"smoke": 2, "standard": 40, "full": 240}

    def batches(self, n: int, seed: int) -> Sequence[Batch]:
        """Neurons of different layers that share passes over the text."""
        units = live_sample(cached_target(), cached_corpus(), n, seed)
        cases = [Case(unit.address, f"layer {unit.layer}") for unit in units]
        return [
            Batch(f"neurons-{at}", tuple(cases[at : at + UNITS_A_BATCH])) for at in range(0, len(cases), UNITS_A_BATCH)
        ]

    def ask(self, batch: Batch, wanted: Collection[str], asking: Asking) -> Iterator[Row]:
        """What `ask_each` says of each neuron, the label set that each SUPPORTED claim comes closest to, and the neuron's."""
        cases = [case for case in batch.cases if case.key in wanted]
        units = [Unit.parse(case.key) for case in cases]
        context = BatchContext(cached_target(), cached_corpus(), units=tuple(units))
        chosen = proposers.proposers(asking.proposer, context, asking.seed)
        for case, row in zip(cases, ask_batch(context, units, batch, asking, proposers=chosen), strict=True):
            head = {"case": case.key, "family": case.family}
            if row["outcome"] == "failed":
                yield {**head, **row}
            else:
                yield {**head, **row, **_agreement(context, Unit.parse(case.key), row)}

    def scores(self, rows: Sequence[Row]) -> list[Score]:
        """Shares with exact 95 % intervals."""
        asked = [row for row in rows if row["outcome"] == "ok"]
        claims = [claim for row in asked for claim in supported(row)]
        named = [claim["label_f1"] >= SAME for claim in claims]
        return [
            *small_claims(asked),
            share(f"SUPPORTED claims at a true label (F1 ≥ {SAME})", sum(named), len(claims)),
            share(
                "SUPPORTED claims whose label is the unit's own", sum(c["label_is_units"] for c in claims), len(claims)
            ),
            share(
                f"units that fire at a true label (F1 ≥ {SAME})",
                sum(row["unit_label_f1"] >= SAME for row in asked),
                len(asked),
            ),
        ]


SUITE = PocketLabels()


def _agreement(context: BatchContext, unit: Unit, row: Row) -> dict[str, Any]:
    """The neuron's label set, and its SUPPORTED claims with theirs."""
    tokens, labels = context.tokens("audit"), audit_labels()
    rule = needed_rule(context, unit)
    fires = context.activations(unit, "audit")[tokens.scored] > rule.threshold
    own = labels.best(fires)
    claims = []
    for claim in row["claims"]:
        if claim["status"] == "SUPPORTED":
            nearest = labels.best(holds(predicate_from_json(claim["predicate"]), tokens)[tokens.scored])
            claim = {**claim, **_named("label", nearest), "label_is_units": labels.same(nearest, own)}
        claims.append(claim)
    return {"claims": claims, **_named("unit_label", own)}


def _named(name: str, labels: LabelSet | None) -> dict[str, Any]:
    return {name: labels and str(labels), f"{name}_f1": labels.f1 if labels else 0.0}
