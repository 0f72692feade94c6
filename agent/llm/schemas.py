"""JSON schemas as strict structured output takes them."""

from typing import Any

from neuronaut.agent.llm.base import Offered

_STANDS = frozenset({"type", "properties", "items", "anyOf", "enum", "const", "$ref", "$defs", "description", "title"})
_GOES = frozenset({"default", "required", "additionalProperties", "discriminator"})


def strict_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema with every object closed and every property required, as all services take it.

    Bounds and patterns, which some of them refuse, go into the description: the model reads them there, and who gets the reply
    checks them. A union told apart by a field becomes a plain one.
    """
    closed = {key: _strict(key, value) for key, value in schema.items() if key in _STANDS}
    if "oneOf" in schema:
        closed["anyOf"] = [strict_schema(one) for one in schema["oneOf"]]
    if schema.get("type") == "object" and "properties" in schema:
        closed["additionalProperties"] = False
        closed["required"] = list(schema["properties"])
    if said := ", ".join(f"{key}: {value}" for key, value in schema.items() if key not in _STANDS | _GOES | {"oneOf"}):
        closed["description"] = f"{schema.get('description', '')} ({said})".strip()
    return closed


def _strict(key: str, value: Any) -> Any:
    match key:
        case "properties" | "$defs":
            return {name: strict_schema(one) for name, one in value.items()}
        case "items":
            return strict_schema(value)
        case "anyOf":
            return [strict_schema(one) for one in value]
    return value


def strict_function(tool: Offered, schema: str = "parameters") -> dict[str, Any]:
    """A tool as strict function calling takes it; schema: what a service calls the form of its arguments."""
    return {
        "name": tool.name,
        "description": tool.description,
        schema: strict_schema(tool.arguments),
        "strict": True,
    }
