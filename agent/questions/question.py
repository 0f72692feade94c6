"""What is asked: the intents, and what each is about."""

from dataclasses import dataclass
from typing import Literal

from neuronaut.agent.questions.readouts import ReadoutAsked
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.units import Unit

Intent = Literal[
    "explain", "kind", "every", "matter", "why", "story", "circuit", "compare", "share", "backup", "dream", "look", "concept",
    "match", "changed", "survived", "readout",
]  # fmt: skip
HeadKind = Literal["previous", "current", "first", "duplicate", "induction", "copying", "successor"]
Parts = Literal["neurons", "heads", "components"]
CAN_ASK = (
    'ask about one neuron or head ("what does neuron 8.481 do"), a feature ("what does feature sae:NAME/12 do"), '
    'a kind of head ("which heads are induction heads") or all of them ("describe every head"), '
    "a prompt (\"which heads matter for 'PROMPT'\", \"why does the model say ' X' after 'PROMPT'\", "
    "\"how does the model come to ' X' after 'PROMPT'\"), "
    'a task ("find the circuit for TASK", "compare the circuits of TASK and TASK", "which parts do TASK, TASK and TASK share", '
    '"what remains of TASK without its most important head"), for prompts that drive a unit ("dream of 8.481"), '
    'labelled texts ("find units for the concept NAME", with --labels NAME=FILE.jsonl), another model ("match the units with NAME", '
    '"what changed in NAME", with --other NAME=FOLDER), earlier weights ("what survived of NAME"), a read-out '
    '("does the read-out of 8.481 at resid_post 9 use it", "does head NAME use neuron 8.481", with --head NAME=FOLDER), '
    'give a hypothesis of your own ("test 8.481: at(1, digit)") or name a tool (\'tool top_examples {"unit": "8.481"}\')'
)


@dataclass(frozen=True)
class Question:
    """What is asked.

    unit, signs: of `explain`, both signs of a neuron unless one is named. kind: of heads. parts, prompt: what may matter,
    and for which text. answer: the token that is asked about after the prompt; "" is the likeliest. tasks: one, two to
    compare, or several that may share parts; without: the head that is taken from a task, None for the most important
    one; by_position: of heads and MLPs at single places of the prompt. role: only which text needs the unit. given: a
    hypothesis of the asker about the unit. answer, wrong_answer: of `dream`, where it is no unit. tool, arguments: of `look`, the
    arguments as JSON. labels: the name of labelled texts, of which the label `answer` is the concept. others: names of other
    models; none are the layers of the model itself or, of `changed`, the only checkpoint that is registered. earlier: name or
    hash of earlier weights, "" for those of the same name. readout: which may use the unit.
    """

    text: str
    intent: Intent
    unit: Unit | None = None
    signs: tuple[Literal[1, -1], ...] = ()
    kind: HeadKind | None = None
    parts: Parts = "components"
    prompt: str = ""
    answer: str = ""
    wrong_answer: str = ""
    tasks: tuple[str, ...] = ()
    without: Unit | None = None
    by_position: bool = False
    role: bool = False
    given: Predicate | None = None
    tool: str = ""
    arguments: str = "{}"
    labels: str = ""
    others: tuple[str, ...] = ()
    earlier: str = ""
    readout: ReadoutAsked | None = None
