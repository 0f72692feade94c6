"""A second reading of the architectures, from the weights on disk alone: nothing of transformers or of the adapter."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

_beside = Path(__file__).with_name
cos_and_sin = runpy.run_path(str(_beside("plain_rope.py")))["cos_and_sin"]
Change = Callable[[str, int, Tensor], Tensor]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


class PlainModel:
    """One model folder, run by hand; `seen[name, layer]` holds every activation of the last run.

    change(name, layer, value): gives the value to go on with; names as in the seam, and "normed", "gate" (before the
    activation function), "raw_attn_out" and "raw_mlp_out" (before a norm that follows), "q", "k", "v" as projected, and the residual as each
    part reads it: "q_in", "k_in", "v_in" (batch, pos, head, d_model), "mlp_in", and "last_in" of the layer after the last; of
    experts "router", "e2.gate" and "e2.neurons".
    """

    def __init__(self, folder: Path, defaults: dict[str, Any]) -> None:
        self.config = defaults | json.loads((folder / "config.json").read_text())
        self.weights = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
        self.family = str(self.config["model_type"]).removesuffix("_text")
        self.seen: dict[tuple[str, int], Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        for prefix in ("", "model.", "transformer.", "gpt_neox."):
            if prefix + name in self.weights:
                return self.weights[prefix + name]
        raise KeyError(name)

    def bias(self, name: str) -> Tensor | float:
        """0 where the model has none."""
        return next((self.weights[key] for key in (name, "model." + name) if key in self.weights), 0.0)

    @property
    def gemma(self) -> bool:
        return self.family.startswith("gemma")

    @property
    def layernorm(self) -> bool:
        return self.family in ("gpt2", "gpt_neox")

    @property
    def n_layers(self) -> int:
        return int(self.config["n_layer" if self.family == "gpt2" else "num_hidden_layers"])

    @property
    def post_norm(self) -> bool:
        """A norm stands behind attention and MLP."""
        return self.gemma or self.family == "olmo2"

    @property
    def last_norm(self) -> str:
        return {"gpt2": "ln_f", "gpt_neox": "final_layer_norm"}.get(self.family, "norm")

    def attention_norm(self, layer: int) -> str | None:
        """The norm before attention."""
        if self.family == "olmo2":
            return None
        return f"h.{layer}.ln_1" if self.family == "gpt2" else f"layers.{layer}.input_layernorm"

    def attention_out(self, layer: int) -> Tensor:
        """(n_heads · d_head, d_model) what the heads write with."""
        match self.family:
            case "gpt2":
                return self[f"h.{layer}.attn.c_proj.weight"]
            case "gpt_neox":
                return self[f"layers.{layer}.attention.dense.weight"].T
        return self[f"layers.{layer}.self_attn.o_proj.weight"].T

    def run(
        self, ids: Tensor, change: Change | None = None, *, layers: range | None = None, x: Tensor | None = None
    ) -> Tensor:
        """Logits; layers, x: only these layers, from the residual before them."""
        self.seen = {}

        def note(name: str, layer: int, value: Tensor) -> Tensor:
            self.seen[name, layer] = value if change is None else change(name, layer, value)
            return self.seen[name, layer]

        if x is None:
            x = self._embedded(ids)
        run_layer = {"gpt2": self._gpt2_layer, "gpt_neox": self._neox_layer}.get(self.family, self._rotary_layer)
        for layer in layers if layers is not None else range(self.n_layers):
            x = run_layer(layer, x, note)
        x = self.normed(note("last_in", self.n_layers, x), self.last_norm)
        logits = x @ self.unembed.T
        cap = self.config.get("final_logit_softcapping")
        return torch.tanh(logits / cap) * cap if cap else logits

    @property
    def unembed(self) -> Tensor:
        for name in ("lm_head.weight", "embed_out.weight"):
            if name in self.weights:
                return self.weights[name]
        return self["wte.weight"] if self.family == "gpt2" else self["embed_tokens.weight"]

    def _embedded(self, ids: Tensor) -> Tensor:
        if self.family == "gpt2":
            return self["wte.weight"][ids] + self["wpe.weight"][: ids.shape[1]]
        if self.family == "gpt_neox":
            return self["embed_in.weight"][ids]
        return self["embed_tokens.weight"][ids] * (self.config["hidden_size"] ** 0.5 if self.gemma else 1.0)

    def gain(self, name: str) -> Tensor:
        return self[name + ".weight"] + (1.0 if self.gemma else 0.0)

    def normed(self, x: Tensor, name: str | None) -> Tensor:
        if name is None:
            return x
        if self.layernorm:
            eps = self.config.get("layer_norm_epsilon", self.config.get("layer_norm_eps"))
            centred = x - x.mean(-1, keepdim=True)
            spread = (centred.square().mean(-1, keepdim=True) + eps).sqrt()
            return centred / spread * self[name + ".weight"] + self[name + ".bias"]
        return x / (x.square().mean(-1, keepdim=True) + self.config["rms_norm_eps"]).sqrt() * self.gain(name)

    def _gpt2_layer(self, layer: int, x: Tensor, note: Change) -> Tensor:
        at, heads = f"h.{layer}.", self.config["n_head"]
        x = note("resid_pre", layer, x)
        weights = self[at + "attn.c_attn.weight"].chunk(3, dim=-1)
        biases = self[at + "attn.c_attn.bias"].chunk(3)
        qkv = self._read(layer, x, note, weights, biases, (heads, heads))
        z = self._attention(layer, qkv, qkv[0].shape[-1] ** -0.5, note)
        out = note("raw_attn_out", layer, z @ self[at + "attn.c_proj.weight"] + self[at + "attn.c_proj.bias"])
        x = x + note("attn_out", layer, out)
        normed = note("normed", layer, self.normed(note("mlp_in", layer, x), at + "ln_2"))
        gate = note("gate", layer, normed @ self[at + "mlp.c_fc.weight"] + self[at + "mlp.c_fc.bias"])
        neurons = note("neurons", layer, ACTIVATIONS[self.config["activation_function"]](gate))
        out = neurons @ self[at + "mlp.c_proj.weight"] + self[at + "mlp.c_proj.bias"]
        return note("resid_post", layer, x + note("mlp_out", layer, note("raw_mlp_out", layer, out)))

    def _neox_layer(self, layer: int, x: Tensor, note: Change) -> Tensor:
        """Attention and MLP read the same residual; of each head its queries, keys and values are stored side by side."""
        at, heads = f"layers.{layer}.", self.config["num_attention_heads"]
        x = note("resid_pre", layer, x)
        fused = self[at + "attention.query_key_value.weight"].T.unflatten(1, (heads, 3, -1))
        bias = self[at + "attention.query_key_value.bias"].unflatten(0, (heads, 3, -1))
        weights, biases = ([part[..., n, :].flatten(-2) for n in range(3)] for part in (fused, bias))
        q, k, v = self._read(layer, x, note, weights, biases, (heads, heads))
        z = self._attention(layer, (self._rotated(q, layer), self._rotated(k, layer), v), q.shape[-1] ** -0.5, note)
        out = note("raw_attn_out", layer, z @ self.attention_out(layer) + self[at + "attention.dense.bias"])
        attn_out = note("attn_out", layer, out)
        normed = note("normed", layer, self.normed(note("mlp_in", layer, x), at + "post_attention_layernorm"))
        into, back = (at + f"mlp.dense_{name}." for name in ("h_to_4h", "4h_to_h"))
        gate = note("gate", layer, normed @ self[into + "weight"].T + self[into + "bias"])
        neurons = note("neurons", layer, ACTIVATIONS[self.config["hidden_act"]](gate))
        out = note("raw_mlp_out", layer, neurons @ self[back + "weight"].T + self[back + "bias"])
        return note("resid_post", layer, x + attn_out + note("mlp_out", layer, out))

    def _read(
        self, layer: int, x: Tensor, note: Change, weights: Any, biases: Any, heads: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, pos, head, d_head) queries, keys and values, each head of what it reads. heads: of queries, of keys."""
        found = []
        for part, weight, bias in zip("qkv", weights, biases, strict=True):
            entered = note(f"{part}_in", layer, _by_head(x, heads[part != "q"]))
            made = self._projected(entered, self.attention_norm(layer), weight)
            found.append(note(part, layer, made + (bias.view(made.shape[2], -1) if isinstance(bias, Tensor) else bias)))
        return found[0], found[1], found[2]

    def _rotary_layer(self, layer: int, x: Tensor, note: Change) -> Tensor:
        at = f"layers.{layer}."
        x = note("resid_pre", layer, x)
        q, k, v = self._read(layer, x, note, *self._of_attention(layer), self._heads)
        q, k = self._normed_by_head(layer, q, k)
        q, k = self._rotated(q, layer), self._rotated(k, layer)
        groups = q.shape[2] // k.shape[2]
        scale = (self.config["query_pre_attn_scalar"] if self.gemma else q.shape[-1]) ** -0.5
        repeated = (q, k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2))
        z = self._attention(layer, repeated, scale, note)
        out = note("raw_attn_out", layer, z @ self.attention_out(layer) + self.bias(at + "self_attn.o_proj.bias"))
        behind = at + "post_attention_layernorm"
        x = x + note("attn_out", layer, self.normed(out, behind) if self.post_norm else out)
        before = at + "pre_feedforward_layernorm" if self.gemma else None if self.post_norm else behind
        normed = note("normed", layer, self.normed(note("mlp_in", layer, x), before))
        raw = note("raw_mlp_out", layer, self._mlp(layer, normed, note))
        out = self.normed(raw, at + "post_feedforward_layernorm") if self.post_norm else raw
        return note("resid_post", layer, x + note("mlp_out", layer, out))

    @property
    def _heads(self) -> tuple[int, int]:
        return self.config["num_attention_heads"], self.config["num_key_value_heads"]

    def _of_attention(self, layer: int) -> tuple[list[Tensor], list[Any]]:
        """(d_model, heads · d_head) of queries, keys and values, and their biases."""
        at = f"layers.{layer}.self_attn."
        if self.family == "phi3":
            n, shared = self._heads
            fused = self[at + "qkv_proj.weight"].T
            d_head = fused.shape[1] // (n + 2 * shared)
            return list(fused.split([n * d_head, shared * d_head, shared * d_head], dim=1)), [0.0, 0.0, 0.0]
        weights = [self[f"{at}{part}_proj.weight"].T for part in "qkv"]
        return weights, [self.bias(f"{at}{part}_proj.bias") for part in "qkv"]

    def _normed_by_head(self, layer: int, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        at = f"layers.{layer}.self_attn."
        if self.family in ("qwen3", "qwen3_moe", "gemma3"):
            return self.normed(q, at + "q_norm"), self.normed(k, at + "k_norm")
        if self.family == "olmo2":  # over all heads together
            normed = (self.normed(one.flatten(-2), at + name) for one, name in ((q, "q_norm"), (k, "k_norm")))
            q, k = (new.view_as(one) for new, one in zip(normed, (q, k), strict=True))
        return q, k

    def _mlp(self, layer: int, normed: Tensor, note: Change) -> Tensor:
        at = f"layers.{layer}.mlp."
        if self.family in ("mixtral", "qwen3_moe", "gpt_oss"):
            return self._experts(layer, normed, note)
        if self.family == "phi3":
            into, up = self[at + "gate_up_proj.weight"].chunk(2)
        else:
            into, up = self[at + "gate_proj.weight"], self[at + "up_proj.weight"]
        gate = note("gate", layer, normed @ into.T)
        act = ACTIVATIONS[self.config["hidden_activation" if self.gemma else "hidden_act"]](gate)
        return note("neurons", layer, act * (normed @ up.T)) @ self[at + "down_proj.weight"].T

    def _experts(self, layer: int, normed: Tensor, note: Change) -> Tensor:
        """Every expert runs everywhere, times its share, which is 0 nearly everywhere; noted as "e2.neurons", "router"."""
        shares = note("router", layer, self._shares(layer, normed))
        out = torch.zeros_like(normed)
        for expert in range(shares.shape[-1]):
            into, up, down, biases = self._expert(layer, expert)
            gate = note(f"e{expert}.gate", layer, normed @ into + biases[0])
            value = normed @ up + biases[1]
            if self.family == "gpt_oss":
                clamped = gate.clamp(max=7.0)
                inner = clamped * torch.sigmoid(1.702 * clamped) * (value.clamp(-7.0, 7.0) + 1.0)
            else:
                inner = F.silu(gate) * value
            share = shares[..., expert, None]
            out = out + note(f"e{expert}.neurons", layer, inner * share) @ down + biases[2] * share
        return out

    def _shares(self, layer: int, normed: Tensor) -> Tensor:
        oss, k = self.family == "gpt_oss", self.config["num_experts_per_tok"]
        held = "block_sparse_moe.gate" if self.family == "mixtral" else "mlp.router" if oss else "mlp.gate"
        at = f"layers.{layer}.{held}"
        scores = normed @ self[at + ".weight"].T + self.bias(at + ".bias")
        chosen = scores >= scores.topk(k, dim=-1).values[..., -1:]
        if oss or self.config.get("norm_topk_prob", True):
            return scores.masked_fill(~chosen, -torch.inf).softmax(-1)
        return scores.softmax(-1) * chosen

    def _expert(self, layer: int, expert: int) -> tuple[Tensor, Tensor, Tensor, tuple[Any, Any, Any]]:
        """Gate (d_model, n), up (d_model, n) and down (n, d_model) of an expert, and their biases."""
        at = f"layers.{layer}.mlp.experts."
        if self.family == "gpt_oss":
            both, bias = self[at + "gate_up_proj"][expert], self[at + "gate_up_proj_bias"][expert]
            rest = (bias[::2], bias[1::2], self[at + "down_proj_bias"][expert])
            return both[:, ::2], both[:, 1::2], self[at + "down_proj"][expert], rest
        if self.family == "mixtral":
            old = f"layers.{layer}.block_sparse_moe.experts.{expert}."
            names = (old + "w1.weight", old + "w3.weight", old + "w2.weight")
        else:
            names = tuple(f"{at}{expert}.{part}_proj.weight" for part in ("gate", "up", "down"))
        gate, up, down = (self[name].T for name in names)
        return gate, up, down, (0.0, 0.0, 0.0)

    def _projected(self, x: Tensor, norm: str | None, weight: Tensor) -> Tensor:
        """(batch, pos, head, d_head) of what each head reads. weight: (d_model, n_heads · d_head)."""
        return torch.einsum("bphd,dhe->bphe", self.normed(x, norm), weight.unflatten(-1, (x.shape[2], -1)))

    def _slides(self, layer: int) -> bool:
        if self.family in ("mistral", "phi3"):
            return self.config.get("sliding_window") is not None
        kinds = self.config.get("layer_types") or []
        return bool(kinds) and kinds[layer] == "sliding_attention"

    def _rotated(self, x: Tensor, layer: int) -> Tensor:
        rope = self.config["rope_parameters"]
        if "full_attention" in rope:
            rope = rope["sliding_attention" if self._slides(layer) else "full_attention"]
        turned = int(x.shape[-1] * rope.get("partial_rotary_factor", 1.0))
        half = turned // 2
        cos, sin = (part[:, None] for part in cos_and_sin(rope, turned, x.shape[1]))
        first, second, rest = x[..., :half], x[..., half:turned], x[..., turned:]
        return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)

    def _attention(self, layer: int, qkv: tuple[Tensor, Tensor, Tensor], scale: float, note: Change) -> Tensor:
        """(batch, pos, n_heads · d_head) the mixed values."""
        q, k, v = (part.transpose(1, 2) for part in qkv)
        scores = q @ k.transpose(-1, -2) * scale
        cap = self.config.get("attn_logit_softcapping")
        scores = torch.tanh(scores / cap) * cap if cap else scores
        place = torch.arange(q.shape[2])
        distance = place[:, None] - place
        hidden = (distance < 0) | ((distance >= self.config["sliding_window"]) if self._slides(layer) else False)
        shares = scores.masked_fill(hidden, -torch.inf).exp()
        rest = 0.0
        if self.family == "gpt_oss":  # a sink takes its share and gives nothing
            rest = self[f"layers.{layer}.self_attn.sinks"].exp()[:, None, None]
        pattern = note("pattern", layer, shares / (shares.sum(-1, keepdim=True) + rest))
        return note("heads", layer, (pattern @ v).transpose(1, 2)).flatten(-2)


def _by_head(x: Tensor, n_heads: int) -> Tensor:
    """(batch, pos, n_heads, d_model): each head reads the same residual."""
    return x[:, :, None].expand(-1, -1, n_heads, -1)
