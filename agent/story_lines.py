"""What was measured of a prediction in lines that people read: its story, what the lenses say, and what it rests on."""

from collections.abc import Iterator, Sequence

from neuronaut.agent.lines import Payload, interval
from neuronaut.agent.view import visible

LISTED = 5
LEAST_NATS = 0.01
TOKENS = 12  # of the text, the last ones


def prediction_story(payload: Payload, metrics: Payload) -> Iterator[str]:
    """From where on the answer leads, what decides, and what each layer, part and neuron adds; the same of every token."""
    answer, rival = (f'"{visible(payload[name])}"' for name in ("answer", "rival"))
    yield (
        f"how the model comes to {answer} (probability {payload['probability']:.2f}, {payload['margin']:+.1f} logits over {rival}) "
        f'after "{visible(payload["text"])}"'
    )
    if payload["likeliest"] != payload["answer"]:
        yield f'but the model says "{visible(payload["likeliest"])}" here'
    lenses = [name for name in ("plain", "tuned") if f"on_top_{name}" in metrics]
    for lens in lenses:
        yield _on_top(metrics[f"on_top_{lens}"], lens, len(payload["layers"]) - 1)
    yield _decided(payload, metrics["layer_most"])
    yield from _rows(payload, lenses)
    yield _parts(payload)
    yield _neurons(payload)
    yield from _tokens(payload, lenses)
    if payload["lens"] is not None:
        yield _lens(payload["lens"])


def after(row: int, n_layers: int) -> str:
    """Where a row of the lenses is read."""
    if row == 0:
        return "the embedding"
    return f"layer {row - 1}" if row <= n_layers else "nowhere"


def _on_top(found: Payload, lens: str, n_layers: int) -> str:
    where = after(int(found["value"]), n_layers)
    named = "it never leads" if where == "nowhere" else f"it leads from {where} on"
    return (
        f"{lens} lens: {named}; at half of the places of explore text the answer leads from {after(int(found['null_value']), n_layers)} "
        f"on or earlier, and at {found['null_percentile']:.0f} % earlier than here"
    )


def _decided(payload: Payload, most: Payload) -> str:
    bar = f"at 99 % of {payload['other_places']} places of other text no layer strays by more than {most['null_value']:.1f} from its mean"
    if payload["decides"] == "none":
        return f"no layer decides: none adds more to the margin than layers do elsewhere ({most['value']:+.1f}; {bar})"
    return f"{payload['decides']} decides: it adds {most['value']:+.1f} of {payload['margin']:+.1f} logits ({bar})"


def _rows(payload: Payload, lenses: list[str]) -> Iterator[str]:
    yield "what leads after each layer (margin of the answer), and what the layer adds to the margin directly (elsewhere)"
    for row, layer in zip(payload["rows"], payload["layers"], strict=True):
        cells = [
            f'{lens} "{visible(row[lens]["token"])}" {row[lens]["probability"]:.2f} ({row[lens]["margin"]:+.1f})'
            for lens in lenses
        ]
        mark = " *" if layer["beyond"] else ""
        yield f"{layer['layer']:<9} {' · '.join(cells)} · adds {layer['adds']:+.1f} ({layer['elsewhere']:+.1f}){mark}"


def _parts(payload: Payload) -> str:
    cells = []
    for row in payload["parts"]:
        without = "" if row["without"] is None else f", {row['without']:+.2f} nats"
        cells.append(
            f"{row['part']} {row['adds']:+.1f} ({row['elsewhere']:+.1f}{without}){' *' if row['beyond'] else ''}"
        )
    return "parts add (elsewhere, what the answer loses without it; * more than any strays elsewhere): " + "; ".join(
        cells
    )


def _neurons(payload: Payload) -> str:
    cells = [
        f"{row['neuron']} {row['adds']:+.1f} ({row['elsewhere']:+.1f}){' *' if row['beyond'] else ''}"
        for row in payload["neurons"]
    ]
    return "neurons: " + ("; ".join(cells) or "none")


def _tokens(payload: Payload, lenses: list[str]) -> Iterator[str]:
    n_layers = len(payload["layers"]) - 1
    yield "the same at each place: what is said, from where on it leads, and what adds most"
    for row in payload["tokens"][-TOKENS:]:
        leads = ", ".join(f"{lens} {after(row['on_top'][lens], n_layers)}" for lens in lenses)
        says = f'"{visible(row["says"])}" {row["probability"]:.2f}'
        yield f"{visible(row['token'])} → {says}  leads from: {leads}; most by {row['layer']} and {row['part']}"


def _lens(report: Payload) -> str:
    return (
        f"tuned lens {report['sha256'][:12]}: on {report['documents']} unseen documents {report['kl_tuned']:.2f} nats a token from the "
        f"output, the plain one {report['kl_plain']:.2f}, one trained on the outputs of other tokens {report['kl_shuffled']:.2f}"
    )


def _lens_row(row: Payload) -> str:
    tokens = " · ".join(visible(token) for token in row["tokens"][:3])
    where = "output" if row["before"] == "output" else f"before {row['before']}"
    return f"{where:<9} {tokens}  (the answer: rank {row['rank']}, log-probability {row['answer']:.1f})"


def logit_lens(payload: Payload, metrics: Payload) -> Iterator[str]:
    """What leads before each layer, and what adds most to the answer."""
    answer = f'"{visible(payload["answer"])}"'
    yield f"the likeliest token before each layer, by the last norm and the unembedding, and what says {answer}"
    for row in payload["layers"]:
        yield _lens_row(row)
    said = sorted(payload["components"], key=lambda row: -abs(row["logit"]))[:LISTED]
    yield "logits that parts add to it directly: " + ", ".join(
        f"{row['component']} {row['logit']:+.1f}" for row in said
    )
    neurons = ", ".join(f"{row['neuron']} {row['logit']:+.1f}" for row in payload["neurons"])
    yield f"neurons: {neurons}"


def importance(payload: Payload, metrics: Payload) -> Iterator[str]:
    """The parts without which an answer loses most."""
    answer = f'"{visible(payload["answer"])}" (probability {payload["probability"]:.2f})'
    kind = payload["kind"]
    yield f'what {answer} rests on after "{visible(payload["prompt"])}": nats that it loses without each of the {kind}'
    first = metrics["drop_first"]
    if payload["likeliest"] != payload["answer"]:
        likeliest = f'"{visible(payload["likeliest"])}" (probability {payload["likeliest_probability"]:.2f})'
        yield f"but the model says {likeliest} here"
    shown = [part for part in payload["parts"] if abs(part["drop"]) >= LEAST_NATS and _apart(part["interval"])]
    for part in sorted(shown, key=lambda part: -abs(part["drop"])):
        yield f"{part['part']:<7} {part['drop']:+.3f}{interval(part['interval'], '.3f')}"
    if not shown:
        yield f"none of them matters by {LEAST_NATS:g} nats"
    null = "random neurons" if kind == "neurons" else "the median of all"
    yield f"null: {null} {first['null_value']:+.3f}; {payload['of']} {kind} in all, of which less than {LEAST_NATS:g} nats is left out"
    yield f"each carries what it carries on {first['n']} other texts; they are chosen on as many more"
    if "rank_agreement" in metrics:
        agreement = metrics["rank_agreement"]
        yield f"chosen by gradients, whose order agrees with what was measured: {agreement['value']:.2f} ({agreement['n']} neurons)"


def _apart(interval: Sequence[float]) -> bool:
    """Whether an interval leaves 0 out."""
    low, high = interval
    return not low <= 0 <= high


OF_TOOLS = (importance, logit_lens, prediction_story)
