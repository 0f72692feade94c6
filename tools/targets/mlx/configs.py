"""What a Hugging Face configuration says, and what mlx-lm must be told so that it computes the same. Knows no mlx.

Where mlx-lm reads less than is written there (positions that are turned by another rule, windows, scales), it is not asked:
the target gives each layer its rotation and its mask itself. What it would compute differently without a word is refused.
"""

import difflib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.configuration import read_configuration
from neuronaut.tools.targets.folder import ModelFolder
from neuronaut.tools.targets.mlx.families import FAMILIES, Names
from neuronaut.tools.targets.shapes import ACTIVATION_KEYS

WIDTH_KEYS = ("moe_intermediate_size", "intermediate_size", "n_inner")


@dataclass(frozen=True)
class Rotation:
    """How queries and keys of a layer are turned by their place: angles per position (half the turned dimensions,), and what
    both are multiplied with."""

    angles: Tensor
    scale: float


@dataclass(frozen=True)
class Routing:
    """How a router weighs experts. of_chosen: the shares of those that it chooses add up to 1, instead of those of all."""

    n_experts: int
    n_chosen: int
    of_chosen: bool


@dataclass(frozen=True)
class Understood:
    """A model's configuration as the target needs it.

    arguments: for mlx-lm. rotations: of each layer, None where places are embedded. windows: how far back each layer sees, None
    is all the way. embed_scale: of embeddings. cap: of the logits, where they have one. parallel: the MLP reads what attention
    reads, and not what it leaves. routing: None where layers have no experts; d_mlp counts the neurons of one.
    """

    names: Names
    arguments: dict[str, Any]
    n_layers: int
    d_model: int
    d_mlp: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    n_ctx: int
    activation: str
    rotations: tuple[Rotation | None, ...]
    windows: tuple[int | None, ...]
    embed_scale: float | None
    cap: float | None
    parallel: bool
    routing: Routing | None


def understood(folder: ModelFolder) -> Understood:
    """The configuration of a folder, defaults filled in. Refuses what mlx-lm would compute differently."""
    kind, config = _read(folder)
    names, said = FAMILIES[kind], config.to_dict()
    if fault := _fault(kind, names, said):
        raise UserError(f"{folder.name} cannot be run by --backend mlx: {fault}; --backend torch knows it")
    n_layers, n_heads, d_model = config.num_hidden_layers, config.num_attention_heads, config.hidden_size
    d_head = said.get("head_dim") or d_model // n_heads
    n_ctx = folder.context(int(config.max_position_embeddings))
    kinds = said.get("layer_types") or [None] * n_layers
    window = said.get("sliding_window")
    return Understood(
        names=names,
        arguments=_arguments(kind, said, d_head),
        n_layers=n_layers,
        d_model=d_model,
        d_mlp=int(next((said[key] for key in WIDTH_KEYS if said.get(key)), 4 * d_model)),
        n_heads=n_heads,
        n_kv_heads=said.get("num_key_value_heads") or n_heads,
        d_head=d_head,
        n_ctx=n_ctx,
        activation=_activation(said),
        rotations=tuple(_rotation(config, said, one, d_head, n_ctx, folder.name) for one in kinds),
        windows=tuple(None if one == "full_attention" else window for one in kinds),
        embed_scale=d_model**0.5 if kind.startswith("gemma") else None,
        cap=said.get("final_logit_softcapping"),
        parallel=bool(said.get("use_parallel_residual")),
        routing=None if names.experts is None else _routing(said),
    )


def _read(folder: ModelFolder) -> tuple[str, Any]:
    """The architecture and the configuration as transformers reads it. Refuses an architecture that is not known here."""
    kind = str(folder.config.get("model_type"))
    if kind not in FAMILIES:
        raise UserError(
            f"{folder.name} is of the architecture {kind!r}, which --backend mlx does not know: {_instead(kind)}"
        )
    _check_packing(folder)
    return kind, read_configuration(folder)


def _check_packing(folder: ModelFolder) -> None:
    """Refuses packed weights whose numbers are not checked here."""
    said = folder.config.get("quantization_config")
    if not said or "quantization" in folder.config:  # which mlx-lm itself packed
        return
    method = said.get("quant_method") if isinstance(said, dict) else said
    if method != "mxfp4":
        raise UserError(
            f"the weights in {str(folder.path)!r} are quantised ({str(method)[:80]!r}), which is not read here: give them in "
            "bfloat16 or float32, or packed by mlx-lm"
        )


