"""What SAELens' cfg.json says about a dictionary, in the layouts of its versions before 6 and since."""

from collections.abc import Mapping
from typing import Any, get_args

from neuronaut.tools.errors import UserError
from neuronaut.tools.features.dictionary import Architecture, Layout, Normalization
from neuronaut.tools.features.places import READ_ONLY, Place, place_of

MOST_WIDTH = 2**24
# Ways of loading a model that change no activation, and those that change the activations of one place alone.
_HARMLESS = ("center_unembed", "dtype", "torch_dtype", "device", "n_devices", "trust_remote_code")
_LOCAL = {"fold_ln": "mlp_in", "fold_value_biases": "heads", "refactor_factored_attn_matrices": "heads"}
_OLD_NAMES = {"hook_point": "hook_name", "hook_point_head_index": "hook_head_index", "hook_point_layer": "hook_layer"}


def layout_of(config: Mapping[str, Any]) -> tuple[Layout, float]:
    """The layout, and what inputs are multiplied with (1 where nothing is recorded to be folded).

    Refuses an architecture, hook, normalization or activation function that is not computed here.
    """
    said = _flat(config)
    architecture, k = _architecture(said)
    d_in, width = _count(said, "d_in"), _count(said, "d_sae")
    transcodes = "transcoder" in architecture
    reads, writes = _places(said, transcodes)
    _check_reshape(said, reads)
    scaled = _normalization(said)
    return Layout(
        architecture=architecture,
        reads=reads,
        writes=writes,
        d_in=d_in,
        d_out=_count(said, "d_out") if transcodes else d_in,
        width=width,
        k=k if architecture == "topk" else None,
        subtracts_b_dec=_flag(said, "apply_b_dec_to_input", default=not transcodes),
        normalization=scaled[0],
        rescales=_flag(said, "rescale_acts_by_decoder_norm", default=said["architecture"] == "batchtopk")
        and architecture in ("topk", "jumprelu"),
        centred=_centred(said, reads),
        model_name=_text(said, "model_name"),
        weights_sha256=_text(said, "weights_sha256"),
    ), scaled[1]


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """All that is said, in one table: the old layout has it so, the new one has what concerns the model in `metadata`."""
    said: dict[str, Any] = {}
    for part in (config, config.get("metadata"), config.get("neuronaut")):
        if part is not None and not isinstance(part, Mapping):
            raise UserError("its metadata is no JSON object")
        said |= {_OLD_NAMES.get(key, key): value for key, value in (part or {}).items() if value is not None}
    said.setdefault("architecture", "standard")
    return said


def _architecture(said: Mapping[str, Any]) -> tuple[Architecture, int | None]:
    named, function = said["architecture"], said.get("activation_fn", said.get("activation_fn_str", "relu"))
    given = said.get("activation_fn_kwargs")
    k = said.get("k", given.get("k") if isinstance(given, Mapping) else None)
    if named == "standard" and function == "topk":
        named = "topk"
    elif function not in ("relu", "topk"):
        raise UserError(f"its activation function {function!r} is not known: only relu and topk are")
    if _flag(said, "finetuning_scaling_factor", default=False):
        raise UserError("its decoder was fine-tuned with a scale of its own, which is not computed here")
    if named == "topk" and not (isinstance(k, int) and not isinstance(k, bool) and 1 <= k <= _count(said, "d_sae")):
        raise UserError(f"its k is {k!r} and not a whole number from 1 to its width {_count(said, 'd_sae')}")
    if named == "batchtopk":
        return "jumprelu", None
    for known in get_args(Architecture):
        if named == known:
            return known, k
    raise UserError(
        f"its architecture {named!r} is not known: there are {', '.join(get_args(Architecture))} and batchtopk"
    )


