"""What the target is: its shape and its fingerprint."""

from dataclasses import asdict

from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool


class ModelCardArgs(ToolArgs):
    """Nothing to choose."""


@tool("model_card")
def model_card(context: ToolContext, args: ModelCardArgs) -> ToolResult:
    """Layers, heads, widths, vocabulary, context, norm, activation, gating, tied embeddings and the fingerprint."""
    return ToolResult(
        payload={"spec": asdict(context.target.spec), "fingerprint": asdict(context.target.fingerprint())}
    )
