"""What was measured of heads in lines that people read: the table of all, their scores, where one looks, and successor heads."""

from collections.abc import Iterator, Sequence

from neuronaut.agent.lines import Payload, interval

LISTED = 5


def describe_heads(payload: Payload, metrics: Payload) -> Iterator[str]:
    """Those that are described first, by what changes without them."""
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
        f"({row['copying_null']:.2f}) · eigen {row['eigen']:+.2f} ({row['eigen_null']:+.2f}){successor} · effect {row['effect']:.3f}"
        f"{interval((row['effect_low'], row['effect_high']), '.3f')} (median of all heads {median:.3f}) · anywhere "
        f"{row['effect_anywhere']:.3f} · {_on_random(row)}"
    )


def _on_random(row: Payload) -> str:
    return f"repeated random tokens: {row['random_tokens']} {row['random_tokens_share']:.2f} ({row['random_tokens_null']:.2f})"


def head_scores(payload: Payload, metrics: Payload) -> Iterator[str]:
    """How much one head is of each kind, or which heads are most of it."""
    kinds = [kind for kind in payload["random"][0] if kind not in ("head", "entropy", "start")]
    if payload["unit"] not in {row["head"] for row in payload["random"]}:
        yield from _all_heads(payload, metrics, kinds)
        return
    n = len(payload["random"]) - 1
    yield f"how much {payload['unit']} is of each kind, and of how many of the {n} other heads it is above"
    for kind in kinds:
        cells = [_score(metrics[name], where) for where, name in _places(kind, metrics)]
        yield f"{kind:<10} {' · '.join(cells)}"


def _places(kind: str, metrics: Payload) -> list[tuple[str, str]]:
    named = (("", kind), ("repeated random tokens ", f"{kind}_random"), ("text ", f"{kind}_text"))
    return [(where, name) for where, name in named if name in metrics]


def _score(found: Payload, where: str) -> str:
    null = "" if found["null_value"] is None else f", chance {found['null_value']:.2f}"
    above = "" if found["null_percentile"] is None else f", above {found['null_percentile']:.0f} %"
    return f"{where}{found['value']:.2f}{null}{above}"


def _all_heads(payload: Payload, metrics: Payload, kinds: Sequence[str]) -> Iterator[str]:
    yield (
        f"the heads that score most, of {len(payload['random'])}: on {payload['random_tokens']} repeated random tokens, and by "
        "their weights"
    )
    for kind in kinds:
        best = sorted(payload["random"], key=lambda row: -row[kind])[:LISTED]
        measured = metrics.get(f"{kind}_random", metrics.get(kind))
        chance = f" (chance {measured['null_value']:.2f})" if measured and measured["null_value"] is not None else ""
        yield f"{kind:<10} " + ", ".join(f"{row['head']} {row[kind]:.2f}" for row in best) + chance


def top_examples(payload: Payload, metrics: Payload) -> Iterator[str]:
    """Of a head the pairs of tokens; of other units nothing, since claims show their examples."""
    if not payload["examples"] or "key" not in payload["examples"][0]:
        return
    yield f"the strongest pairs of {payload['unit']} in explore text, one a document: from a token to the token it looks at"
    for one in payload["examples"]:
        text = "".join(one["pieces"][: one["centre"] + 1])
        yield f'{one["activation"]:.2f} from "{one["query"]}" to "{one["key"]}"  …{text[-60:]}'


def attention_on(payload: Payload, metrics: Payload) -> Iterator[str]:
    """Where one head looks in given text."""
    yield f"where {payload['unit']} looks in this prompt: share of the query's attention (what an even spread would give)"
    for row in payload["pairs"][:LISTED]:
        yield f"{row['query']} → {row['key']}  {row['weight']:.2f} ({row['even']:.2f})"


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


OF_TOOLS = (attention_on, describe_heads, head_scores, successor_heads, top_examples)
