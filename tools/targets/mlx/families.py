"""How mlx-lm names the parts of each architecture, and which of them are known to be what they are called."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Names:
    """Paths of the parts in a model of mlx-lm, those of a layer from its block on; None where there is no such part.

    module: of mlx_lm.models. projections: of queries, keys and values, one alone where they are fused. gate: also holds `up`
    where the two are the same. activations: those that mlx-lm computes whatever the configuration says; empty where the MLP
    is replaced by one that computes what it says. mask_as_array: its attention knows no word for a causal mask. router, experts:
    in the MLP, where it has experts; gate, up and down are then those of all experts, in `experts`.
    """

    module: str
    layers: str = "model.layers"
    embed: str = "model.embed_tokens"
    unembed: str = "lm_head"
    last_norm: str = "model.norm"
    attention: str = "self_attn"
    heads_in: str = "o_proj"
    projections: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    interleaved: bool = False
    mlp: str = "mlp"
    gate: str | None = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    attn_norm: str | None = "input_layernorm"
    mlp_norm: str | None = "post_attention_layernorm"
    attn_post_norm: str | None = None
    post_norm: str | None = None
    activations: tuple[str, ...] = ("silu", "swish")
    mask_as_array: bool = False
    router: str | None = None
    experts: str | None = None


_LLAMA = Names("llama")
_GEMMA3 = replace(
    _LLAMA,
    module="gemma3_text",
    mlp_norm="pre_feedforward_layernorm",
    attn_post_norm="post_attention_layernorm",
    post_norm="post_feedforward_layernorm",
    activations=("gelu_pytorch_tanh", "gelu_new"),
)
FAMILIES: dict[str, Names] = {
    "gpt2": Names(
        module="gpt2",
        layers="model.h",
        embed="model.wte",
        last_norm="model.ln_f",
        attention="attn",
        heads_in="c_proj",
        projections=("c_attn",),
        gate=None,
        up="c_fc",
        down="c_proj",
        attn_norm="ln_1",
        mlp_norm="ln_2",
        activations=(),
    ),
    "gpt_neox": Names(
        module="gpt_neox",
        layers="model.h",
        embed="model.embed_in",
        unembed="model.embed_out",
        last_norm="model.final_layer_norm",
        attention="attention",
        heads_in="dense",
        projections=("query_key_value",),
        interleaved=True,
        gate=None,
        up="dense_h_to_4h",
        down="dense_4h_to_h",
        activations=(),
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen3": replace(_LLAMA, module="qwen3"),
    "phi3": replace(_LLAMA, module="phi3", projections=("qkv_proj",), gate="gate_up_proj", up="gate_up_proj"),
    "olmo2": replace(
        _LLAMA,
        module="olmo2",
        attn_norm=None,
        mlp_norm=None,
        attn_post_norm="post_attention_layernorm",
        post_norm="post_feedforward_layernorm",
    ),
    "gemma2": replace(_GEMMA3, module="gemma2", mask_as_array=True),
    "gemma3_text": _GEMMA3,
    "mixtral": replace(_LLAMA, module="mixtral", mlp="block_sparse_moe", router="gate", experts="switch_mlp"),
    "qwen3_moe": replace(_LLAMA, module="qwen3_moe", router="gate", experts="switch_mlp"),
    "gpt_oss": replace(_LLAMA, module="gpt_oss", router="router", experts="experts"),
}
