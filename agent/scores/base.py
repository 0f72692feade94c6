"""What a score is: a judge asked about the windows of a unit with an explanation, and the number of what it says."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.learn.arithmetic import Number
from neuronaut.tools.learn.subject import Subject
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.registry import ToolContext

MOST_FAILED = 0.05  # of the replies; with more there is no number

Name = Literal[
    "detection", "fuzz", "simulation", "simulation_transluce", "embedding", "surprisal", "intruder", "intervention", "n2g_f1",
    "saebench_autointerp",
]  # fmt: skip
Needs = Literal["llm", "simulator", "predicate"]


@dataclass(frozen=True)
class Explanation:
    """A sentence, where it comes from, and the predicate that it puts into words, where it is one."""

    text: str
    source: str
    predicate: Predicate | None = None


@dataclass(frozen=True)
class Replies:
    """How many replies could be used. n_parse_fail: came, but were no whole reply of the form asked for, twice. n_api_fail:
    never came."""

    n_ok: int = 0
    n_parse_fail: int = 0
    n_api_fail: int = 0

    def check(self, why: str = "") -> None:
        """Refuses more than 5 % of failures. why: of one of them."""
        failed = self.n_parse_fail + self.n_api_fail
        if failed > MOST_FAILED * (self.n_ok + failed):
            told = f"; {why}" if why else ""
            raise ToolRefused(
                f"{failed} of {self.n_ok + failed} replies failed ({self.n_parse_fail} could not be used, {self.n_api_fail} never "
                f"came), more than {MOST_FAILED:.0%}, and nothing is put in their place{told}"
            )


@dataclass(frozen=True)
class Case:
    """What is judged: the windows of a unit, and an explanation, which may be that of another unit."""

    context: ToolContext = field(repr=False)
    subject: Subject
    explanation: Explanation
    seed: int


@dataclass(frozen=True)
class Labelled:
    """A window that was judged. tenth: of the unit's activating windows, 0 the weakest; None of a window without activation.
    said: None where no reply could be used."""

    document: int
    pieces: tuple[str, ...]
    activations: tuple[float, ...]
    active: bool
    said: bool | None
    tenth: int | None


@dataclass(frozen=True)
class Judged:
    """The number of what a judge said, and the document of each item. published: the same items, as the reference code counts.

    beside: other numbers of the same items. notes: what a reader should know. items: of a judge who labels windows, each
    window in order with its label.
    """

    number: Number
    documents: tuple[int, ...]
    replies: Replies = Replies()
    published: Number | None = None
    beside: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    items: tuple[Labelled, ...] = ()


class Score(Protocol):
    """One of the scores, with its judge."""

    @property
    def name(self) -> Name: ...

    @property
    def mode(self) -> str:
        """How it is judged, where there is more than one way."""
        ...

    @property
    def of(self) -> str:
        """The unit of measure."""
        ...

    @property
    def chance(self) -> float | None:
        """The number where nothing is known; None where there is none."""
        ...

    @property
    def judges_unit(self) -> bool:
        """Whether the explanation plays no part."""
        ...

    @property
    def judge_named(self) -> str:
        """Who judges, as it is recorded."""
        ...

    @property
    def judge_source(self) -> str:
        """What else decides what it says: the address that is asked, the hash of a script, or of weights."""
        ...

    def judge(self, case: Case) -> Judged:
        """The number. Refuses what cannot be scored: too few windows, too many failed replies, a number that is not defined."""
        ...

    def as_published(self, case: Case) -> Judged | None:
        """The number on the items that the reference code would choose; None where they are the same."""
        ...
