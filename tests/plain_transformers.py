"""A second reading of the architectures, from the weights on disk alone: nothing of transformers or of the adapter."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

Change = Callable[[str, int, Tensor], Tensor]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "silu": F.silu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


class PlainModel:
    """One model folder, run by hand; `seen[name, layer]` holds every activation of the last run.

    change(name, layer, value): gives the value to go on with; names as in the seam, and "normed", "gate" (before the
    activation function), "raw_attn_out" and "raw_mlp_out" (before a norm that follows), "q", "k", "v" as projected, and the residual as each
    part reads it: "q_in", "k_in", "v_in" (batch, pos, head, d_model), "mlp_in", and "last_in" of the layer after the last.
    """

    def __init__(self, folder: Path, defaults: dict[str, Any]) -> None:
        self.config = defaults | json.loads((folder / "config.json").read_text())
        self.weights = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
        self.family = str(self.config["model_type"]).removesuffix("_text")
        self.seen: dict[tuple[str, int], Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        for prefix in ("", "model.", "transformer."):
            if prefix + name in self.weights:
                return self.weights[prefix + name]
        raise KeyError(name)

    def run(
        self, ids: Tensor, change: Change | None = None, *, layers: range | None = None, x: Tensor | None = None
    ) -> Tensor:
        """Logits; layers, x: only these layers, from the residual before them."""
        self.seen = {}

        def note(name: str, layer: int, value: Tensor) -> Tensor:
            self.seen[name, layer] = value if change is None else change(name, layer, value)
            return self.seen[name, layer]

        gpt2 = self.family == "gpt2"
        n_layers = self.config["n_layer" if gpt2 else "num_hidden_layers"]
        if x is None:
            x = self._embedded(ids)
        for layer in layers if layers is not None else range(n_layers):
            x = self._gpt2_layer(layer, x, note) if gpt2 else self._rotary_layer(layer, x, note)
        x = self.normed(note("last_in", n_layers, x), "ln_f" if gpt2 else "norm")
        logits = x @ self.unembed.T
        cap = self.config.get("final_logit_softcapping")
        return torch.tanh(logits / cap) * cap if cap else logits

    @property
    def unembed(self) -> Tensor:
        if "lm_head.weight" in self.weights:
            return self.weights["lm_head.weight"]
        return self["wte.weight"] if self.family == "gpt2" else self["embed_tokens.weight"]

    def _embedded(self, ids: Tensor) -> Tensor:
        if self.family == "gpt2":
            return self["wte.weight"][ids] + self["wpe.weight"][: ids.shape[1]]
        scale = self.config["hidden_size"] ** 0.5 if self.family.startswith("gemma") else 1.0
        return self["embed_tokens.weight"][ids] * scale

    def gain(self, name: str) -> Tensor:
        return self[name + ".weight"] + (1.0 if self.family.startswith("gemma") else 0.0)

    def normed(self, x: Tensor, name: str) -> Tensor:
        if self.family == "gpt2":
            centred = x - x.mean(-1, keepdim=True)
            spread = (centred.square().mean(-1, keepdim=True) + self.config["layer_norm_epsilon"]).sqrt()
            return centred / spread * self[name + ".weight"] + self[name + ".bias"]
        return x / (x.square().mean(-1, keepdim=True) + self.config["rms_norm_eps"]).sqrt() * self.gain(name)

    def _gpt2_layer(self, layer: int, x: Tensor, note: Change) -> Tensor:
        at, heads = f"h.{layer}.", self.config["n_head"]
        x = note("resid_pre", layer, x)
        weights = self[at + "attn.c_attn.weight"].chunk(3, dim=-1)
        biases = self[at + "attn.c_attn.bias"].chunk(3)
        q, k, v = (
            self._projected(note(f"{part}_in", layer, _by_head(x, heads)), at + "ln_1", weight) + bias.view(heads, -1)
            for part, weight, bias in zip("qkv", weights, biases, strict=True)
        )
        q, k, v = (note(part, layer, value) for part, value in zip("qkv", (q, k, v), strict=True))
        z = self._attention(layer, (q, k, v), q.shape[-1] ** -0.5, note)
        out = note("raw_attn_out", layer, z @ self[at + "attn.c_proj.weight"] + self[at + "attn.c_proj.bias"])
        x = x + note("attn_out", layer, out)
        normed = note("normed", layer, self.normed(note("mlp_in", layer, x), at + "ln_2"))
        gate = note("gate", layer, normed @ self[at + "mlp.c_fc.weight"] + self[at + "mlp.c_fc.bias"])
        neurons = note("neurons", layer, ACTIVATIONS[self.config["activation_function"]](gate))
        out = neurons @ self[at + "mlp.c_proj.weight"] + self[at + "mlp.c_proj.bias"]
        return note("resid_post", layer, x + note("mlp_out", layer, note("raw_mlp_out", layer, out)))

    def _rotary_layer(self, layer: int, x: Tensor, note: Change) -> Tensor:
        at, gemma = f"layers.{layer}.", self.family.startswith("gemma")
        x = note("resid_pre", layer, x)
        d_head, projections = self.config["head_dim"], f"{at}self_attn.{{}}_proj.weight"
        weights = {part: self[projections.format(part)].T for part in "qkv"}
        q, k, v = (
            self._projected(
                note(f"{part}_in", layer, _by_head(x, weight.shape[1] // d_head)), at + "input_layernorm", weight
            )
            for part, weight in weights.items()
        )
        q, k, v = (note(part, layer, value) for part, value in zip("qkv", (q, k, v), strict=True))
        if self.family in ("qwen3", "gemma3"):
            q, k = self.normed(q, at + "self_attn.q_norm"), self.normed(k, at + "self_attn.k_norm")
        q, k = self._rotated(q, layer), self._rotated(k, layer)
        groups = q.shape[2] // k.shape[2]
        scale = (self.config["query_pre_attn_scalar"] if gemma else d_head) ** -0.5
        repeated = (q, k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2))
        z = self._attention(layer, repeated, scale, note)
        out = note("raw_attn_out", layer, z @ self[at + "self_attn.o_proj.weight"].T)
        x = x + note("attn_out", layer, self.normed(out, at + "post_attention_layernorm") if gemma else out)
        before = at + ("pre_feedforward_layernorm" if gemma else "post_attention_layernorm")
        normed = note("normed", layer, self.normed(note("mlp_in", layer, x), before))
        gate = note("gate", layer, normed @ self[at + "mlp.gate_proj.weight"].T)
        act = ACTIVATIONS[self.config["hidden_activation" if gemma else "hidden_act"]](gate)
        neurons = note("neurons", layer, act * (normed @ self[at + "mlp.up_proj.weight"].T))
        raw = note("raw_mlp_out", layer, neurons @ self[at + "mlp.down_proj.weight"].T)
        out = self.normed(raw, at + "post_feedforward_layernorm") if gemma else raw
        return note("resid_post", layer, x + note("mlp_out", layer, out))

    def _projected(self, x: Tensor, norm: str, weight: Tensor) -> Tensor:
        """(batch, pos, head, d_head) of what each head reads. weight: (d_model, n_heads · d_head)."""
        return torch.einsum("bphd,dhe->bphe", self.normed(x, norm), weight.unflatten(-1, (x.shape[2], -1)))

    def _slides(self, layer: int) -> bool:
        kinds = self.config.get("layer_types") or []
        return bool(kinds) and kinds[layer] == "sliding_attention"

    def _rotated(self, x: Tensor, layer: int) -> Tensor:
        rope = self.config["rope_parameters"]
        if "full_attention" in rope:
            rope = rope["sliding_attention" if self._slides(layer) else "full_attention"]
        half = x.shape[-1] // 2
        angles = torch.arange(x.shape[1])[:, None] * float(rope["rope_theta"]) ** -(torch.arange(half) / half)
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]
        return torch.cat([x[..., :half] * cos - x[..., half:] * sin, x[..., half:] * cos + x[..., :half] * sin], dim=-1)

    def _attention(self, layer: int, qkv: tuple[Tensor, Tensor, Tensor], scale: float, note: Change) -> Tensor:
        """(batch, pos, n_heads · d_head) the mixed values."""
        q, k, v = (part.transpose(1, 2) for part in qkv)
        scores = q @ k.transpose(-1, -2) * scale
        cap = self.config.get("attn_logit_softcapping")
        scores = torch.tanh(scores / cap) * cap if cap else scores
        place = torch.arange(q.shape[2])
        distance = place[:, None] - place
        hidden = (distance < 0) | ((distance >= self.config["sliding_window"]) if self._slides(layer) else False)
        pattern = note("pattern", layer, scores.masked_fill(hidden, -torch.inf).softmax(-1))
        return note("heads", layer, (pattern @ v).transpose(1, 2)).flatten(-2)


def _by_head(x: Tensor, n_heads: int) -> Tensor:
    """(batch, pos, n_heads, d_model): each head reads the same residual."""
    return x[:, :, None].expand(-1, -1, n_heads, -1)
