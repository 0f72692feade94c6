"""A local model as TransformerLens wraps it. The only module that imports transformer_lens."""

from typing import Any, NamedTuple

import torch

from neuronaut.tools.targets.configuration import (
    check_architecture,
    check_filled,
    quietly,
    read_configuration,
    refusing,
)
from neuronaut.tools.targets.folder import ModelFolder
from neuronaut.tools.targets.weight_files import stored_in


def load_bridge(folder: ModelFolder, dtype: torch.dtype, device: torch.device) -> tuple[Any, str]:
    """The bridge, and the attention that the plain model would use.

    Refuses an architecture that is not known or brings code of its own, and weights that are cut short or do not fill the model.
    """
    check_filled(folder, stored_in(folder))
    config = read_configuration(folder)
    with quietly() as transformers, refusing(folder, f"the model in {str(folder.path)!r} cannot be loaded"):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            str(folder.path),
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    attention = str(model.config._attn_implementation)  # which the bridge is about to change
    return _wrapped(folder, model.to(device), dtype, device), attention


def _wrapped(folder: ModelFolder, model: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """The bridge around a model of transformers. Refuses what TransformerLens has no adapter for."""
    with quietly(), refusing(folder, f"the model in {str(folder.path)!r} cannot be loaded"):
        from transformer_lens.model_bridge import TransformerBridge

        return TransformerBridge.boot_transformers(
            str(folder.path), device=str(device), dtype=dtype, hf_model=model, tokenizer=_no_tokenizer()
        )


def _no_tokenizer() -> Any:
    """A tokenizer of one token, which nothing asks: without it TransformerLens opens the folder's by what that says of itself."""
    import tokenizers
    import transformers

    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"-": 0}, unk_token="-"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, eos_token="-", pad_token="-", unk_token="-")


class Skeleton(NamedTuple):
    """A model without weights. model: on the meta device, but for its buffers; bridge: of one layer of it, of which nothing but
    the shapes is right; attention: that the plain model would use."""

    model: Any
    bridge: Any
    attention: str


def load_skeleton(folder: ModelFolder, dtype: torch.dtype) -> Skeleton:
    """The modules of a model without its weights. Refuses an architecture that is not known or brings code of its own."""
    check_architecture(folder)
    config, one = read_configuration(folder), read_configuration(folder)
    with quietly() as transformers, refusing(folder, f"the model in {str(folder.path)!r} cannot be loaded"):
        one.num_hidden_layers = 1
        if getattr(one, "layer_types", None):
            one.layer_types = one.layer_types[:1]
        with torch.device("meta"):
            model, first = (transformers.AutoModelForCausalLM.from_config(each, dtype=dtype) for each in (config, one))
        model.tie_weights()
        first = first.to_empty(device="cpu")  # memory that nothing is written to is never taken
    bridge = _wrapped(folder, first, dtype, torch.device("cpu"))
    _fill_buffers(model)
    return Skeleton(model, bridge, str(model.config._attn_implementation))


@torch.no_grad()
def _fill_buffers(model: Any) -> None:
    """What no file holds is computed from the configuration, as transformers does it after loading."""
    for module in model.modules():
        empty = {name: one for name, one in module._buffers.items() if one is not None and one.is_meta}
        for name, one in empty.items():
            module._buffers[name] = torch.empty_like(one, device="cpu")
        if empty:
            model._init_weights(module)
