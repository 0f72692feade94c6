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
        ("what is love", "names no neuron"),
        ("compare 8.481 and 8.482", "one at a time"),
        ("what does head 5.1 do", "only neurons"),
        ("what does L5H1 do", "only neurons"),
        ("what does 8.3 do", "could be neuron 8.3 or head L8H3"),
        ("is 3 good", "names no neuron"),
        ("neuron -1.5", "names no neuron"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_can(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse_question(text, n_heads=4, d_mlp=512)


@pytest.mark.parametrize("unit", [Unit("neuron", 8, 481), Unit("neuron", 0, 4, -1), Unit("head", 8, 3)])
def test_a_unit_parses_back_from_its_address(unit: Unit) -> None:
    assert Unit.parse(unit.address) == unit


@pytest.mark.parametrize("text", ["8", "8.x", "head", "L8", "sae:1", "8.481.2", "-8.1"])
def test_text_that_is_no_unit_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="names no unit"):
        Unit.parse(text)
