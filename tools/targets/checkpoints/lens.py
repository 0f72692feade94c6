"""A state dict of TransformerLens: a GPT-2 or a Llama, its norms folded or not.

What is folded or centred stays so: norms without weights become norms of ones, and the bias that folding puts on the logits is
said by the last norm.
"""

import math
from typing import Any

import torch
from torch import Tensor

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.checkpoints.converted import Converted, tied_to
from neuronaut.tools.targets.checkpoints.lens_names import native, with_properties
from neuronaut.tools.targets.checkpoints.source import Source

MASKS = (".attn.mask", ".attn.IGNORE", ".attn.causal_mask", ".attn.rotary_sin", ".attn.rotary_cos")
ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu_new", "gelu_fast": "gelu_new", "gelu_pytorch_tanh": "gelu_new", "relu": "relu",
    "silu": "silu",
}  # fmt: skip
PLAIN: dict[str, tuple[Any, ...]] = {  # options under which neither GPT-2 nor Llama computes the same, and their values off
    "attention_dir": ("causal",), "scale_attn_by_inverse_layer_idx": (False,), "use_local_attn": (False,), "window_size": (None,),
    "parallel_attn_mlp": (False,), "num_experts": (None, 0), "use_qk_norm": (False,), "post_embedding_ln": (False,),
    "use_normalization_before_and_after": (False,), "use_NTK_by_parts_rope": (False,), "rope_scaling": (None,),
    "scale_embedding": (None, False), "rmsnorm_uses_offset": (False,), "attn_scores_soft_cap": (-1, 0, None),
    "output_logits_soft_cap": (-1, 0, None), "use_alibi": (False,),
}  # fmt: skip


def from_transformer_lens(given: Source) -> Converted:
    """The GPT-2 or Llama that computes the same. Refuses what neither can represent, and says what."""
    source, family = with_properties(given), _family(given)
    made = _Making(source, adjacent=native(given) or bool(given.config.get("rotary_adjacent_pairs")))
    weights = made.gpt2() if family == "gpt2" else made.llama()
    source.check_all_taken(MASKS)
    return Converted(made.config, weights, made.notes)


def _family(source: Source) -> str:
    """Refuses options that neither GPT-2 nor Llama has."""
    config = source.config
    for option, off in PLAIN.items():
        if option in config and config[option] not in off:
            raise _cannot(source, f"{option} is {config[option]!r}")
    if config.get("act_fn") not in ACTIVATIONS and not config.get("attn_only"):
        raise _cannot(source, f"its activation is {config.get('act_fn')!r} ({', '.join(ACTIVATIONS)} can be)")
    said = (
        config.get("normalization_type"),
        config.get("positional_embedding_type", "standard"),
        bool(config.get("gated_mlp")),
    )
    match said:
        case ("LN" | "LNPre", "standard", False) if not config.get("final_rms"):
            return "gpt2"
        case ("RMS" | "RMSPre", "rotary", True) if not config.get("attn_only"):
            return "llama"
        case (norm, place, gated):
            mlp = "no MLP" if config.get("attn_only") else "a gated MLP" if gated else "an MLP without gate"
            raise _cannot(source, f"it has norms of type {norm!r}, places of type {place!r} and {mlp}")


def _cannot(source: Source, why: str) -> UserError:
    return UserError(
        f"{source.name!r} cannot be converted: {why}; GPT-2 (norms LN or LNPre, standard places, no gate) and Llama (norms RMS or "
        "RMSPre, rotary places, gated MLP) can be"
    )


