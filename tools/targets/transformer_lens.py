"""Targets through TransformerLens: it loads the model and says which module is what in each architecture.

What it wrapped is unwrapped after loading: plain torch hooks on the inner modules read and edit at the speed of a plain
forward pass, and layers outside [start, stop) are not run at all.
"""

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from neuronaut.tools.chat.format import ChatFormat
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.features.dictionary import Dictionary
from neuronaut.tools.targets.architectures import nearest_to
from neuronaut.tools.targets.base import (
    Choose,
    EdgeGradients,
    EdgeStart,
    Edit,
    Fingerprint,
    ModelSpec,
    Run,
    Site,
    TargetModel,
    Written,
)
from neuronaut.tools.targets.branches import branched
from neuronaut.tools.targets.bridge import load_bridge
from neuronaut.tools.targets.caches import recorder
from neuronaut.tools.targets.checks import check_run, last_layer
from neuronaut.tools.targets.edges import EdgeRuns, Insides
from neuronaut.tools.targets.feature_hooks import Attached, check_features, check_fits, visits
from neuronaut.tools.targets.folder import ModelFolder
from neuronaut.tools.targets.hooks import (
    Removable,
    Stopped,
    Visit,
    differentiated,
    only_layers,
    visitor,
)
from neuronaut.tools.targets.layers import (
    PROBED,
    check_alike,
    fault_of,
    fuse_activations,
    hook_at,
    layer_of,
    spec_of,
    unwrap,
)
from neuronaut.tools.targets.load import dictionary_named
from neuronaut.tools.targets.patterns import register_seen_attention
from neuronaut.tools.targets.placement import Elsewhere
from neuronaut.tools.targets.sites import neuron_sites
from neuronaut.tools.targets.vectors import PROBE_TOKENS, WeightVectors
from neuronaut.tools.targets.writing import check_prompt, following, log_probs_of
from neuronaut.tools.tokens import Tokens, Vocabulary


