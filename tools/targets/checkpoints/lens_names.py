"""The two ways in which TransformerLens names weights, made one: `blocks.0.attn.W_Q`, and `blocks.0.attn.q.weight` since version 4."""

from torch import Tensor

from neuronaut.tools.targets.checkpoints.source import Source

_NORMS = {"weight": "w", "bias": "b"}


def is_transformer_lens(source: Source) -> bool:
    """Whether tensors are named as TransformerLens names them."""
    return "embed.W_E" in source.tensors or (source.native and "unembed.weight" in source.tensors)


def with_properties(source: Source) -> Source:
    """The same with the names `embed.W_E`, `blocks.0.attn.W_Q` and so on; keys and values of grouped heads as they are."""
    if not source.native:
        tensors = {
            name.replace(".attn._W_", ".attn.W_").replace(".attn._b_", ".attn.b_"): value
            for name, value in source.tensors.items()
        }
        return Source(source.name, source.config, tensors, version_4=source.native)
    heads = {"q": source.number("n_heads"), "o": source.number("n_heads")}
    heads |= dict.fromkeys(
        ("k", "v"), source.number("n_key_value_heads") if source.config.get("n_key_value_heads") else heads["q"]
    )
    d_head = source.number("d_head")
    tensors = {}
    for name, value in source.tensors.items():
        stem, _, part = name.rpartition(".")
        place, _, leaf = stem.rpartition(".")
        tensors |= _one(place, leaf, part, value, heads, d_head) or {name: value}
    return Source(source.name, source.config, tensors, version_4=source.native)


def _one(
    place: str, leaf: str, part: str, value: Tensor, heads: dict[str, int], d_head: int
) -> dict[str, Tensor] | None:
    """One tensor under its other name, None where it has none."""
    if place.endswith(".attn") and leaf in heads:
        if part == "weight":
            made = value.T.reshape(heads[leaf], d_head, -1) if leaf == "o" else value.view(heads[leaf], d_head, -1).mT
        else:
            made = value if leaf == "o" else value.view(heads[leaf], d_head)
        return {f"{place}.{'W' if part == 'weight' else 'b'}_{leaf.upper()}": made}
    if place.endswith(".mlp") and leaf in ("in", "out", "gate"):
        return {f"{place}.{'W' if part == 'weight' else 'b'}_{leaf}": value.T if part == "weight" else value}
    if leaf in ("ln1", "ln2", "ln_final") and part in _NORMS:
        return {f"{place}.{leaf}.{_NORMS[part]}".lstrip("."): value}
    outer = {
        "embed.weight": ("embed.W_E", value),
        "pos_embed.weight": ("pos_embed.W_pos", value),
        "unembed.weight": ("unembed.W_U", value.mT if value.dim() == 2 else value),
        "unembed.bias": ("unembed.b_U", value),
    }
    found = outer.get(f"{leaf}.{part}") if not place else None
    return None if found is None else dict([found])
