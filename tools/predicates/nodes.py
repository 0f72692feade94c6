"""Predicates as data: a closed union of frozen models, JSON in and out, bounded in depth and size."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from neuronaut.tools.predicates.regexes import CLASS_ITEMS, EndRegex, Regex, branches
from neuronaut.tools.tokens import last_run

MAX_LEAVES = 64
MAX_STRINGS = 256
MAX_POSITION = 8192  # the last place that a predicate may name: "to the end"

Text = Annotated[str, Field(min_length=1, max_length=100)]
Texts = Annotated[tuple[Text, ...], Field(min_length=1, max_length=MAX_STRINGS)]


class _Node(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def children(self) -> tuple["Predicate", ...]:
        """The predicates inside this one."""
        return ()

    def items(self) -> int:
        """Cost of this node alone: tokens, words, regex branches, numeric parameters, one for a leaf."""
        return 1

    def __str__(self) -> str:
        from neuronaut.tools.predicates.text import readable

        return readable(self)  # type: ignore[arg-type]


class Token(_Node):
    """The current token is one of `any_of` (pieces with their leading space)."""

    kind: Literal["token"] = "token"
    any_of: Texts
    ignore_case: bool = False
    ignore_space: bool = False

    def items(self) -> int:
        return 1 + len(self.any_of)


class TokenMatches(_Node):
    """The current token's text matches the regular expression somewhere."""

    kind: Literal["token_matches"] = "token_matches"
    regex: Regex

    def items(self) -> int:
        return 1 + branches(self.regex)


class Word(_Node):
    """The whole word that contains the token is one of `any_of`."""

    kind: Literal["word"] = "word"
    any_of: Texts
    ignore_case: bool = False

    def items(self) -> int:
        return 1 + len(self.any_of)


class WordMatches(_Node):
    """The whole word that contains the token matches the regular expression somewhere."""

    kind: Literal["word_matches"] = "word_matches"
    regex: Regex

    def items(self) -> int:
        return 1 + branches(self.regex)


def _one_run(part: str) -> str:
    if last_run(part) != part:
        raise ValueError(f"{part!r} is no word so far: give letters, or marks, without a space")
    return part


class WordSoFar(_Node):
    """The word up to the end of the token is one of `any_of`: what a model that reads from left to right knows of it.

    Outside words it is the unbroken run of marks, or of white space, up to there.
    """

    kind: Literal["word_so_far"] = "word_so_far"
    any_of: Annotated[
        tuple[Annotated[Text, AfterValidator(_one_run)], ...], Field(min_length=1, max_length=MAX_STRINGS)
    ]
    ignore_case: bool = False

    def items(self) -> int:
        return 1 + len(self.any_of)


class At(_Node):
    """`inner` holds `offset` tokens earlier."""

    kind: Literal["at"] = "at"
    offset: int = Field(ge=1, le=64)
    inner: "Predicate"

    def children(self) -> tuple["Predicate", ...]:
        return (self.inner,)


class Within(_Node):
    """`inner` held in the last `window` tokens, the current one left out."""

    kind: Literal["within"] = "within"
    window: int = Field(ge=1, le=256)
    inner: "Predicate"

    def children(self) -> tuple["Predicate", ...]:
        return (self.inner,)


class Since(_Node):
    """`inner` held after the last place before the current token where `last` held (or since the start, if none)."""

    kind: Literal["since"] = "since"
    inner: "Predicate"
    last: "Predicate"

    def children(self) -> tuple["Predicate", ...]:
        return (self.inner, self.last)

    def items(self) -> int:
        return 0


class PrecededBy(_Node):
    """The text before the token ends with a match of the regular expression that is at most 64 characters long."""

    kind: Literal["preceded_by"] = "preceded_by"
    regex: EndRegex

    def items(self) -> int:
        return 1 + branches(self.regex)


class Inside(_Node):
    """All of the token lies after an opening mark that is not closed yet; pairs nest, equal marks take turns."""

    kind: Literal["inside"] = "inside"
    open: Annotated[str, Field(min_length=1, max_length=3)]
    close: Annotated[str, Field(min_length=1, max_length=3)]

    def items(self) -> int:
        return 3


class Repeated(_Node):
    """The same token occurred at least `min_gap` tokens earlier."""

    kind: Literal["repeated"] = "repeated"
    min_gap: int = Field(default=1, ge=1, le=256)

    def items(self) -> int:
        return 2


