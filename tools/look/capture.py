"""Any named activation on given texts."""

from typing import ClassVar

import numpy as np
from pydantic import Field

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.look.activations import batches, to_ids
from neuronaut.tools.look.examples import Prompt, read_texts
from neuronaut.tools.registry import Array, ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.targets.base import ModelSpec, PlainSiteName, Site, TargetModel
from neuronaut.tools.targets.checks import check_layer
from neuronaut.tools.tokens import Tokens

MOST_BYTES = 1 << 30
AXES = {"neurons": "text, pos, d_mlp", "heads": "text, pos, head, d_head", "pattern": "text, head, query, key"}


class CaptureArgs(ToolArgs):
    """Which site of which layer, on which texts."""

    example: ClassVar = {"site": "resid_post", "layer": 8, "texts": ["After Mary and Lucy met at the river"]}
    site: PlainSiteName
    layer: int = Field(ge=0)
    texts: tuple[Prompt, ...] = Field(min_length=1, max_length=10_000)


def find_site(spec: ModelSpec, name: PlainSiteName, layer: int) -> Site:
    """The site. Refuses a layer that the model does not have."""
    check_layer(spec, layer)
    return Site(name, layer)


def _captured(target: TargetModel, site: Site, tokens: Tokens) -> Array:
    """(texts, pos, …), NaN at padding. Refuses more than `MOST_BYTES`."""
    spec, (n, width) = target.spec, tokens.ids.shape
    sizes = {"neurons": spec.d_mlp, "heads": spec.n_heads * spec.d_head, "pattern": spec.n_heads * width}
    if (needed := 4 * n * width * sizes.get(site.name, spec.d_model)) > MOST_BYTES:
        raise ToolRefused(
            f"{site} of {n} texts would take {needed >> 20:,} MiB: give at most {MOST_BYTES >> 20:,} MiB of text"
        )
    array: Array | None = None
    for rows in batches(tokens):
        read = target.run(to_ids(tokens, rows), read=[site], stop=site.layer + 1).read[site].float().numpy()
        if array is None:
            shape = (spec.n_heads, width, width) if site.name == "pattern" else (width, *read.shape[2:])
            array = np.full((n, *shape), np.nan, dtype=np.float32)
        for row, values in zip(rows, read, strict=True):
            length = tokens.lengths[row]
            if site.name == "pattern":
                array[row, :, :length, :length] = values[:, :length, :length]
            else:
                array[row, :length] = values[:length]
    assert array is not None, "no text"
    return array


@tool("capture")
def capture(context: ToolContext, args: CaptureArgs) -> ToolResult:
    """Mean, standard deviation and extremes of a site on given texts, in the model's own units; the array is an artifact.

    mean_norm: mean over tokens (pattern: heads and queries; heads: also heads) of the Euclidean length of the last axis.
    The array is right-padded with NaN; special tokens are part of it. Refuses more than 1 GiB of activations.
    """
    site = find_site(context.target.spec, args.site, args.layer)
    tokens = read_texts(context.target, args.texts)
    array = _captured(context.target, site, tokens)
    return ToolResult(
        payload={
            "site": str(site),
            "axes": AXES.get(site.name, "text, pos, d_model"),
            "shape": list(array.shape),
            "tokens": int(tokens.lengths.sum()),
            "mean": float(np.nanmean(array)),
            "std": float(np.nanstd(array)),
            "min": float(np.nanmin(array)),
            "max": float(np.nanmax(array)),
            "mean_norm": float(np.sqrt(np.nansum(array**2, axis=-1))[~np.isnan(array).all(axis=-1)].mean()),
        },
        arrays={str(site): array},
    )
