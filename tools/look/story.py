"""How a prediction comes about: from which layer on it leads by two lenses, and which parts say it, at every place of a text."""

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.figures import Axes, Bar, Figure, bars
from neuronaut.tools.look.examples import Text
from neuronaut.tools.look.lens import said_map, settled, trained_lens
from neuronaut.tools.look.margins import BIASES, Elsewhere, by_layer, elsewhere, null_places, other_windows, part_names
from neuronaut.tools.look.story_tables import layer_rows, lens_rows, neuron_rows, part_rows, token_rows
from neuronaut.tools.look.told import Told
from neuronaut.tools.look.tuned_lens import Residuals, TunedLens, residuals_of
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import Array, ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import percentile_of

EXPLORE_TOKENS = 16_384
SETTLING_TOKENS = 256  # of explore text, whose predictions say how early a prediction leads at all
DRAWN = 14  # parts of the figure
MOST_DRAWN_TOKENS = 64


class PredictionStoryArgs(ToolArgs):
    """The text, a single token that follows it ("": the model's own; a leading space may be left out), and the one against which it is
    held ("": the likeliest other one). lens: `tuned` stands beside the plain one, after `tune_lens` has trained it. k: parts and
    neurons. n_texts: of other explore text."""

    example: ClassVar = {"text": "After Mary and Lucy met at the river, Lucy gave a ring to", "n_texts": 8}
    text: Text
    answer: str = ""
    rival: str = ""
    lens: Literal["plain", "tuned"] = "plain"
    k: int = Field(default=8, ge=1, le=1000)
    n_texts: int = Field(default=32, ge=2, le=1000)
    seed: int = Field(default=0, ge=0)


@tool("prediction_story")
def prediction_story(context: ToolContext, args: PredictionStoryArgs) -> ToolResult:
    """How the model comes to what it says after a text: from which layer on the answer leads, at which layer its margin over a
    rival changes most, and how much the embedding and every head, MLP and neuron adds to that margin.

    on_top_plain, on_top_tuned: the first row (0: the embedding, L: behind the last of L layers) from which on the answer is the
    likeliest token to the end, by the last norm and the unembedding, and after the map of the tuned lens; null: the median over
    explore tokens, percentile among them. margin: logits of the answer less the rival's; with the biases the parts add up to it
    (before a soft cap), the scale of the last norm being taken as it is. layer_most, part_most: the layer (heads and MLP) and
    the part that add most to it; null: how far the farthest of all strays from what it adds on average to the same margin, at
    99 % of the places of other explore text at which the model says neither, or a twentieth of the margin if that is more: what
    strays no farther decides nothing, and is not named.
    without: nats by which the answer's log-probability falls when a part carries what it carries on other text, total effect.
    tokens: the same of every place of the text, for what the model says there.
    Refuses: answers that are no single tokens or equal; `tuned` before it was trained; a model whose output is not its last norm
    and its unembedding.
    Source: nostalgebraist 2020, "interpreting GPT: the logit lens"; Belrose et al. 2023, arXiv:2303.08112; Elhage et al. 2021
    (direct attribution).
    """
    target, lens = context.target, trained_lens(context) if args.lens == "tuned" else None
    told = Told.of(target, args.text, (args.answer, args.rival), lens)
    tokens = context.sample("explore", EXPLORE_TOKENS)
    windows = other_windows(tokens, args.n_texts, args.seed)
    if len(windows) < 2:
        raise ToolRefused("the explore text has fewer than 2 windows of 3 tokens: give a corpus with more text")
    places = null_places(target, windows, told.pair)
    others = elsewhere(target, told.readout, places, told.pair)
    parts, neurons = part_rows(told, others, tokens, args.k), neuron_rows(told, places, args.k)
    beyond = [row["part"] for row in parts if row["part"].startswith("L") and row["beyond"]]
    payload = _asked(told, args.text) | _layers(told, others) | {
        "lens": None if lens is None else _lens_report(lens),
        "parts": parts,
        "neurons": neurons,
        "other_places": others.values.shape[1],
        "other_texts": others.texts,
        "units": beyond + [row["neuron"] for row in neurons if row["beyond"]],
    }  # fmt: skip
    held = {f"margin_{name}": told.held(name) for name in told.logits}
    arrays = {"parts": told.added, "elsewhere": others.values} | held
    return ToolResult(_measured(told, others, _settling(context, told, lens)), payload, arrays, _figures(told, others))


def _measured(told: Told, others: Elsewhere, settling: dict[str, Array]) -> tuple[Measurement, ...]:
    """settling: see `_settling`."""
    sums, parts = by_layer(told.target.spec, told.added)[:, -1], told.added[: -len(BIASES), -1]
    return (
        *(_on_top(told, name, settling[name]) for name in told.logits),
        _margin(told, others),
        _most("layer_most", sums, others.by_layer(told.target.spec).bar_at(told.margin)),
        _most("part_most", parts, others.without_biases.bar_at(told.margin)),
    )


