"""Scores whose judge is a local model, or none: simulation by log-probabilities, embedding, surprisal, intervention, n2g_f1."""

from dataclasses import dataclass, field

import numpy as np

from neuronaut.agent.scores.base import Case, Explanation, Judged, Name, Replies
from neuronaut.agent.scores.simulated import simulation_number
from neuronaut.prompts import render
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.learn.arithmetic import F1, Auroc, Floats, Mean
from neuronaut.tools.learn.items import Items, simulated_windows, strongest_activation
from neuronaut.tools.learn.judge import Judge, cosines
from neuronaut.tools.learn.pushed import KL, WRITTEN, pushed_texts
from neuronaut.tools.learn.subject import held_in, items_of
from neuronaut.tools.predicates.nodes import Predicate

UNRELATED = "Various unrelated sentences."
SNIPPETS = 20  # of which every second one is held out
FIRES = 0.5  # of the largest activation


@dataclass(frozen=True)
class _Local:
    judge_model: Judge = field(repr=False)
    mode: str = ""
    of: str = "AUROC"
    chance: float | None = 0.5
    judges_unit: bool = False

    @property
    def judge_named(self) -> str:
        """The local model, by its name."""
        return self.judge_model.model.fingerprint().name

    @property
    def judge_source(self) -> str:
        """The hash of its weights and how they are read."""
        found = self.judge_model.model.fingerprint()
        return f"{found.weights_sha256} {found.tokenizer_sha256} {found.dtype} {found.processing}"

    def as_published(self, case: Case) -> Judged | None:
        """The same items."""
        return None


@dataclass(frozen=True)
class Simulation(_Local):
    """The mean of the local model's distribution over 0 to 10 behind each token. n_top, n_random: windows."""

    mode: str = "log-probabilities"
    of: str = "Pearson r"
    chance: float | None = 0.0
    name: Name = "simulation"
    n_top: int = 5
    n_random: int = 5
    fitted: bool = False

    def judge(self, case: Case) -> Judged:
        """Correlation over the tokens of all windows together."""
        top, drawn = simulated_windows(case.subject.windows, self.n_top, self.n_random, case.seed)
        heads = [
            render("score_simulator", explanation=case.explanation.text, examples=examples) + "\n"
            for examples in (True, False)
        ]
        windows = [*top, *drawn]
        said = self.judge_model.simulated(heads, [window.pieces for window in windows])
        pairs = list(zip(windows, (one.tolist() for one in said), strict=True))
        random = {id(window) for window in drawn}
        return simulation_number(pairs, random, Replies(n_ok=len(windows)), fitted=self.fitted)


@dataclass(frozen=True)
class Transluce(Simulation):
    """20 windows instead of 5; as published, a fit on the scored data makes it the size of r."""

    name: Name = "simulation_transluce"
    n_top: int = 20
    fitted: bool = True


def _texts(items: Items) -> list[str]:
    return [window.text for window in (*items.positives, *items.negatives)]


def _ranked(items: Items, values: Floats) -> Judged:
    """AUROC of a value of each window, those with activation against those without."""
    truth = [True] * len(items.positives) + [False] * len(items.negatives)
    documents = tuple(window.document for window in (*items.positives, *items.negatives))
    return Judged(Auroc(truth, values), documents, Replies(n_ok=len(truth)), notes=items.notes)


@dataclass(frozen=True)
class Embedding(_Local):
    """Is the explanation nearer to windows with activation? By the cosine of mean residuals behind the last layer."""

    name: Name = "embedding"

    def judge(self, case: Case) -> Judged:
        """AUROC of the cosine."""
        items = items_of(case.subject, case.seed)
        found = self.judge_model.embeddings([case.explanation.text, *_texts(items)])
        return _ranked(items, cosines(found[0], found[1:]))


@dataclass(frozen=True)
class Surprisal(_Local):
    """Does the explanation make windows with activation less surprising?"""

    name: Name = "surprisal"

    def judge(self, case: Case) -> Judged:
        """AUROC of the cross-entropy behind unrelated words less that behind the explanation."""
        items = items_of(case.subject, case.seed)
        plain, told = (
            render("score_surprisal", explanation=text) + "\n" for text in (UNRELATED, case.explanation.text)
        )
        losses = [self.judge_model.loss([(prefix, text) for text in _texts(items)]) for prefix in (plain, told)]
        return _ranked(items, losses[0] - losses[1])


@dataclass(frozen=True)
class Intervention(_Local):
    """Does what the target writes while the unit is pushed make the explanation likelier? One prompt of each tenth."""

    of: str = "nats"
    chance: float | None = 0.0
    name: Name = "intervention"

    def judge(self, case: Case) -> Judged:
        """Mean of log p(explanation | pushed text) − log p(explanation | plain text)."""
        windows = [tenth[-1] for tenth in items_of(case.subject, case.seed).tenths]
        found = pushed_texts(case.context.target, case.subject.unit, windows)
        named = f'{case.explanation.text}"'
        before = [render("score_amplified", text=text) for text in (*found.plain, *found.pushed)]
        logs = np.array([one.sum() for one in self.judge_model.log_probs([(text, named) for text in before])])
        plain, pushed = logs[: len(windows)], logs[len(windows) :]
        beside = {"added to the activation": found.dose, "KL in nats": found.kl}
        notes = (f"{WRITTEN} tokens written at a mean KL of {KL:g} nats",)
        return Judged(Mean(pushed - plain), found.documents, Replies(n_ok=len(windows)), None, beside, notes)


@dataclass(frozen=True)
class N2G:
    """Does the predicate hold where the unit fires? On every second of the 20 strongest windows; without any judge."""

    mode: str = ""
    of: str = "F1"
    chance: float | None = None
    judges_unit: bool = False
    name: Name = "n2g_f1"
    judge_named: str = "the predicate"
    judge_source: str = ""

    def judge(self, case: Case) -> Judged:
        """F1 over the tokens of the held-out windows; the unit fires at half of its largest activation."""
        predicate = predicate_of(case.explanation)
        best = strongest_activation(case.subject.windows, SNIPPETS)
        top, held_out = max(float(window.activations.max()) for window in best), best[1::2]
        fires = np.concatenate([window.activations >= FIRES * top for window in held_out])
        said = np.concatenate(held_in(case.context, predicate, held_out))
        documents = tuple(window.document for window in held_out for _ in window.ids)
        return Judged(F1(fires, said), documents, Replies(n_ok=len(held_out)))

    def as_published(self, case: Case) -> Judged | None:
        """The same."""
        return None


def predicate_of(explanation: Explanation) -> Predicate:
    """The predicate of an explanation. Refuses words that are none."""
    if explanation.predicate is None:
        raise ToolRefused(
            "n2g_f1 is computed from a predicate: give --explanation in the predicate language, or a claim"
        )
    return explanation.predicate
