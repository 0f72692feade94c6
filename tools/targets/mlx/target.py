"""Targets through mlx-lm: on the GPU of Apple silicon, or on the processor of a Linux machine.

What a run reads is described first and computed once, at the end. Values that leave are tensors of torch.
"""

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from importlib.metadata import version

import mlx.core as mx
import torch
from torch import Tensor

from neuronaut.tools.chat.format import ChatFormat
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.features.dictionary import Dictionary
from neuronaut.tools.targets.base import (
    AttentionWeights,
    EdgeGradients,
    EdgeStart,
    Edit,
    Fingerprint,
    ModelSpec,
    Run,
    Site,
)
from neuronaut.tools.targets.checks import check_expert, check_layer, check_run, last_layer
from neuronaut.tools.targets.feature_hooks import check_features, check_fits
from neuronaut.tools.targets.folder import ModelFolder
from neuronaut.tools.targets.layers import PROBED, fault_of
from neuronaut.tools.targets.mlx.arrays import DTYPES, to_mlx, to_torch
from neuronaut.tools.targets.mlx.attention import patterns_kept
from neuronaut.tools.targets.mlx.branches import branched
from neuronaut.tools.targets.mlx.configs import understood
from neuronaut.tools.targets.mlx.edges import MlxEdgeRuns, Resumed
from neuronaut.tools.targets.mlx.features import Features, named, refuse_edited_features
from neuronaut.tools.targets.mlx.loading import load_model
from neuronaut.tools.targets.mlx.parts import (
    attention_weights_of,
    biases_of,
    gain_of,
    read_vectors_of,
    weight_of,
    write_vectors_of,
)
from neuronaut.tools.targets.mlx.runs import Tap, handed_out, keeping, tapped, visiting
from neuronaut.tools.targets.mlx.stand_ins import layer_place
from neuronaut.tools.targets.mlx.visits import unvisited
from neuronaut.tools.targets.mlx.walk import Walk
from neuronaut.tools.targets.notes import edits_at
from neuronaut.tools.targets.sites import neuron_sites, read_vectors_at, site_of, write_vectors_at
from neuronaut.tools.targets.writing import WritesAgain
from neuronaut.tools.tokens import Tokens, Vocabulary
from neuronaut.tools.units import Unit

PROBE_TOKENS = 8


