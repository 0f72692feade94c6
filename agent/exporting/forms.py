"""The rows and bodies that Neuronpedia takes, with its limits as types. docs/exports.md says where each limit was read."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

MOST_FEATURES = 128  # of one upload
MOST_LINES = 1024  # of one batch file of features or explanations
LONGEST_TEXT = 512  # characters of an uploaded explanation
MOST_TOKENS = 1024  # of one uploaded activation
MOST_INDEX = 10_000_000
LONGEST_VECTOR = 24_576
MOST_STRENGTH = 300
NEURONS = "neurons"  # the source set of sources that are a bare layer number
_MODEL = re.compile(r"[a-z0-9_-]{1,128}")
_SOURCE = re.compile(r"(?:\d+|\d+-[a-z0-9][a-z0-9_.-]*)")


def layer_of(source: str) -> int:
    """The layer of a source id such as `6` or `6-res-jb`."""
    return int(source.partition("-")[0])


def set_of(source: str) -> str:
    """The source set of a source id: what follows the first dash, up to `__`."""
    _, dash, rest = source.partition("-")
    return rest.split("__")[0] if dash else NEURONS


def _matching(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(what)
        return text

    return AfterValidator(check)


def _without_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("holds a NUL, which PostgreSQL stores in no text")
    return text


def _not_blank(text: str) -> str:
    if not text:
        raise ValueError("is empty")
    return text


def length(text: str) -> int:
    """Of a text as JavaScript counts it: characters outside the first plane are two."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _short(text: str) -> str:
    if length(text) > LONGEST_TEXT:
        raise ValueError(f"has {length(text)} characters, at most {LONGEST_TEXT} are taken")
    return text


