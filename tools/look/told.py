"""A text with what two lenses read of it, and what each part adds to what the model says, at every place."""

from dataclasses import dataclass

from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.intervene.next_token import token_id
from neuronaut.tools.look.activations import to_ids
from neuronaut.tools.look.examples import read_texts
from neuronaut.tools.look.lens import predictions, settled
from neuronaut.tools.look.margins import margins
from neuronaut.tools.look.readout import Readout
from neuronaut.tools.look.tuned_lens import TunedLens
from neuronaut.tools.registry import Array
from neuronaut.tools.targets.base import TargetModel


@dataclass(frozen=True)
class Told:
    """A text, (1, pos) ids, and what was read of it. logits: (n_layers + 1, pos, d_vocab) by lens; added: (n_parts, pos) to the
    margin of said (pos,) against rivals (pos,): the asked pair at the last place, before it what the model says there."""

    target: TargetModel
    readout: Readout
    ids: Tensor
    logits: dict[str, Tensor]
    said: Tensor
    rivals: Tensor
    added: Array

    @classmethod
    def of(cls, target: TargetModel, text: str, asked: tuple[str, str], lens: TunedLens | None) -> "Told":
        """asked: an answer and its rival, "" for the likeliest. Refuses texts and tokens that cannot be asked about."""
        readout, ids = Readout.of(target), to_ids(read_texts(target, (text,)))
        logits = {"plain": predictions(target, ids)}
        if lens is not None:
            logits["tuned"] = predictions(target, ids, lens)
        two = logits["plain"][-1].topk(2).indices
        said, rivals = two[:, 0].clone(), two[:, 1].clone()
        said[-1], rivals[-1] = _pair(target, logits["plain"][-1, -1], *asked)
        return cls(target, readout, ids, logits, said, rivals, margins(target, readout, ids, said, rivals))

    @property
    def pair(self) -> tuple[int, int]:
        """Answer and rival."""
        return int(self.said[-1]), int(self.rivals[-1])

    @property
    def margin(self) -> float:
        """Of the answer over its rival."""
        return float(self.added[:, -1].sum())

    def on_top_from(self, lens: str) -> Array:
        """(pos,) the first row from which on the likeliest token is the model's own; of the last place, the answer asked about,
        and one more than there are rows where it is not the likeliest in the end."""
        best = self.logits[lens].argmax(dim=-1)
        return settled(best, self.said)

    def held(self, lens: str) -> Array:
        """(n_layers + 1,) logits of the answer less those of its rival at the last place."""
        answer, rival = self.pair
        here = self.logits[lens][:, -1].double()
        return (here[:, answer] - here[:, rival]).numpy()


def _pair(target: TargetModel, logits: Tensor, said: str, against: str) -> tuple[int, int]:
    first, second = logits.topk(2).indices.tolist()
    answer = _token(target, said, logits) if said else first
    if not against:
        return answer, second if first == answer else first
    rival = _token(target, against, logits)
    if rival == answer:
        raise ToolRefused(
            f"answer and rival are both {target.vocabulary.pieces[answer]!r}: their margin is always 0, so name two"
        )
    return answer, rival


def _token(target: TargetModel, text: str, logits: Tensor) -> int:
    """The token of a text; without a leading space the likelier one of both."""
    pieces = target.vocabulary.pieces
    ways = [piece for piece in (text, f" {text}") if piece in pieces] if not text[0].isspace() else [text]
    if not ways:
        return token_id(target, text)
    return max((token_id(target, way) for way in ways), key=lambda token: float(logits[token]))
