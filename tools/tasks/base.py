"""A task: prompts of which the right answer is known, each with a corrupted twin of equal length.

A task knows several wordings. Fillers (names, first items, countries) belong to one half each, so that what is found on
search prompts is tested on fillers that the search never saw.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.intervene.next_token import tokens_at_once
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.tasks.wordings import Expressed, Pair, Wording, express, written
from neuronaut.tools.tokens import Vocabulary

Half = Literal["search", "test"]
Family = Literal["copying", "names", "order", "sequences", "grammar", "facts"]
Item = TypeVar("Item")

MIN_PROMPTS = 4  # of a half; a sequence of days has no more
TRIES = 40  # drawn for each prompt that is asked for, before the tokenizer is given up on
PROBES = 16  # prompts of a wording on which it is seen whether the target can do it
DONE = 0.85  # accuracy on them from which on a wording is used
SOLVED = 0.8  # accuracy from which on a task is done


class Setting(NamedTuple):
    """What one pair is drawn for."""

    rng: Random
    wording: Wording
    corruption: str
    half: Half
    vocabulary: Vocabulary


@dataclass(frozen=True)
class TaskPrompts:
    """Clean prompts and their corrupted twins as one target sees them.

    clean, corrupted: (n, pos) int64 token ids, BOS first where the model has one. right, wrong: (n, k) int64 answer
    tokens, padded with -1. groups: (n,) int64, the unit of resampling (wording and filler). roles: (pos,) the slot that
    stands at a position in every prompt, "end" at the last one, "" where the prompts differ or no slot stands.
    among_answers: a prompt is answered rightly when the likeliest *answer* is a right one, not the likeliest token.
    """

    name: str
    corruption: str
    half: Half
    clean_texts: tuple[str, ...]
    corrupted_texts: tuple[str, ...]
    clean: Tensor
    corrupted: Tensor
    right: Tensor
    wrong: Tensor
    groups: NDArray[np.int64]
    roles: tuple[str, ...]
    among_answers: bool

    def __len__(self) -> int:
        return len(self.clean)

    def score(self, logits_last: Tensor) -> Tensor:
        """(n,) float64 log-odds of the right answers against the wrong ones, of (n, d_vocab) logits at the last position.

        Nats; 0 is undecided. For single answers the difference of their logits.
        """
        logits = logits_last.double()
        return torch.logsumexp(_of(logits, self.right), 1) - torch.logsumexp(_of(logits, self.wrong), 1)

    def answered(self, logits_last: Tensor) -> NDArray[np.bool_]:
        """(n,) True where the likeliest token (of the answers, for tasks of forms) is a right one."""
        logits = logits_last.double()
        best = _of(logits, self.right).amax(1)
        rival = _of(logits, self.wrong).amax(1) if self.among_answers else logits.amax(1)
        return np.asarray((best > rival if self.among_answers else best >= rival).numpy())

    def accuracy(self, logits_last: Tensor) -> float:
        """The share of prompts that are answered rightly."""
        return float(self.answered(logits_last).mean())

    def select(self, rows: Sequence[int] | NDArray[np.integer]) -> "TaskPrompts":
        """The named prompts only, their groups numbered from 0 again."""
        at = torch.as_tensor(np.asarray(rows, dtype=np.int64))
        texts = [tuple(found[int(row)] for row in at) for found in (self.clean_texts, self.corrupted_texts)]
        ids = {name: getattr(self, name)[at] for name in ("clean", "corrupted", "right", "wrong")}
        groups = np.unique(self.groups[at.numpy()], return_inverse=True)[1]
        return replace(self, clean_texts=texts[0], corrupted_texts=texts[1], groups=groups, **ids)


def _of(logits: Tensor, answers: Tensor) -> Tensor:
    """(n, k) logits of answers, -inf at padding."""
    return logits.gather(1, answers.clamp(min=0)).masked_fill(answers < 0, -torch.inf)


@dataclass(frozen=True)
class Task:
    """A prompt family. corruptions: the first is the usual one. draw: a pair, or None where this draw makes none.

    forms: the answers are the forms among which the target chooses (a verb, a bracket), so that accuracy looks at them
    alone.
    """

    name: str
    family: Family
    about: str
    wordings: tuple[Wording, ...]
    corruptions: tuple[str, ...]
    draw: Callable[[Setting], Pair | None]
    forms: bool = False

    def prompts(
        self, target: TargetModel, n: int, *, seed: int, corruption: str | None = None, half: Half = "search"
    ) -> TaskPrompts:
        """At most `n` different prompts, in the wordings that the target can do (in the best, where it can do none).

        The same for the same seed. The two halves share no filler. Refuses a corruption that the task lacks, and a task
        that the tokenizer cannot express.
        """
        return self._made(target, self.wordings_for(target), n, seed, self._corruption(corruption), half)

    def wordings_for(self, target: TargetModel) -> tuple[Wording, ...]:
        """The wordings in which the target has the task right, seen on a few search prompts of each; the best of them where
        there is none. Refuses a task that cannot be expressed."""
        known = _WORDINGS.setdefault(target, {})
        if self.name not in known:
            shares = {
                wording: share for wording in self.wordings if (share := self._probed(target, wording)) is not None
            }
            if not shares:
                raise ToolRefused(
                    f"{target.spec.name} cannot be asked {self.name!r}: its tokenizer does not cut the answers into single "
                    "tokens, or the clean and corrupted prompts into equally many; choose another task"
                )
            least = min(DONE, max(shares.values()))
            known[self.name] = tuple(one for one, share in shares.items() if share >= least)
        return known[self.name]

    def _probed(self, target: TargetModel, wording: Wording) -> float | None:
        """The accuracy on a few search prompts; None for a wording that the tokenizer cannot express."""
        try:
            prompts = self._made(target, (wording,), PROBES, 0, self.corruptions[0], "search")
        except ToolRefused:
            return None
        return prompts.accuracy(last_logits(target, prompts.clean))

    def _corruption(self, name: str | None) -> str:
        if name is not None and name not in self.corruptions:
            raise ToolRefused(
                f"{self.name} has no corruption {name!r}: choose from {', '.join(map(repr, self.corruptions))}"
            )
        return name or self.corruptions[0]

    def _made(
        self, target: TargetModel, wordings: Sequence[Wording], n: int, seed: int, corruption: str, half: Half
    ) -> TaskPrompts:
        found, need = [], min(n, MIN_PROMPTS)
        for wording in wordings:
            found += self._drawn(target, wording, n, seed, corruption, half)
        kept = _of_one_length(found)[:n]
        if len(kept) < need:
            raise ToolRefused(
                f"{self.name} gives only {len(kept)} prompts of one length with the tokenizer of {target.spec.name}, and "
                f"at least {need} are needed: choose another task"
            )
        return self._together(kept, corruption, half)

    def _drawn(
        self, target: TargetModel, wording: Wording, n: int, seed: int, corruption: str, half: Half
    ) -> list[Expressed]:
        """At most `n` expressible prompts of a wording, without repetition."""
        rng = Random(f"{self.name}/{wording}/{corruption}/{half}/{seed}")
        setting = Setting(rng, wording, corruption, half, target.vocabulary)
        pairs: dict[tuple[str, str], Pair] = {}
        for _ in range(TRIES * n):
            pair = self.draw(setting)
            if pair is not None:
                pairs.setdefault((written(wording, pair.clean), written(wording, pair.corrupted)), pair)
            if len(pairs) >= 3 * n:
                break
        return _of_one_length(express(target, wording, list(pairs.values())))[:n]

    def _together(self, kept: Sequence[Expressed], corruption: str, half: Half) -> TaskPrompts:
        numbers = {group: number for number, group in enumerate(dict.fromkeys(one.group for one in kept))}
        roles = tuple(same[0] if len(set(same)) == 1 else "" for same in zip(*(one.roles for one in kept), strict=True))
        return TaskPrompts(
            self.name,
            corruption,
            half,
            tuple(one.clean_text for one in kept),
            tuple(one.corrupted_text for one in kept),
            torch.tensor([one.clean for one in kept]),
            torch.tensor([one.corrupted for one in kept]),
            _padded([one.right for one in kept]),
            _padded([one.wrong for one in kept]),
            np.array([numbers[one.group] for one in kept], dtype=np.int64),
            roles,
            self.forms,
        )


_WORDINGS: WeakKeyDictionary[TargetModel, dict[str, tuple[Wording, ...]]] = WeakKeyDictionary()


def of_half(items: Sequence[Item], half: Half) -> list[Item]:
    """Every other one of the items, in a fixed random order: the halves share none."""
    order = Random(f"{len(items)} items").sample(range(len(items)), len(items))
    return [items[at] for at in sorted(order[half == "test" :: 2])]


def _of_one_length(found: Sequence[Expressed]) -> list[Expressed]:
    """Those of the length that most wordings have, then most prompts; wordings take turns."""
    lengths: dict[int, dict[str, list[Expressed]]] = {}
    for one in found:
        lengths.setdefault(len(one.clean), {}).setdefault(one.group.partition("\0")[0], []).append(one)
    if not lengths:
        return []
    best = max(lengths.values(), key=lambda worded: (len(worded), sum(map(len, worded.values()))))
    longest = max(map(len, best.values()))
    return [same[at] for at in range(longest) for same in best.values() if at < len(same)]


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """(n, k) of rows of different lengths, -1 behind them."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows])


