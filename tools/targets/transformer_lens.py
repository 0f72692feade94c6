"""Targets through TransformerLens: any architecture that TransformerBridge wraps, read and edited at its hook points.

The only module that imports transformer_lens. Hooks are plain torch hooks on the bridge's hook points, since
`run_with_cache` keeps everything; layers outside [start, stop) are not run at all.
"""

import contextlib
import warnings
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.targets.base import Edit, Fingerprint, ModelSpec, Run, Site
from neuronaut.tools.targets.folder import ModelFolder
from neuronaut.tools.tokens import Tokens, Vocabulary
from neuronaut.tools.units import Unit

_HOOKS = {
    "resid_pre": "hook_resid_pre",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "resid_post": "hook_resid_post",
    "neurons": "mlp.hook_post",
    "heads": "attn.hook_z",
    "pattern": "attn.hook_pattern",
}


class _Stopped(Exception):
    """Leaves the forward pass when nothing after this layer is wanted."""


class _Skipped(nn.Module):
    """Stands in for a layer that is not run: hands the residual on."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        if hasattr(layer, "attention_type"):
            self.attention_type = layer.attention_type

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The residual as it came."""
        return hidden_states


def _load_bridge(folder: ModelFolder, dtype: torch.dtype) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        from transformer_lens.model_bridge import TransformerBridge

        try:
            return TransformerBridge.boot_transformers(str(folder.path), device="cpu", dtype=dtype)
        except (ValueError, KeyError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"the model in {str(folder.path)!r} cannot be loaded: {reason}") from None