class _Making:
    """The weights of one family, made of a state dict; `config` and `notes` belong to them."""

    def __init__(self, source: Source, *, adjacent: bool) -> None:
        self.source, self.adjacent = source, adjacent
        self.n_layers, self.d, self.d_head = (source.number(name) for name in ("n_layers", "d_model", "d_head"))
        self.n_heads, self.n_ctx = source.number("n_heads"), source.number("n_ctx")
        self.d_vocab = source.number("d_vocab")
        self.n_kv = int(source.config.get("n_key_value_heads") or self.n_heads)
        self.folded = str(source.config["normalization_type"]).endswith("Pre")
        self.eps = float(source.config.get("eps", 1e-5))
        self.notes: list[str] = []
        self.config: dict[str, Any] = {}
        if self.folded:
            self.notes.append(
                "its norms were folded into the weights that follow: they stay so, and are norms of ones here"
            )
        out = source.config.get("d_vocab_out", -1)
        if out not in (-1, None, self.d_vocab):
            raise _cannot(source, f"it says {out} tokens and reads {self.d_vocab}")
        scale = source.config.get("attn_scale", -1)
        plain = scale in (-1, None) or math.isclose(float(scale), math.sqrt(self.d_head), rel_tol=1e-6)
        if not plain or (source.config.get("use_attn_scale") is False and not adjacent):
            raise _cannot(source, f"its attention is not scaled by the root of d_head ({scale})")

    def gpt2(self) -> dict[str, Tensor]:
        """Refuses heads that do not divide d_model."""
        if self.n_heads * self.d_head != self.d or self.n_kv != self.n_heads:
            raise _cannot(
                self.source,
                f"its {self.n_heads} heads ({self.n_kv} of keys) of {self.d_head} do not make up d_model {self.d}",
            )
        attn_only = bool(self.source.config.get("attn_only"))
        d_mlp = 1 if attn_only else self.source.number("d_mlp")
        if attn_only:
            self.notes.append("it has no MLP: one neuron a layer that reads and writes nothing stands for it")
        take, d, weights = self.source.take, self.d, {}
        weights["transformer.wte.weight"] = take("embed.W_E", self.d_vocab, d)
        weights["transformer.wpe.weight"] = take("pos_embed.W_pos", self.n_ctx, d)
        for layer in range(self.n_layers):
            at, to = f"blocks.{layer}", f"transformer.h.{layer}"
            heads = [self._head(f"{at}.attn", part, self.n_heads) for part in "QKV"]
            weights[f"{to}.attn.c_attn.weight"] = torch.cat([weight for weight, _ in heads], dim=1)
            weights[f"{to}.attn.c_attn.bias"] = torch.cat([bias for _, bias in heads])
            weights[f"{to}.attn.c_proj.weight"] = take(f"{at}.attn.W_O", self.n_heads, self.d_head, d).reshape(d, d)
            weights[f"{to}.attn.c_proj.bias"] = self.source.take_or(f"{at}.attn.b_O", 0.0, d)
            norms = {"ln_1": f"{at}.ln1"} | ({} if attn_only else {"ln_2": f"{at}.ln2"})
            for own, theirs in norms.items():
                weights[f"{to}.{own}.weight"], weights[f"{to}.{own}.bias"] = self._norm(theirs)
            weights |= _no_mlp(to, d) if attn_only else self._mlp(at, to, d_mlp)
        gain, bias, unembed = self._last()
        weights |= {"transformer.ln_f.weight": gain, "transformer.ln_f.bias": bias}
        tied = tied_to(weights["transformer.wte.weight"], unembed.T)
        weights |= {} if tied else {"lm_head.weight": unembed.T}
        self.config = {
            "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": self.n_layers, "n_head": self.n_heads,
            "n_embd": d, "n_inner": d_mlp, "n_positions": self.n_ctx, "vocab_size": self.d_vocab,
            "activation_function": "relu" if attn_only else ACTIVATIONS[self.source.config["act_fn"]],
            "layer_norm_epsilon": self.eps, "tie_word_embeddings": tied,
        }  # fmt: skip
        return weights

    def _head(self, at: str, part: str, n: int) -> tuple[Tensor, Tensor]:
        """(d_model, n · d_head) and its bias."""
        weight = self.source.take(f"{at}.W_{part}", n, self.d, self.d_head)
        bias = self.source.take_or(f"{at}.b_{part}", 0.0, n, self.d_head)
        return weight.permute(1, 0, 2).reshape(self.d, -1), bias.reshape(-1)

    def _norm(self, name: str) -> tuple[Tensor, Tensor]:
        return self.source.take_or(f"{name}.w", 1.0, self.d), self.source.take_or(f"{name}.b", 0.0, self.d)

    def _mlp(self, at: str, to: str, d_mlp: int) -> dict[str, Tensor]:
        take, d = self.source.take, self.d
        return {
            f"{to}.mlp.c_fc.weight": take(f"{at}.mlp.W_in", d, d_mlp),
            f"{to}.mlp.c_fc.bias": self.source.take_or(f"{at}.mlp.b_in", 0.0, d_mlp),
            f"{to}.mlp.c_proj.weight": take(f"{at}.mlp.W_out", d_mlp, d),
            f"{to}.mlp.c_proj.bias": self.source.take_or(f"{at}.mlp.b_out", 0.0, d),
        }

    def _last(self) -> tuple[Tensor, Tensor, Tensor]:
        """Gain and bias of the last norm, and the unembedding (d_model, d_vocab), which say the bias of the logits too.

        What a LayerNorm leaves is centred, so that it does not see what is added to the unembedding in proportion to 1 / gain;
        a bias of the norm does.
        """
        gain, bias = self._norm("ln_final")
        unembed = self.source.take("unembed.W_U", self.d, self.d_vocab)
        wanted = self.source.take_or("unembed.b_U", 0.0, self.d_vocab)
        if not wanted.any():
            return gain, bias, unembed
        self.notes.append(
            "the bias of its logits is said by the bias of the last norm and by what centred residuals do not see of the unembedding, "
            "equal up to rounding"
        )
        unseen = torch.where(gain == 0, 0.0, 1.0 / gain)
        more = (bias.double() @ unembed.double() + wanted - gain.double() @ unembed.double()) / (gain != 0).sum()
        return gain, gain, (unembed + unseen[:, None].double() * more).float()

    def llama(self) -> dict[str, Tensor]:
        """Refuses a bias of the logits, and places that turn only part of a head."""
        config, take, d = self.source.config, self.source.take, self.d
        if config.get("rotary_dim") not in (None, self.d_head):
            raise _cannot(self.source, f"its places turn {config['rotary_dim']} of {self.d_head} dimensions of a head")
        if self.source.take_or("unembed.b_U", 0.0, self.d_vocab).any():
            raise _cannot(self.source, "its logits have a bias of their own (unembed.b_U)")
        d_mlp, weights, biases = self.source.number("d_mlp"), {}, {}
        weights["model.embed_tokens.weight"] = take("embed.W_E", self.d_vocab, d)
        for layer in range(self.n_layers):
            at, to = f"blocks.{layer}", f"model.layers.{layer}"
            for part, n in (("Q", self.n_heads), ("K", self.n_kv), ("V", self.n_kv)):
                weight, bias = self._head(f"{at}.attn", part, n)
                name = f"{to}.self_attn.{part.lower()}_proj"
                turned = self._turned(n) if part != "V" else slice(None)
                weights[f"{name}.weight"], biases[f"{name}.bias"] = weight.T[turned], bias[turned]
            wide = self.n_heads * self.d_head
            weights[f"{to}.self_attn.o_proj.weight"] = (
                take(f"{at}.attn.W_O", self.n_heads, self.d_head, d).reshape(wide, d).T
            )
            biases[f"{to}.self_attn.o_proj.bias"] = self.source.take_or(f"{at}.attn.b_O", 0.0, d)
            for own, theirs, shape in (
                ("up", "in", (d, d_mlp)),
                ("gate", "gate", (d, d_mlp)),
                ("down", "out", (d_mlp, d)),
            ):
                weights[f"{to}.mlp.{own}_proj.weight"] = take(f"{at}.mlp.W_{theirs}", *shape).T
                biases[f"{to}.mlp.{own}_proj.bias"] = self.source.take_or(f"{at}.mlp.b_{theirs}", 0.0, shape[1])
            weights[f"{to}.input_layernorm.weight"] = self.source.take_or(f"{at}.ln1.w", 1.0, d)
            weights[f"{to}.post_attention_layernorm.weight"] = self.source.take_or(f"{at}.ln2.w", 1.0, d)
        weights["model.norm.weight"] = self.source.take_or("ln_final.w", 1.0, d)
        unembed = take("unembed.W_U", d, self.d_vocab).T
        tied = tied_to(weights["model.embed_tokens.weight"], unembed)
        weights |= {} if tied else {"lm_head.weight": unembed}
        parts = {
            part
            for part in ("self_attn", "mlp")
            if any(bias.any() for name, bias in biases.items() if f".{part}." in name)
        }
        weights |= {name: bias for name, bias in biases.items() if any(f".{part}." in name for part in parts)}
        self.config = {
            "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": self.n_layers, "hidden_size": d,
            "num_attention_heads": self.n_heads, "num_key_value_heads": self.n_kv, "head_dim": self.d_head,
            "intermediate_size": d_mlp, "max_position_embeddings": self.n_ctx, "vocab_size": self.d_vocab,
            "hidden_act": ACTIVATIONS[config["act_fn"]], "rms_norm_eps": self.eps, "tie_word_embeddings": tied,
            "rope_theta": float(config.get("rotary_base", 10000)), "attention_bias": "self_attn" in parts, "mlp_bias": "mlp" in parts,
        }  # fmt: skip
        return weights

    def _turned(self, n: int) -> Tensor:
        """Rows of queries or keys in the order in which Llama turns them: the first half with the second."""
        rows = torch.arange(n * self.d_head).view(n, self.d_head)
        return (torch.cat([rows[:, ::2], rows[:, 1::2]], dim=1) if self.adjacent else rows).reshape(-1)


def _no_mlp(to: str, d: int) -> dict[str, Tensor]:
    """An MLP of one neuron that does nothing, and the norm before it."""
    return {
        f"{to}.ln_2.weight": torch.ones(d),
        f"{to}.ln_2.bias": torch.zeros(d),
        f"{to}.mlp.c_fc.weight": torch.zeros(d, 1),
        f"{to}.mlp.c_fc.bias": torch.zeros(1),
        f"{to}.mlp.c_proj.weight": torch.zeros(1, d),
        f"{to}.mlp.c_proj.bias": torch.zeros(d),
    }
