"""A test done with another checkpoint on the same text: what a claim would have got there."""

from typing import ClassVar, Literal, Protocol, runtime_checkable

from pydantic import Field

from neuronaut.tools.changes.diff import check_comparable
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.features.dictionary import Dictionary
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, find_tool, run_tool, tool

Test = Literal["firing", "test_attends", "test_circuit", "test_reads", "test_role", "test_writes"]


class TestOtherArgs(ToolArgs):
    """The other checkpoint by its name; the test and its arguments, as JSON."""

    example: ClassVar = {"other": "BASE", "test": "firing", "args": '{"unit": "8.481"}'}
    other: str = Field(min_length=1, max_length=64)
    test: Test
    args: str = Field(min_length=2, max_length=1_000_000)


@runtime_checkable
class TakesDictionaries(Protocol):
    """A target whose features can be read once their dictionary was added."""

    def add_dictionary(self, dictionary: Dictionary) -> None: ...


@tool("test_other", opens_test_text=True)
def test_other(context: ToolContext, args: TestOtherArgs) -> ToolResult:
    """What a test finds in another checkpoint of the target on the same text; features are those of the same dictionary.

    weights_sha256: of the other checkpoint; found: what the test found there, abstained where it has nothing to test there, and
    why. The measurements are those of the test.
    Refuses another architecture, another tokenizer and a context of another length, which has other windows.
    """
    parsed = find_tool(args.test).parse(args.args)
    other = context.registered.other(args.other)
    check_comparable(context.target, other.target)
    if context.target.spec.n_ctx != other.target.spec.n_ctx:
        raise ToolRefused(
            f"{other.name} reads windows of {other.target.spec.n_ctx} tokens and not of {context.target.spec.n_ctx}, so that "
            "no text is the same to both"
        )
    inside = context.of_other(args.other)
    assert isinstance(inside.target, TakesDictionaries)
    for name, dictionary in context.target.dictionaries.items():
        if name not in inside.target.dictionaries:
            inside.target.add_dictionary(dictionary)
    try:
        found = run_tool(inside, args.test, parsed)
    except ToolRefused as error:
        found = ToolResult(payload={"abstained": str(error)})
    payload = {
        "other": args.other,
        "weights_sha256": other.folder.weights_sha256,
        "test": args.test,
        "found": found.payload,
    }
    return ToolResult(found.measurements, payload)
