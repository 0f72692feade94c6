"""A local model as TransformerLens wraps it. The only module that imports transformer_lens."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.architectures import CHECKED, nearest_to, refused_code
from neuronaut.tools.targets.folder import ModelFolder
from neuronaut.tools.targets.weight_files import check_weights


def load_bridge(folder: ModelFolder, dtype: torch.dtype, device: torch.device) -> tuple[Any, str]:
    """The bridge, and the attention that the plain model would use.

    Refuses an architecture that is not known or brings code of its own, and weights that are cut short or do not fill the model.
    """
    check_weights(folder)
    with _quietly() as transformers:
        check_architecture(folder)
        from transformer_lens.model_bridge import TransformerBridge

        try:
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                str(folder.path),
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
            if wrong := sorted(report["mismatched_keys"]):
                name, stored, asked = wrong[0]
                raise ValueError(
                    f"config.json does not fit the weights: {name} has shape {list(stored)}, not {list(asked)}"
                )
            attention = str(model.config._attn_implementation)
            bridge = TransformerBridge.boot_transformers(
                str(folder.path), device=str(device), dtype=dtype, hf_model=model.to(device)
            )
        except Exception as error:  # noqa: BLE001  whatever a wrong config.json makes transformers raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            kind = str(folder.config.get("model_type"))
            near = (
                ""
                if kind in CHECKED
                else f" ({kind[:80]!r} is not an architecture that is checked; {nearest_to(kind)})"
            )
            raise UserError(f"the model in {str(folder.path)!r} cannot be loaded: {reason}{near}") from None
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"the weights in {str(folder.path)!r} lack {missing[0]!r} ({len(missing)} tensors in all): "
            "they would be random, so download or convert the model again"
        )
    return bridge, attention


@contextlib.contextmanager
def _quietly() -> Iterator[Any]:
    """transformers, which says nothing here of what it loads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        yield transformers


class Skeleton(NamedTuple):
    """A model without weights. model: on the meta device, but for its buffers; bridge: of one layer of it, of which nothing but
    the shapes is right; attention: that the plain model would use."""

    model: Any
    bridge: Any
    attention: str


def load_skeleton(folder: ModelFolder, dtype: torch.dtype) -> Skeleton:
    """The modules of a model without its weights. Refuses an architecture that is not known or brings code of its own."""
    with _quietly() as transformers:
        check_architecture(folder)
        from transformer_lens.model_bridge import TransformerBridge

        try:
            config = transformers.AutoConfig.from_pretrained(str(folder.path), local_files_only=True)
            one = transformers.AutoConfig.from_pretrained(str(folder.path), local_files_only=True)
            one.num_hidden_layers = 1
            if getattr(one, "layer_types", None):
                one.layer_types = one.layer_types[:1]
            with torch.device("meta"):
                model, first = (
                    transformers.AutoModelForCausalLM.from_config(each, dtype=dtype) for each in (config, one)
                )
            model.tie_weights()
            attention = str(model.config._attn_implementation)
            # memory that nothing is written to is never taken
            first = first.to_empty(device="cpu")
            bridge = TransformerBridge.boot_transformers(str(folder.path), device="cpu", dtype=dtype, hf_model=first)
        except (ValueError, KeyError, OSError, RuntimeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"the model in {str(folder.path)!r} cannot be loaded: {reason}") from None
    _fill_buffers(model)
    return Skeleton(model, bridge, attention)


@torch.no_grad()
def _fill_buffers(model: Any) -> None:
    """What no file holds is computed from the configuration, as transformers does it after loading."""
    for module in model.modules():
        empty = {name: one for name, one in module._buffers.items() if one is not None and one.is_meta}
        for name, one in empty.items():
            module._buffers[name] = torch.empty_like(one, device="cpu")
        if empty:
            model._init_weights(module)


def check_architecture(folder: ModelFolder) -> None:
    """Refuses what transformers does not have, and quantised weights."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = folder.config.get("model_type")
    known = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if reason := refused_code(folder.config, known):
        raise UserError(f"the model in {str(folder.path)!r} cannot be loaded: {reason}")
    if quantised := folder.config.get("quantization_config"):
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise UserError(
            f"the weights in {str(folder.path)!r} are quantised ({str(method)[:80]!r}), which is not read here: give them in "
            "bfloat16 or float32"
        )
    if not known:
        raise UserError(
            f"the model in {str(folder.path)!r} is of the architecture {str(kind)[:80]!r}, which is no language model that is "
            f"known here: {nearest_to(str(kind))}"
        )
