"""A model of mlx-lm with the weights of a Hugging Face folder, each layer turned and masked as the configuration says."""

import contextlib
import glob
import importlib
import resource
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.configuration import check_filled
from neuronaut.tools.targets.folder import ModelFolder
from neuronaut.tools.targets.mlx.configs import Rotation, Understood
from neuronaut.tools.targets.mlx.experts import ExpertMlp
from neuronaut.tools.targets.weight_files import BUFFERS, EMBEDDINGS, stored_in

ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "gelu": nn.gelu,
    "gelu_new": nn.gelu_approx,
    "gelu_fast": nn.gelu_approx,
    "gelu_pytorch_tanh": nn.gelu_approx,
    "relu": nn.relu,
    "silu": nn.silu,
    "swish": nn.silu,
}


class PlainMlp(nn.Module):  # type: ignore[misc]  # mlx has no types here
    """An MLP without a gate that computes the activation of its configuration; mlx-lm has another one fixed."""

    def __init__(self, found: Understood) -> None:
        super().__init__()
        names = found.names
        self[names.up] = nn.Linear(found.d_model, found.d_mlp)
        self[names.down] = nn.Linear(found.d_mlp, found.d_model)
        self._parts = (names.up, names.down)
        self._activation = ACTIVATIONS[found.activation]

    def __call__(self, x: mx.array) -> mx.array:
        """What it writes to the residual stream."""
        up, down = self._parts
        return self[down](self._activation(self[up](x)))


class Turned(nn.Module):  # type: ignore[misc]
    """Turns queries and keys by their place."""

    def __init__(self, rotation: Rotation) -> None:
        super().__init__()
        self._dims, self._scale = 2 * len(rotation.angles), rotation.scale
        self._freqs = 1.0 / mx.array(rotation.angles.numpy())

    def __call__(self, x: mx.array, offset: int = 0) -> mx.array:
        """(batch, n_heads, pos, d_head), the first position at `offset`."""
        if self._scale != 1.0:
            x = mx.concatenate([x[..., : self._dims] * self._scale, x[..., self._dims :]], axis=-1)
        return mx.fast.rope(x, self._dims, traditional=False, base=None, scale=1.0, offset=offset, freqs=self._freqs)


def load_model(folder: ModelFolder, found: Understood, dtype: mx.Dtype) -> nn.Module:
    """The model of mlx-lm; quantised weights stay so. Refuses what `unread_model` refuses, and experts that mlx cannot multiply."""
    model = unread_model(folder, found, dtype)
    _refuse_narrow_experts(model, found, dtype)
    mx.eval(model.parameters())
    return model


