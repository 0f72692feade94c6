"""What a proposer is shown, what it hands back, and the seam between."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

Side = Literal["reads", "writes"]
Pace = Literal["full", "fast"]


class Firing(Protocol):
    """When a unit fires: its activation is above `threshold`; firing mass is counted from `median`."""

    @property
    def threshold(self) -> float:
        """Of the activation, sign applied."""
        ...

    @property
    def median(self) -> float:
        """The activation's explore median."""
        ...


class Synthetic(NamedTuple):
    """A prompt that a search wrote because it drives the unit, and the activation at its last token. Nothing is tested on it."""

    text: str
    activation: float


@dataclass(frozen=True)
class Explored:
    """All that a proposer may know of one unit; confirm and audit text never enter.

    activations: (n_windows, n_pos), the unit's sign applied. damaged: the same for damaged explore text, where cues that
    come together in natural text come apart. wide: the same for more explore text, for what takes counting only.
    promoted: tokens that its firing makes likelier, best first. refuted: canonical JSON of predicates that a test of an
    earlier run refuted. recalled: sentences on earlier findings. synthetic: prompts of a dream, the strongest first. others:
    what other proposers have brought before. pace: fast where one hypothesis and its nearest rivals are wanted, soon.
    """

    unit: Unit
    tokens: Tokens
    activations: NDArray[np.float32]
    rule: Firing
    damaged: tuple[Tokens, NDArray[np.float32]] | None = None
    wide: tuple[Tokens, NDArray[np.float32]] | None = None
    promoted: tuple[str, ...] = ()
    refuted: tuple[str, ...] = ()
    recalled: tuple[str, ...] = ()
    synthetic: tuple[Synthetic, ...] = ()
    others: "tuple[Proposal, ...]" = ()
    pace: Pace = "full"


@dataclass(frozen=True)
class Proposal:
    """A hypothesis before its registration.

    explore_f1, precision, coverage: on all explore text (0 for the writes side). selection_f1: on the explore documents
    that the predicate was not fitted on. tried: predicates scored on the way, for the selection null. words: the author's
    own sentence, which nothing checks. wish, against: the author's order among its own hypotheses, and rivals that it wants
    this one tested against; wishes about order, which no verdict rests on.
    """

    side: Side
    predicate: Predicate
    claim: str
    author: str
    explore_f1: float = 0.0
    tried: int = 1
    precision: float = 0.0
    coverage: float = 0.0
    selection_f1: float = 0.0
    words: str = ""
    wish: int | None = None
    against: tuple[Predicate, ...] = ()


class Proposer(Protocol):
    """Anything that turns what is known of a unit into hypotheses worth a test."""

    @property
    def name(self) -> str:
        """The author written beside each of its hypotheses."""
        ...

    def propose(self, explored: Explored) -> list[Proposal]:
        """Rivals, the most promising first; empty where nothing was found that a test could carry."""
        ...
