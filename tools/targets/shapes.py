"""The shape of a model by its configuration alone, whatever words it uses, and what a pass of it holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuronaut.tools.errors import UserError

MOST = {  # that config.json may say
    "num_hidden_layers": 10_000, "n_layer": 10_000, "vocab_size": 10_000_000, "hidden_size": 1_000_000, "n_embd": 1_000_000,
    "num_attention_heads": 100_000, "n_head": 100_000, "num_key_value_heads": 100_000, "num_local_experts": 100_000,
    "max_position_embeddings": 1_000_000_000, "n_positions": 1_000_000_000,
}  # fmt: skip
# Vectors of the residual's width that a layer holds at once: residual, normed, attention, its sum, MLP, its sum.
LIVE = 6
ACTIVATION_KEYS = ("hidden_activation", "hidden_act", "activation_function", "activation")  # by family


@dataclass(frozen=True)
class Shape:
    """Numbers of a model, None where config.json does not say them. experts, chosen: 0 where there are none; d_mlp: of one expert."""

    n_layers: int | None
    d_model: int | None
    n_heads: int | None
    n_kv_heads: int | None
    d_head: int | None
    d_mlp: int | None
    n_experts: int
    n_chosen: int
    d_vocab: int | None
    n_ctx: int | None

    def pass_bytes(self, batch: int, length: int, item: int) -> int | None:
        """What a pass holds at once beside the weights: one layer's activations with its attention pattern, then the logits.

        None where a number that it needs is not said. item: bytes of a number.
        """
        if None in (self.d_model, self.n_heads, self.d_head, self.n_kv_heads, self.d_mlp, self.d_vocab):
            return None
        d_model, n_heads, d_head = int(self.d_model or 0), int(self.n_heads or 0), int(self.d_head or 0)
        tokens = batch * length
        heads = d_head * (2 * n_heads + 2 * int(self.n_kv_heads or 0))
        layer = LIVE * d_model + heads + 3 * int(self.d_mlp or 0) * max(1, self.n_chosen)
        patterns = 2 * batch * n_heads * length * length
        logits = tokens * (int(self.d_vocab or 0) + LIVE * d_model)
        return item * max(tokens * layer + patterns, logits)


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The shape that config.json says, in the words of any family; of a model of text and pictures that of its text part."""
    inner = config.get("text_config")
    said = {**config, **inner} if isinstance(inner, Mapping) else config

    def number(*names: str) -> int | None:
        found = (said.get(name) for name in names)
        return next((one for one in found if isinstance(one, int) and not isinstance(one, bool)), None)

    d_model, n_heads = number("hidden_size", "n_embd", "d_model"), number("num_attention_heads", "n_head", "n_heads")
    n_experts = number("num_local_experts", "num_experts", "n_routed_experts") or 0
    d_head = number("head_dim", "d_head") or (d_model // n_heads if d_model and n_heads else None)
    of_expert = ("moe_intermediate_size",) if n_experts else ()
    d_mlp = number(*of_expert, "intermediate_size", "n_inner", "ffn_dim", "d_mlp")
    if d_mlp is None and said.get("model_type") == "gpt2" and d_model:
        d_mlp = 4 * d_model
    return Shape(
        n_layers=number("num_hidden_layers", "n_layer", "n_layers"),
        d_model=d_model,
        n_heads=n_heads,
        n_kv_heads=number("num_key_value_heads") or n_heads,
        d_head=d_head,
        d_mlp=d_mlp,
        n_experts=n_experts,
        n_chosen=(number("num_experts_per_tok") or 1) if n_experts else 0,
        d_vocab=number("vocab_size"),
        n_ctx=number("max_position_embeddings", "n_positions", "n_ctx"),
    )


def check_sizes(config: Mapping[str, Any], folder: Path) -> None:
    """Refuses sizes in config.json that no model has, before anything is made by them. folder: that it lies in."""
    kind = config.get("model_type", "")
    if not isinstance(kind, str):
        raise UserError(
            f"config.json in {str(folder)!r} says model_type {str(kind)[:40]!r}: it is the name of an architecture"
        )
    for name, most in MOST.items():
        value = config.get(name)
        if value is None:  # transformers knows what it is then
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise UserError(
                f"config.json in {str(folder)!r} says {name} {str(value)[:40]}: it is a whole number from 1 to {most:,}"
            )
