"""What GPT-2 and Llama have in common of a state dict of TransformerLens: its shape, its heads, what it refuses."""

import math

from torch import Tensor

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.checkpoints.source import Source

ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu_new", "gelu_fast": "gelu_new", "gelu_pytorch_tanh": "gelu_new", "relu": "relu",
    "silu": "silu",
}  # fmt: skip


def cannot(source: Source, why: str) -> UserError:
    """The refusal of what neither family computes."""
    return UserError(
        f"{source.name!r} cannot be converted: {why}; GPT-2 (norms LN or LNPre, standard places, no gate) and Llama (norms RMS or "
        "RMSPre, rotary places, gated MLP) can be"
    )


class Parts:
    """A state dict with the names of `lens_names.with_properties`. notes: what a reader should know of what was made of it."""

    def __init__(self, source: Source) -> None:
        self.source, self.notes = source, list[str]()
        self.n_layers, self.d, self.d_head = (source.number(name) for name in ("n_layers", "d_model", "d_head"))
        self.n_heads, self.n_ctx, self.d_vocab = (source.number(name) for name in ("n_heads", "n_ctx", "d_vocab"))
        self.n_kv = source.number("n_key_value_heads") if source.config.get("n_key_value_heads") else self.n_heads
        self.eps = source.decimal("eps", 1e-5)
        if str(source.config["normalization_type"]).endswith("Pre"):
            self.notes.append(
                "its norms were folded into the weights that follow: they stay so, and are norms of ones here"
            )
        out = source.config.get("d_vocab_out", -1)
        if out not in (-1, None, self.d_vocab):
            raise cannot(source, f"it says {out} tokens and reads {self.d_vocab}")
        scale = source.decimal("attn_scale", -1.0)
        if source.config.get("use_attn_scale") is False and not source.native:
            scale = 1.0
        if scale > 0 and not math.isclose(scale, math.sqrt(self.d_head), rel_tol=1e-6):
            raise cannot(source, f"its attention is not scaled by the root of d_head ({scale})")

    def head(self, at: str, part: str, n: int) -> tuple[Tensor, Tensor]:
        """(d_model, n · d_head) and its bias."""
        weight = self.source.take(f"{at}.W_{part}", n, self.d, self.d_head)
        bias = self.source.take_or(f"{at}.b_{part}", 0.0, n, self.d_head)
        return weight.permute(1, 0, 2).reshape(self.d, -1), bias.reshape(-1)

    def norm(self, name: str) -> tuple[Tensor, Tensor]:
        """Gain and bias, ones and zeros where they were folded."""
        return self.source.take_or(f"{name}.w", 1.0, self.d), self.source.take_or(f"{name}.b", 0.0, self.d)