def _instead(kind: str) -> str:
    near = difflib.get_close_matches(kind, FAMILIES, n=1)
    known = f"the nearest that it knows is {near[0]!r}" if near else f"it knows {', '.join(FAMILIES)}"
    return f"{known}; --backend torch may know it"


def _activation(said: dict[str, Any]) -> str:
    return next((str(said[key]) for key in ACTIVATION_KEYS if said.get(key) is not None), "silu")


def _routing(said: dict[str, Any]) -> Routing:
    n_experts = said.get("num_local_experts") or said["num_experts"]
    return Routing(int(n_experts), int(said["num_experts_per_tok"]), bool(said.get("norm_topk_prob", True)))


def _fault(kind: str, names: Names, said: dict[str, Any]) -> str | None:
    """What mlx-lm would compute differently without a word."""
    if names.activations and _activation(said) not in names.activations:
        return f"mlx-lm computes {names.activations[0]} where it has {_activation(said)}"
    if said.get("scale_attn_by_inverse_layer_idx") or said.get("scale_attn_weights") is False:
        return "it scales its attention in a way that mlx-lm does not know"
    if kind == "gemma2" and not (said.get("attn_logit_softcapping") and said.get("final_logit_softcapping")):
        return "mlx-lm caps the attention scores and logits of Gemma 2 always, which it does not"
    if kind == "gemma3_text" and (said.get("attn_logit_softcapping") or said.get("use_bidirectional_attention")):
        return "its attention caps scores or looks ahead, which mlx-lm does not know for Gemma 3"
    if kind == "gpt_oss" and (said.get("swiglu_alpha", 1.702), said.get("swiglu_limit", 7.0)) != (1.702, 7.0):
        return "mlx-lm computes gate · sigmoid(1.702 gate) clamped at 7 for gpt-oss, where it has other numbers"
    if kind == "qwen3_moe" and (said.get("mlp_only_layers") or said.get("decoder_sparse_step", 1) != 1):
        return "some of its layers have experts and some have none"
    return None


def _arguments(kind: str, said: dict[str, Any], d_head: int) -> dict[str, Any]:
    """The configuration in the words that mlx-lm reads, which are those before version 5 of transformers."""
    theta = (said.get("rope_parameters") or {}).get("rope_theta", 10000.0)
    plain = {"rope_parameters": None, "rope_scaling": None, "layer_types": None}
    found = said | plain | {"rope_theta": theta, "head_dim": d_head}
    match kind:
        case "gpt2":
            found |= {"n_ctx": said["n_positions"]}
        case "gpt_neox":
            found |= {"rotary_emb_base": theta, "rotary_pct": 1.0}
        case "qwen3_moe":
            found |= {"num_experts": _routing(said).n_experts}
        case "gpt_oss":  # mlx-lm looks for one of each, and the masks are not its own here
            found |= {"layer_types": ["sliding_attention", "full_attention"]}
    return found


def _rotation(
    config: Any, said: dict[str, Any], layer_type: str | None, d_head: int, n_ctx: int, name: str
) -> Rotation | None:
    """As transformers computes it, for windows of at most n_ctx tokens."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = getattr(config, "rope_parameters", None)
    if rope is None:
        return None
    nested = layer_type is not None and layer_type in rope
    rope = rope[layer_type] if nested else rope
    kind = rope.get("rope_type", "default")
    if kind == "default":
        turned = int(d_head * rope.get("partial_rotary_factor", 1.0))
        places = torch.arange(0, turned, 2, dtype=torch.int64).float() / turned
        return Rotation(1.0 / float(rope["rope_theta"]) ** places, 1.0)
    if kind not in ROPE_INIT_FUNCTIONS:
        raise UserError(f"{name} turns places by the rule {kind!r}, which is not known: give --backend torch")
    if kind == "longrope" and n_ctx > rope["original_max_position_embeddings"]:
        raise UserError(
            f"{name} turns places of texts beyond {rope['original_max_position_embeddings']} tokens by another rule, which "
            "--backend mlx does not know: give --backend torch"
        )
    angles, scale = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), n_ctx, layer_type if nested else None)
    return Rotation(angles.float(), float(scale))
