"""What was matched elsewhere, in lines that people read."""

from collections.abc import Iterator

from neuronaut.agent.lines import Payload, interval

LISTED = 6
NAMED = 12


def match_units(payload: Payload, metrics: Payload) -> Iterator[str]:
    """How many units have a match, the best of them, and what chance gives."""
    several = f"; {payload['n_universal']} of {payload['of']} are matched in all" if len(payload["others"]) > 1 else ""
    yield "neurons matched by correlation on explore text" + several
    for row in payload["others"]:
        none = "" if row["matched"] else "none better than chance: "
        constant = f", {row['constant']} constant ones left out" if row["constant"] else ""
        yield (
            f"{none}{row['matched']} of {row['units']} units have a match in {row['other']} ({row['mutual']} of them in both "
            f"directions{constant}), at "
            f"{row['places']} places of {row['tokens']} tokens"
        )
        yield (
            f"r with the best partner: median {row['median_r']:.2f}; null, the best of as many random mixtures"
            + ("" if row["other"] == "other layers" else " and of an untrained twin's neurons")
            + f": median {row['median_null']:.2f}, 95 % {row['null_95']:.2f}"
        )
        for pair in row["pairs"][:LISTED]:
            both = "" if pair["mutual"] else "  (its partner has a better one)"
            yield f"{pair['unit']:<8} {pair['partner']:<8} r {pair['r']:.3f}  null {pair['null']:.2f}{both}"
        if row["matched"]:
            layers = ", ".join(f"{one['layer']}: {one['matched'] / one['units']:.0%}" for one in row["layers"])
            yield f"matched by layer: {layers}"
    if payload["universal"]:
        more = f" and {payload['n_universal'] - NAMED} more" if payload["n_universal"] > NAMED else ""
        yield f"universal: {', '.join(payload['universal'][:NAMED])}{more}"


def test_matches(payload: Payload, metrics: Payload) -> Iterator[str]:
    """How many matches hold on other text."""
    where = payload["other"] or "other layers"
    ends = metrics["holds"]["ci"]
    share = None if ends is None else (max(ends[0], 0), min(ends[1], 1))
    yield (
        f"{payload['holding']} of {payload['n']} matches with {where}, drawn at random, hold on text that the search did not read"
        f"{interval(share)} ({payload['places']} places of design text)"
    )
    yield (
        f"r there: median {payload['median_r']:.2f}; with partners exchanged {payload['median_exchanged']:.2f}, and {payload['exchanged']} "
        "of them hold"
    )


OF_TOOLS = (match_units, test_matches)
