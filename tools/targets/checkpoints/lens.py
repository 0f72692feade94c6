"""A state dict of TransformerLens: a GPT-2 or a Llama, its norms folded or not.

What is folded or centred stays so: norms without weights become norms of ones, and the bias that folding puts on the logits is
said by the last norm.
"""

from typing import Any

from neuronaut.tools.targets.checkpoints.converted import Converted
from neuronaut.tools.targets.checkpoints.lens_gpt2 import as_gpt2
from neuronaut.tools.targets.checkpoints.lens_llama import as_llama
from neuronaut.tools.targets.checkpoints.lens_names import with_properties
from neuronaut.tools.targets.checkpoints.lens_parts import ACTIVATIONS, Parts, cannot
from neuronaut.tools.targets.checkpoints.source import Source

MASKS = (".attn.mask", ".attn.IGNORE", ".attn.causal_mask", ".attn.rotary_sin", ".attn.rotary_cos")
PLAIN: dict[str, tuple[Any, ...]] = {  # options under which neither GPT-2 nor Llama computes the same, and their values off
    "attention_dir": ("causal",), "scale_attn_by_inverse_layer_idx": (False,), "use_local_attn": (False,), "window_size": (None,),
    "parallel_attn_mlp": (False,), "num_experts": (None, 0), "use_qk_norm": (False,), "post_embedding_ln": (False,),
    "use_normalization_before_and_after": (False,), "use_NTK_by_parts_rope": (False,), "rope_scaling": (None,),
    "scale_embedding": (None, False), "rmsnorm_uses_offset": (False,), "attn_scores_soft_cap": (-1, 0, None),
    "output_logits_soft_cap": (-1, 0, None), "use_alibi": (False,),
}  # fmt: skip


def from_transformer_lens(given: Source) -> Converted:
    """The GPT-2 or Llama that computes the same. Refuses what neither can represent, and says what."""
    family, source = _family(given), with_properties(given)
    made = as_gpt2(Parts(source)) if family == "gpt2" else as_llama(Parts(source))
    source.check_all_taken(MASKS)
    return made


def _family(source: Source) -> str:
    """Refuses options that neither GPT-2 nor Llama has."""
    config = source.config
    for option, off in PLAIN.items():
        if option in config and config[option] not in off:
            raise cannot(source, f"{option} is {config[option]!r}")
    if config.get("act_fn") not in ACTIVATIONS and not config.get("attn_only"):
        raise cannot(source, f"its activation is {config.get('act_fn')!r} ({', '.join(ACTIVATIONS)} can be)")
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
            raise cannot(source, f"it has norms of type {norm!r}, places of type {place!r} and {mlp}")
