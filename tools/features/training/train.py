"""The training of a dictionary: steps of Adam on a stream of activations, and checkpoints from which it goes on."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from neuronaut.tools.errors import ToolFailed, UserError
from neuronaut.tools.features.dictionary import Dictionary, Layout
from neuronaut.tools.features.places import Place, PlaceName
from neuronaut.tools.features.training.learner import Learner
from neuronaut.tools.features.training.settings import Settings
from neuronaut.tools.features.training.stream import Source, Spot
from neuronaut.tools.files import write_whole

Progress = Callable[[int, int], None]
SAMPLE = 16_384  # activations from which scale, spread and median are taken
THRESHOLD_RATE = 5.0  # times the rate of the rest: a threshold has to cross its whole range in a short training
KEPT = "quiet"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Checkpoint:
    """Where a training keeps its state, and what it belongs to: a state of anything else is refused.

    every: seconds between two states.
    """

    file: Path
    about: str
    every: float = 30.0


@dataclass
class _State:
    learner: Learner
    adam: torch.optim.Adam
    step: int
    spot: Spot
    batch: int  # of the part that begins at the spot


def train(
    source: Source, settings: Settings, *, checkpoint: Checkpoint | None = None, progress: Progress | None = None
) -> Learner:
    """The trained learner. progress(done, total) counts tokens.

    A killed training goes on at its last checkpoint, with the same result bit by bit on one thread. Fails where the loss is
    no longer finite.
    """
    state = _resumed(checkpoint, settings) or _begun(source, settings)
    settings, kept = state.learner.settings, time.monotonic()
    part = None
    while state.step < settings.steps:
        part = source.part(state.spot) if part is None else part
        chosen = part.order[state.batch * settings.batch : (state.batch + 1) * settings.batch]
        if len(chosen) < settings.batch:  # what is left over at the end of a part is not trained on this time
            state.spot, state.batch, part = part.following, 0, None
            continue
        _step(state, part.values[chosen])
        if progress is not None:
            progress(state.step * settings.batch, settings.steps * settings.batch)
        if checkpoint is not None and time.monotonic() - kept >= checkpoint.every:
            _keep(state, checkpoint)
            kept = time.monotonic()
    if checkpoint is not None:
        _keep(state, checkpoint)
    return state.learner


def dictionary_of(learner: Learner, name: str, *, model_name: str, weights_sha256: str) -> Dictionary:
    """What was trained, for activations as the model has them."""
    settings = learner.settings
    weights = learner.folded()
    place = Place(next(name for name in get_args(PlaceName) if name == settings.site.name), settings.site.layer)
    layout = Layout(
        architecture=settings.activation,
        reads=place,
        writes=place,
        d_in=len(weights["b_dec"]),
        d_out=len(weights["b_dec"]),
        width=settings.width,
        k=settings.k if settings.activation == "topk" else None,
        model_name=model_name,
        weights_sha256=weights_sha256,
    )
    return Dictionary(name, "", layout, weights)


def _step(state: _State, values: Tensor) -> None:
    learner, settings = state.learner, state.learner.settings
    for group in state.adam.param_groups:
        group["lr"] = group["times"] * settings.rate_at(state.step)
    ramp = min(1.0, (state.step + 1) / max(1.0, settings.warm_up * settings.steps))
    state.adam.zero_grad()
    loss, passed = learner.loss(values * learner.scale, ramp=ramp)
    torch.autograd.backward(loss)
    if not bool(torch.isfinite(loss)):
        raise ToolFailed(f"the loss of the training is not finite at step {state.step}: try a smaller rate")
    learner.remove_parallel()
    state.adam.step()
    learner.normalise()
    learner.count(passed.fired, len(values))
    state.step += 1
    state.batch += 1


def _adam(learner: Learner) -> torch.optim.Adam:
    groups = [
        {"params": [w], "times": THRESHOLD_RATE if name == "log_threshold" else 1.0}
        for name, w in learner.weights.items()
    ]
    return torch.optim.Adam(groups, lr=learner.settings.rate, eps=6.25e-10)  # eps of Gao et al. 2024


def _begun(source: Source, settings: Settings) -> _State:
    first = source.part(Spot(0, 0))
    settings = settings.with_batch(len(first.order))
    learner = Learner.start(first.values[first.order[:SAMPLE]], settings)
    return _State(learner, _adam(learner), 0, Spot(0, 0), 0)


def _keep(state: _State, checkpoint: Checkpoint) -> None:
    learner = state.learner
    tensors = {f"weight.{name}": tensor.detach() for name, tensor in learner.weights.items()}
    for name, tensor in learner.weights.items():
        tensors |= {f"{moment}.{name}": state.adam.state[tensor][moment] for moment in _MOMENTS}
    tensors[KEPT] = learner.quiet
    said = {
        "about": checkpoint.about,
        "scale": learner.scale,
        "spread": learner.spread,
        "step": state.step,
        "spot": state.spot,
        "batch": state.batch,
        "batch_size": learner.settings.batch,
    }
    write_whole(checkpoint.file, save(tensors, {"state": json.dumps(said)}))


def _resumed(checkpoint: Checkpoint | None, settings: Settings) -> _State | None:
    """The state that was kept. Refuses that of another training, and a damaged one."""
    if checkpoint is None or not checkpoint.file.is_file():
        return None
    try:
        with safe_open(str(checkpoint.file), "pt") as file:
            said = json.loads(file.metadata()["state"])
            # Copies: sums are rounded otherwise where memory is aligned otherwise, as it is in a file.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  it is no dict
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the unfinished training in {str(checkpoint.file.parent)!r} is damaged ({type(error).__name__}): remove the folder"
        ) from None
    if said["about"] != checkpoint.about:
        raise UserError(
            f"{str(checkpoint.file.parent)!r} holds an unfinished training of other settings, weights or text: give those "
            "again to go on with it, name another folder, or remove that one"
        )
    settings = settings.with_batch(said["batch_size"])
    weights = {name.removeprefix("weight."): tensor for name, tensor in tensors.items() if name.startswith("weight.")}
    order = ("W_enc", "W_dec", "b_enc", "b_dec", "log_threshold")
    weights = {name: weights[name].requires_grad_() for name in order if name in weights}
    learner = Learner(settings, weights, said["scale"], said["spread"], tensors[KEPT])
    adam = _adam(learner)
    for name, tensor in weights.items():
        adam.state[tensor] = {moment: tensors[f"{moment}.{name}"] for moment in _MOMENTS}
    return _State(learner, adam, said["step"], Spot(*said["spot"]), said["batch"])


def about(settings: Settings, weights_sha256: str, corpus_sha256: str) -> str:
    """What a state of a training belongs to."""
    return json.dumps([asdict(settings), weights_sha256, corpus_sha256], sort_keys=True)
