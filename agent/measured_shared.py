"""What was measured of circuits that are shared, of heads that stand in, and of heads that count on, in lines that people read."""

from collections.abc import Iterator, Mapping
from typing import Any

Payload = Mapping[str, Any]
LISTED = 5
PARTS = {"all": "the circuit of", "shared": "what it shares with", "own": "the rest of the circuit of"}


def number(value: float | None) -> str:
    """Two digits; "none" where there is nothing to compare with."""
    return "none" if value is None else f"{value:.2f}"


def shared_circuits(payload: Payload, metrics: Payload) -> Iterator[str]:
    """Tasks with what the model makes of them, circuits, overlaps, and what is left across tasks."""
    yield "what the circuits of " + ", ".join(repr(row["task"]) for row in payload["tasks"]) + " share"
    for row in payload["tasks"]:
        yield _done(row)
    yield from _circuits(payload)
    for pair in dict.fromkeys(tuple(row["tasks"]) for row in payload["overlaps"]):
        rows = [row for row in payload["overlaps"] if tuple(row["tasks"]) == pair]
        at = next(row for row in rows if row["level"] == payload["crossed_at"])
        each, random = (_each(rows, key, ".2f") for key in ("jaccard", "jaccard_random"))
        chance = f"(random {random}; p {_each(rows, 'p', '.2g')})"
        yield f"{pair[0]!r} and {pair[1]!r} overlap {each} {chance}; at {at['level']:g} in {_names(at['shared'])}"
    yield f"all of them at {payload['crossed_at']:g}: {_names(payload['shared_by_all'])}"
    for row in payload["crossed"]:
        what = "its own circuit" if row["of"] == row["task"] else f"{PARTS[row['part']]} {row['of']!r}"
        left = f"{row['left']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        yield f"{row['task']!r} keeps {left} without {what} ({row['size']}); random {number(row['random'])}: {row['finding']}"


def _circuits(payload: Payload) -> Iterator[str]:
    """Of each task how many parts its circuits have and how much they keep, and the parts at the middle level."""
    levels = ", ".join(f"{level:g}" for level in payload["levels"])
    for task in dict.fromkeys(row["task"] for row in payload["circuits"]):
        rows = [row for row in payload["circuits"] if row["task"] == task]
        at = next(row for row in rows if row["level"] == payload["crossed_at"])
        random = ", ".join(number(row["random_best"]) for row in rows)
        kept = f"keep {_each(rows, 'kept', '.2f')} of unseen prompts (best of 20 random {random})"
        more = "" if all(row["complete"] for row in rows) else "; the budget was spent"
        yield f"{task!r}, searched for what keeps {levels}: {_each(rows, 'size', 'd')} of {payload['nodes']} parts {kept}{more}"
        yield f"at {at['level']:g}: {_names(at['members'])}"


def _each(rows: list[Payload], key: str, form: str) -> str:
    return ", ".join(format(row[key], form) for row in rows)


def _done(row: Payload) -> str:
    """How well a task is done, beside corrupted prompts."""
    if "accuracy" not in row:
        return f"{row['task']!r}: no circuit: {row['why']}"
    right = f"{row['accuracy']:.0%} right ({row['accuracy_corrupted']:.0%} by corrupted prompts)"
    odds = f"log-odds {row['log_odds']:+.1f} ({row['log_odds_corrupted']:+.1f})"
    return f"{row['task']!r}: {right}, {odds}" + ("" if row["can"] else f"; no circuit: {row['why']}")


def _names(parts: list[str]) -> str:
    return ", ".join(parts) or "nothing"


def backup_heads(payload: Payload, metrics: Payload) -> Iterator[str]:
    """What remains without a head, and which parts are worth more then."""
    yield f"{payload['task']!r} keeps {payload['left']:.2f} without {payload['head']} ({payload['n']} prompts)"
    costs = ", ".join(f"{row['head']} {row['cost']:+.2f}" for row in payload["heads"][:LISTED])
    yield f"what each head alone costs: {costs}"
    yield f"backups, which matter more then: {', '.join(payload['backups']) or 'none better than chance'}"
    for row in payload["parts"][:LISTED]:
        rise = f"{row['rise']:+.2f} (at least {row['low']:+.2f})"
        yield f"{row['part']:<7} is worth {row['before']:+.2f} before, {row['after']:+.2f} after: {rise}"
    others, most = ", ".join(payload["random_heads"]), payload["random_best"]
    yield f"null: without one of {others} in its place no part rises by more than {most:+.2f}"
    yield f"circuit of the whole model: {_names(payload['circuit'])}"
    if payload["instead"]:
        yield f"circuit of what is left: {_names(payload['instead'])}; new in it: {_names(payload['new'])}"


def successor_heads(payload: Payload, metrics: Payload) -> Iterator[str]:
    """Which heads are successor heads, the best scores of each step with their nulls, and heads by direction."""
    named, some = ", ".join(payload["successors"]), ", ".join(payload["above_chance"])
    none = (
        f"none; better than chance, but right for fewer than half of the tokens: {some}"
        if some
        else "none better than chance"
    )
    yield f"successor heads, by the weights of {len(payload['heads'])} heads: {named or none}"
    for name, kind in (("next", "next"), ("previous", "previous"), ("add_two", "next but one")):
        best = sorted(payload["heads"], key=lambda row: -row[name])[:LISTED]
        permuted = f"99 % of permuted orders at most {payload['permuted'][name]['high']:.2f}"
        null = f"({permuted}, best random head {payload['random'][name]:.2f})"
        yield f"{kind}: " + ", ".join(f"{row['head']} {row[name]:.2f}" for row in best) + f" {null}"
    before, two = (", ".join(payload[kind]) or "none" for kind in ("predecessors", "add_two"))
    yield f"predecessor heads: {before}; heads that add two: {two}"
    for one in payload["best"]:
        each = ", ".join(f"{name} {score:.2f}" for name, score in one["by_order"].items())
        few = f"{one['directions']} of {one['of']} directions give {one['score']:.2f}"
        yield f"{one['head']}: {each}; {few}, as many random ones of the head {one['random_directions']:.2f}"
