"""The tool that describes a small model as a program."""

from typing import Any, ClassVar

from pydantic import Field

from neuronaut.tools.measurements import Measurement
from neuronaut.tools.programs.agreement import agreement, held_out
from neuronaut.tools.programs.describe import Described, describe
from neuronaut.tools.programs.texts import find_words
from neuronaut.tools.programs.wording import program_lines
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import clopper_pearson


class DescribeArgs(ToolArgs):
    """Of which words the texts are made, how long they are, and how many are read.

    vocabulary: pieces, with the leading space where they have one; none is the whole vocabulary of a small model. length: in
    words; none is 12, or as many as the context has room for. n: random texts learnt from, beside all short ones.
    """

    example: ClassVar = {"vocabulary": [" Mary", " Leo", " and"], "length": 6, "n": 32, "held_out": 20}
    vocabulary: tuple[str, ...] = Field(default=(), max_length=32)
    length: int | None = Field(default=None, ge=2, le=64)
    n: int = Field(default=600, ge=32, le=5000)
    held_out: int = Field(default=200, ge=20, le=2000)
    seed: int = Field(default=0, ge=0)


@tool("describe_program")
def describe_program(context: ToolContext, args: DescribeArgs) -> ToolResult:
    """A small model as a program over its parts: a line for each head and group of neurons that matters, with its role and
    what it reads, as data that can be run without the model, and how often that says what the model says.

    reproduced: share of new random texts on which the program says the model's likeliest token at every place; its null is
    the better of the commonest output of each place and of the program with the values of its tables exchanged.
    Edges are scored by what the reader does when that one contribution alone is exchanged or taken out, all else held fixed:
    attention moved, share of what is carried, share of places at which neurons write something else, probability moved.
    Which parts are idle is first asked of the weights: what no reader's weights take up is left out. In models of more than
    64 heads or 2048 neurons only those of the largest attribution are described; what is left out costs agreement.
    Refuses: words that are no tokens, and texts that the context has no room for.
    """
    words = find_words(context.target, args.vocabulary, args.length)
    texts = held_out(words, args.held_out, args.seed)
    described = describe(context.target, words, n=args.n, seed=args.seed, apart=texts)
    found = agreement(context.target, words, described.program, texts, args.seed)
    reproduced = Measurement(
        "reproduced",
        found.reproduced / found.n,
        "share of texts",
        found.n,
        ci=clopper_pearson(found.reproduced, found.n),
        null_value=max(found.commonest, found.shuffled),
        n_of="texts",
    )
    return ToolResult(
        (reproduced,),
        {
            **payload_of(described),
            "places": found.places,
            "nulls": {"commonest output of each place": found.commonest, "tables shuffled": found.shuffled},
        },
    )


def payload_of(described: Described) -> dict[str, Any]:
    """The text, the program, the parts and the edges as JSON. reads: whether the effect of an edge is large enough."""
    graph = described.graph
    edges = [
        {
            "from": source.name,
            "to": reader.name,
            "reads": source in graph.sources(reader),
            "effects": {slot: round(effect, 5) for slot, effect in effects.items()},
        }
        for (source, reader), effects in graph.effects.items()
    ]
    roles = {line.name: line.role for line in described.program.lines}
    parts = [
        {"part": part.name, "kind": part.kind, "layer": part.layer, "indices": part.indices, "role": roles[part.name]}
        for part in graph.parts
        if part.name in roles
    ]
    return {
        "text": list(program_lines(described.program)),
        "parts": parts,
        "edges": edges,
        "program": described.program.as_data(),
    }