class Solved(NamedTuple):
    """What a target makes of prompts. accuracy: share answered rightly. gap: mean score of the clean less that of the
    corrupted prompts, nats; 0 is no difference. kept: (n,) the clean prompts that it has right. clean, corrupted: (n,)
    scores of all prompts."""

    accuracy: float
    gap: float
    kept: NDArray[np.bool_]
    clean: NDArray[np.float64]
    corrupted: NDArray[np.float64]


def solved(target: TargetModel, prompts: TaskPrompts) -> Solved:
    """How well the target does, clean and corrupted."""
    logits = last_logits(target, prompts.clean)
    clean = prompts.score(logits).numpy()
    corrupted = prompts.score(last_logits(target, prompts.corrupted)).numpy()
    kept = prompts.answered(logits)
    return Solved(float(kept.mean()), float((clean - corrupted).mean()), kept, clean, corrupted)


def require_solved(target: TargetModel, prompts: TaskPrompts) -> Solved:
    """The same. Refuses prompts that the target cannot do: no part of it carries what it does not do."""
    found = solved(target, prompts)
    if found.accuracy < SOLVED:
        raise ToolRefused(
            f"{target.spec.name} cannot do {prompts.name!r}: accuracy {found.accuracy:.2f} (at least {SOLVED} is asked); "
            "`tasks` lists what it can do"
        )
    if found.gap <= 0:
        raise ToolRefused(
            f"the corruption {prompts.corruption!r} of {prompts.name!r} makes no difference to {target.spec.name} "
            f"(gap {found.gap:.2f} nats): choose another corruption"
        )
    return found


def last_logits(target: TargetModel, ids: Tensor) -> Tensor:
    """(n, d_vocab) at the last position, in batches."""
    size = max(1, tokens_at_once(target) // ids.shape[1])
    parts = [target.run(part, logits=True).logits for part in torch.split(ids, size)]
    return torch.cat([part[:, -1] for part in parts if part is not None])