def _layers(told: Told, others: Elsewhere) -> dict[str, Any]:
    """What layers add: which of them decides, at the last place and at every one."""
    sums, layers = by_layer(told.target.spec, told.added), others.by_layer(told.target.spec)
    return {
        "decides": _decides(sums[:, -1], layers, told.margin),
        "rows": lens_rows(told),
        "layers": layer_rows(told, sums[:, -1], layers),
        "tokens": token_rows(told, sums),
    }


def _asked(told: Told, text: str) -> dict[str, Any]:
    """What is asked about, and how likely it is."""
    pieces, (answer, rival) = told.target.vocabulary.pieces, told.pair
    last = torch.softmax(told.logits["plain"][-1, -1].double(), dim=-1)
    return {
        "text": text,
        "answer": pieces[answer],
        "rival": pieces[rival],
        "likeliest": pieces[int(last.argmax())],
        "probability": round(float(last[answer]), 5),
        "margin": round(told.margin, 4),
        "model_margin": round(float(told.held("plain")[-1]), 4),
    }


def _settling(context: ToolContext, told: Told, lens: TunedLens | None) -> dict[str, Array]:
    """By lens, the rows from which on predictions lead at places of explore text."""
    tokens = context.sample("explore", 4 * SETTLING_TOKENS)
    found = residuals_of(told.target, tokens)
    step = max(1, len(found.last) // SETTLING_TOKENS)
    kept = Residuals(found.before[:, ::step], found.last[::step], found.documents[::step])
    lenses: dict[str, TunedLens | None] = {"plain": None} | ({} if lens is None else {"tuned": lens})
    final = told.readout(kept.last).argmax(dim=-1)
    rows = {}
    for name, one in lenses.items():
        read = [x if one is None else one(x, layer) for layer, x in enumerate(kept.before)]
        rows[name] = settled(torch.stack([*(told.readout(x).argmax(dim=-1) for x in read), final]), final)
    return rows


def _on_top(told: Told, lens: str, others: Array) -> Measurement:
    value = float(told.on_top_from(lens)[-1])
    percentile = percentile_of(value, others)
    return Measurement(f"on_top_{lens}", value, "row", 1, None, float(np.median(others)), percentile, n_of="position")


def _margin(told: Told, others: Elsewhere) -> Measurement:
    here, there = told.margin, others.values.sum(axis=0)
    return Measurement(
        "margin", here, "logits", 1, None, float(there.mean()), percentile_of(here, there), n_of="position"
    )


def _most(name: str, values: Array, bar: float) -> Measurement:
    return Measurement(name, float(values.max()), "logits", 1, null_value=bar, n_of="position")


def _decides(sums: Array, others: Elsewhere, margin: float) -> str:
    """The layer that adds most to the margin, "embedding", or "none" where none adds more than layers do elsewhere."""
    first = int(sums.argmax())
    if sums[first] - others.mean[first] <= others.bar_at(margin):
        return "none"
    return "embedding" if first == 0 else f"layer {first - 1}"


def _lens_report(lens: TunedLens) -> dict[str, Any]:
    report = lens.report
    mean = {name: round(float(np.mean([row[name] for row in report["layers"]])), 4) for name in report["intervals"]}
    return {"sha256": report["sha256"], "documents": report["documents"], **{f"kl_{k}": v for k, v in mean.items()}}


def _figures(told: Told, others: Elsewhere) -> tuple[Figure, ...]:
    pieces, from_ = told.target.vocabulary.pieces, max(0, told.ids.shape[1] - MOST_DRAWN_TOKENS)
    labels = [
        f"{pieces[token]}→{pieces[int(said)]}" for token, said in zip(told.ids[0].tolist(), told.said, strict=True)
    ]
    found = []
    for lens, logits in told.logits.items():
        title = f"Probability, by the {lens} lens, of what the model says in the end"
        axes = Axes(title, "token→what is said", "", "probability")
        found.append(said_map(f"story_{lens}_lens", logits[:, from_:], told.said[from_:], labels[from_:], axes))
    order = np.argsort(-np.abs(told.added[:, -1]), kind="stable")[:DRAWN].tolist()
    names, (low, high) = part_names(told.target.spec), others.ends
    drawn = [Bar(names[at], float(told.added[at, -1]), float(low[at]), float(high[at])) for at in order]
    answer, rival = (pieces[token] for token in told.pair)
    title = f'What parts add to "{answer}" over "{rival}"'
    note = f"grey: 95 % of {others.values.shape[1]} places of other text"
    return (*found, bars("story_parts", drawn, Axes(title, unit="logits", notes=(note,))))