def unread_model(folder: ModelFolder, found: Understood, dtype: mx.Dtype = mx.float32) -> nn.Module:
    """The model of mlx-lm, no weight of which is read before it is used.

    Refuses weights that do not fill the model, or more than that: in the words of the other engine where that refuses them too.
    """
    with _same_limits():
        from mlx_lm import utils

    _check_files(folder)
    module = importlib.import_module(f"mlx_lm.models.{found.names.module}")
    model_class = _with_own_weights(module.Model, folder, found, dtype)
    try:
        model, _ = utils.load_model(
            folder.path,
            lazy=True,
            model_config=found.arguments,
            get_model_classes=lambda config: (model_class, module.ModelArgs),
        )
        _turn(model, found)
    except (UserError, ValueError, KeyError, RuntimeError, AssertionError, TypeError) as error:
        if not folder.config.keys() & {"quantization", "quantization_config"}:  # which the other engine does not read
            check_filled(folder, stored_in(folder))
        if isinstance(error, UserError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the model in {str(folder.path)!r} cannot be loaded by mlx-lm: {reason}") from error
    return model


def _check_files(folder: ModelFolder) -> None:
    """Refuses a folder in which mlx-lm would read other files than those of the model."""
    if glob.escape(str(folder.path)) != str(folder.path):  # it looks for files by a pattern that begins with the path
        raise UserError(f"mlx-lm cannot read {str(folder.path)!r}, whose path has [, ? or * in it: rename it")
    if strange := sorted(set(folder.path.glob("model*.safetensors")) ^ set(folder.weights)):
        raise UserError(
            f"mlx-lm reads all files model*.safetensors of a folder, and {strange[0].name!r} in {str(folder.path)!r} is no part of the "
            "model, or named otherwise: move it away, or give --backend torch"
        )


def at(part: Any, path: str) -> Any:
    """The part at a dotted path."""
    for name in path.split("."):
        part = part[name] if isinstance(part, dict) and name in part else getattr(part, name)
    return part


@contextlib.contextmanager
def _same_limits() -> Iterator[None]:
    """mlx_lm lowers how many files the whole process may open when it is imported."""
    lower = resource.setrlimit
    resource.setrlimit = lambda *_: None
    try:
        yield
    finally:
        resource.setrlimit = lower


def _with_own_weights(plain: type, folder: ModelFolder, found: Understood, dtype: mx.Dtype) -> type:
    """The model class, with an MLP and an unembedding where its own are fixed, which checks the names of its weights."""

    def build(self: Any, args: Any) -> None:
        plain.__init__(self, args)  # type: ignore[misc]
        for layer in at(self, found.names.layers):
            _rebuild(layer, found)
        if found.names.module == "gpt2" and not found.arguments["tie_word_embeddings"]:
            self.lm_head = nn.Linear(found.d_model, found.arguments["vocab_size"], bias=False)

    def sanitize(self: Any, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        weights = _renamed(weights, found)
        if hasattr(plain, "sanitize"):
            weights = plain.sanitize(self, weights)
        if "model.lm_head.weight" in weights:  # of GPT-2, to which mlx-lm gives none
            weights["lm_head.weight"] = weights.pop("model.lm_head.weight")
        _check_names(self, weights, folder)
        return {
            name: value.astype(dtype) if mx.issubdtype(value.dtype, mx.floating) else value
            for name, value in weights.items()
        }

    return type(plain.__name__, (plain,), {"__init__": build, "sanitize": sanitize})


def _rebuild(layer: nn.Module, found: Understood) -> None:
    """Puts own parts where those of mlx-lm are fixed, or hand out too little."""
    names = found.names
    if names.gate is None:
        layer[names.mlp] = PlainMlp(found)
    if names.experts is not None:
        layer[names.mlp] = ExpertMlp(layer[names.mlp], found)
    if names.module == "mixtral":  # whose heads mlx-lm takes to share d_model among them
        attention, d_model, d_head = at(layer, names.attention), found.d_model, found.d_head
        for part, n_heads in zip(names.projections, (found.n_heads, found.n_kv_heads, found.n_kv_heads), strict=True):
            attention[part] = nn.Linear(d_model, n_heads * d_head, bias=False)
        attention[names.heads_in] = nn.Linear(found.n_heads * d_head, d_model, bias=False)
        attention.scale = d_head**-0.5


def _renamed(weights: dict[str, mx.array], found: Understood) -> dict[str, mx.array]:
    """The names that mlx-lm expects; buffers that are no weights are left out."""
    weights = {name: value for name, value in weights.items() if not name.endswith(BUFFERS)}
    if found.names.module == "gpt2":
        weights = {name.removeprefix("transformer."): value for name, value in weights.items()}
    if found.names.module == "gpt_oss":
        weights = dict(one for name, value in weights.items() for one in _apart(name, value))
    if found.arguments["tie_word_embeddings"] and (own := weights.pop("lm_head.weight", None)) is not None:
        tied = next((value for name, value in weights.items() if name.endswith(EMBEDDINGS)), own)
        if tied.shape != own.shape or not mx.array_equal(tied, own):
            raise UserError(
                "config.json ties the unembedding to the embedding, and the weights hold another lm_head.weight: set "
                "tie_word_embeddings to false there, or give --backend torch, which takes the one that is stored"
            )
    return weights


def _apart(name: str, value: mx.array) -> list[tuple[str, mx.array]]:
    """Weights of gpt-oss as mlx-lm holds them: transformers stores x @ W, gate and up in turns. Packed ones are told apart by
    mlx-lm itself."""
    part = name.rpartition(".experts.")[2]
    at, gate_up = name.removesuffix(part), (("gate_proj", slice(0, None, 2)), ("up_proj", slice(1, None, 2)))
    match part:
        case "gate_up_proj":
            return [(f"{at}{one}.weight", value[..., turn].swapaxes(-1, -2)) for one, turn in gate_up]
        case "gate_up_proj_bias":
            return [(f"{at}{one}.bias", value[..., turn]) for one, turn in gate_up]
        case "down_proj":
            return [(f"{at}down_proj.weight", value.swapaxes(-1, -2))]
        case "down_proj_bias":
            return [(f"{at}down_proj.bias", value)]
        case _:
            return [(name, value)]


def _check_names(model: nn.Module, weights: dict[str, mx.array], folder: ModelFolder) -> None:
    expected = {name for name, _ in tree_flatten(model.parameters())}
    if missing := sorted(expected - weights.keys()):
        raise UserError(
            f"the weights in {str(folder.path)!r} lack {missing[0]!r} ({len(missing)} tensors in all): "
            "they would be random, so download or convert the model again"
        )
    packed = {f"{name.removesuffix('weight')}{part}" for name in expected for part in ("scales", "biases")}
    if more := sorted(weights.keys() - expected - packed):
        raise UserError(
            f"the weights in {str(folder.path)!r} hold {more[0]!r} ({len(more)} tensors in all), which mlx-lm would leave out: "
            "give --backend torch"
        )


def _refuse_narrow_experts(model: nn.Module, found: Understood, dtype: mx.Dtype) -> None:
    """What mlx would stop at in the middle of a run."""
    names = found.names
    if names.experts is None or dtype == mx.float32 or mx.default_device() != mx.cpu:
        return
    if "scales" not in at(at(model, names.layers)[0], f"{names.mlp}.{names.experts}.{names.down}"):
        raise UserError(
            "on a processor mlx multiplies the weights of experts in float32 alone: give float32, weights in 4 bits, or "
            "--backend torch"
        )


def _turn(model: nn.Module, found: Understood) -> None:
    for layer, rotation in zip(at(model, found.names.layers), found.rotations, strict=True):
        if rotation is not None:
            at(layer, found.names.attention).rope = Turned(rotation)
