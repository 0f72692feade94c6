"""config.json as transformers reads it, and the model that it describes, made without weights and compared with what the files hold.

What each engine would stumble over after loading is refused here before, in one sentence for all of them.
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.architectures import CHECKED, nearest_to, refused_code
from neuronaut.tools.targets.folder import ModelFolder
from neuronaut.tools.targets.shapes import ACTIVATION_KEYS, shape_of
from neuronaut.tools.targets.weight_files import Stored

# What config.json may say of how transformers is to run a model, and not of what the model is: code of the hub that computes its
# attention, other files of weights, other forms of its output. Left out, so that the same weights are always run the same way.
OF_A_RUN = (
    "attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation",
    "_experts_implementation", "_experts_implementation_internal", "transformers_weights", "fusion_config", "auto_map", "torchscript",
    "return_dict", "output_attentions", "output_hidden_states", "distributed_config",
)  # fmt: skip


@contextlib.contextmanager
def quietly() -> Iterator[Any]:
    """transformers, which says nothing here of what it loads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        yield transformers


@contextlib.contextmanager
def refusing(folder: ModelFolder, what: str) -> Iterator[None]:
    """Makes a refusal of whatever a library raises in it, which keeps the type and the words of that.

    Broad on purpose: values of a foreign config.json reach any line of transformers, so that what it raises cannot be listed (KeyError,
    AttributeError of torch, RecursionError, validation errors of huggingface_hub and more). Only calls of a library belong inside,
    so that no mistake of this program is taken for one of the folder. what: the beginning of the sentence, with the folder's name.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{what}: {reason}{_near(folder)}") from error


def _near(folder: ModelFolder) -> str:
    """The end of a sentence about an architecture that is not checked."""
    kind = str(folder.config.get("model_type"))
    return "" if kind in CHECKED else f" ({kind[:80]!r} is not an architecture that is checked; {nearest_to(kind)})"


def is_known(folder: ModelFolder) -> bool:
    """Whether transformers has the architecture, for whatever task."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return folder.config.get("model_type") in CONFIG_MAPPING_NAMES


def read_configuration(folder: ModelFolder) -> Any:
    """config.json as transformers reads it, its defaults filled in. No code of the folder is run.

    Refuses an architecture that transformers does not have, what it cannot read, and numbers and words that no model can have.
    """
    if not is_known(folder):
        raise _unknown(folder)
    said = {name: value for name, value in folder.config.items() if name not in OF_A_RUN}
    with (
        quietly() as transformers,
        refusing(folder, f"config.json in {str(folder.path)!r} cannot be understood, so correct it there"),
    ):
        config = transformers.CONFIG_MAPPING[said["model_type"]].from_dict(said)
        plain = config.to_dict()
    if fault := _contradiction(plain):
        raise UserError(
            f"config.json in {str(folder.path)!r} says {fault}: correct it there, or take the one of the model"
        )
    return config


def _contradiction(said: dict[str, Any]) -> str | None:
    """What no model can be, and what the engines would find in the middle of a run."""
    from transformers.activations import ACT2FN
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    shape = shape_of(said)
    if shape.n_heads and shape.n_kv_heads and shape.n_heads % shape.n_kv_heads:
        return f"{shape.n_heads} heads and {shape.n_kv_heads} of keys and values, which cannot be shared out among them"
    if shape.n_chosen > shape.n_experts:
        return f"{shape.n_chosen} experts at each token, and {shape.n_experts} experts in all"
    for key in ACTIVATION_KEYS:
        value = said.get(key)
        if isinstance(value, str) and value not in ACT2FN:
            return f"{key} {value[:40]!r}, which is no activation that transformers knows"
    rope = said.get("rope_parameters")
    rules = [one.get("rope_type", "default") for one in (rope, *rope.values()) if isinstance(one, dict)] if rope else []
    if strange := [one for one in rules if one not in ("default", *ROPE_INIT_FUNCTIONS)]:
        return f"rope_type {str(strange[0])[:40]!r}, which is no rule for places that transformers knows"
    return None


def _unknown(folder: ModelFolder) -> UserError:
    """The refusal of an architecture that transformers does not have."""
    kind, which = str(folder.config.get("model_type")), f"the model in {str(folder.path)!r}"
    if reason := refused_code(folder.config, known=False):
        return UserError(f"{which} cannot be loaded: {reason}")
    return UserError(
        f"{which} is of the architecture {kind[:80]!r}, which is no language model that is known here: {nearest_to(kind)}"
    )


def check_architecture(folder: ModelFolder) -> None:
    """Refuses what transformers does not have, and quantised weights."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if quantised := folder.config.get("quantization_config"):
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise UserError(
            f"the weights in {str(folder.path)!r} are quantised ({str(method)[:80]!r}), which is not read here: give them in "
            "bfloat16 or float32"
        )
    if folder.config.get("model_type") not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise _unknown(folder)


def check_filled(folder: ModelFolder, stored: Sequence[Stored]) -> None:
    """Refuses a model whose weights do not fill it, or have other shapes than its configuration says.

    transformers itself loads tensors without values into a model without values, so that names and shapes are compared by the rules
    by which the weights will be read. stored: of its files. Refuses what `check_architecture` and `read_configuration` refuse.
    """
    import torch

    check_architecture(folder)
    config = read_configuration(folder)
    held = {one.name: torch.empty(one.shape, dtype=torch.float32, device="meta") for one in stored}
    with quietly() as transformers, refusing(folder, f"the model in {str(folder.path)!r} cannot be loaded"):
        _, report = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
            None,
            config=config,
            state_dict=held,
            device_map="meta",
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that the report names them
        )
    if wrong := sorted(report["mismatched_keys"]):
        name, found, asked = wrong[0]
        raise UserError(
            f"the model in {str(folder.path)!r} cannot be loaded: config.json does not fit the weights: {name} has shape {list(found)}, "
            f"not {list(asked)}: take both from the same model{_near(folder)}"
        )
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"the model in {str(folder.path)!r} cannot be loaded: its weights lack {missing[0]!r} ({len(missing)} tensors in all), which "
            f"would be random: download or convert the model again{_near(folder)}"
        )
