"""Directions: of what a head or an MLP reads and writes (singular vectors), and of activations (PCA, ICA, NMF)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.figures import Axes, Series, curve
from neuronaut.tools.look.activations import batches, to_ids
from neuronaut.tools.look.capture import find_site
from neuronaut.tools.look.components import Floats, Method, parts_of
from neuronaut.tools.look.head_weights import attention_out_gain
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.targets.base import PlainSiteName, Site, TargetModel
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.tokens import Tokens
from neuronaut.tools.units import Unit

MOST_BYTES = 512 << 20  # of activations that are held
RESIDUAL = ("resid_pre", "attn_out", "mlp_out", "resid_post")


class DecomposeArgs(ToolArgs):
    """of: a head's OV or QK circuit (give unit), a layer's W_in or W_out, or activations of a site on explore text (give
    layer; method; n_tokens). k: directions. tokens: listed for each."""

    example: ClassVar = {"of": "OV", "unit": "L7H0", "k": 3, "tokens": 5}
    of: Literal["OV", "QK", "W_in", "W_out", "activations"]
    unit: str | None = None
    layer: int | None = Field(default=None, ge=0)
    site: PlainSiteName = "resid_post"
    method: Method = "pca"
    k: int = Field(default=5, ge=1, le=256)
    tokens: int = Field(default=8, ge=1, le=100)
    n_tokens: int = Field(default=8192, ge=256, le=1_000_000)
    seed: int = Field(default=0, ge=0)


@tool("decompose")
def decompose(context: ToolContext, args: DecomposeArgs) -> ToolResult:
    """The k strongest directions of a weight matrix or of activations, with the tokens of each, and how much they explain.

    OV, QK, W_in, W_out: singular vectors, the gains of the norms before folded in. reads: tokens whose embedding lies most along
    the direction that is read (QK: queries; looks at: keys); writes: tokens that the direction written promotes; W_in, W_out: the
    neurons along it. Signs are chosen so that the larger entries are positive.
    activations: PCA, ICA (FastICA) or NMF of a site on explore text, special tokens left out; at: the tokens where a component
    is largest, one a document; writes as above, for sites of the residual stream.
    explained: share of the squared norm (activations: of the variance; NMF: of the squared norm) that the k directions rebuild;
    its null is the same of shuffled entries (activations: each dimension shuffled over tokens).
    Refuses: OV and QK without a head; NMF of activations below 0; the attention pattern.
    Source: Millidge & Black 2022, "The singular value decompositions of transformer weight matrices are highly interpretable";
    Hyvärinen & Oja 2000 (FastICA); Lee & Seung 1999 (NMF).
    """
    return _of_activations(context, args) if args.of == "activations" else _of_weights(context, args)


def _of_weights(context: ToolContext, args: DecomposeArgs) -> ToolResult:
    matrix = Matrix.of(context.target, args)
    left, values, right = torch.linalg.svd(matrix.left @ matrix.right, full_matrices=False)
    rank = min(len(values), matrix.left.shape[1])
    k, shares = min(args.k, rank), (values.square() / values.square().sum())[:rank]
    rows = []
    for at in range(k):
        u, v = left[:, at], right[at]
        sign = 1.0 if float(v[v.abs().argmax()]) > 0 else -1.0
        named = {
            matrix.left_name: matrix.named(context.target, matrix.left_says, sign * u, args.tokens),
            matrix.right_name: matrix.named(context.target, matrix.right_says, sign * v, args.tokens),
        }
        rows.append({"value": round(float(values[at]), 4), "explained": round(float(shares[at]), 4), **named})
    null = matrix.shuffled_share(k, args.seed)
    of = "share of the squared norm"
    measurement = Measurement("explained", float(shares[:k].sum()), of, 1, null_value=null, n_of="matrix")
    drawn = curve(
        "singular_values",
        [Series(matrix.name, list(range(rank)), values[:rank].tolist())],
        Axes(f"Singular values of {matrix.name}", "direction", "", "value"),
    )
    arrays = {"left": left[:, :k].T.numpy(), "values": values[:rank].numpy(), "right": right[:k].numpy()}
    return ToolResult((measurement,), {"of": matrix.name, "directions": rows}, arrays, (drawn,))


Says = Literal["embedding", "unembedding", "neurons"]


@dataclass(frozen=True)
class Matrix:
    """A product left (n, r) @ right (r, m), what its two ends are called, and what names a direction there."""

    name: str
    left: Tensor
    right: Tensor
    left_name: str
    left_says: Says
    right_name: str
    right_says: Says
    layer: int

    @classmethod
    def of(cls, target: TargetModel, args: DecomposeArgs) -> "Matrix":
        """The matrix that is asked for. Refuses a missing or unfit unit or layer."""
        if args.of in ("OV", "QK"):
            if args.unit is None or (unit := Unit.parse(args.unit)).kind != "head":
                raise ToolRefused(f"{args.of} belongs to a head: give unit, such as L7H0")
            check_unit(target.spec, unit, target.dictionaries)
            return cls._of_head(target, args.of, unit)
        if args.layer is None:
            raise ToolRefused(f"{args.of} belongs to a layer: give layer")
        layer = find_site(target.spec, "neurons", args.layer).layer
        eye = torch.eye(target.spec.d_mlp)
        if args.of == "W_in":
            reads = target.read_vectors(layer)
            return cls(f"W_in of layer {layer}", reads.T, eye, "reads", "embedding", "neurons", "neurons", layer)
        writes = target.write_vectors(layer)
        return cls(f"W_out of layer {layer}", eye, writes, "neurons", "neurons", "writes", "unembedding", layer)

    @classmethod
    def _of_head(cls, target: TargetModel, of: str, unit: Unit) -> "Matrix":
        weights, gain = target.attention_weights(unit.layer), target.attention_norm_gain(unit.layer)[:, None]
        group = unit.index // (target.spec.n_heads // target.spec.n_kv_heads)
        name = f"{of} of {unit.address}"
        if of == "QK":
            q, k = gain * weights.W_Q[unit.index], gain * weights.W_K[group]
            return cls(name, q, k.T, "reads", "embedding", "looks at", "embedding", unit.layer)
        out = weights.W_O[unit.index] * attention_out_gain(target, unit.layer)
        return cls(name, gain * weights.W_V[group], out, "reads", "embedding", "writes", "unembedding", unit.layer)

    def named(self, target: TargetModel, says: Says, direction: Tensor, n: int) -> list[str]:
        """The tokens or neurons along a direction, the strongest first."""
        if says == "neurons":
            best = torch.topk(direction.abs(), min(n, len(direction))).indices.tolist()
            return [f"{Unit('neuron', self.layer, i).address} {float(direction[i]):.2f}" for i in best]
        return token_names(target, says, direction, n)

    def shuffled_share(self, k: int, seed: int) -> float:
        """What k directions explain when the entries of both factors are shuffled."""
        rng = torch.Generator().manual_seed(seed)
        parts = []
        for factor in (self.left, self.right):
            whole = torch.equal(factor, torch.eye(*factor.shape))
            mixed = factor if whole else factor.flatten()[torch.randperm(factor.numel(), generator=rng)]
            parts.append(mixed.reshape(factor.shape))
        values = torch.linalg.svdvals(parts[0] @ parts[1]).square()
        return float(values[:k].sum() / values.sum())


def token_names(target: TargetModel, says: Literal["embedding", "unembedding"], direction: Tensor, n: int) -> list[str]:
    """The tokens whose embedding lies most along a direction (d_model,), or that it promotes; special ones left out."""
    if says == "embedding":
        scores = target.embed @ direction
    else:
        scores = (direction * target.final_norm_gain()) @ target.unembed
    scores = scores - scores.mean()
    scores[list(target.vocabulary.special)] = -torch.inf
    return [target.vocabulary.pieces[i] for i in torch.topk(scores, min(n, len(scores))).indices.tolist()]


def _of_activations(context: ToolContext, args: DecomposeArgs) -> ToolResult:
    target = context.target
    if args.layer is None:
        raise ToolRefused("activations belong to a layer: give layer")
    if args.site == "pattern":
        raise ToolRefused(
            "attention patterns have no directions: choose another site, or look at them with attention_on"
        )
    site = find_site(target.spec, args.site, args.layer)
    x, pieces, documents = _activations(context, site, args.n_tokens)
    if args.method == "nmf" and float(x.min()) < 0:
        raise ToolRefused(f"NMF needs activations of 0 and above, and {site} has negative ones: choose pca or ica")
    k = min(args.k, *x.shape)
    parts = parts_of(x, args.method, k, args.seed)
    rng = np.random.default_rng(args.seed)
    mixed = np.stack([rng.permutation(column) for column in x.T], axis=1)
    null = parts_of(mixed, args.method, k, args.seed).explained(mixed)
    of = "share of the squared norm" if args.method == "nmf" else "share of the variance"
    measurement = Measurement("explained", parts.explained(x), of, len(x), null_value=null, n_of="tokens")
    total = float(np.square(x - parts.mean, dtype=np.float64).sum())
    rows = []
    for scores, direction in zip(parts.scores.T, parts.directions, strict=True):
        share = float(np.square(scores, dtype=np.float64).sum() * np.square(direction, dtype=np.float64).sum()) / total
        row: dict[str, Any] = {"explained": round(share, 4), "at": _largest(scores, pieces, documents, args.tokens)}
        if args.site in RESIDUAL:
            row["writes"] = token_names(target, "unembedding", torch.from_numpy(direction), args.tokens)
        elif args.site == "neurons":
            best = np.argsort(-np.abs(direction), kind="stable")[: args.tokens]
            row["neurons"] = [f"{Unit('neuron', site.layer, int(i)).address} {direction[i]:.2f}" for i in best]
        rows.append(row)
    said = {"of": str(site), "method": args.method, "converged": parts.converged, "directions": rows}
    arrays = {"directions": parts.directions, "mean": parts.mean, "scores": parts.scores}
    return ToolResult((measurement,), said, arrays)


def _activations(context: ToolContext, site: Site, n_tokens: int) -> tuple[Floats, list[str], NDArray[np.int64]]:
    """(n, width) of text tokens of explore, with their pieces and documents."""
    spec = context.target.spec
    width = {"neurons": spec.d_mlp, "heads": spec.n_heads * spec.d_head}.get(site.name, spec.d_model)
    tokens: Tokens = context.sample("explore", min(n_tokens, MOST_BYTES // (4 * width)))
    parts, ids, documents = [], [], []
    for rows in batches(tokens):
        part = tokens.select(rows)
        read = context.target.run(to_ids(part), read=[site], stop=site.layer + 1).read
        parts.append(read[site].float().flatten(2)[torch.from_numpy(part.scored)].numpy())
        ids.append(part.ids[part.scored])
        documents.append(np.broadcast_to(part.documents[:, None], part.ids.shape)[part.scored])
    pieces = [tokens.vocabulary.pieces[i] for i in np.concatenate(ids).tolist()]
    return np.concatenate(parts), pieces, np.concatenate(documents)


def _largest(scores: Floats, pieces: Sequence[str], documents: NDArray[np.int64], n: int) -> list[str]:
    """Tokens at the largest scores, one a document."""
    found, seen = [], set()
    for at in np.argsort(-scores, kind="stable").tolist():
        if documents[at] not in seen:
            seen.add(documents[at])
            found.append(pieces[at])
        if len(found) == n:
            break
    return found