class TransformerLensTarget:
    """A TargetModel over a local Hugging Face folder. Raw weights: no norm folded, nothing centred."""

    def __init__(self, folder: ModelFolder, *, dtype: torch.dtype = torch.float32) -> None:
        self._folder = folder
        self._bridge = _load_bridge(folder, dtype)
        self._model = self._bridge.original_model.eval()
        self._dtype = dtype
        self.forwards = 0.0
        if "blocks.0.mlp.hook_post" not in self._bridge.hook_dict:
            raise UserError(
                f"{folder.name}: this architecture has no plain MLP neurons, which are all that can be read yet"
            )

    @cached_property
    def spec(self) -> ModelSpec:
        """The shape of the model."""
        cfg = self._bridge.cfg
        w_in = self._bridge.W_in
        return ModelSpec(
            name=self._folder.name,
            n_layers=int(cfg.n_layers),
            d_model=int(cfg.d_model),
            d_mlp=int(w_in.shape[2]),
            n_heads=int(cfg.n_heads),
            n_kv_heads=int(getattr(cfg, "n_key_value_heads", None) or cfg.n_heads),
            d_head=int(cfg.d_head),
            d_vocab=int(self._bridge.W_E.shape[0]),
            n_ctx=self._folder.context(int(cfg.n_ctx)),
            activation=str(cfg.act_fn),
            gated=bool(cfg.gated_mlp),
            norm="rmsnorm" if "RMS" in str(cfg.normalization_type) else "layernorm",
            tied_embeddings=bool(self._folder.config.get("tie_word_embeddings", True)),
            bos=self._folder.bos,
        )

    @property
    def vocabulary(self) -> Vocabulary:
        """Pieces as they appear in text."""
        return self._folder.vocabulary(self.spec.d_vocab)

    def fingerprint(self) -> Fingerprint:
        """Hashes of weights and tokenizer, dtype, versions and processing."""
        from importlib.metadata import version

        import transformers

        return Fingerprint(
            name=self.spec.name,
            weights_sha256=self._folder.weights_sha256,
            tokenizer_sha256=self._folder.tokenizer_sha256,
            dtype=str(self._dtype).removeprefix("torch."),
            backend="transformer_lens",
            backend_version=f"{version('transformer_lens')}, transformers {transformers.__version__}, torch {torch.__version__}",
            processing=f"raw weights, bos {'prepended' if self.spec.bos is not None else 'absent'}",
        )

    def tokenize(self, texts: Sequence[str], documents: Sequence[int] | None = None) -> Tokens:
        """Windows of at most n_ctx tokens, BOS first where the model has one."""
        return self._folder.tokenize(texts, documents, n_ctx=self.spec.n_ctx, vocabulary=self.vocabulary)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, special tokens left out."""
        return self._folder.decode(ids)

    @property
    def _layers(self) -> nn.ModuleList:
        for path in ("transformer.h", "model.layers", "gpt_neox.layers", "model.decoder.layers"):
            with contextlib.suppress(AttributeError):
                layers = self._model.get_submodule(path)
                if isinstance(layers, nn.ModuleList):
                    return layers
        raise UserError(f"{self._folder.name}: the list of layers was not found in {type(self._model).__name__}")

    def _hook_point(self, site: Site) -> nn.Module:
        if not 0 <= site.layer < self.spec.n_layers:
            raise ToolRefused(
                f"layer {site.layer} does not exist: {self.spec.name} has layers 0 to {self.spec.n_layers - 1}"
            )
        point = self._bridge.hook_dict[f"blocks.{site.layer}.{_HOOKS[site.name]}"]
        assert isinstance(point, nn.Module)
        return point

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
        """One pass; see TargetModel.run. Edits at a site apply in order, before it is read."""
        first = 0 if start is None else start[0]
        last = self.spec.n_layers if stop is None else stop
        if logits and stop is not None:
            raise ToolRefused("logits need all layers: leave out stop")
        if any(not first <= site.layer < last for site in [*read, *(edit.site for edit in edits)]):
            raise ToolRefused(f"a site to read or edit lies outside the layers that are run ({first} to {last - 1})")
        if any(edit.site.name == "pattern" for edit in edits):
            raise ToolRefused("the attention pattern can be read but not edited")
        found: dict[Site, Tensor] = {}
        with contextlib.ExitStack() as stack:
            for site in {*read, *(edit.site for edit in edits)}:
                hook = _site_hook(site, [e for e in edits if e.site == site], found if site in read else None)
                stack.callback(self._hook_point(site).register_forward_hook(hook).remove)
            stack.enter_context(self._only_layers(start, last, stop_there=not logits))
            output = None
            with contextlib.suppress(_Stopped):
                output = self._model(ids, use_cache=False).logits
        self.forwards += len(ids) * (last - first) / self.spec.n_layers
        return Run(found, output if logits else None)

    @contextlib.contextmanager
    def _only_layers(self, start: tuple[int, Tensor] | None, last: int, *, stop_there: bool) -> Iterator[None]:
        layers, handles = self._layers, []
        originals = list(layers)
        first = 0 if start is None else start[0]
        try:
            for i in range(first):
                layers[i] = _Skipped(originals[i])
            if start is not None and first < len(originals):
                residual = start[1]
                handles.append(
                    originals[first].register_forward_pre_hook(
                        lambda _, args, kwargs: _put(residual, args, kwargs), with_kwargs=True
                    )
                )
            if stop_there:
                where = originals[last] if last < len(originals) else self._bridge.ln_final
                handles.append(where.register_forward_pre_hook(_stop))
            yield
        finally:
            for handle in handles:
                handle.remove()
            for i in range(first):
                layers[i] = originals[i]

    def read_vector(self, unit: Unit) -> Tensor:
        """(d_model,) column of the input weights (gated: of the gate)."""
        weights = self._bridge.W_gate if self.spec.gated else self._bridge.W_in
        return weights[unit.layer, :, unit.index].detach().float()

    def write_vector(self, unit: Unit) -> Tensor:
        """(d_model,) row of the output weights."""
        return self._bridge.W_out[unit.layer, unit.index].detach().float()

    def write_vectors(self, layer: int) -> Tensor:
        """(d_mlp, d_model) of all neurons of a layer."""
        return self._bridge.W_out[layer].detach().float()

    def read_vectors(self, layer: int) -> Tensor:
        """(d_mlp, d_model) of all neurons of a layer."""
        weights = self._bridge.W_gate if self.spec.gated else self._bridge.W_in
        return weights[layer].detach().float().T

    @cached_property
    def embed(self) -> Tensor:
        """(d_vocab, d_model)."""
        return self._bridge.W_E.detach().float()

    @cached_property
    def unembed(self) -> Tensor:
        """(d_model, d_vocab)."""
        return self._bridge.W_U.detach().float()

    @torch.inference_mode()
    def final_norm(self, residual: Tensor) -> Tensor:
        """The last norm applied to a residual."""
        normed = self._bridge.ln_final(residual.to(self._dtype)).float()
        assert isinstance(normed, Tensor)
        return normed

    def final_norm_gain(self) -> Tensor:
        """(d_model,) the gain of the last norm."""
        gain: Tensor = self._bridge.ln_final.weight.detach().float()
        return gain + 1 if "gemma" in str(self._folder.config.get("model_type", "")) else gain


def _put(residual: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (residual, *args[1:]), kwargs
    return args, kwargs | {"hidden_states": residual}


def _stop(module: nn.Module, args: Any) -> None:
    raise _Stopped


def _site_hook(site: Site, edits: list[Edit], found: dict[Site, Tensor] | None) -> Any:
    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        value = output
        for edit in edits:
            value = _edited(value, edit)
        if found is not None:
            found[site] = value.detach().clone() if not edits else value.detach()
        return value if edits else None

    return hook


def _edited(value: Tensor, edit: Edit) -> Tensor:
    """The activation with one edit made; value is (batch, pos, width) or (batch, pos, n_heads, d_head)."""
    changed = value.clone()
    part = changed if edit.index is None else changed[:, :, edit.index]
    number = edit.value.to(part.dtype) if isinstance(edit.value, Tensor) else torch.tensor(edit.value, dtype=part.dtype)
    how: Literal["set", "add", "scale"] = edit.how
    new = {"set": lambda: number.expand_as(part), "add": lambda: part + number, "scale": lambda: part * number}[how]()
    if edit.positions is not None:
        at = edit.positions.reshape(*edit.positions.shape, *[1] * (part.dim() - 2))
        new = torch.where(at, new, part)
    if edit.index is None:
        return new
    changed[:, :, edit.index] = new
    return changed
