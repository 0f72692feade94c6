"""What was measured of circuits: one, two beside each other, several, and what is left without a head; in lines that people read."""

from collections.abc import Iterator

from neuronaut.agent.lines import Payload, interval, number

LISTED = 5
PARTS = {"all": "the circuit of", "shared": "what it shares with", "own": "the rest of the circuit of"}


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
        left = f"{row['left']:.2f}{interval((row['low'], row['high']))}"
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


def find_circuit(payload: Payload, metrics: Payload) -> Iterator[str]:
    """What was searched for, and what was found."""
    yield (
        f"{payload['task']!r}, searched for what keeps {payload['threshold']:g} of it: {payload['n']} prompts that the model has "
        f"right ({payload['accuracy']:.0%} of all), clean − corrupted {payload['gap']:.1f} nats"
    )
    whole = "" if payload["complete"] else "; the budget was spent, so that it may still hold parts that do nothing"
    best = number(metrics["share"]["null_value"])
    yield f"{payload['size']} of {payload['nodes']} parts keep {payload['share']:.2f} there; best of 20 random circuits {best}{whole}"
    if payload["idle"]:
        yield f"no worse without {', '.join(payload['idle'])}"
    for other in payload["reruns"]:
        yield f"again in random order ({other['jaccard']:.2f} the same): {', '.join(other['members'])}"


def test_circuit(payload: Payload, metrics: Payload) -> Iterator[str]:
    """What each part costs on unseen prompts."""
    yield f"{payload['task']!r}: what the removal of each part costs on unseen prompts, as a share of the behaviour, and its p (Holm)"
    wide = max(7, *map(len, payload["costs"]))
    for name, cost in sorted(payload["costs"].items(), key=lambda item: -item[1]):
        yield f"{name:<{wide}} {cost:+.2f}  p {payload['minimality'][name]:.2g}"
    yield f"95 % of the other parts cost less than {payload['cost_bar']:+.2f} when they are put in and taken out again"


def compare_circuits(payload: Payload, metrics: Payload) -> Iterator[str]:
    """What two circuits share, and what is left of each task without the other's."""
    one, other = payload["tasks"]
    yield f"{one!r} and {other!r} share {len(payload['shared'])} parts: {', '.join(payload['shared']) or 'none'}"
    yield f"overlap (Jaccard) {payload['jaccard']:.2f}; random circuits of these sizes {payload['jaccard_random']:.2f}"
    for task, only in zip(payload["tasks"], payload["only"], strict=True):
        yield f"only {task!r}: {', '.join(only) or 'none'}"
    for row, removed in zip(payload["crossed"], (other, one), strict=True):
        yield (
            f"{row['task']!r} keeps {row['left']:.2f}{interval((row['low'], row['high']))} without the circuit of {removed!r}; "
            f"without random ones {number(row['random'])}"
        )


OF_TOOLS = (backup_heads, compare_circuits, find_circuit, shared_circuits, test_circuit)
