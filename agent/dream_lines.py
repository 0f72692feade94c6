"""A dream in lines that people read: prompts, natural text beside them, the other searches, null units."""

from collections.abc import Iterator

from neuronaut.agent.lines import Payload, number
from neuronaut.agent.view import visible

NATURAL = 2  # pieces of natural text that are shown


def dream(payload: Payload, metrics: Payload) -> Iterator[str]:
    """A title, then what was found and what stands beside it."""
    natural, length = payload["natural"], payload["length"]
    yield (
        f"dreams of {visible(payload['aim'])}: synthetic prompts of {length} tokens, written by a search for what drives it; "
        "activation at the last token · nats a token · prompt"
    )
    for row in payload["front"]:
        cost = ", ".join([f"{row['cost']:.2f}", *(name for name in ("fluent", "natural") if row.get(name))])
        yield f'{row["activation"]:>8.3g} · {cost:<21} · "{visible(row["text"])}"'
    yield (
        f"fluent: at most {payload['fluent_cost']:.2f} nats a token, as are 90 % of natural pieces of this length; natural: stands "
        "in the text as it is"
    )
    yield (
        f"natural text: at most {natural['top']:.3g}, median {natural['median']:.3g}, of {natural['n_tokens']} tokens; cut to this "
        f"length {number(natural.get('cut'))}, {number(natural.get('cut_fluent'))} among fluent pieces; every search begins with those:"
    )
    for row in payload["natural_examples"][:NATURAL]:
        cut = f"{row['cost']:.2f}, {row['in_its_text']:.3g} uncut"
        yield f'{row["activation"]:>8.3g} · {cut:<21} · "{visible(row["text"])}"'
    for row in payload["searches"]:
        fluent = "no fluent one" if row["fluent"] is None else f"{row['fluent']:.3g} among fluent ones"
        yield f"{row['name']}: at most {row['best']:.3g}, {fluent} ({row['prompts']} prompts, {row['forwards']:.0f} forward passes)"
    yield from _beside(payload, metrics)
    yield payload["said"]


def _beside(payload: Payload, metrics: Payload) -> Iterator[str]:
    others, beyond = [row["beyond"] for row in payload["nulls"]], metrics["beyond_natural"]
    fluent = metrics.get("fluent_beyond")
    among = "" if fluent is None else f"; among fluent prompts {fluent['value']:.2f} and {number(fluent['null_value'])}"
    yield (
        f"of the way from the median of natural text (0) to its strongest place (1): {beyond['value']:.2f}, beside "
        f"{len(others)} null units by the same search {beyond['null_value']:.2f} ({min(others):.2f} to {max(others):.2f}){among}"
    )


OF_TOOLS = (dream,)
