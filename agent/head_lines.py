"""The table of all heads in lines that people read."""

from collections.abc import Iterator, Mapping
from typing import Any

Payload = Mapping[str, Any]


def head_lines(payload: Payload, metrics: Payload) -> Iterator[str]:
    """Of the payload and the measurements of `describe_heads`: those that are described first, by what changes without them."""
    found = metrics["described"]
    rows = sorted(payload["heads"], key=lambda row: (not row["description"], -row["effect"]))
    null = "" if found["null_value"] is None else (
        f"; of {payload['random_heads']} heads with random weights {found['null_value']:.1%} look so often where these do"
    )  # fmt: skip
    yield (
        f"{payload['described']} of {len(rows)} heads described, on {payload['documents']} documents of explore text that no "
        f"description was chosen on{null}"
    )
    for row in rows:
        if row["description"]:
            yield f"{row['head']:<6} {row['kind']:<15} {row['description']}"
            yield "       " + _numbers(row, payload["median_effect"])
    yield f"the {len(rows) - payload['described']} others, with the share of their attention that rests on the first position:"
    for row in rows:
        if not row["description"]:
            yield f"{row['head']:<6} {row['why_not']}; {_on_random(row)}; rests {row['rests']:.2f}"
    yield "descriptions are no tested claims: `neuronaut label --kind head --layers all` tests one for each head"


def _numbers(row: Payload, median: float) -> str:
    random = "not measured" if row["random_heads"] is None else f"{row['random_heads']:.2f}"
    anywhere = "" if row["anywhere"] is None else f", on random tokens {row['anywhere']:.2f}"
    successor = "" if row["successor"] is None else f" · next {row['successor']:.2f} ({row['chance']:.2f})"
    return (
        f"share {row['share']:.2f} [at least {row['share_low']:.2f}] (random heads {random}{anywhere}) · own rank {row['copying']:.2f} "
        f"({row['copying_null']:.2f}) · eigen {row['eigen']:+.2f} ({row['eigen_null']:+.2f}){successor} · effect {row['effect']:.3f} "
        f"[{row['effect_low']:.3f}, {row['effect_high']:.3f}] (median of all heads {median:.3f}) · anywhere "
        f"{row['effect_anywhere']:.3f} · {_on_random(row)}"
    )


def _on_random(row: Payload) -> str:
    return f"repeated random tokens: {row['random_tokens']} {row['random_tokens_share']:.2f} ({row['random_tokens_null']:.2f})"
