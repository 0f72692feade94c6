"""A local model as TransformerLens wraps it. The only module that imports transformer_lens."""

import warnings
from typing import Any

import torch

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.architectures import CHECKED, nearest_to, refused_code
from neuronaut.tools.targets.folder import ModelFolder
from neuronaut.tools.targets.weight_files import check_weights


def load_bridge(folder: ModelFolder, dtype: torch.dtype) -> tuple[Any, str]:
    """The bridge, and the attention that the plain model would use.

    Refuses an architecture that is not known or brings code of its own, and weights that are cut short or do not fill the model.
    """
    check_weights(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers
        from safetensors import SafetensorError

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
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
            bridge = TransformerBridge.boot_transformers(str(folder.path), device="cpu", dtype=dtype, hf_model=model)
        except (ValueError, KeyError, OSError, RuntimeError, AttributeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
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