ModelId = Annotated[str, _matching(_MODEL, "is no model id: 1 to 128 of a-z, 0-9, - and _")]
SourceId = Annotated[str, _matching(_SOURCE, "is no source id: a layer, or a layer, a dash and a name in lower case")]
Index = Annotated[str, _matching(re.compile(r"0|[1-9]\d*"), "is no index: a whole number as text")]
Text = Annotated[str, AfterValidator(_without_nul)]
Filled = Annotated[Text, AfterValidator(_not_blank)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Numbers = list[Number]


class _Form(BaseModel):
    """Strict: a number is no text and a text no number. Unknown columns are refused: an insert would drop them unseen."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


# Rows of the dataset: columns of Neuronpedia's tables of the same names


class ModelRow(_Form):
    """A line of model.jsonl; created only where there is no model of the id."""

    id: ModelId
    layers: Annotated[int, Field(ge=0)]
    neuronsPerLayer: Annotated[int, Field(ge=0)]
    owner: Filled
    creatorId: Filled
    displayName: Text = ""
    displayNameShort: Text = ""
    dimension: int | None = None
    visibility: Literal["PUBLIC", "UNLISTED", "PRIVATE"] = "PRIVATE"
    instruct: bool = False


class ReleaseRow(_Form):
    """A line of release.jsonl."""

    name: Filled
    description: Text
    creatorName: Text
    creatorId: Filled
    urls: list[Text] = []
    visibility: Literal["PUBLIC", "UNLISTED", "PRIVATE"] = "PRIVATE"


class SourceSetRow(_Form):
    """A line of sourceset.jsonl."""

    modelId: ModelId
    name: Filled
    description: Text
    creatorName: Text
    creatorId: Filled
    releaseName: Text | None = None
    urls: list[Text] = []
    visibility: Literal["PUBLIC", "UNLISTED", "PRIVATE"] = "PRIVATE"


class SourceRow(_Form):
    """A line of source.jsonl."""

    id: SourceId
    modelId: ModelId
    setName: Filled
    creatorId: Filled
    dataset: Text | None = None
    notes: Text | None = None
    visibility: Literal["PUBLIC", "UNLISTED", "PRIVATE"] = "PRIVATE"

    @model_validator(mode="after")
    def _of_its_set(self) -> Self:
        if self.setName != set_of(self.id):
            raise ValueError(f"setName {self.setName!r} is not the set of the source {self.id!r}, {set_of(self.id)!r}")
        return self


class FeatureRow(_Form):
    """A line of features/: table Neuron."""

    modelId: ModelId
    layer: SourceId
    index: Index
    sourceSetName: Filled
    creatorId: Text | None
    maxActApprox: Number | None
    frac_nonzero: Annotated[Number, Field(ge=-1, le=1)]  # -1 stands for not known
    hasVector: bool = False
    vector: Numbers = []
    vectorLabel: Text | None = None
    vectorDefaultSteerStrength: Number | None = None
    hookName: Text | None = None
    pos_str: list[Text] = []
    pos_values: Numbers = []
    neg_str: list[Text] = []
    neg_values: Numbers = []


class ExplanationRow(_Form):
    """A line of explanations/: table Explanation."""

    id: Filled
    modelId: ModelId
    layer: SourceId
    index: Index
    authorId: Filled
    description: Filled
    typeName: Text | None = None
    explanationModelName: Text | None = None
    notes: Text | None = None
    embedding: Numbers | None = None

    @model_validator(mode="after")
    def _embedded(self) -> Self:
        if self.embedding is not None and len(self.embedding) != 256:
            raise ValueError(f"the embedding has {len(self.embedding)} numbers instead of 256")
        return self


class ActivationRow(_Form):
    """A line of activations/: table Activation."""

    id: Filled
    modelId: ModelId
    layer: SourceId
    index: Index
    creatorId: Filled
    tokens: list[Text]
    values: Numbers
    maxValue: Number
    minValue: Number
    maxValueTokenIndex: Annotated[int, Field(ge=0)]
    dataSource: Text | None = None
    dataIndex: Text | None = None
    dfaValues: Numbers = []
    dfaTargetIndex: int | None = None
    dfaMaxValue: Number | None = None
    binMin: Number | None = None
    binMax: Number | None = None
    binContains: Number | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.values or len(self.tokens) != len(self.values):
            raise ValueError(f"{len(self.tokens)} tokens have {len(self.values)} values")
        if (self.maxValue, self.minValue) != (max(self.values), min(self.values)):
            raise ValueError("maxValue and minValue are not those of the values")
        if self.maxValueTokenIndex >= len(self.values) or self.values[self.maxValueTokenIndex] != self.maxValue:
            raise ValueError("maxValueTokenIndex is not the place of the largest value")
        return self


# Bodies of uploads


class UploadedExplanation(_Form):
    """An explanation of an uploaded feature. methodName, modelName: as registered there, or null."""

    text: Annotated[Filled, AfterValidator(_short)]
    methodName: Text | None = None
    modelName: Text | None = None


class UploadedActivation(_Form):
    """A text with the feature's value at each token."""

    tokens: Annotated[list[Filled], Field(min_length=1, max_length=MOST_TOKENS)]
    values: Annotated[Numbers, Field(min_length=1, max_length=MOST_TOKENS)]
    quantileMax: Annotated[Number, Field(le=99_999_999)] | None = None
    quantileMin: Annotated[Number, Field(le=99_999_999)] | None = None
    quantileFraction: Annotated[Number, Field(ge=0, le=1)] | None = None

    @model_validator(mode="after")
    def _a_value_each(self) -> Self:
        if len(self.tokens) != len(self.values):
            raise ValueError(f"{len(self.tokens)} tokens have {len(self.values)} values")
        return self


class UploadedFeature(_Form):
    """A feature; density is left out where it is not known, since null is refused."""

    index: Annotated[int, Field(ge=0, le=MOST_INDEX)]
    explanations: list[UploadedExplanation] = []
    activations: Annotated[list[UploadedActivation], Field(min_length=1)]
    density: Annotated[Number, Field(ge=0, le=1)] = 0.0


class FeatureUpload(_Form):
    """The body of POST /api/feature/upload-batch."""

    modelId: ModelId
    source: SourceId
    features: Annotated[list[UploadedFeature], Field(min_length=1, max_length=MOST_FEATURES)]

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        indices = [feature.index for feature in self.features]
        if len(set(indices)) < len(indices):
            raise ValueError("an index occurs twice in one upload")
        return self


class VectorUpload(_Form):
    """The body of POST /api/vector/new."""

    modelId: ModelId
    layerNumber: Annotated[int, Field(ge=0)]
    hookType: Literal["hook_resid_pre", "hook_resid_post"]
    vector: Annotated[Numbers, Field(min_length=1, max_length=LONGEST_VECTOR)]
    vectorDefaultSteerStrength: Annotated[Number, Field(ge=-MOST_STRENGTH, le=MOST_STRENGTH)]
    vectorLabel: Filled


ROWS: dict[str, type[_Form]] = {
    "model.jsonl": ModelRow, "release.jsonl": ReleaseRow, "sourceset.jsonl": SourceSetRow, "source.jsonl": SourceRow,
    "features": FeatureRow, "explanations": ExplanationRow, "activations": ActivationRow,
}  # fmt: skip
UPLOADS: dict[str, type[_Form]] = {"features": FeatureUpload, "vectors": VectorUpload}


def row_of(form: type[_Form], **values: Any) -> dict[str, Any]:
    """The row as it is written, checked. Raises ValidationError for values that the form refuses."""
    return form.model_validate(values).model_dump(exclude_unset=True)
