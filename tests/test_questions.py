"""What a question may look like, and what is said when it cannot be understood."""

import pytest

from neuronaut.agent.questions import parse_question
from neuronaut.tools.errors import UserError
from neuronaut.tools.units import Unit


@pytest.mark.parametrize(
    "text",
    [
        "what does neuron 8.481 do",
        "What does 8.481 do?",
        "8.481",
        "explain L8.N481",
        "L8N481?",
        "when does neuron 481 of layer 8 fire",
        "what is layer 8, neuron 481 for",
        "tell me about Neuron L8.481.",
    ],
)
def test_many_wordings_name_one_neuron(text: str) -> None:
    assert parse_question(text, n_heads=4, d_mlp=512).unit == Unit("neuron", 8, 481)


def test_both_signs_are_asked_unless_one_is_named() -> None:
    assert parse_question("what does neuron 0.4 do").signs == (1, -1)
    assert parse_question("what does 0.4- do").signs == (-1,)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("what is love", "names no neuron, head, prompt or task"),
        ("compare 8.481 and 8.482", "one at a time"),
        ("compare head 5.1 and L5H2", "one at a time"),
        ("which heads are cool", "names no kind of head"),
        ("find the circuit", "names no task"),
        ("compare the circuits of increasing digits", "names 1 tasks"),
        ("which parts do months share", "names 1 tasks"),
        ("which heads matter for", "names no prompt"),
        ("which heads matter for 'Mary' and 'Leo'", "names 2 prompts"),
        ("which heads are attention sinks", "names no kind of head"),
        ("why does it say Mary", "names no prompt"),
        ("which heads matter for ''", "names no prompt"),
        ("which heads matter for 'After Mary", "quotes of .* are not closed"),
        ("why does it say Max and not Alice after 'the park'", "names two answers"),
        ("what does 8.3 do", "could be neuron 8.3 or head L8H3"),
        ("is 3 good", "names no neuron"),
        ("neuron -1.5", "names no neuron"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_can(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse_question(text, n_heads=4, d_mlp=512)


@pytest.mark.parametrize(
    "text",
    ["what does head 5.1 do", "L5H1", "what does attention head 5.1 look at?", "head 1 of layer 5", "layer 5, head 1"],
)
def test_many_wordings_name_one_head(text: str) -> None:
    question = parse_question(text, n_heads=4, d_mlp=512)
    assert (question.intent, question.unit) == ("explain", Unit("head", 5, 1))


@pytest.mark.parametrize(
    ("text", "role"),
    [
        ("what is neuron 8.481 needed for", True),
        ("what breaks without head 5.1", True),
        ("which text needs L5H1?", True),
        ("what does neuron 8.481 do", False),
    ],
)
def test_what_needs_a_unit_is_a_question_of_its_own(text: str, role: bool) -> None:
    question = parse_question(text)
    assert (question.intent, question.role) == ("explain", role)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("which heads are induction heads", "induction"),
        ("find all previous-token heads", "previous"),
        ("are there duplicate token heads?", "duplicate"),
        ("Which heads copy?", "copying"),
        ("list the successor heads", "successor"),
        ("which heads rest on the first token", "first"),
    ],
)
def test_a_kind_of_head_is_understood(text: str, kind: str) -> None:
    question = parse_question(text)
    assert (question.intent, question.kind) == ("kind", kind)


@pytest.mark.parametrize(
    ("text", "parts", "prompt"),
    [
        ("which neurons matter for 'After Mary and Lucy'", "neurons", "After Mary and Lucy"),
        ('which heads matter most for "Mary\'s ring, and"?', "heads", "Mary's ring, and"),
        ("which components matter in the prompt: After Mary and", "components", "After Mary and"),
        ("what parts matter for After Mary and?", "components", "After Mary and"),
    ],
)
def test_a_prompt_is_taken_from_its_quotes_or_as_it_stands(text: str, parts: str, prompt: str) -> None:
    question = parse_question(text)
    assert (question.intent, question.parts, question.prompt) == ("matter", parts, prompt)


def test_the_answer_for_which_parts_matter_may_be_named_before_the_prompt() -> None:
    question = parse_question("which heads matter for ' met' after 'After Mary and Lucy'?")
    assert (question.intent, question.answer, question.prompt) == ("matter", " met", "After Mary and Lucy")