class TransformerLensTarget(WeightVectors):
    """A TargetModel over a local Hugging Face folder."""

    def __init__(
        self, folder: ModelFolder, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None
    ) -> None:
        self._folder = folder
        self._dtype = dtype
        self._there = Elsewhere(device or torch.device("cpu"))
        self.forwards = 0.0
        self._dictionaries: dict[str, Dictionary] = {}
        self._brought: dict[str, Dictionary] = {}  # the same, where the model is
        self._open()
        _ = self.vocabulary  # a tokenizer of another model is refused before anything is asked
        self.forwards = 0.0

    def _open(self) -> None:
        """Loads the model, and notes which of its modules is what."""
        bridge, self._fast_attention = load_bridge(self._folder, self._dtype, self._there.device)
        self._cfg = bridge.cfg
        self._layers = [layer_of(block, self._folder.name) for block in bridge.blocks]
        self._last_norm: nn.Module = bridge.ln_final.original_component
        self._model: Any = bridge.original_model.eval()
        unwrap(self._model)
        fuse_activations(self._model)
        self._model.requires_grad_(False)
        self._blocks: nn.ModuleList = self._model.get_submodule(bridge.adapter.component_mapping["blocks"].name)
        self._attend(self._fast_attention)
        check_alike(self._layers, self.spec)
        for number in range(len(self._layers)):
            self._refuse_strange_layer(number)

    @property
    def folder(self) -> ModelFolder:
        """Where its files lie."""
        return self._folder

    @property
    def dictionaries(self) -> Mapping[str, Dictionary]:
        """Those that were added."""
        return self._dictionaries

    def add_dictionary(self, dictionary: Dictionary) -> None:
        """Lets the features of a dictionary be read and edited. Refuses one of another model, and a name that is taken."""
        if dictionary.name in self._dictionaries:
            raise UserError(
                f"two dictionaries are called {dictionary.name!r}: register one of them under another name, with "
                "--dictionary NAME=FOLDER"
            )
        check_fits(dictionary, self.spec, self.fingerprint, self._layers)
        self._brought[dictionary.name] = self._there.dictionary(dictionary)
        self._dictionaries[dictionary.name] = dictionary

    def _refuse_strange_layer(self, number: int, start: tuple[int, Tensor] | None = None) -> None:
        """A short run of an architecture that was never seen may show that the sites of a layer are not what they are called."""
        tolerance = 1e-3 if self._dtype == torch.float32 else 0.05
        ids = torch.arange(min(PROBE_TOKENS, self.spec.n_ctx, self.spec.d_vocab))[None]
        layer = self._layers[number]
        sites = [Site(name, number) for name in PROBED]
        neurons = neuron_sites(self.spec, number)
        shares = [Site("router", number)] if layer.experts else []
        run = self.run(ids, read=[*sites, *neurons, *shares], start=start, stop=number + 1)
        written = torch.zeros(1, ids.shape[1], self.spec.d_model)
        if layer.experts:
            with self._there.working():
                biases = layer.experts.biases()
            written = run.read[shares[0]].float() @ biases.cpu()
        fault = None
        for site in neurons:
            found, write = run.read[site].float(), self.write_vectors(number, site.expert)
            if found.shape != (*ids.shape, len(write)):
                fault = f"what enters the last weights of the MLP is {tuple(found.shape)} and not (batch, pos, {len(write)})"
                break
            written = written + found @ write
        read = {name: run.read[site] for name, site in zip(PROBED, sites, strict=True)}
        fault = fault or fault_of(read, written, post_norm=layer.post_norm is not None, tolerance=tolerance)
        if fault:
            raise UserError(
                f"{self.spec.name} cannot be studied, since its layer {number} is built in a way that is not known: {fault}; "
                + nearest_to(str(self._folder.config.get("model_type")))
            )

    @property
    def _target(self) -> TargetModel:
        return self

    def _attend(self, implementation: str) -> None:
        if self._model.config._attn_implementation != implementation:
            self._model.set_attn_implementation(implementation)

    @cached_property
    def spec(self) -> ModelSpec:
        """The shape of the model."""
        return spec_of(self._folder, self._cfg, self._model, self._layers, self._last_norm)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Pieces as they appear in text."""
        return self._folder.vocabulary(self.spec.d_vocab)

    @property
    def chat_format(self) -> ChatFormat:
        """As its folder says."""
        return self._folder.chat_format

    def fingerprint(self) -> Fingerprint:
        """Hashes of weights and tokenizer, dtype, versions, the device if it is not the CPU, and processing."""
        versions = ", ".join(f"{name} {version(name)}" for name in ("transformers", "torch"))
        versions += f" on {self._there.device.type}" if self._there.away else ""
        return Fingerprint(
            name=self.spec.name,
            weights_sha256=self._folder.weights_sha256,
            tokenizer_sha256=self._folder.tokenizer_sha256,
            dtype=str(self._dtype).removeprefix("torch."),
            backend="transformer_lens",
            backend_version=f"{version('transformer_lens')}, {versions}",
            processing=f"raw weights, bos {'absent' if self.spec.bos is None else f'{self.spec.bos} prepended'}",
        )

    def tokenize(self, texts: Sequence[str], documents: Sequence[int] | None = None) -> Tokens:
        """Windows of at most n_ctx tokens, BOS first where the model has one."""
        return self._folder.tokenize(texts, documents, n_ctx=self.spec.n_ctx, vocabulary=self.vocabulary)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, special tokens left out."""
        return self._folder.decode(ids)

    @torch.inference_mode()
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
        first, last = 0 if start is None else start[0], len(self._layers) if stop is None else stop
        self._check(ids, edits, read=read, first=first, last=last)
        if logits and stop is not None:
            raise ToolRefused("logits need all layers: leave out stop")
        found: dict[Site, Tensor] = {}
        edits, device = self._there.brought(edits), self._there.device
        with self._there.working(), contextlib.ExitStack() as stack:
            if any(site.name == "pattern" for site in read):
                self._attend(register_seen_attention() if self._fast_attention == "sdpa" else "eager")
                stack.callback(self._attend, self._fast_attention)
            stack.enter_context(self._only_layers(start, last, stop_there=not logits))
            self._visit(stack, read, edits, found)
            output = None
            with contextlib.suppress(Stopped):
                output = self._model(ids.to(device), use_cache=False).logits
        self.forwards += len(ids) * (last - first) / len(self._layers)
        return Run({site: value.cpu() for site, value in found.items()}, None if output is None else output.cpu())

    def _check(
        self, ids: Tensor, edits: Sequence[Edit], read: Collection[Site] = (), first: int = 0, last: int | None = None
    ) -> None:
        last = len(self._layers) if last is None else last
        check_run(self.spec, ids, edits, read=read, first=first, last=last)
        check_features(self._dictionaries, read, edits, last=last)

    def _visit(
        self, stack: contextlib.ExitStack, read: Collection[Site], edits: Sequence[Edit], found: dict[Site, Tensor]
    ) -> None:
        """Edits and reads; where there are features, those of plain sites are edited before and read after them."""
        sites = dict.fromkeys([*(edit.site for edit in edits), *read])
        names = dict.fromkeys(site.dictionary for site in sites if site.name == "features")
        plain = [site for site in sites if site.name != "features"]
        for site in plain:
            here = [edit for edit in edits if edit.site == site]
            if here or not names:
                keep = found if site in read and not names else None
                stack.callback(self._hook(site, visitor(site, here, keep)).remove)
        of = {name: visits(edits, read, name, found) for name in names}
        for name in sorted(names, key=lambda name: not of[name].edits):
            stack.callback(self._attached(name).hooked(of[name].columns, of[name].visit).remove)
        for site in plain if names else ():
            if site in read:
                stack.callback(self._hook(site, visitor(site, [], found)).remove)

    @torch.inference_mode()
    def write(
        self,
        ids: Tensor,
        choose: Choose,
        *,
        read: Collection[Site] = (),
        prompt_edits: Sequence[Edit] = (),
        edits: Sequence[Edit] = (),
    ) -> Written:
        """See TargetModel.write; keys and values are kept, so that each token is run once."""
        check_prompt(ids, read, [*prompt_edits, *edits])
        self._check(ids, [*prompt_edits, *edits], read=read)
        cache = recorder(len(self._layers))
        logits, found = self._stepped(ids, cache, read, prompt_edits)
        scores, steps = following(logits, ids), [found]
        while (token := choose(last := log_probs_of(logits[0, -1]))) is not None:
            ids, scores = torch.cat([ids, torch.tensor([[token]])], dim=1), torch.cat([scores, last[token, None]])
            self._check(ids, [])
            logits, found = self._stepped(ids[:, -1:], cache, read, edits)
            steps.append(found)
        self.forwards += 1
        return Written(ids, {site: torch.cat([step[site] for step in steps], dim=1) for site in read}, scores)

    def _stepped(
        self, ids: Tensor, cache: Any, read: Collection[Site], edits: Sequence[Edit]
    ) -> tuple[Tensor, dict[Site, Tensor]]:
        """Logits and sites of positions behind those whose keys and values are kept."""
        found: dict[Site, Tensor] = {}
        with contextlib.ExitStack() as stack:
            self._visit(stack, read, edits, found)
            logits: Tensor = self._model(ids, past_key_values=cache, use_cache=True).logits
        return logits, found

    @torch.inference_mode()
    def branches(self, ids: Tensor, edits: Sequence[Edit], *, keep: int = 1) -> Tensor:
        """(n_edits, keep, d_vocab) logits at the end of the prompt; see TargetModel.branches."""
        self._check(ids, edits)
        if len(ids) != 1:
            raise ToolRefused(f"branches leave one prompt, not {len(ids)}")
        if any(edit.site.name == "features" for edit in edits):
            runs = [self.run(ids, edits=[edit], logits=True).logits for edit in edits]
            return torch.cat([logits[:, -keep:] for logits in runs if logits is not None])
        with self._there.working():
            found = branched(self._insides, ids.to(self._there.device), self._there.brought(edits), keep)
        self.forwards += found.forwards
        return found.logits.cpu()

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
        entry, last, scored = Site("resid_pre", 0), last_layer(self.spec, at), () if at is None else (at,)
        self._check(ids, edits, read=[*read, *scored], last=last)
        if any(site.name == "pattern" for site in read):
            raise ToolRefused("no gradient is taken at the attention pattern: choose another site")
        found: dict[Site, Tensor] = {}
        edits, score = self._there.brought(edits), self._there.scored(score)
        with torch.enable_grad(), self._there.working(), contextlib.ExitStack() as stack:
            stack.enter_context(self._only_layers(None, last, stop_there=at is not None))
            for site in dict.fromkeys([entry, *(edit.site for edit in edits), *read, *scored]):
                here = [edit for edit in edits if edit.site == site]
                visit = differentiated(site, here, found, leaf=site == entry)
                stack.callback(self._hook(site, visit).remove)
            output: Any = None
            with contextlib.suppress(Stopped):
                output = self._model(ids.to(self._there.device), use_cache=False).logits
            reached = output if at is None else found[at]
            assert reached is not None  # the model ends in logits where no site stops it
            torch.autograd.backward(score(reached).sum())
        self.forwards += 3 * len(ids) * last / len(self._layers)
        grads = {site: found[site].grad for site in read}
        return {
            site: (found[site].detach().cpu(), (torch.zeros_like(found[site]) if g is None else g).cpu())
            for site, g in grads.items()
        }

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
        n_layers, first = len(self._layers), 0 if start is None else start.layer
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
    def _insides(self) -> Insides:
        return Insides(
            self.spec,
            self._layers,
            self._last_norm,
            self._model,
            self.attention_weights,
            self._hook,
            self._only_layers,
            1e-3 if self._dtype == torch.float32 else 0.05,
        )

    @cached_property
    def _edges(self) -> EdgeRuns:
        if self._there.away:
            raise ToolRefused(
                f"single edges of {self.spec.name} cannot be patched on {self._there.device}: that is done on the CPU alone, so "
                "leave out --device"
            )
        return EdgeRuns(self._insides)

    def _only_layers(
        self, start: tuple[int, Tensor] | None, last: int, *, stop_there: bool
    ) -> contextlib.AbstractContextManager[None]:
        if start is not None:
            start = start[0], start[1].to(self._there.device, self._dtype)
        entries = [*(layer.block for layer in self._layers), self._last_norm]
        return only_layers(self._blocks, entries, start, last, stop_there=stop_there)

    def _attached(self, name: str) -> Attached:
        return Attached(dictionary_named(self._brought, name), self.spec, self._layers, self._hook)

    def _hook(self, site: Site, visit: Visit) -> Removable:
        """Calls `visit` with the activation of the site and puts what it returns in its place."""
        if site.name == "features":
            return self._attached(site.dictionary).hooked(site.columns or None, visit)
        return hook_at(self._layers[site.layer], site, (self.spec.n_heads, self.spec.d_head), visit)