class MlxTarget(WritesAgain):
    """A TargetModel over a local Hugging Face folder, or one that mlx-lm made of it. Raw weights: no norm folded in."""

    def __init__(self, folder: ModelFolder, *, dtype: torch.dtype = torch.float32) -> None:
        self._folder, self._dtype, self.forwards = folder, dtype, 0.0
        self._found = understood(folder)
        self._walk = Walk(load_model(folder, self._found, DTYPES[dtype]), self._found)
        self._places = [layer_place(parts, self.spec.d_model) for parts in self._walk.layers]
        self._features = Features(self._walk, self.spec, self._places)
        self._refuse_strange_layers()
        self.forwards = 0.0

    def _refuse_strange_layers(self) -> None:
        """A short run shows whether the sites are what they are called."""
        ids = torch.arange(min(PROBE_TOKENS, self.spec.n_ctx, self.spec.d_vocab))[None]
        spec, n_layers = self.spec, range(self.spec.n_layers)
        sites = [Site(name, layer) for layer in n_layers for name in PROBED]
        sites += [site for layer in n_layers for site in neuron_sites(spec, layer)]
        sites += [Site("router", layer) for layer in n_layers if spec.n_experts]
        try:
            found = self.run(ids, read=sites, logits=True).read
            for layer in n_layers:
                self.attention_weights(layer)
        except ValueError as error:  # of mlx: shapes that do not fit
            raise UserError(f"{self.spec.name} cannot be run by mlx-lm: {' '.join(str(error).split())[:200]}") from None
        tolerance = 1e-3 if self._dtype == torch.float32 else 0.05
        for layer in n_layers:
            read, parts = {name: found[Site(name, layer)] for name in PROBED}, self._walk.layers[layer]
            written = torch.zeros(1, ids.shape[1], spec.d_model)
            for site in neuron_sites(spec, layer):
                if found[site].any():  # few experts are chosen, and each has weights to be unpacked
                    written = written + found[site].float() @ self.write_vectors(layer, site.expert)
            if parts.experts is not None:
                written = written + found[Site("router", layer)].float() @ biases_of(parts, self._found)
            if fault := fault_of(read, written, post_norm=parts.post_norm is not None, tolerance=tolerance):
                raise UserError(
                    f"{self.spec.name} cannot be studied, since its layer {layer} is built in a way that is not known: {fault}"
                )

    @property
    def folder(self) -> ModelFolder:
        """Where its files lie."""
        return self._folder

    @property
    def dictionaries(self) -> Mapping[str, Dictionary]:
        """Those that were added."""
        return self._features.dictionaries

    def add_dictionary(self, dictionary: Dictionary) -> None:
        """Lets the features of a dictionary be read and edited. Refuses one of another model, and a name that is taken."""
        if dictionary.name in self.dictionaries:
            raise UserError(
                f"two dictionaries are called {dictionary.name!r}: register one of them under another name, with "
                "--dictionary NAME=FOLDER"
            )
        check_fits(dictionary, self.spec, self.fingerprint, self._places)
        self._features.dictionaries[dictionary.name] = dictionary

    @cached_property
    def spec(self) -> ModelSpec:
        """The shape of the model."""
        found, walk = self._found, self._walk
        return ModelSpec(
            name=self._folder.name,
            n_layers=found.n_layers,
            d_model=found.d_model,
            d_mlp=found.d_mlp,
            n_heads=found.n_heads,
            n_kv_heads=found.n_kv_heads,
            d_head=found.d_head,
            d_vocab=int(walk.embed.weight.shape[0]),
            n_ctx=found.n_ctx,
            activation=found.activation,
            gated=found.names.gate is not None,
            norm="layernorm" if "bias" in walk.last_norm else "rmsnorm",
            tied_embeddings=walk.unembed is None,
            bos=self._folder.bos,
            parallel=found.parallel,
            n_experts=found.routing.n_experts if found.routing else 0,
        )

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Pieces as they appear in text."""
        return self._folder.vocabulary(self.spec.d_vocab)

    @property
    def chat_format(self) -> ChatFormat:
        """As its folder says."""
        return self._folder.chat_format

    def fingerprint(self) -> Fingerprint:
        """Hashes of weights and tokenizer, dtype, versions, device and processing."""
        mlx, transformers = version("mlx"), version("transformers")
        return Fingerprint(
            name=self.spec.name,
            weights_sha256=self._folder.weights_sha256,
            tokenizer_sha256=self._folder.tokenizer_sha256,
            dtype=str(self._dtype).removeprefix("torch."),
            backend="mlx",
            backend_version=f"{version('mlx-lm')}, mlx {mlx} on {mx.default_device().type.name}, transformers {transformers}",
            processing=f"raw weights, bos {'absent' if self.spec.bos is None else f'{self.spec.bos} prepended'}",
        )

    def tokenize(self, texts: Sequence[str], documents: Sequence[int] | None = None) -> Tokens:
        """Windows of at most n_ctx tokens, BOS first where the model has one."""
        return self._folder.tokenize(texts, documents, n_ctx=self.spec.n_ctx, vocabulary=self.vocabulary)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, special tokens left out."""
        return self._folder.decode(ids)

    def run(
        self,
        ids: Tensor,
        *,
        read: Collection[Site] = (),
        edits: Sequence[Edit] = (),
        start: tuple[int, Tensor] | None = None,
        stop: int | None = None,
        logits: bool = False,
    ) -> Run:
        """One pass; see TargetModel.run. Edits at a site apply in order, before it is read.

        Refuses: sites outside the layers that are run, logits together with stop, an edit of the attention pattern.
        """
        first, last = 0 if start is None else start[0], self.spec.n_layers if stop is None else stop
        self._check(ids, edits, read=read, first=first, last=last)
        if logits and stop is not None:
            raise ToolRefused("logits need all layers: leave out stop")
        found, of_features = dict[Site, mx.array](), dict[Site, Tensor]()
        with contextlib.ExitStack() as stack:
            if wanted := [site.layer for site in read if site.name == "pattern"]:
                kept = patterns_kept(self._found.names.module, self._walk.layers, wanted, keep_pattern(found))
                stack.enter_context(kept)
            self._edit(stack, edits)
            self._features.visit(stack, read, edits, of_features)
            for site in dict.fromkeys(read):
                if site.name not in ("pattern", "features"):
                    stack.callback(self._walk.visited(site, visiting((), keeping(found, site))).remove)
            x = self._walk.entered(ids) if start is None else to_mlx(start[1], DTYPES[self._dtype])
            x = self._walk.through(x, range(first, last))
            output = self._walk.logits(x) if logits else None
            mx.eval(list(found.values()), output)
        self.forwards += len(ids) * (last - first) / self.spec.n_layers
        return Run(handed_out(found) | of_features, None if output is None else to_torch(output))

    def _check(
        self, ids: Tensor, edits: Sequence[Edit], read: Collection[Site] = (), first: int = 0, last: int | None = None
    ) -> None:
        last = self.spec.n_layers if last is None else last
        check_run(self.spec, ids, edits, read=read, first=first, last=last)
        check_features(self.dictionaries, read, edits, last=last)

    def _edit(self, stack: contextlib.ExitStack, edits: Sequence[Edit]) -> None:
        """The edits of plain sites."""
        for site in dict.fromkeys(edit.site for edit in edits if edit.site.name != "features"):
            stack.callback(self._walk.visited(site, visiting(edits_at(edits, site))).remove)

    def branches(self, ids: Tensor, edits: Sequence[Edit], *, keep: int = 1) -> Tensor:
        """(n_edits, keep, d_vocab) logits at the end of the prompt; see TargetModel.branches."""
        self._check(ids, edits)
        if len(ids) != 1:
            raise ToolRefused(f"branches leave one prompt, not {len(ids)}")
        if named([edit.site for edit in edits]):
            runs = [self.run(ids, edits=[edit], logits=True).logits for edit in edits]
            return torch.cat([logits[:, -keep:] for logits in runs if logits is not None])
        found = branched(self._walk, self.spec, ids, edits, keep)
        self.forwards += found.forwards
        return found.logits

    def gradients(
        self,
        ids: Tensor,
        read: Collection[Site],
        score: Callable[[Tensor], Tensor],
        *,
        edits: Sequence[Edit] = (),
        at: Site | None = None,
    ) -> dict[Site, tuple[Tensor, Tensor]]:
        """Each site and the gradient of the score there; see TargetModel.gradients. Refuses the attention pattern."""
        last = last_layer(self.spec, at)
        self._check(ids, edits, read=[*read] if at is None else [*read, at], last=last)
        if any(site.name == "pattern" for site in read):
            raise ToolRefused("no gradient is taken at the attention pattern: choose another site")
        refuse_edited_features(edits)
        walk, sites = self._walk, [site for site in dict.fromkeys(read) if site.name != "features"]
        with contextlib.ExitStack() as stack:
            self._edit(stack, edits)
            of_features = self._features.taps(stack, ids, read)
            taps = [Tap(partial(walk.visited, site), self._shape(ids, site)) for site in sites]
            taps += [one.tap for one in of_features.values()]
            run = partial(self._resumed.logits, ids, ids.shape[1]) if at is None else partial(self._until, ids, at)
            tapped_there = tapped(run, taps, score, DTYPES[self._dtype])
        self.forwards += 3 * len(ids) * last / self.spec.n_layers
        found: dict[Site, tuple[Tensor, Tensor]] = dict(zip(sites, tapped_there, strict=False))
        for one, written in zip(of_features.values(), tapped_there[len(sites) :], strict=True):
            found |= one.found(written)
        return found

    def _until(self, ids: Tensor, at: Site) -> mx.array:
        """A site, not computed yet, of a run that ends there."""
        found = dict[Site, mx.array]()
        visit = self._walk.visited(at, visiting((), keeping(found, at)))
        try:
            self._walk.through(self._walk.entered(ids), range(at.layer + 1))
        finally:
            visit.remove()
        return found[at]

    def senders(self, ids: Tensor, *, edits: Sequence[Edit] = ()) -> Tensor:
        """(batch, n_senders, pos, d_model); see TargetModel.senders."""
        self._check(ids, edits)
        found = self._edges.senders(ids, edits)
        self.forwards += len(ids)
        return found

    def run_edges(
        self,
        ids: Tensor,
        other: Tensor,
        cut: Tensor,
        *,
        positions: Tensor | None = None,
        start: EdgeStart | None = None,
        edits: Sequence[Edit] = (),
        keep: int = 1,
    ) -> Tensor:
        """(batch, keep, d_vocab) logits with edges cut; see TargetModel.run_edges.

        Refuses edges that do not exist, edges into layers that are not run, shapes that do not fit.
        """
        n_layers, first = self.spec.n_layers, 0 if start is None else start.layer
        self._check(ids, edits, first=first)
        carried = self._edges.carried(ids, other, cut, positions, first)
        found = self._edges.run(ids, carried, start=start, edits=edits, keep=keep)
        self.forwards += len(ids) * (n_layers - first) / n_layers
        return found

    def edge_gradients(
        self, ids: Tensor, score: Callable[[Tensor], Tensor], *, edits: Sequence[Edit] = (), keep: int = 1
    ) -> EdgeGradients:
        """What senders write and the gradients at receivers; see TargetModel.edge_gradients."""
        self._check(ids, edits)
        found = self._edges.gradients(ids, score, edits, keep)
        self.forwards += 3 * len(ids)
        return found

    @cached_property
    def _edges(self) -> MlxEdgeRuns:
        dtype = DTYPES[self._dtype]
        return MlxEdgeRuns(self._walk, self.spec, self._places, self._features, self.attention_weights, dtype)

    @cached_property
    def _resumed(self) -> Resumed:
        return Resumed(self._walk, DTYPES[self._dtype])

    def _shape(self, ids: Tensor, site: Site) -> tuple[int, ...]:
        spec = self.spec
        widths = {"neurons": (spec.d_mlp,), "heads": (spec.n_heads, spec.d_head), "router": (spec.n_experts,)}
        return (*ids.shape, *widths.get(site.name, (spec.d_model,)))

    def read_vector(self, unit: Unit) -> Tensor:
        """(d_model,) column of the input weights (gated: of the gate), or of the encoder."""
        return read_vectors_at(self, site_of(self, unit))[unit.index]

    def write_vector(self, unit: Unit) -> Tensor:
        """(d_model,) row of the output weights, or of the decoder."""
        return write_vectors_at(self, site_of(self, unit))[unit.index]

    def read_vectors(self, layer: int, expert: int | None = None) -> Tensor:
        """(d_mlp, d_model) of all neurons of a layer, or of one of its experts."""
        check_expert(self.spec, Site("neurons", layer, expert=expert))
        return read_vectors_of(self._walk.layers[layer], self._found, expert)

    def write_vectors(self, layer: int, expert: int | None = None) -> Tensor:
        """(d_mlp, d_model) of all neurons of a layer, or of one of its experts; where a norm follows the MLP (Gemma), its gain is
        multiplied in and its scale, which differs from place to place, left out."""
        check_expert(self.spec, Site("neurons", layer, expert=expert))
        return write_vectors_of(self._walk.layers[layer], self._found, expert)

    def attention_weights(self, layer: int) -> AttentionWeights:
        """The raw weights of a layer's attention, head by head."""
        check_layer(self.spec, layer)
        return attention_weights_of(self._walk.layers[layer], self._found)

    def attention_norm_gain(self, layer: int) -> Tensor:
        """(d_model,) of the norm before a layer's attention, ones where attention reads the residual as it is (OLMo 2)."""
        check_layer(self.spec, layer)
        norm = self._walk.layers[layer].attn_norm
        return torch.ones(self.spec.d_model) if norm is None else gain_of(norm, self.spec.d_model)

    def mlp_norm_gain(self, layer: int) -> Tensor:
        """(d_model,) of the norm before a layer's MLP, ones where the MLP reads the residual as it is (OLMo 2)."""
        check_layer(self.spec, layer)
        parts = self._walk.layers[layer]
        norm = parts.mlp_norm or (parts.attn_norm if self.spec.parallel else None)
        return torch.ones(self.spec.d_model) if norm is None else gain_of(norm, self.spec.d_model)

    @cached_property
    def embed(self) -> Tensor:
        """(d_vocab, d_model)."""
        return weight_of(self._walk.embed)

    @cached_property
    def unembed(self) -> Tensor:
        """(d_model, d_vocab)."""
        return (self.embed if self._walk.unembed is None else weight_of(self._walk.unembed)).T

    def final_norm(self, residual: Tensor) -> Tensor:
        """The last norm applied to a residual."""
        return to_torch(unvisited(self._walk.last_norm, to_mlx(residual, DTYPES[self._dtype])))

    def final_norm_gain(self) -> Tensor:
        """(d_model,) the gain of the last norm."""
        return gain_of(self._walk.last_norm, self.spec.d_model)


def keep_pattern(found: dict[Site, mx.array]) -> Callable[[int, mx.array], None]:
    """Keeps patterns as they are made."""

    def keep(layer: int, pattern: mx.array) -> None:
        found[Site("pattern", layer)] = pattern

    return keep
