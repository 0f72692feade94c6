"""Scores whose judge is a language model that is asked: detection, fuzz, intruder, simulation, saebench_autointerp."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from neuronaut.agent.llm.gateway import Gateway
from neuronaut.agent.scores.asking import (
    Activations,
    Active,
    Ask,
    Intruder,
    Labels,
    activations_of,
    active_of,
    ask_each,
    intruder_of,
    labels_of,
    shown,
)
from neuronaut.agent.scores.base import Case, Explanation, Judged, Labelled, Name
from neuronaut.agent.scores.simulated import simulation_number
from neuronaut.prompts import render
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.learn.arithmetic import BalancedAccuracy, Mean
from neuronaut.tools.learn.items import TENTHS, Items, intruder_questions, quiz_of, simulated_windows, with_shown
from neuronaut.tools.learn.marks import Marks, active_marks, marked, matched_marks, published_marks
from neuronaut.tools.learn.subject import items_of, shown_windows
from neuronaut.tools.learn.windows import Window

TOGETHER = 5  # texts of one question
N_TOP, N_RANDOM = 5, 5  # windows that are simulated


@dataclass(frozen=True)
class _Asked:
    gateway: Gateway = field(repr=False)
    mode: str = ""
    of: str = "share"
    judges_unit: bool = False

    @property
    def judge_named(self) -> str:
        """Provider and model."""
        return f"{self.gateway.model.provider}:{self.gateway.model.model}"

    @property
    def judge_source(self) -> str:
        """The address that is asked, or the hash of a script."""
        return self.gateway.model.source


@dataclass(frozen=True)
class Classified(_Asked, ABC):
    """Balanced accuracy of labels that are given to windows, five together, with or without marks."""

    def classified(self, texts: Sequence[str], truth: Sequence[bool], windows: Sequence[Window], case: Case) -> Judged:
        """The number of texts in a random order."""
        order = np.random.default_rng(case.seed).permutation(len(texts)).tolist()
        groups = [order[at : at + TOGETHER] for at in range(0, len(order), TOGETHER)]
        asks: list[Ask[list[bool]]] = [
            Ask(texts_prompt(case.explanation, [texts[i] for i in group]), len(group)) for group in groups
        ]
        asked = ask_each(self.gateway, str(self.name), Labels, asks, labels_of)
        asked.check()
        said = {i: label for group, labels in zip(groups, asked.found, strict=True) if labels is not None
                for i, label in zip(group, labels, strict=True)}  # fmt: skip
        kept = sorted(said)
        number = BalancedAccuracy([truth[i] for i in kept], [said[i] for i in kept])
        documents = tuple(windows[i].document for i in kept)
        return Judged(number, documents, asked.replies, items=_labelled(windows, truth, said))

    @property
    @abstractmethod
    def name(self) -> Name:
        """The name of the score."""


def _labelled(windows: Sequence[Window], truth: Sequence[bool], said: Mapping[int, bool]) -> tuple[Labelled, ...]:
    """The windows with their labels; the active ones come first, by tenths of equal count."""
    each = max(1, sum(truth) // TENTHS)
    return tuple(
        Labelled(
            one.document, one.pieces, tuple(round(float(a), 5) for a in one.activations), active, said.get(i),
            i // each if active else None,
        )
        for i, (one, active) in enumerate(zip(windows, truth, strict=True))
    )  # fmt: skip


@dataclass(frozen=True)
class Detection(Classified):
    """Does the unit respond somewhere in the window?"""

    chance: float | None = 0.5

    @property
    def name(self) -> Name:
        """The name of the score."""
        return "detection"

    def judge(self, case: Case) -> Judged:
        """On documents that no explainer is shown."""
        return self._on(items_of(case.subject, case.seed), case)

    def as_published(self, case: Case) -> Judged | None:
        """One of the five windows of each tenth is the strongest that the explainer was shown."""
        items = with_shown(items_of(case.subject, case.seed), shown_windows(case.context, case.subject))
        return self._on(items, case)

    def _on(self, items: Items, case: Case) -> Judged:
        windows = [*items.positives, *items.negatives]
        truth = [True] * len(items.positives) + [False] * len(items.negatives)
        found = self.classified([shown(window.text) for window in windows], truth, windows, case)
        return replace(found, notes=items.notes)


@dataclass(frozen=True)
class Fuzz(Classified):
    """Are the marked tokens those that the unit responds to?"""

    chance: float | None = 0.5

    @property
    def name(self) -> Name:
        """The name of the score."""
        return "fuzz"

    def judge(self, case: Case) -> Judged:
        """As many marks in windows without activation as in those with, at random places."""
        items = items_of(case.subject, case.seed)
        return self._on(items, matched_marks(items, case.seed), case)

    def as_published(self, case: Case) -> Judged | None:
        """More marks in windows without activation, always at the same places."""
        items = items_of(case.subject, case.seed)
        return self._on(items, published_marks(items), case)

    def _on(self, items: Items, negative: list[Marks], case: Case) -> Judged:
        windows = [*items.positives, *items.negatives]
        marks = [*map(active_marks, items.positives), *negative]
        texts = [with_marks(window, one) for window, one in zip(windows, marks, strict=True)]
        found = self.classified(texts, [True] * len(items.positives) + [False] * len(negative), windows, case)
        return replace(found, notes=items.notes)


@dataclass(frozen=True)
class Intruders(_Asked):
    """Which of five windows is the one in which the unit does not respond? Four are of one tenth; no explanation is given."""

    chance: float | None = 0.2
    judges_unit: bool = True
    name: Name = "intruder"

    def judge(self, case: Case) -> Judged:
        """Mean of right answers, one question for each window without activation."""
        items = items_of(case.subject, case.seed)
        marks = {id(one): found for one, found in zip(items.negatives, matched_marks(items, case.seed), strict=True)}
        questions = intruder_questions(items, case.seed)
        asks: list[Ask[int]] = []
        for question in questions:
            texts = [with_marks(one, marks.get(id(one), active_marks(one))) for one in question.windows]
            asks.append(Ask(render("score_intruder", texts=texts), len(texts)))
        asked = ask_each(self.gateway, "intruder", Intruder, asks, intruder_of)
        asked.check()
        pairs = [(q, said) for q, said in zip(questions, asked.found, strict=True) if said is not None]
        right = Mean([float(said == question.intruder) for question, said in pairs])
        return Judged(right, tuple(q.windows[q.intruder].document for q, _ in pairs), asked.replies, notes=items.notes)

    def as_published(self, case: Case) -> Judged | None:
        """The same."""
        return None


@dataclass(frozen=True)
class SimulationReplies(_Asked):
    """The language model writes an activation for each token: a mode without log-probabilities."""

    mode: str = "replies"
    of: str = "Pearson r"
    chance: float | None = 0.0
    name: Name = "simulation"

    def judge(self, case: Case) -> Judged:
        """Correlation over the tokens of all windows together; a window without a usable reply is left out, never 0."""
        top, drawn = simulated_windows(case.subject.windows, N_TOP, N_RANDOM, case.seed)
        windows = [*top, *drawn]
        asks: list[Ask[list[float]]] = []
        for window in windows:
            tokens = [f'"{shown(piece)}"' for piece in window.pieces]
            prompt = render("score_simulation", explanation=shown(case.explanation.text), tokens=tokens)
            asks.append(Ask(prompt, len(tokens)))
        asked = ask_each(self.gateway, "simulation", Activations, asks, activations_of)
        asked.check()
        kept = [(window, said) for window, said in zip(windows, asked.found, strict=True) if said is not None]
        random = {id(window) for window in drawn}
        return simulation_number(kept, random, asked.replies)

    def as_published(self, case: Case) -> Judged | None:
        """The same, where no reply failed: the reference code would put zeros in the place of the others."""
        return None


@dataclass(frozen=True)
class Saebench(_Asked):
    """Which of 14 windows are those in which the unit responds? Raw accuracy beside balanced accuracy."""

    chance: float | None = 0.5
    name: Name = "saebench_autointerp"

    def judge(self, case: Case) -> Judged:
        """Balanced accuracy with the random windows checked; as published, their accuracy as if the unit were silent there."""
        quiz = quiz_of(case.subject.windows, case.seed)
        if all(quiz.active):
            raise ToolRefused(
                "the unit is active in all 14 windows: it fires nearly everywhere, so that nothing can be told"
            )
        asks: list[Ask[list[bool]]] = [
            Ask(texts_prompt(case.explanation, [shown(w.text) for w in quiz.windows]), len(quiz.windows))
        ]
        asked = ask_each(self.gateway, "saebench", Active, asks, active_of)
        asked.check()
        said = asked.found[0]
        assert said is not None
        raw = Mean([float(one == told) for one, told in zip(said, quiz.told, strict=True)])
        none = float(np.mean([not told for told in quiz.told]))
        found = sum(active and not told for active, told in zip(quiz.active, quiz.told, strict=True))
        notes = (f"the unit is active in {found} of the random windows",) if found else ()
        documents = tuple(window.document for window in quiz.windows)
        beside = {"raw accuracy of naming none": none}
        return Judged(BalancedAccuracy(quiz.active, said), documents, asked.replies, raw, beside, notes)

    def as_published(self, case: Case) -> Judged | None:
        """The same items."""
        return None


def texts_prompt(explanation: Explanation, texts: Sequence[str]) -> str:
    """The question about some texts."""
    return render("score_texts", explanation=shown(explanation.text), texts=list(texts))


def with_marks(window: Window, marks: Marks) -> str:
    """The window in one line with the marked tokens between << and >>."""
    return marked([shown(piece) for piece in window.pieces], marks)