def _places(said: Mapping[str, Any], transcodes: bool) -> tuple[Place, Place]:
    hook, layer, head = _text(said, "hook_name"), said.get("hook_layer"), said.get("hook_head_index")
    if hook is None:
        raise UserError("it does not say where it reads: put hook_name into the metadata of cfg.json")
    for name, number in (("hook_layer", layer), ("hook_head_index", head)):
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 0):
            raise UserError(f"its {name} is {number!r} and no whole number from 0")
    reads = place_of(hook, layer, head)
    if not transcodes:
        if reads.name in READ_ONLY:
            raise UserError(
                f"it stands at {hook!r}, where an activation can be read but not changed: an autoencoder must stand where its "
                "output can be put, such as hook_resid_pre, hook_resid_post, hook_mlp_out or attn.hook_z"
            )
        return reads, reads
    out = _text(said, "hook_name_out")
    if out is None:
        raise UserError(
            "it is a transcoder and does not say where it writes: put hook_name_out into the metadata of cfg.json"
        )
    writes = place_of(out, said.get("hook_layer_out", layer))
    if writes.name in READ_ONLY or writes.name in ("heads", "neurons", "resid_pre"):
        raise UserError(f"it writes at {out!r}, where nothing can be added: transcoders write at hook_mlp_out")
    if writes.layer < reads.layer or (writes.layer == reads.layer and _ORDER[reads.name] > _ORDER[writes.name]):
        raise UserError(f"it writes at {out!r}, which comes before {hook!r}, where it reads")
    return reads, writes


_ORDER = {
    name: at
    for at, name in enumerate(
        ("resid_pre", "heads", "attn_out", "resid_mid", "mlp_in", "neurons", "mlp_out", "resid_post")
    )
}


def _check_reshape(said: Mapping[str, Any], reads: Place) -> None:
    """Heads are taken flattened, as `hook_z` says; nothing else is reshaped."""
    shape = said.get("reshape_activations", "none")
    if shape not in ("none", "hook_z"):
        raise UserError(f"its reshape_activations {shape!r} is not known: there are none and hook_z")
    if shape == "hook_z" and (reads.name != "heads" or reads.head is not None):
        raise UserError("it reshapes hook_z, but does not read all heads of attn.hook_z")


def _normalization(said: Mapping[str, Any]) -> tuple[Normalization, float]:
    """How inputs are normalized, and what they are multiplied with."""
    mode = said.get("normalize_activations", "none")
    if mode is True or mode == "expected_average_only_in":
        factor = said.get("norm_scaling_factor")
        if not isinstance(factor, int | float) or isinstance(factor, bool) or not 0 < factor < 1e30:
            raise UserError(
                "its inputs are multiplied to an expected norm, but nothing says with what: put norm_scaling_factor into "
                "cfg.json, or normalize_activations none where it is folded into the weights"
            )
        return "none", float(factor)
    if mode is False:
        return "none", 1.0
    for known in get_args(Normalization):
        if mode == known:
            return known, 1.0
    raise UserError(
        f"its normalize_activations {mode!r} is not computed here: there are none, expected_average_only_in, "
        "constant_norm_rescale and layer_norm"
    )


def _centred(said: Mapping[str, Any], reads: Place) -> bool:
    """Whether it was made on a model whose writing weights were centred, which takes the mean out of the residual stream.

    Refuses other ways of loading a model that would give other activations than the raw weights do.
    """
    loaded = said.get("model_from_pretrained_kwargs", {})
    if not isinstance(loaded, Mapping):
        raise UserError("its model_from_pretrained_kwargs is no JSON object")
    for name, value in loaded.items():
        elsewhere = name in _LOCAL and reads.name != _LOCAL[name]
        folded = name == "fold_ln" and reads.detail == "normalized"
        if value and name not in (*_HARMLESS, "center_writing_weights") and not elsewhere and not folded:
            raise UserError(
                f"its model was loaded with {name}, which changes what it reads: only raw weights are run here"
            )
    centred = bool(loaded.get("center_writing_weights", False))
    return centred and reads.name in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


def _count(said: Mapping[str, Any], name: str) -> int:
    value = said.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_WIDTH:
        raise UserError(f"its {name} is {value!r} and not a whole number from 1 to {MOST_WIDTH}")
    return value


def _flag(said: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = said.get(name, default)
    if not isinstance(value, bool):
        raise UserError(f"its {name} is {value!r} and neither true nor false")
    return value


def _text(said: Mapping[str, Any], name: str) -> str | None:
    value = said.get(name)
    if value is not None and not isinstance(value, str):
        raise UserError(f"its {name} is {value!r} and no text")
    return value
