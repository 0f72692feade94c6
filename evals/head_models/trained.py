"""Heads that training puts into small attention-only models, one task each; kept on disk by the hash of the recipe."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from neuronaut.evals.fixtures import BOS, gpt2_config, write_folder
from neuronaut.evals.head_models.measure import UNSCORED, Kind, Task
from neuronaut.tools.files import cache_folder

Lesson = Literal["positional", "successor", "duplicate", "induction"]  # cheap ones first
LESSONS: tuple[Lesson, ...] = get_args(Lesson)
LETTERS, LENGTH = 12, 24
ASK = LETTERS + 1  # the token that asks for a successor
PLACE = ASK + 1  # the token that says position 0
D_VOCAB = PLACE + LENGTH
TASK_TEXTS = 256
VERSION = 1


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, but for the machine."""

    lesson: Lesson
    seed: int
    layers: int
    heads: int
    steps: int
    batch: int = 32
    rate: float = 1e-2
    d_model: int = 48
    decay: float = 0.01
    previous: bool = False  # a probe that is thrown away teaches the first layer the token before
    version: int = VERSION

    @property
    def key(self) -> str:
        """A hash."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:32]


def recipe(lesson: Lesson, seed: int) -> Recipe:
    """How a lesson is taught."""
    if lesson == "induction":
        return Recipe(lesson, seed, 2, 2, 1000, batch=64, rate=8e-3, d_model=64, decay=0.0, previous=True)
    steps = {"duplicate": 400, "successor": 200, "positional": 120}[lesson]
    return Recipe(lesson, seed, 1, 2, steps)


def expected(lesson: Lesson) -> tuple[Kind, ...]:
    """The kinds of heads that a lesson needs."""
    return ("previous", "induction") if lesson == "induction" else (lesson,)


def _letters(n: int, made: torch.Generator) -> Tensor:
    return torch.randint(1, LETTERS + 1, (n, LENGTH), generator=made)


def _induction(n: int, made: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random letters, and what followed the letter before, if it stood there once.

    Nothing is repeated: texts that come again are also told by models that only count places.
    """
    texts, places = _duplicate(n, made)
    followed = texts.gather(1, (places - PLACE + 1).clamp(0, LENGTH - 1))
    return texts, followed.where(places != UNSCORED, UNSCORED)


def _duplicate(n: int, made: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random letters, and where the letter stood before, if once."""
    texts = _letters(n, made)
    same = (texts[:, :, None] == texts[:, None, :]).tril(-1)
    return texts, (PLACE + same.float().argmax(-1)).where(same.sum(-1) == 1, UNSCORED)


def _successor(n: int, made: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random letters and questions between them; at a question the letter after the one before it, in a circle."""
    texts = _letters(n, made)
    ask = torch.rand(texts.shape, generator=made) < 0.4
    ask[:, 0] = False
    for place in range(1, LENGTH):
        ask[:, place] &= ~ask[:, place - 1]
    after = F.pad(texts, (1, 0))[:, :-1] % LETTERS + 1
    return texts.where(~ask, ASK), after.where(ask, UNSCORED)


def _positional(n: int, made: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random letters, and the first of them."""
    texts = _letters(n, made)
    return texts, texts[:, :1].where(torch.arange(LENGTH) > 0, UNSCORED)


LESSON: Mapping[Lesson, Callable[[int, torch.Generator], tuple[Tensor, Tensor]]] = {
    "induction": _induction,
    "duplicate": _duplicate,
    "successor": _successor,
    "positional": _positional,
}


def _texts(lesson: Lesson, n: int, made: torch.Generator) -> tuple[Tensor, Tensor]:
    """(n, 1 + LENGTH) ids and answers, the start token first."""
    texts, answers = LESSON[lesson](n, made)
    return F.pad(texts, (1, 0)), F.pad(answers, (1, 0), value=UNSCORED)


def task_of(lesson: Lesson, seed: int) -> Task:
    """Texts that the training did not draw."""
    made = torch.Generator().manual_seed(seed + 1_000_003)
    ids, answers = _texts(lesson, TASK_TEXTS, made)
    return Task(ids, answers, F.pad(_letters(TASK_TEXTS, made), (1, 0)))


def more_texts(lesson: Lesson, n: int, seed: int) -> Tensor:
    """(n, LENGTH) ids of texts that neither the training nor the task drew, without the start token."""
    return LESSON[lesson](n, torch.Generator().manual_seed(seed + 2_000_003))[0]


def folder_of(one: Recipe) -> Path:
    """Where the model lies, whether or not it is there."""
    return cache_folder().parent / "heads" / one.key


def trained(one: Recipe) -> Path:
    """The folder of the model; it is trained if it is not there. The weights are written last."""
    folder = folder_of(one)
    if not (folder / "model.safetensors").is_file():
        config = gpt2_config(
            n_layers=one.layers, n_heads=one.heads, d_model=one.d_model, d_mlp=4, n_ctx=LENGTH + 1, d_vocab=D_VOCAB
        )
        letters = [chr(ord("a") + i) for i in range(LETTERS)]
        pieces = (BOS, *letters, "?", *(str(place) for place in range(LENGTH)))
        write_folder(folder, config, _train(one, config), pieces)
    return folder


def _train(one: Recipe, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights. The MLPs write nothing and are not trained."""
    import transformers

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(one.seed)
        model: Any = transformers.GPT2LMHeadModel(transformers.GPT2Config(**config))
        probe = torch.nn.Linear(one.d_model, D_VOCAB) if one.previous else None
    for block in model.transformer.h:
        for parameter in block.mlp.parameters():
            parameter.data.zero_()
            parameter.requires_grad_(False)
    if probe is not None:
        _spread(model, one)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights += [] if probe is None else list(probe.parameters())
    optimizer = torch.optim.AdamW(weights, lr=one.rate, betas=(0.9, 0.98), weight_decay=one.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, one.rate, one.steps)
    made = torch.Generator().manual_seed(one.seed)
    for _ in range(one.steps):
        ids, answers = _texts(one.lesson, one.batch, made)
        run = model(ids, use_cache=False, output_hidden_states=probe is not None)
        loss = F.cross_entropy(run.logits.flatten(0, 1), answers.flatten(), ignore_index=UNSCORED)
        if probe is not None:
            before = probe(run.hidden_states[1])[:, 1:]
            loss = loss + F.cross_entropy(before.flatten(0, 1), ids[:, :-1].flatten())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return dict(model.state_dict())


def _spread(model: Any, one: Recipe) -> None:
    """Larger embeddings, positions as waves: a head finds the place before by one rotation."""
    half = one.d_model // 2
    angles = torch.arange(LENGTH + 1)[:, None] * 60.0 ** (-torch.arange(half) / half)
    model.transformer.wpe.weight.data.copy_(0.5 * torch.cat([angles.sin(), angles.cos()], dim=1))
    model.transformer.wte.weight.data.mul_(17.5)
