"""From the words of a question to an intent and what it is about, or a sentence that says what can be asked."""

import re
from dataclasses import dataclass
from typing import Literal

from neuronaut.agent.readout_questions import ReadoutAsked, readout_asked
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import simplify
from neuronaut.tools.units import Unit

Intent = Literal[
    "explain", "kind", "every", "matter", "why", "story", "circuit", "compare", "share", "backup", "dream", "look", "concept",
    "match", "changed", "survived", "readout",
]  # fmt: skip
HeadKind = Literal["previous", "current", "first", "duplicate", "induction", "copying", "successor"]
Parts = Literal["neurons", "heads", "components"]

SHOWN = 300  # characters of a question that is not understood
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
_LOOK = re.compile(r"tool\s+([a-z_]+)\s*(\{.*\})?", re.DOTALL)
_FEATURE = r"sae:[A-Za-z0-9][A-Za-z0-9_.-]{0,63}/\d{1,9}"
_GIVEN = re.compile(
    rf"test\s+(?:(?:neuron\s+)?(L?\d+\.(?:E\d+\.)?N?\d+|L?\d+\.R(?:outer\.)?\d+)|(?:feature\s+)?({_FEATURE}))(-?)(?:\s*:\s*|\s+)(.+)",
    re.IGNORECASE | re.DOTALL,
)
_NAMED_FEATURE = re.compile(rf"(?<![\w:]){_FEATURE}(?!\w)")
_NAMED_IN_EXPERT = re.compile(
    r"\b(?:neuron\s+#?)?L?(\d+)\.E(\d+)\.N?(\d+)\b|\bL(\d+)E(\d+)N(\d+)\b|"
    r"\bneuron\s+#?(\d+)\s+(?:of|in)\s+expert\s+#?(\d+)\s+(?:of|in|from|at)\s+layer\s+(\d+)",
    re.IGNORECASE,
)
_NAMED_ROUTER = re.compile(r"\b(?:router\s+)?L?(\d+)\.R(?:outer\.?)?(\d+)\b|\brouter\s+L?(\d+)\.(\d+)\b", re.IGNORECASE)
_NAMED_NEURON = re.compile(
    r"\bL(\d+)\.?N(\d+)\b|\bneuron\s+#?L?(\d+)\s*[.:/]\s*N?(\d+)|\blayer\s+(\d+)[,\s]+neuron\s+#?(\d+)|"
    r"\bneuron\s+#?(\d+)\s+(?:of|in|from|at)\s+layer\s+(\d+)",
    re.IGNORECASE,
)
_NAMED_HEAD = re.compile(
    r"\bL(\d+)\.?H(\d+)\b|\b(?:attention\s+)?heads?\s+#?L?(\d+)\s*[.:/\s]\s*H?(\d+)|\blayer\s+(\d+)[,\s]+head\s+#?(\d+)|"
    r"\bhead\s+#?(\d+)\s+(?:of|in|from|at)\s+layer\s+(\d+)",
    re.IGNORECASE,
)
_BARE = re.compile(r"(?<![\w.-])(\d+)\.(\d+)(?![\w]|\.\d)")
_DOWNWARD = re.compile(r"\b(?:\d+\.(?:E\d+\.)?\d+|L\d+\.?(?:E\d+\.?)?N\d+)-(?!\w)", re.IGNORECASE)
_QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|`([^`]+)`|(?<!\w)'((?:[^']|(?<=\w)'(?=\w))+)'(?!\w)|‘([^’]+)’")
_KINDS: tuple[tuple[HeadKind, str], ...] = (
    ("previous", r"previous[- ]?token|previous|prev"),
    ("current", r"current[- ]?token|current|self"),
    ("first", r"first[- ]?token|first"),
    ("duplicate", r"duplicate[- ]?token|duplicate"),
    ("induction", r"induction"),
    ("copying", r"copying|copy"),
    ("successor", r"successor|incrementing"),
)
_CIRCUIT = re.compile(
    r"\bcircuits?\b\s*(?:for|of|that|behind|to|:)?\s*(?:the\s+task\s+)?(.*)", re.IGNORECASE | re.DOTALL
)
_COMPARE = re.compile(r"\bcompare\b|\bshare\b|\boverlap\b|\bin common\b|\bdiffer", re.IGNORECASE)
_ROLE = re.compile(r"\b(?:needs?|needed|breaks?|without|lost|role)\b", re.IGNORECASE)
_QUOTES = "'\"“”‘’`"
_BY_POSITION = re.compile(r"[\s,]+(?:by|at each|with)\s+positions?\b", re.IGNORECASE)
_TAIL = re.compile(r"\s+(?:have in common|share|overlap|differ)\b.*", re.IGNORECASE | re.DOTALL)
_DREAM = re.compile(r"(?:please\s+)?dreams?\s+(?:up\s+)?(?:of|for|about)\b\s*(.*)", re.IGNORECASE | re.DOTALL)
_PARTS = re.compile(r"\b(?:parts?|components?|circuits?|heads|mlps)\b(.*)", re.IGNORECASE | re.DOTALL)
_LEAD = re.compile(
    r"^\s*(?:(?:do|does|are|is|that|shared|of|for|by|between|among|across|the\s+circuits)\s+)*", re.IGNORECASE
)
_SHARED = re.compile(r"\b(?:share|shared|in common)\b", re.IGNORECASE)
_REMAINS = re.compile(
    r"\bwhat\s+(?:remains|is left)\s+of\s+(.*?)\s+without\s+(?:its\s+(?:most\s+)?(?:important|main)\s+head|(?:head\s+)?L?(\d+)[.H](\d+))",
    re.IGNORECASE | re.DOTALL,
)
_BACKUPS = re.compile(r"\bback-?\s?ups?\b(?:\s+heads?)?.*?\b(?:for|of|in)\s+(.*)", re.IGNORECASE | re.DOTALL)
_MATTER = re.compile(
    r"\b(?:which|what)\s+(neurons?|heads?|components?|parts?)\b.*?\bmatters?(?:\s+most)?\s+(?:for|in|to|after|at)\b\s*(.*)",
    re.IGNORECASE | re.DOTALL,
)
_CONCEPT = re.compile(
    r"\b(?:units?|neurons?|features?|heads?|directions?)\b.*?\b(?:concept|labels?)\b\s*:?\s*(.*)",
    re.IGNORECASE | re.DOTALL,
)
_MATCH = re.compile(
    r"\b(?:match|matches)\b.*?\b(?:units|neurons)\b.*?\b(?:with|to|in|of|and|across|between)\b\s*(.*)|"
    r"\b(?:which|what)\b.*?\b(?:units|neurons)\b.*?\b(?:same|universal|shared|matched|too)\b.*?\b(?:in|with|across|of|between)\b\s*(.*)",
    re.IGNORECASE | re.DOTALL,
)
_LAYERS = re.compile(r"(?:the\s+|its\s+)?(?:other\s+|own\s+)?layers?", re.IGNORECASE)
_REGISTERED = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9_-])?"
_CHANGED = re.compile(r"\bwhat(?:'s|\s+(?:has|have|is|was))?\s+(?:changed|different)\b(.*)", re.IGNORECASE | re.DOTALL)
_SURVIVED = re.compile(r"\b(?:survived|still\s+holds?)\b", re.IGNORECASE)
_OF_NAMED = re.compile(r"\b(?:of|from|about)\s+([\w./-]{1,120})", re.IGNORECASE)
_IN_NAMED = re.compile(r"\b(?:in|of|to|and|with|by|at|for)\s+([A-Za-z0-9][A-Za-z0-9_.-]{0,63})$")
_WHY = re.compile(
    r"\bwhy\b.*?\b(?:say|says|predicts?|writes?|outputs?|completes?|continues?|answers?)\b\s*(?:with\s+)?(.*)",
    re.IGNORECASE | re.DOTALL,
)
_STORY = re.compile(
    r"\b(?:how\b.*?\b(?:come|comes|came|get|gets|got|arrive|arrives)\s+(?:up\s+with|to|at)|how\b.*?\bdecides?\s+(?:on|for)|"
    r"which\s+layers?\b.*?\bdecides?(?:\s+(?:on|for))?|story\s+of)\b\s*(?:say(?:ing)?\s+)?(.*)",
    re.IGNORECASE | re.DOTALL,
)
_EVERY = re.compile(
    r"\b(?:describe|list|explain|what\s+do(?:es)?|(?:table|dictionary)\s+of)\b.*\b(?:(?:every|each)\s+(?:attention\s+)?head|"
    r"(?:all|the)\s+(?:of\s+the\s+)?(?:attention\s+)?heads)\b|\bhead\s+dictionary\b",
    re.IGNORECASE | re.DOTALL,
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


def parse_question(text: str, *, n_heads: int | None = None, d_mlp: int | None = None) -> Question:
    """The question that `text` asks, in any of the wordings that people use.

    n_heads, d_mlp: of the target, where known: a bare `8.3` that could be a head or a neuron is refused.
    Refuses what names nothing that can be asked about, and several units at once, in one sentence each.
    """
    text = text.strip()
    if not text:
        raise UserError(f"the question is empty: {CAN_ASK}")
    for reading in READINGS:
        if (question := reading(text)) is not None:
            return question
    about = _about_a_unit(text, n_heads, d_mlp)
    return _dreamt(about) if _DREAM.match(text) else about


def _by_a_tool(text: str) -> Question | None:
    match = _LOOK.fullmatch(text)
    return match and Question(text, "look", tool=match[1], arguments=match[2] or "{}")


def _about_a_claim(text: str) -> Question | None:
    match = _GIVEN.fullmatch(text)
    if match is None:
        return None
    try:
        given = simplify(parse_text(match[4]))
    except ToolRefused as error:
        raise UserError(f"the hypothesis cannot be tested: {error} (docs/verdicts.md has the language)") from None
    sign: Literal[1, -1] = -1 if match[3] else 1
    unit = Unit.parse(match[2] or match[1])
    return Question(text, "explain", unit, (sign,), given=given)


def _about_a_readout(text: str) -> Question | None:
    found = readout_asked(text, _QUOTED.sub(" ", text))
    return found and Question(text, "readout", found[0], (1,), readout=found[1])


def _about_a_concept(text: str) -> Question | None:
    match = _CONCEPT.search(text)
    if match is None:
        return None
    rest = match[1].strip().rstrip("?.!").strip()
    label = next(iter(_all_quoted(rest)), "")
    named = re.sub(r"^(?:of|in|from)\s+", "", _QUOTED.sub(" ", rest).strip())
    if not re.fullmatch(_REGISTERED, named):
        raise UserError(
            f'{text!r} names no labelled texts: register them with --labels NAME=FILE.jsonl and ask "find units for the concept '
            'NAME", or, of several labels, "find units for the concept \'LABEL\' in NAME"'
        )
    return Question(text, "concept", labels=named, answer=label)


def _about_matches(text: str) -> Question | None:
    match = _MATCH.search(text)
    if match is None or "circuit" in text.lower() or _BARE.search(text):
        return None
    rest = (match[1] or match[2] or "").strip().rstrip("?.!").strip()
    if _LAYERS.fullmatch(rest):
        return Question(text, "match")
    names = [name for name in re.split(r"\s*,\s*(?:and\s+)?|\s+and\s+", _unquoted(rest)) if name]
    if not names or not all(re.fullmatch(_REGISTERED, name) for name in names):
        raise UserError(
            f'{text!r} names no other model: register it with --other NAME=FOLDER and ask "match the units with NAME", or '
            '"match the units across layers"'
        )
    return Question(text, "match", others=tuple(dict.fromkeys(names)))


def _about_a_change(text: str) -> Question | None:
    match = _CHANGED.search(text)
    if match is None:
        return None
    rest = match[1].strip().rstrip("?!").rstrip(". ")
    named, others = _IN_NAMED.search(rest), tuple[str, ...]()
    if named is not None and not any(
        unit.search(named[0]) for unit in (_BARE, _NAMED_HEAD, _NAMED_NEURON, _NAMED_IN_EXPERT)
    ):
        rest, others = rest[: named.start()], (named[1],)
    about = None
    if any(unit.search(rest) for unit in (_BARE, _NAMED_HEAD, _NAMED_NEURON, _NAMED_IN_EXPERT)):
        about = _about_a_unit(rest, None, None).unit
    return Question(text, "changed", unit=about, others=others)


def _about_survivors(text: str) -> Question | None:
    if _SURVIVED.search(text) is None:
        return None
    named = _OF_NAMED.search(text)
    return Question(text, "survived", earlier=named[1].rstrip("./-") if named else "")


def _about_a_dream(text: str) -> Question | None:
    """A dream of logits; one of a unit is about that unit."""
    match = _DREAM.match(text)
    if match is None or not (quoted := _all_quoted(match[1])):
        return None
    if len(quoted) != 2:
        raise UserError(
            f"{text!r} names {len(quoted)} tokens: dream of the logit of one over that of another, as in "
            "\"dream of ' Mary' over ' Lucy'\""
        )
    return Question(text, "dream", answer=quoted[0], wrong_answer=quoted[1])


def _dreamt(about: Question) -> Question:
    unit = about.unit
    assert unit is not None
    if unit.kind == "head":
        raise UserError(
            f"{unit.address} is a head, which has no one activation a token: dream of a neuron or a feature"
        )
    return Question(about.text, "dream", unit.with_sign(about.signs[0]), about.signs[:1])


def _about_backups(text: str) -> Question | None:
    match = _REMAINS.search(text)
    if match is not None:
        head = None if match[2] is None else Unit("head", int(match[2]), int(match[3]))
        return Question(text, "backup", tasks=(_task_in(match[1]),), without=head)
    match = _BACKUPS.search(text)
    if match is None or _NAMED_HEAD.search(text) or _NAMED_NEURON.search(text):
        return None
    return Question(text, "backup", tasks=(_task_in(match[1]),))


def _about_shared_parts(text: str) -> Question | None:
    """Several tasks that may share parts; two whose circuits are named are left to `compare`."""
    if not _SHARED.search(text) or any(named.search(text) for named in (_NAMED_HEAD, _NAMED_NEURON, _NAMED_FEATURE)):
        return None
    match = _PARTS.search(_TAIL.sub("", text) if not re.search(r"\bshared\b", text, re.IGNORECASE) else text)
    if match is None:
        return None
    listed = _LEAD.sub("", match[1])
    names = [_task_in(part) for part in re.split(r"\s*,\s*(?:and\s+)?|\s+and\s+", listed)]
    names = [name for name in names if name]
    if len(names) < 3 and re.search(r"\bcircuits?\b", text, re.IGNORECASE):
        return None
    if len(names) < 2:
        raise UserError(
            f"{text!r} names {len(names)} tasks: name two or more, as in "
            '"which parts do months, days and digits share" (`neuronaut tool tasks` lists them)'
        )
    return Question(text, "share", tasks=tuple(names))


def _task_in(text: str) -> str:
    """The words of a task, out of quotes."""
    return text.strip(" ?.!,:'\"“”‘’`")


def _about_a_circuit(text: str) -> Question | None:
    match = _CIRCUIT.search(text)
    if match is None or any(named.search(text) for named in (_NAMED_HEAD, _NAMED_NEURON, _NAMED_IN_EXPERT)):
        return None
    rest = _BY_POSITION.sub("", _unquoted(match[1])).strip(" ?.!")
    if _COMPARE.search(text):
        rest = _TAIL.sub("", match[1].strip(" ?.!"))
        names = [part.strip(" ,'\"?.") for part in re.split(r"\s+(?:and|with|vs\.?|versus|to)\s+|\s*,\s*", rest)]
        names = [name for name in names if name]
        if len(names) != 2:
            raise UserError(
                f"{text!r} names {len(names)} tasks: compare two, as in "
                '"compare the circuits of increasing digits and increasing months" (`neuronaut tool tasks` lists them)'
            )
        return Question(text, "compare", tasks=tuple(names))
    if not rest:
        raise UserError(
            f'{text!r} names no task: write "find the circuit for increasing months" (`neuronaut tool tasks` lists them)'
        )
    return Question(text, "circuit", tasks=(rest,), by_position=_BY_POSITION.search(text) is not None)


def _about_a_prompt(text: str) -> Question | None:
    match = _MATTER.search(text)
    if match is None:
        return None
    quoted, prompt, answer = _all_quoted(match[2]), _prompt_of(match[2]), ""
    if not prompt:
        raise UserError(
            f"{text!r} names no prompt: write it in quotes, as in \"which heads matter for 'After Mary and'\""
        )
    if len(quoted) == 2 and re.search(r"\bafter\b", _QUOTED.sub("", match[2]), re.IGNORECASE):
        answer, prompt = quoted
    elif len(quoted) > 1:
        raise UserError(
            f"{text!r} names {len(quoted)} prompts: ask about one, or write \"which heads matter for ' met' after 'After Mary and'\""
        )
    named = match[1].lower().rstrip("s")
    parts: Parts = "neurons" if named == "neuron" else "heads" if named == "head" else "components"
    return Question(text, "matter", parts=parts, prompt=prompt, answer=answer)


def _about_a_reason(text: str) -> Question | None:
    match = _WHY.search(text)
    if match is None or _names_a_unit(text[: match.start(1)]):
        return None
    answer, prompt = _answer_and_prompt(text, match[1], "why does the model say ' met' after 'After Mary and Lucy'")
    return Question(text, "why", answer=answer, prompt=prompt)


def _about_a_story(text: str) -> Question | None:
    match = _STORY.search(text)
    if match is None or _names_a_unit(text[: match.start(1)]):
        return None
    example = "how does the model come to ' met' after 'After Mary and Lucy'"
    answer, prompt = _answer_and_prompt(text, match[1], example)
    return Question(text, "story", answer=answer, prompt=prompt)


def _names_a_unit(text: str) -> bool:
    return any(named.search(text) is not None for named in (_NAMED_HEAD, _NAMED_NEURON))


def _answer_and_prompt(text: str, rest: str, example: str) -> tuple[str, str]:
    """What follows the words of a question about a prompt: the answer, "" for what the model says, and the prompt."""
    quoted = _all_quoted(rest)
    if len(quoted) >= 2:
        return quoted[0], quoted[1]
    said, _, prompt = rest.partition(" after ") if " after " in rest else rest.partition("after ")
    answer, prompt = _unquoted(said).strip(), _prompt_of(prompt)
    if not prompt:
        raise UserError(f'{text!r} names no prompt: write "{example}"')
    if re.search(r"\b(?:and not|rather than|instead of)\b", answer):
        raise UserError(
            f"{answer!r} names two answers: ask about one; `neuronaut tool logit_lens` and `patch` take a wrong_answer"
        )
    return "" if answer in ("this", "that", "so", "what it says", "its answer") else answer, prompt


def _about_every_head(text: str) -> Question | None:
    named = any(re.search(rf"\b(?:{words})\b", text, re.IGNORECASE) for _, words in _KINDS)
    return None if _EVERY.search(text) is None or named or _names_a_unit(text) else Question(text, "every")


def _about_a_kind(text: str) -> Question | None:
    if not re.search(r"\bheads\b", text, re.IGNORECASE) or _NAMED_HEAD.search(text):
        return None
    for kind, words in _KINDS:
        if re.search(rf"\b(?:{words})\b", text, re.IGNORECASE):
            return Question(text, "kind", kind=kind)
    kinds = ", ".join(kind for kind, _ in _KINDS)
    raise UserError(f"{text!r} names no kind of head: ask which heads are one of {kinds} heads")


READINGS = (
    _by_a_tool, _about_a_claim, _about_a_readout, _about_a_dream, _about_a_change, _about_survivors, _about_a_concept, _about_matches,
    _about_backups, _about_shared_parts, _about_a_circuit, _about_a_prompt, _about_a_reason, _about_a_story, _about_every_head, _about_a_kind,
)  # fmt: skip


def _about_a_unit(text: str, n_heads: int | None, d_mlp: int | None) -> Question:
    features = {Unit.parse(match[0]) for match in _NAMED_FEATURE.finditer(text)}
    others = _NAMED_FEATURE.sub(" ", text)
    experts = {_in_expert(match) for match in _NAMED_IN_EXPERT.finditer(others)}
    routers = {Unit("router", layer, at) for layer, at in map(_numbers, _NAMED_ROUTER.finditer(others))}
    others = _NAMED_ROUTER.sub(" ", _NAMED_IN_EXPERT.sub(" ", others))
    neurons = {_unit("neuron", match) for match in _NAMED_NEURON.finditer(others)}
    heads = {_unit("head", match) for match in _NAMED_HEAD.finditer(others)}
    rest = _NAMED_HEAD.sub(" ", _NAMED_NEURON.sub(" ", others))
    bare = {Unit("neuron", int(match[1]), int(match[2])) for match in _BARE.finditer(rest)}
    found = neurons | heads | bare | features | experts | routers
    if not found:
        named = text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
        raise UserError(f"{named!r} names no neuron, head, prompt or task: {CAN_ASK}")
    if len(found) > 1:
        names = ", ".join(unit.address for unit in sorted(found))
        raise UserError(f"the question names {len(found)} units ({names}): ask about one at a time")
    (unit,) = found
    role = _ROLE.search(text) is not None
    if unit.kind in ("head", "feature", "router"):  # a feature or a share is never below 0: it has one side
        return Question(text, "explain", unit, (1,), role=role)
    if (
        not neurons
        and not experts
        and _could_be_head(unit, n_heads, d_mlp)
        and not re.search(r"\bneurons?\b", text, re.IGNORECASE)
    ):
        raise UserError(
            f"{unit.address} could be neuron {unit.address} or head L{unit.layer}H{unit.index}: "
            f"write 'neuron {unit.address}' or 'head {unit.address}'"
        )
    return Question(text, "explain", unit, (-1,) if _DOWNWARD.search(text) else (1, -1), role=role)


def _numbers(match: re.Match[str]) -> list[int]:
    return [int(group) for group in match.groups() if group is not None]


def _in_expert(match: re.Match[str]) -> Unit:
    """A neuron of an expert."""
    first, expert, last = _numbers(match)
    layer, index = (last, first) if match.group(9) else (first, last)
    return Unit("neuron", layer, index, expert=expert)


def _unit(kind: Literal["neuron", "head"], match: re.Match[str]) -> Unit:
    first, second = _numbers(match)
    swapped = match.group(7) is not None  # "neuron 481 of layer 8"
    return Unit(kind, second, first) if swapped else Unit(kind, first, second)


def _unquoted(text: str) -> str:
    """The text in quotes where there is any, all of it elsewhere."""
    quoted = _QUOTED.search(text)
    return next(group for group in quoted.groups() if group is not None) if quoted else text


def _all_quoted(text: str) -> list[str]:
    """What stands in quotes, in order."""
    return [next(group for group in found.groups() if group is not None) for found in _QUOTED.finditer(text)]


def _prompt_of(text: str) -> str:
    """A prompt, in quotes or bare; bare, the question mark at its end belongs to the question."""
    if _QUOTED.search(text):
        return _unquoted(text)
    bare = re.sub(r"^(?:the\s+)?prompt\b:?\s*", "", text.strip(), flags=re.IGNORECASE).rstrip("?").rstrip()
    if bare and not bare.strip(_QUOTES):
        return ""
    if bare and (bare[0] in _QUOTES or bare[-1] in _QUOTES):
        raise UserError(f"the quotes of {bare!r} are not closed: write the prompt in one pair of quotes")
    return bare


def _could_be_head(unit: Unit, n_heads: int | None, d_mlp: int | None) -> bool:
    return n_heads is not None and unit.index < n_heads and (d_mlp is None or unit.index < d_mlp)
