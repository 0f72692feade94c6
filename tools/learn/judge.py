"""A local language model as a judge: log-probabilities of texts, their embeddings, and activations that it simulates."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuronaut.tools.errors import ToolFailed, ToolRefused
from neuronaut.tools.intervene.answers import answer_ids
from neuronaut.tools.intervene.next_token import text_batches
from neuronaut.tools.learn.arithmetic import Floats, expected_levels
from neuronaut.tools.look.activations import to_ids
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.tokens import tokens_from_ids

LEVELS = tuple(str(level) for level in range(11))
GAP, UNKNOWN = "\t", "unknown\n"

Ids = tuple[int, ...]


class Asked(NamedTuple):
    """A row of token ids, and the positions at which it is read."""

    ids: Ids
    at: Ids


class Judge:
    """A model whose insides can be read. Texts are cut into tokens by themselves and then joined."""

    def __init__(self, model: TargetModel) -> None:
        self.model = model
        self._ids: dict[str, Ids] = {}
        self._whole: dict[str, Ids] = {}

    def ids(self, text: str) -> Ids:
        """The tokens of a text, without special ones."""
        if text not in self._whole:
            tokens = self.model.tokenize([text]) if text else None
            special = self.model.vocabulary.special
            rows = () if tokens is None else tuple(int(token) for token in tokens.ids.reshape(-1) if token >= 0)
            self._whole[text] = tuple(token for token in rows if token not in special)
        return self._whole[text]

    def inner(self, text: str) -> Ids:
        """The tokens of a text that stands inside another one: spelled exactly where the tokenizer can."""
        if text not in self._ids:
            try:
                self._ids[text] = answer_ids(self.model, text)
            except ToolRefused:
                self._ids[text] = self.ids(text)
        return self._ids[text]

    @property
    def _start(self) -> Ids:
        bos = self.model.spec.bos
        return () if bos is None else (bos,)

    def log_probs(self, pairs: Sequence[tuple[str, str]]) -> list[Floats]:
        """(n_tokens,) log-probability of each token of a text behind a prefix, for each pair of prefix and text.

        Refuses a pair that does not fit into the context, and a first token with nothing before it.
        """
        asked = []
        for prefix, text in pairs:
            before, own = self._start + self.ids(prefix), self.inner(text)
            if not before or not own:
                raise ToolRefused("a text and what stands before it must each hold a token: give a longer explanation")
            asked.append(Asked(before + own, tuple(range(len(before) - 1, len(before) + len(own) - 1))))

        def chosen(row: Asked, logits: Tensor) -> Floats:
            following = torch.tensor([row.ids[at + 1] for at in row.at])
            found = torch.log_softmax(logits.double(), dim=-1).gather(1, following[:, None])[:, 0]
            return np.asarray(found.numpy())

        return self._read(asked, chosen)

    def loss(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """(n,) cross-entropy of each text behind its prefix, nats a token."""
        return np.array([-found.mean() for found in self.log_probs(pairs)])

    def embeddings(self, texts: Sequence[str]) -> Floats:
        """(n, d_model) mean residual behind the last layer, over a text's tokens, special ones left out."""
        rows = [self._start + self.inner(text) for text in texts]
        self._check(rows)
        first, site = len(self._start), Site("resid_post", self.model.spec.n_layers - 1)
        tokens = tokens_from_ids(rows, self.model.vocabulary)
        found = np.zeros((len(rows), self.model.spec.d_model))
        for numbers, part in text_batches(self.model, tokens):
            read = self.model.run(to_ids(part), read=[site]).read[site].double()
            for into, row, length in zip(numbers, read, part.lengths.tolist(), strict=True):
                found[into] = row[first:length].mean(dim=0).numpy()
        return found

    def simulated(self, heads: Sequence[str], windows: Sequence[Sequence[str]]) -> list[Floats]:
        """(n_tokens,) simulated activation of each token of each window, 0 to 10: the mean of the distribution over the
        tokens "0" to "10" behind each "token<tab>" of a list in which every activation is written as unknown.

        heads: beginnings of the prompt, the longest first; the first that leaves room for a whole window is taken, else the
        last, and the window is cut into as many prompts as it needs.
        Refuses a tokenizer that cuts "10" into several tokens, and a context without room for the prompt.
        Source: Bills et al. 2023 (all activations of a text from one prompt).
        """
        levels = self._level_ids()
        asked, whose = [], []
        for number, pieces in enumerate(windows):
            for part in self._prompts(heads, pieces):
                asked.append(part)
                whose.append(number)

        def expected(row: Asked, logits: Tensor) -> Floats:
            chosen = torch.softmax(logits.double()[:, levels], dim=-1)
            return expected_levels(np.asarray(chosen.numpy()))

        found: list[list[Floats]] = [[] for _ in windows]
        for number, values in zip(whose, self._read(asked, expected), strict=True):
            found[number].append(values)
        return [np.concatenate(parts) for parts in found]

    def _level_ids(self) -> list[int]:
        place = {piece: at for at, piece in reversed(list(enumerate(self.model.vocabulary.pieces)))}
        if missing := [level for level in LEVELS if level not in place]:
            raise ToolRefused(
                f"{self.model.spec.name} cannot simulate with log-probabilities: its tokenizer has no single token for "
                f"{', '.join(repr(level) for level in missing)}; name another --simulator"
            )
        return [place[level] for level in LEVELS]

    def _prompts(self, heads: Sequence[str], pieces: Sequence[str]) -> list[Asked]:
        gap, unknown, room = self.inner(GAP), self.inner(UNKNOWN), self.model.spec.n_ctx
        before = [self.inner(piece) + gap for piece in pieces]
        whole = sum(map(len, before)) + len(pieces) * len(unknown)
        starts = [self._start + self.ids(head) for head in heads]
        start = next((one for one in starts if len(one) + whole <= room), starts[-1])
        if len(start) + max(map(len, before)) > room:
            raise ToolRefused(
                f"the prompt of {len(start)} tokens does not fit into the context of {self.model.spec.name} ({room} tokens): "
                "name another --simulator, or a shorter explanation"
            )
        prompts, ids, at = [], start, Ids()
        for line in before:
            if len(ids) + len(line) > room:
                prompts.append(Asked(ids, at))
                ids, at = start, Ids()
            at = (*at, len(ids) + len(line) - 1)
            ids = ids + line + unknown
        return [*(Asked(one.ids[:room], one.at) for one in prompts), Asked(ids[:room], at)]

    def _check(self, rows: Sequence[Ids]) -> None:
        longest = max(map(len, rows))
        if longest > self.model.spec.n_ctx:
            raise ToolRefused(
                f"a text of {longest} tokens, with what stands before it, does not fit into the context of "
                f"{self.model.spec.name} ({self.model.spec.n_ctx} tokens): name another --simulator, or a shorter explanation"
            )

    def _read(self, asked: Sequence[Asked], read: Callable[[Asked, Tensor], Floats]) -> list[Floats]:
        """What `read` makes of the logits at the positions of each row."""
        self._check([one.ids for one in asked])
        tokens = tokens_from_ids([one.ids for one in asked], self.model.vocabulary)
        found: dict[int, Floats] = {}
        for numbers, part in text_batches(self.model, tokens):
            logits = self.model.run(to_ids(part), logits=True).logits
            assert logits is not None
            if not bool(torch.isfinite(logits).all()):
                raise ToolFailed(f"{self.model.spec.name} gives logits that are not finite")
            for number, row in zip(numbers.tolist(), logits, strict=True):
                found[number] = read(asked[number], row[torch.tensor(asked[number].at)])
        return [found[number] for number in range(len(asked))]


def cosines(one: Floats, others: NDArray[np.float64]) -> Floats:
    """(n,) cosine of a vector with each of others, (n, d)."""
    return np.asarray(others @ one / (np.linalg.norm(others, axis=1) * np.linalg.norm(one)))
