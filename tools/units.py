"""Names for the parts of a model that a question can be about."""

import re
from dataclasses import dataclass, replace
from typing import Literal, Self, assert_never

from neuronaut.tools.errors import UserError

Kind = Literal["neuron", "head", "router", "feature", "task"]
Sign = Literal[1, -1]

TASK = "task:"
SAE = "sae:"
_FEATURE = re.compile(r"sae:([A-Za-z0-9][A-Za-z0-9_.-]{0,63})/(\d{1,9})")
_EXPERT = re.compile(
    r"L(\d{1,9})\.?E(\d{1,9})\.?N(\d{1,9})|(?:neuron\s+)?L?(\d{1,9})\.E(\d{1,9})\.N?(\d{1,9})", re.IGNORECASE
)
_FORMS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("head", re.compile(r"L(\d{1,9})\.?H(\d{1,9})|head\s+L?(\d{1,9})[.\s]H?(\d{1,9})", re.IGNORECASE)),
    ("router", re.compile(r"L?(\d{1,9})\.R(?:outer\.?)?(\d{1,9})|router\s+L?(\d{1,9})\.R?(\d{1,9})", re.IGNORECASE)),
    ("neuron", re.compile(r"L(\d{1,9})\.?N(\d{1,9})|(?:neuron\s+)?L?(\d{1,9})\.N?(\d{1,9})", re.IGNORECASE)),
)


@dataclass(frozen=True, order=True)
class Unit:
    """One neuron, head or feature of a dictionary, the share that a router gives to an expert, or what a circuit is for: a task.

    `sign` -1 asks about the neuron's activations below its median, printed `8.481-`. name: of the dictionary, which knows the
    layer (0 here), or of the task, whose layer and index are 0. expert: that of a neuron, whose index counts within it; of a
    router the index is the expert.
    """

    kind: Kind
    layer: int
    index: int
    sign: Sign = 1
    name: str = ""
    expert: int | None = None

    @classmethod
    def of_task(cls, name: str) -> Self:
        """What the whole model does at a task."""
        return cls("task", 0, 0, name=name)

    @classmethod
    def of_feature(cls, dictionary: str, index: int, sign: Sign = 1) -> Self:
        """A feature of a dictionary, by the name under which it is registered."""
        return cls("feature", 0, index, sign, dictionary)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The unit that `text` names: `8.481`, `neuron 8.481`, `L8.N481`, `8.e7.481` of expert 7, `8.r7` or `8.router.7` its
        router's share, `head 8.3`, `L8H3`, `sae:NAME/12`; a trailing `-` is sign -1; `task:NAME`.

        Refuses: anything else, in one sentence.
        """
        if text.startswith(TASK):
            return cls.of_task(text.removeprefix(TASK))
        body, sign = text.strip(), 1
        if body.endswith(("-", "+")):
            body, sign = body[:-1].rstrip(), (-1 if body.endswith("-") else 1)
        if match := _FEATURE.fullmatch(body):
            return cls.of_feature(match[1], int(match[2]), -1 if sign < 0 else 1)
        if match := _EXPERT.fullmatch(body):
            layer, expert, index = (int(group) for group in match.groups() if group is not None)
            return cls("neuron", layer, index, -1 if sign < 0 else 1, expert=expert)
        for kind, form in _FORMS:
            if match := form.fullmatch(body):
                layer, index = (int(group) for group in match.groups() if group is not None)
                return cls(kind, layer, index, -1 if sign < 0 else 1)
        raise UserError(
            f"{text!r} names no unit: write a neuron as 8.481 (of expert 7: 8.e7.481), a head as L8H3 or 'head 8.3', a feature as sae:NAME/12"
        )

    @property
    def address(self) -> str:
        """The shortest name that parses back to this unit."""
        minus = "-" if self.sign < 0 else ""
        match self.kind:
            case "neuron":
                expert = "" if self.expert is None else f"e{self.expert}."
                return f"{self.layer}.{expert}{self.index}{minus}"
            case "router":
                return f"{self.layer}.r{self.index}{minus}"
            case "head":
                return f"L{self.layer}H{self.index}{minus}"
            case "feature":
                return f"{SAE}{self.name}/{self.index}{minus}"
            case "task":
                return f"{TASK}{self.name}"
            case _ as never:
                assert_never(never)

    def with_sign(self, sign: Sign) -> Self:
        """The same part of the model asked about in the other direction."""
        return replace(self, sign=sign)

    def __str__(self) -> str:
        return self.address
