"""Names for the parts of a model that a question can be about."""

import re
from dataclasses import dataclass, replace
from typing import Literal, Self, assert_never

from neuronaut.tools.errors import UserError

Kind = Literal["neuron", "head", "feature", "task"]
Sign = Literal[1, -1]

TASK = "task:"
SAE = "sae:"
_FEATURE = re.compile(r"sae:([A-Za-z0-9][A-Za-z0-9_.-]{0,63})/(\d{1,9})")
_FORMS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("head", re.compile(r"L(\d{1,9})\.?H(\d{1,9})|head\s+L?(\d{1,9})[.\s]H?(\d{1,9})", re.IGNORECASE)),
    ("neuron", re.compile(r"L(\d{1,9})\.?N(\d{1,9})|(?:neuron\s+)?L?(\d{1,9})\.N?(\d{1,9})", re.IGNORECASE)),
)


@dataclass(frozen=True, order=True)
class Unit:
    """One neuron, head or feature of a dictionary, or what a circuit is for: a task. `sign` -1 asks about the neuron's
    activations below its median, printed `8.481-`. name: of the dictionary, which knows the layer (0 here), or of the task,
    whose layer and index are 0."""

    kind: Kind
    layer: int
    index: int
    sign: Sign = 1
    name: str = ""

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
        """The unit that `text` names: `8.481`, `neuron 8.481`, `L8.N481`, `head 8.3`, `L8H3`, `sae:NAME/12`; a trailing `-` is
        sign -1; `task:NAME`.

        Refuses: anything else, in one sentence.
        """
        if text.startswith(TASK):
            return cls.of_task(text.removeprefix(TASK))
        body, sign = text.strip(), 1
        if body.endswith(("-", "+")):
            body, sign = body[:-1].rstrip(), (-1 if body.endswith("-") else 1)
        if match := _FEATURE.fullmatch(body):
            return cls.of_feature(match[1], int(match[2]), -1 if sign < 0 else 1)
        for kind, form in _FORMS:
            if match := form.fullmatch(body):
                layer, index = (int(group) for group in match.groups() if group is not None)
                return cls(kind, layer, index, -1 if sign < 0 else 1)
        raise UserError(
            f"{text!r} names no unit: write a neuron as 8.481, a head as L8H3 or 'head 8.3', a feature as sae:NAME/12"
        )

    @property
    def address(self) -> str:
        """The shortest name that parses back to this unit."""
        minus = "-" if self.sign < 0 else ""
        match self.kind:
            case "neuron":
                return f"{self.layer}.{self.index}{minus}"
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
