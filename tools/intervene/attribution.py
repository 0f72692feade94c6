"""Patching estimated by gradients: every component in a few runs, with how well its order agrees with exact patching."""

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from scipy import stats as scipy_stats
from torch import Tensor

from neuronaut.tools.intervene.effect_figures import patch_figures
from neuronaut.tools.intervene.patch import (
    Metric,
    PatchArgs,
    PromptPair,
    grid_payload,
    metric_of,
    patch_sites,
)
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolContext, ToolResult, tool
from neuronaut.tools.targets.base import Edit, Site


class AttributionPatchArgs(PatchArgs):
    """As for `patch`. steps: runs between base and other prompt over which the gradient is averaged (integrated gradients);
    1 takes the gradient of the base run alone. exact: patch exactly as well, and say how well the order agrees."""

    example: ClassVar = {**PatchArgs.example, "steps": 5}
    steps: int = Field(default=1, ge=1, le=100)
    exact: bool = True


@tool("attribution_patch")
def attribution_patch(context: ToolContext, args: AttributionPatchArgs) -> ToolResult:
    """The effects of `patch` estimated for all components at once: (other − base activation) · gradient of the metric.

    effect: as in `patch`, to first order. rank_agreement: Spearman correlation over the components between the estimate
    and exact patching, null 0; left out without `exact`.
    Refuses what `patch` refuses.
    Source: Nanda 2023, "Attribution patching"; Sundararajan et al. 2017, arXiv:1703.01365; Hanna et al. 2024,
    arXiv:2403.17806 (gradients integrated along the input embeddings).
    """
    target, pair = context.target, PromptPair.of(context.target, args.clean, args.corrupted)
    sites = patch_sites(target, args)
    metric = metric_of(pair, args.answer, args.wrong_answer, args.metric)
    base, other = (pair.corrupted, pair.clean) if args.direction == "denoise" else (pair.clean, pair.corrupted)
    estimate = estimated(metric, base, other, sites, args.steps) / (metric.clean - metric.corrupted)
    if args.direction == "noise":
        estimate = -estimate
    found = [
        Measurement("effect_best", float(estimate.max()), "share of the metric", 1, null_value=0.0, n_of="prompt pair")
    ]
    arrays = {"effect": estimate.numpy()}
    if args.exact:
        scores = metric.grid(base, other, sites)
        start = metric.corrupted if args.direction == "denoise" else metric.clean
        exact = (scores - start) / (metric.clean - metric.corrupted) * (1 if args.direction == "denoise" else -1)
        arrays["exact"] = exact.numpy()
        agreement = float(scipy_stats.spearmanr(estimate.flatten().numpy(), exact.flatten().numpy()).statistic)
        if np.isfinite(agreement):
            n = estimate.numel()
            found.append(
                Measurement("rank_agreement", agreement, "Spearman correlation", n, null_value=0.0, n_of="component")
            )
    payload = grid_payload(args, metric, sites, estimate)
    return ToolResult(tuple(found), payload, arrays, patch_figures("attribution_patch", payload))


def estimated(metric: Metric, base: Tensor, other: Tensor, sites: list[Site], steps: int) -> Tensor:
    """(n_sites, n_columns) float64 change of the metric of the base run, to first order, when one activation of the other
    run is put in; by position, or by head or neuron. base, other: (1, pos) ids."""
    target, entry = metric.pair.target, Site("resid_pre", 0)
    read = list(dict.fromkeys([entry, *sites]))
    there, here = (target.run(ids, read=read).read for ids in (other, base))
    edits: list[Edit] = []
    if steps > 1:
        way = torch.linspace(0, 1, steps + 1)[:-1] + 0.5 / steps
        edits = [Edit(entry, "set", here[entry] + way[:, None, None] * (there[entry] - here[entry]))]
    gradients = metric.gradients(base.expand(steps, -1), sites, edits)
    rows = []
    for site in sites:
        change = ((there[site] - here[site])[0] * gradients[site].mean(dim=0)).double()  # (pos, …)
        match site.name:
            case "heads":
                rows.append(change.sum(dim=(0, 2)))
            case "neurons":
                rows.append(change.sum(dim=0))
            case _:
                rows.append(change.sum(dim=1))
    return torch.stack(rows)
