"""The tables of a prediction's story: by layer, by part, by neuron and by place."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from neuronaut.tools.intervene.importance import Prompted
from neuronaut.tools.look.margins import Elsewhere, Places, neuron_margins, neurons_elsewhere, part_names
from neuronaut.tools.look.told import Told
from neuronaut.tools.registry import Array
from neuronaut.tools.targets.base import Site
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

WITHOUT_TEXTS = 8  # in whose place parts are put, where as many are long enough


def lens_rows(told: Told) -> list[dict[str, Any]]:
    """What leads at the last place before each layer and behind the last, by lens."""
    pieces, found = told.target.vocabulary.pieces, []
    for row in range(len(told.logits["plain"])):
        said: dict[str, Any] = {"row": row}
        for lens, logits in told.logits.items():
            here = logits[row, -1].double()
            top = int(here.argmax())
            said[lens] = {
                "token": pieces[top],
                "probability": round(float(torch.softmax(here, dim=-1)[top]), 4),
                "rank": int((here > here[told.pair[0]]).sum()) + 1,
                "margin": round(float(told.held(lens)[row]), 4),
            }
        found.append(said)
    return found


def layer_rows(told: Told, sums: Array, others: Elsewhere) -> list[dict[str, Any]]:
    """What the embedding and each layer add to the margin, and add elsewhere; beyond: more than layers stray elsewhere."""
    names, bar = (
        ["embedding", *(f"layer {layer}" for layer in range(told.target.spec.n_layers))],
        others.bar_at(told.margin),
    )
    return [
        {"layer": name, "adds": round(float(value), 4), "elsewhere": round(float(mean), 4),
         "beyond": bool(abs(value - mean) > bar)}
        for name, value, mean in zip(names, sums, others.mean, strict=True)
    ]  # fmt: skip


def part_rows(told: Told, others: Elsewhere, tokens: Tokens, k: int) -> list[dict[str, Any]]:
    """The k parts, biases among them, that add or take away most; beyond: more than parts stray elsewhere; without: what the
    answer loses without a head or an MLP, None where too few windows of `tokens` are as long as the text."""
    names, here, mean = part_names(told.target.spec), told.added[:, -1], others.mean
    bar = others.without_biases.bar_at(told.margin)
    order = np.argsort(-np.abs(here), kind="stable")[:k].tolist()
    drops = _without(told, [names[at] for at in order], tokens)
    return [
        {"part": names[at], "adds": round(float(here[at]), 4), "elsewhere": round(float(mean[at]), 4),
         "beyond": bool(abs(here[at] - mean[at]) > bar), "without": drops.get(names[at])}
        for at in order
    ]  # fmt: skip


def _without(told: Told, parts: Sequence[str], tokens: Tokens) -> dict[str, float]:
    """By part; empty where it cannot be measured."""
    n_pos = told.ids.shape[1]
    rows = np.flatnonzero(tokens.lengths >= n_pos)[:WITHOUT_TEXTS]
    asked = {name: site for name in parts if (site := _site_of(name)) is not None}
    if len(rows) < WITHOUT_TEXTS or not asked:
        return {}
    texts = torch.from_numpy(tokens.ids[rows, :n_pos]).long()
    drops = Prompted(told.target, "", told.ids, told.pair[:1], texts, texts).drops(list(asked.values()), texts)
    return dict(zip(asked, drops.mean(axis=1).round(4).tolist(), strict=True))


def _site_of(part: str) -> tuple[Site, int | None] | None:
    """Where a part writes from; None of the embedding and of biases."""
    if part.startswith("mlp"):
        return Site("mlp_out", int(part[3:])), None
    if part.startswith("L"):
        head = Unit.parse(part)
        return Site("heads", head.layer), head.index
    return None


def neuron_rows(told: Told, places: Sequence[Places], k: int) -> list[dict[str, Any]]:
    """The k neurons that add or take away most, beside what they add elsewhere; beyond: more than any strays there."""
    here = neuron_margins(told.target, told.readout, Places(told.ids, [told.ids.shape[1] - 1]), told.pair)
    if not here.units:
        return []
    others = neurons_elsewhere(told.target, told.readout, places, told.pair)
    bar, mean, values = others.bar_at(told.margin), others.mean, here.values[:, 0]
    return [
        {"neuron": here.units[at].address, "adds": round(float(values[at]), 4), "elsewhere": round(float(mean[at]), 4),
         "beyond": bool(abs(values[at] - mean[at]) > bar), "activation": round(float(here.acts[at, 0]), 4)}
        for at in here.largest(k)
    ]  # fmt: skip


def token_rows(told: Told, sums: Array) -> list[dict[str, Any]]:
    """Of every place: what is said there, from which row on it leads by each lens, and what adds most to it."""
    pieces, ids = told.target.vocabulary.pieces, told.ids[0].tolist()
    probability = torch.softmax(told.logits["plain"][-1].double(), dim=-1)
    tops = {lens: told.on_top_from(lens) for lens in told.logits}
    names, heads = part_names(told.target.spec), told.added[:-2]
    return [
        {
            "token": f"{at} {pieces[token]}",
            "says": pieces[int(told.said[at])],
            "probability": round(float(probability[at, told.said[at]]), 4),
            "on_top": {lens: int(rows[at]) for lens, rows in tops.items()},
            "layer": "embedding" if (first := int(sums[:, at].argmax())) == 0 else f"layer {first - 1}",
            "part": names[int(heads[:, at].argmax())],
        }
        for at, token in enumerate(ids)
    ]
