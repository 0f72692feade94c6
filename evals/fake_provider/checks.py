"""What the real services refuse in a request: unknown parameters, and schemas that strict output does not take."""

from typing import Any

from neuronaut.evals.fake_provider.script import Seen

ALLOWED = {
    "responses": {"model", "instructions", "input", "max_output_tokens", "store", "text"},
    "chat": {"model", "messages", "max_tokens", "response_format"},
    "messages": {"model", "max_tokens", "system", "messages", "output_config"},
}


def why_refused(seen: Seen) -> str:
    """What the real service would refuse in a request; "" where nothing."""
    unknown = set(seen.body) - ALLOWED[seen.format]
    if unknown:
        return f"unknown parameters {sorted(unknown)}"
    match seen.format:
        case "responses":
            form = seen.body["text"]["format"]
        case "chat":
            form = {"type": seen.body["response_format"]["type"], **seen.body["response_format"]["json_schema"]}
        case _:
            form = {"name": "x", "strict": True, **seen.body["output_config"]["format"]}
            if not seen.headers.get("anthropic-version") or not seen.body["max_tokens"] > 0:
                return "anthropic-version or max_tokens is missing"
    if form["type"] != "json_schema" or not form["name"].isidentifier() or form["strict"] is not True:
        return "the format is no strict json_schema with a name"
    return _loose(form["schema"])


def _loose(schema: Any) -> str:
    """Why strict structured output does not take a schema."""
    if isinstance(schema, list):
        return next((fault for one in schema if (fault := _loose(one))), "")
    if not isinstance(schema, dict):
        return ""
    if schema.get("type") == "object" and (
        schema.get("additionalProperties") is not False or schema.get("required") != list(schema["properties"])
    ):
        return "an object is open or a property is not required"
    if refused := {"maxLength", "minLength", "default", "maxItems"} & set(schema):
        return f"{refused} cannot stand in a strict schema"
    return next((fault for one in schema.values() if (fault := _loose(one))), "")