def test_why_a_unit_does_something_is_asked_of_the_unit() -> None:
    question = parse_question("why does head 5.1 predict what followed?")
    assert (question.intent, question.unit) == ("explain", Unit("head", 5, 1))


@pytest.mark.parametrize(
    ("text", "answer", "prompt"),
    [
        ("why does the model say ' met' after 'After Mary and Lucy'", " met", "After Mary and Lucy"),
        ('why does the model predict " March" after "January, February,"?', " March", "January, February,"),
        ("why does it say Mary after Leo and", "Mary", "Leo and"),
        ("why does the model say this after 'Leo and'", "", "Leo and"),
    ],
)
def test_a_reason_is_asked_of_an_answer_and_a_prompt(text: str, answer: str, prompt: str) -> None:
    question = parse_question(text)
    assert (question.intent, question.answer, question.prompt) == ("why", answer, prompt)


@pytest.mark.parametrize(
    ("text", "intent", "tasks"),
    [
        ("find the circuit for increasing months", "circuit", ("increasing months",)),
        ("find the circuit for the indirect object by position", "circuit", ("the indirect object",)),
        ("what is the circuit behind 'indirect object'?", "circuit", ("indirect object",)),
        (
            "compare the circuits of increasing digits and increasing months",
            "compare",
            ("increasing digits", "increasing months"),
        ),
        ("what do the circuits for letters and months have in common?", "compare", ("letters", "months")),
        ("which parts do months, days and digits share", "share", ("months", "days", "digits")),
        ("which parts do months and days share?", "share", ("months", "days")),
        (
            "what parts are shared by months, 'number words', and letters?",
            "share",
            ("months", "number words", "letters"),
        ),
        ("what do the circuits of months, days and letters have in common", "share", ("months", "days", "letters")),
        ("what remains of months without its most important head", "backup", ("months",)),
        ("what is left of increasing digits without L4H2?", "backup", ("increasing digits",)),
        ("which heads are backups for months", "backup", ("months",)),
    ],
)
def test_circuits_are_asked_of_tasks(text: str, intent: str, tasks: tuple[str, ...]) -> None:
    question = parse_question(text)
    assert (question.intent, question.tasks) == (intent, tasks)


@pytest.mark.parametrize(
    "unit", [Unit("neuron", 8, 481), Unit("neuron", 0, 4, -1), Unit("head", 8, 3), Unit.of_task("increasing months")]
)
def test_a_unit_parses_back_from_its_address(unit: Unit) -> None:
    assert Unit.parse(unit.address) == unit


@pytest.mark.parametrize("text", ["8", "8.x", "head", "L8", "sae:1", "8.481.2", "-8.1"])
def test_text_that_is_no_unit_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="names no unit"):
        Unit.parse(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("describe the heads of layer 3", "leave the layers out"),
        ("which heads are successor heads in layer 3", "leave the layers out"),
        ("which parts do months and days share in layer 3", "leave the layers out"),
        ("what changed in tuned and base", "names several models"),
        ("what changed between pocket and tuned", "names several models"),
        ("does the read-out of 8.481 at resid_post 9 by trees use it", "a read-out by 'trees'"),
        ("does the read-out of 8.481 at resid_mid 9 use it", "'resid_mid 9' is none"),
        ("what remains of months without mlp3", "names no head"),
    ],
)
def test_no_part_of_a_question_is_dropped_in_silence(text: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        parse_question(text)


@pytest.mark.parametrize(
    ("text", "intent", "field", "value"),
    [
        ("What Changed In tuned?", "changed", "others", ("tuned",)),
        ("what changed in neuron 8.481 in tuned.v2", "changed", "others", ("tuned.v2",)),
        ("how does the model predict ' March' after 'January, February,'", "story", "answer", " March"),
        ("which heads are predecessor heads", "kind", "kind", "successor"),
    ],
)
def test_other_wordings_ask_the_same(text: str, intent: str, field: str, value: object) -> None:
    question = parse_question(text)
    assert (question.intent, getattr(question, field)) == (intent, value)
