"""Any named activation on given texts."""

from typing import get_args

import numpy as np
import torch
from pydantic import Field

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.look.examples import Text, read_texts
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.targets.base import ModelSpec, Site, SiteName


class CaptureArgs(ToolArgs):
    """Which site of which layer, on which texts."""

    site: SiteName
    layer: int = Field(ge=0)
    texts: tuple[Text, ...] = Field(min_length=1, max_length=10_000)


def find_site(spec: ModelSpec, name: str, layer: int) -> Site:
    """The site. Refuses a layer that the model does not have."""
    for site in get_args(SiteName):
        if site == name and layer < spec.n_layers:
            return Site(site, layer)
    raise ToolRefused(f"layer {layer} does not exist: {spec.name} has layers 0 to {spec.n_layers - 1}")


@tool("capture")
def capture(context: ToolContext, args: CaptureArgs) -> ToolResult:
    """Shape, mean, standard deviation, extremes and mean norm of a site on given texts; the array is an artifact.

    The array is (texts, pos, …), right-padded with NaN.
    """
    site = find_site(context.target.spec, args.site, args.layer)
    tokens = read_texts(context.target, args.texts)
    ids = torch.from_numpy(np.where(tokens.ids < 0, 0, tokens.ids)).long()
    array = context.target.run(ids, read=[site], stop=args.layer + 1).read[site].float().numpy().copy()
    for window, length in enumerate(tokens.lengths):
        array[
            (window, slice(None), slice(length, None)) if site.name == "pattern" else (window, slice(length, None))
        ] = np.nan
    return ToolResult(
        payload={
            "site": str(site),
            "shape": list(array.shape),
            "mean": float(np.nanmean(array)),
            "std": float(np.nanstd(array)),
            "min": float(np.nanmin(array)),
            "max": float(np.nanmax(array)),
            "mean_norm": float(np.nanmean(np.sqrt((array**2).sum(axis=-1)))),
        },
        arrays={str(site): array},
    )