class Induction(_Node):
    """The `length` tokens before, followed by this token, occurred earlier."""

    kind: Literal["induction"] = "induction"
    length: int = Field(default=1, ge=1, le=8)

    def items(self) -> int:
        return 2


class Position(_Node):
    """The token's place in the window lies in [first, last], counted from 0 without special tokens."""

    kind: Literal["position"] = "position"
    first: int = Field(ge=0, le=MAX_POSITION)
    last: int = Field(ge=0, le=MAX_POSITION)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.first > self.last:
            raise ValueError(f"position {self.first} to {self.last} is empty: first must not be above last")
        return self

    def items(self) -> int:
        return 3


class StartsWord(_Node):
    """The token's first letter or digit begins a word, with or without the space before it."""

    kind: Literal["starts_word"] = "starts_word"


class StartsSentence(_Node):
    """The token begins the text's or a sentence's first word."""

    kind: Literal["starts_sentence"] = "starts_sentence"


class Digit(_Node):
    """The token holds a digit."""

    kind: Literal["digit"] = "digit"

    def items(self) -> int:
        return CLASS_ITEMS


class Capitalised(_Node):
    """The token's first letter is upper case."""

    kind: Literal["capitalised"] = "capitalised"

    def items(self) -> int:
        return CLASS_ITEMS


class Punctuation(_Node):
    """The token holds neither letter nor digit nor is it white space alone."""

    kind: Literal["punctuation"] = "punctuation"

    def items(self) -> int:
        return CLASS_ITEMS


class AllOf(_Node):
    """Each of the parts holds."""

    kind: Literal["all_of"] = "all_of"
    of: Annotated[tuple["Predicate", ...], Field(min_length=2, max_length=MAX_LEAVES)]

    def children(self) -> tuple["Predicate", ...]:
        return self.of

    def items(self) -> int:
        return 0


class AnyOf(_Node):
    """At least one of the parts holds; the strength is the largest of theirs."""

    kind: Literal["any_of"] = "any_of"
    of: Annotated[tuple["Predicate", ...], Field(min_length=2, max_length=MAX_LEAVES)]

    def children(self) -> tuple["Predicate", ...]:
        return self.of

    def items(self) -> int:
        return 0


class Not(_Node):
    """The part does not hold."""

    kind: Literal["not"] = "not"
    inner: "Predicate"

    def children(self) -> tuple["Predicate", ...]:
        return (self.inner,)

    def items(self) -> int:
        return 0


class Mode(BaseModel):
    """One mode of a polysemantic unit and its strength in (0, 1]."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    predicate: "Predicate"
    strength: float = Field(gt=0, le=1)


class Modes(_Node):
    """A polysemantic unit: each mode gets its own verdict; where several hold, the strongest counts."""

    kind: Literal["modes"] = "modes"
    of: Annotated[tuple[Mode, ...], Field(min_length=2, max_length=16)]

    def children(self) -> tuple["Predicate", ...]:
        return tuple(mode.predicate for mode in self.of)

    def items(self) -> int:
        return len(self.of)


class Weighted(BaseModel):
    """A part of a graded predicate and its weight in (0, 1]."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    predicate: "Predicate"
    weight: float = Field(gt=0, le=1)


class Graded(_Node):
    """The weights of the parts that hold, added and cut off at 1."""

    kind: Literal["graded"] = "graded"
    of: Annotated[tuple[Weighted, ...], Field(min_length=1, max_length=16)]

    def children(self) -> tuple["Predicate", ...]:
        return tuple(part.predicate for part in self.of)

    def items(self) -> int:
        return len(self.of)


class Promotes(_Node):
    """Writes side: when the unit fires, these tokens become likelier."""

    kind: Literal["promotes"] = "promotes"
    tokens: Texts

    def items(self) -> int:
        return 1 + len(self.tokens)


class Suppresses(_Node):
    """Writes side: when the unit fires, these tokens become less likely."""

    kind: Literal["suppresses"] = "suppresses"
    tokens: Texts

    def items(self) -> int:
        return 1 + len(self.tokens)


Predicate = Annotated[
    Token | TokenMatches | Word | WordMatches | WordSoFar | At | Within | Since | PrecededBy | Inside | Repeated | Induction
    | Position | StartsWord | StartsSentence | Digit | Capitalised | Punctuation | AllOf | AnyOf | Not | Modes | Graded
    | Promotes | Suppresses,
    Field(discriminator="kind"),
]  # fmt: skip

for _model in (At, Within, Since, AllOf, AnyOf, Not, Mode, Modes, Weighted, Graded):
    _model.model_rebuild()
