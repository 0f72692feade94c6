"""Runs in which single edges, from a part that writes to the residual stream to a part that reads it, carry another run.

A receiver whose edges are cut reads its own residual: that of the run plus, for each edge that is cut, what the sender writes in
the other run less what it writes in this one. For a head this changes the output of its projection alone, for an MLP and the
last norm what enters the norm, so that one forward pass makes any set of cuts.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuronaut.tools.circuits.wires import PARTS, Wires
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.targets.base import AttentionWeights, EdgeGradients, EdgeStart, Edit, ModelSpec, Site
from neuronaut.tools.targets.carried import Carried
from neuronaut.tools.targets.hooks import Removable, Visit, after, before, differentiated
from neuronaut.tools.targets.layers import Layer
from neuronaut.tools.targets.notes import Wrote, editing, edits_at, filling, keeping, leaf, noting
from neuronaut.tools.targets.receivers import (
    Projection,
    apart,
    fault_of_reads,
    projections_of,
    pulled_back,
    without_hooks,
    written_by_heads,
)

PROBE_TOKENS = 8


@dataclass(frozen=True)
class Insides:
    """What is run: the layers of a loaded model, and how its target hooks and skips them."""

    spec: ModelSpec
    layers: Sequence[Layer]
    last_norm: nn.Module
    model: Any
    weights: Callable[[int], AttentionWeights]
    hook: Callable[[Site, Visit], Removable]
    only_layers: Callable[..., contextlib.AbstractContextManager[None]]
    tolerance: float


class EdgeRuns:
    """Runs with edges cut, the outputs of senders and the gradients at receivers; see TargetModel.

    Refuses a model whose parts do not read and write the residual stream as the wires say.
    """

    def __init__(self, insides: Insides) -> None:
        self._in, self._wires = insides, Wires.of(insides.spec)
        if fault := self._fault():
            raise self._refusal(fault)

    def _refusal(self, fault: str) -> ToolRefused:
        return ToolRefused(f"{self._in.spec.name} cannot be taken apart into edges: {fault}")

    def carried(self, ids: Tensor, other: Tensor, cut: Tensor, positions: Tensor | None, first: int) -> Carried:
        """What the cut edges carry. Refuses what does not fit `ids`, edges that do not exist, or that end before layer
        `first`."""
        wires, (batch, n_pos) = self._wires, ids.shape
        carried, edges = (len(wires.senders), n_pos, self._in.spec.d_model), tuple(wires.possible.shape)
        if other.shape[1:] != carried or other.shape[0] not in (1, batch):
            raise ToolRefused(f"other {tuple(other.shape)} is not {(batch, *carried)}: what each sender writes")
        if cut.dtype != torch.bool or cut.shape[1:] != edges or cut.shape[0] not in (1, batch):
            raise ToolRefused(f"cut {tuple(cut.shape)} of {cut.dtype} is not {(batch, *edges)} of bool")
        if positions is not None and tuple(positions.shape) not in ((1, n_pos), (batch, n_pos)):
            raise ToolRefused(f"positions {tuple(positions.shape)} do not mark the {n_pos} of each row")
        if bool((cut & ~wires.possible).any()):
            edge = wires.edges((cut & ~wires.possible).any(dim=0))[0]
            raise ToolRefused(f"{edge} is no edge: {edge.receiver} reads before {edge.sender} writes")
        if wires.layers.index(first) > 0 and bool(cut[:, : wires.layers.index(first)].any()):
            raise ToolRefused(f"an edge into a layer before {first} is cut, which is not run: start earlier")
        return Carried(wires, other, cut, positions)

    @torch.inference_mode()
    def senders(self, ids: Tensor, edits: Sequence[Edit]) -> Tensor:
        """(batch, n_senders, pos, d_model) what each sender writes."""
        shape = (len(ids), len(self._wires.senders), ids.shape[1], self._in.spec.d_model)
        found = torch.empty(shape)
        with contextlib.ExitStack() as stack:
            self._edit(stack, edits)
            self._watch(stack, filling(found), 0, lambda _: True)
            self._in.model(ids, use_cache=False, logits_to_keep=1)
        return found

    @torch.inference_mode()
    def run(
        self, ids: Tensor, carried: Carried, *, start: EdgeStart | None, edits: Sequence[Edit], keep: int
    ) -> Tensor:
        """(batch, keep, d_vocab) logits at the last `keep` positions."""
        n_layers, first = len(self._in.layers), 0 if start is None else start.layer
        with contextlib.ExitStack() as stack:
            if start is not None:
                resumed = (start.layer, start.residual)
                stack.enter_context(self._in.only_layers(resumed, n_layers, stop_there=False))
                carried.wrote(range(start.senders.shape[1]), start.senders)
            self._edit(stack, edits)
            self._watch(stack, carried.wrote, first, carried.needs)
            for number in range(first, n_layers):
                self._rewire(stack, number, carried)
            if carried.cuts(range(self._wires.logits, self._wires.logits + 1)):
                stack.callback(before(self._in.last_norm, carried.adding(self._wires.logits)).remove)
            logits: Tensor = self._in.model(ids, use_cache=False, logits_to_keep=keep).logits
        return logits[:, -keep:]

    def gradients(
        self, ids: Tensor, score: Callable[[Tensor], Tensor], edits: Sequence[Edit], keep: int
    ) -> EdgeGradients:
        """What each sender writes, and the gradient of the score at what each receiver reads."""
        entry, read, leaves = Site("resid_pre", 0), dict[int, Tensor](), dict[tuple[int, int], Tensor]()
        senders = torch.empty(len(ids), len(self._wires.senders), ids.shape[1], self._in.spec.d_model)
        with torch.enable_grad(), contextlib.ExitStack() as stack:
            stack.callback(self._in.hook(entry, differentiated(entry, edits_at(edits, entry), {}, leaf=True)).remove)
            self._edit(stack, [edit for edit in edits if edit.site != entry])
            self._watch(stack, filling(senders), 0, lambda _: True)
            for number, layer in enumerate(self._in.layers):
                stack.callback(before(layer.attn_in, keeping(read, number)).remove)
                for part, module in enumerate(layer.projections):
                    stack.callback(after(module, leaf(leaves, (number, part))).remove)
                if self._wires.has_mlp:
                    stack.callback(before(layer.mlp_in, leaf(leaves, (number, len(PARTS)))).remove)
            stack.callback(before(self._in.last_norm, leaf(leaves, (len(self._in.layers), 0))).remove)
            torch.autograd.backward(score(self._in.model(ids, use_cache=False, logits_to_keep=keep).logits).sum())
        found = senders.new_zeros(len(ids), len(self._wires.receivers), *senders.shape[2:])
        for number in range(len(self._in.layers)):
            self._pull_back(number, read[number], leaves, found)
        if (last := leaves[len(self._in.layers), 0].grad) is not None:
            found[:, self._wires.logits] = last
        return EdgeGradients(senders, found)

    def _pull_back(self, number: int, read: Tensor, leaves: dict[tuple[int, int], Tensor], found: Tensor) -> None:
        """Fills in the gradients at what the parts of one layer read. read: (batch, pos, d_model) before the norm."""
        layer = self._in.layers[number]
        fused = len(layer.projections) == 1
        for at, (part, projection) in enumerate(zip(PARTS, self._projections(number), strict=True)):
            gradient = leaves[number, 0 if fused else at].grad
            if gradient is not None:
                numbers = self._wires.reads(number, part)
                found[:, numbers.start : numbers.stop] = pulled_back(layer.attn_norm, read, projection.back(gradient))
        for receiver in self._wires.mlp_reads(number):
            if (gradient := leaves[number, len(PARTS)].grad) is not None:
                found[:, receiver] = gradient

    def _projections(self, number: int) -> tuple[Projection, ...]:
        return projections_of(self._in.layers[number], self._in.weights(number))

    def _edit(self, stack: contextlib.ExitStack, edits: Sequence[Edit]) -> None:
        for site in dict.fromkeys(edit.site for edit in edits):
            stack.callback(self._in.hook(site, editing(edits_at(edits, site))).remove)

    def _watch(self, stack: contextlib.ExitStack, wrote: Wrote, first: int, needs: Callable[[range], bool]) -> None:
        """Calls `wrote` with what the senders of the layers from `first` on write, where they are needed."""
        if first == 0 and needs(range(1)):
            stack.callback(before(self._in.layers[0].block, noting(wrote, range(1))).remove)
        for number in range(first, len(self._in.layers)):
            layer, heads, mlp = self._in.layers[number], self._wires.heads(number), self._wires.mlp(number)
            if needs(heads):
                z: dict[int, Tensor] = {}
                stack.callback(before(layer.heads_in, keeping(z, number)).remove)
                stack.callback(after(layer.attn_out, self._noting_heads(number, z, wrote)).remove)
            if mlp and needs(mlp):
                stack.callback(after(layer.mlp_out, noting(wrote, mlp)).remove)

    def _noting_heads(self, number: int, z: dict[int, Tensor], wrote: Wrote) -> Visit:
        weights, heads = self._in.weights(number), self._wires.heads(number)

        def visit(attn_out: Tensor) -> Tensor:
            with torch.no_grad():
                wrote(heads, written_by_heads(self._in.layers[number], weights, z.pop(number), attn_out))
            return attn_out

        return visit

    def _rewire(self, stack: contextlib.ExitStack, number: int, carried: Carried) -> None:
        """Lets the parts of a layer that have an edge cut read what is carried."""
        layer, reads = self._in.layers[number], [self._wires.reads(number, part) for part in PARTS]
        if any(carried.cuts(receivers) for receivers in reads):
            read: dict[int, Tensor] = {}
            stack.callback(before(layer.attn_in, keeping(read, number)).remove)
            for projection, receivers in zip(self._projections(number), reads, strict=True):
                if carried.cuts(receivers):
                    visit = self._reading(number, read, projection, carried, receivers)
                    stack.callback(after(projection.module, visit).remove)
        for receiver in self._wires.mlp_reads(number):
            if carried.cuts(range(receiver, receiver + 1)):
                stack.callback(before(layer.mlp_in, carried.adding(receiver)).remove)

    def _reading(
        self, number: int, read: dict[int, Tensor], projection: Projection, carried: Carried, receivers: range
    ) -> Visit:
        """Puts in what those heads of a projection that have an edge cut make of what they then read."""
        heads = carried.cuts(receivers)
        norm = self._in.layers[number].attn_norm

        def visit(output: Tensor) -> Tensor:
            entered = (read[number][:, None] + carried.change([receivers[head] for head in heads])).to(output.dtype)
            changed = output.clone()
            projection.part(changed)[:, :, heads] = projection.of(without_hooks(norm, entered), heads)
            return changed

        return visit

    @torch.inference_mode()
    def _fault(self) -> str | None:
        """What is wrong with the wires, seen on a few tokens; None where parts read and write as they say."""
        ids = torch.arange(min(PROBE_TOKENS, self._in.spec.n_ctx, self._in.spec.d_vocab))[None]
        seen: dict[tuple[int, str], Tensor] = {}
        with contextlib.ExitStack() as stack:
            for number, layer in enumerate(self._in.layers):
                stack.callback(before(layer.attn_in, keeping(seen, (number, "attn_in"))).remove)
                stack.callback(after(layer.attn_out, keeping(seen, (number, "attn_out"))).remove)
                for part, module in enumerate(layer.projections):
                    stack.callback(after(module, keeping(seen, (number, str(part)))).remove)
                if self._wires.has_mlp:
                    stack.callback(before(layer.mlp_in, keeping(seen, (number, "mlp_in"))).remove)
            stack.callback(before(self._in.last_norm, keeping(seen, (len(self._in.layers), "last"))).remove)
            written = self.senders(ids, ())
        for number, layer in enumerate(self._in.layers):
            projections, fused = self._projections(number), len(layer.projections) == 1
            outputs = [seen[number, "0" if fused else str(part)] for part in range(len(PARTS))]
            fault = fault_of_reads(layer.attn_norm, projections, seen[number, "attn_in"], outputs, self._in.tolerance)
            if fault:
                return f"in layer {number} {fault}"
            if self._wires.has_mlp:
                between = seen[number, "attn_in"]
                between = between if self._in.spec.parallel else between + seen[number, "attn_out"]
                if apart(seen[number, "mlp_in"], between) > self._in.tolerance:
                    return f"the MLP of layer {number} does not read what its attention {'reads' if self._in.spec.parallel else 'leaves'}"
        biases = sum(self._in.weights(number).b_O for number in range(len(self._in.layers)))
        if apart(written.sum(dim=1) + biases, seen[len(self._in.layers), "last"]) > self._in.tolerance:
            return "what its parts write does not add up to what the last norm reads"
        return None
