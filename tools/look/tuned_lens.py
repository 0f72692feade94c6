"""The tuned lens: for each layer an affine map after which the last norm and the unembedding read its residual best."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.figures import Axes, Series, curve
from neuronaut.tools.files import cache_folder, write_whole
from neuronaut.tools.intervene.next_token import divergence
from neuronaut.tools.look.activations import batches, to_ids
from neuronaut.tools.look.readout import Readout
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import percentile_interval, ratio_samples, summed_by
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.tokens import Tokens

VERSION = 2
MOST_BYTES = 512 << 20  # of residuals that are held
BATCH = 256  # tokens of a step
RATE = 3e-3
PATIENCE = 3  # looks at the stopping text without a better layer
LOOK_EVERY = 25  # steps
MIN_DOCUMENTS = 20
LENSES = ("tuned", "plain", "shuffled")


class TuneLensArgs(ToolArgs):
    """n_tokens: of explore text. steps: at most. again: train anew though the same lens is kept."""

    example: ClassVar = {"n_tokens": 2048, "steps": 25}
    n_tokens: int = Field(default=16_384, ge=1024, le=1_000_000)
    steps: int = Field(default=250, ge=1, le=100_000)
    again: bool = False
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class TunedLens:
    """turn: (n_layers, d_model, d_model), shift: (n_layers, d_model), of the residual before each layer; report: what was
    measured when it was trained."""

    turn: Tensor
    shift: Tensor
    report: dict[str, Any]

    def __call__(self, residual: Tensor, layer: int) -> Tensor:
        """The residual before a layer (…, d_model), as the last norm reads it; that behind the last layer as it is."""
        return residual if layer == len(self.turn) else residual + residual @ self.turn[layer] + self.shift[layer]


@dataclass(frozen=True)
class Residuals:
    """Of every text token of some documents. before: (n_layers, n, d_model) before each layer; last: (n, d_model) behind the
    last; documents: (n,)."""

    before: Tensor
    last: Tensor
    documents: NDArray[np.int64]

    def of(self, documents: NDArray[np.int64]) -> "Residuals":
        """Those of some documents."""
        kept = torch.from_numpy(np.flatnonzero(np.isin(self.documents, documents)))
        return Residuals(self.before[:, kept], self.last[kept], self.documents[kept.numpy()])

    def shuffled(self, seed: int) -> "Residuals":
        """Each token with the output of another one: what a lens that is trained on them knows of no token in particular."""
        order = torch.randperm(len(self.last), generator=torch.Generator().manual_seed(seed))
        return Residuals(self.before, self.last[order], self.documents)


def residuals_of(target: TargetModel, tokens: Tokens) -> Residuals:
    """In one pass; special tokens are left out."""
    last = Site("resid_post", target.spec.n_layers - 1)
    sites = [*(Site("resid_pre", layer) for layer in range(target.spec.n_layers)), last]
    parts, documents = [], []
    for rows in batches(tokens):
        part = tokens.select(rows)
        read = target.run(to_ids(part), read=sites).read
        scored = torch.from_numpy(part.scored)
        parts.append(torch.stack([read[site][scored].float() for site in sites]))
        documents.append(np.broadcast_to(part.documents[:, None], part.ids.shape)[part.scored])
    found = torch.cat(parts, dim=1).clone()  # what was read under inference mode cannot be trained on
    return Residuals(found[:-1], found[-1], np.concatenate(documents))


def divergences(readout: Readout, residuals: Residuals, lens: TunedLens | None) -> Tensor:
    """(n_layers, n) KL(model's output ‖ lens) of each token in nats; lens None is the plain one."""
    found = torch.empty(residuals.before.shape[:2])
    with torch.no_grad():
        for chosen in torch.split(torch.arange(found.shape[1]), 1024):
            goal = readout.log_probs(residuals.last[chosen])
            for layer, before in enumerate(residuals.before):
                x = before[chosen] if lens is None else lens(before[chosen], layer)
                found[layer, chosen] = divergence(goal, readout.log_probs(x))
    return found


def train(readout: Readout, learn: Residuals, stop: Residuals, *, steps: int, seed: int) -> TunedLens:
    """The maps of all layers by Adam from the plain lens on; of each layer those that were best on the stopping text.

    Source: Belrose et al. 2023, arXiv:2303.08112.
    """
    n_layers, n, d_model = learn.before.shape
    turn = torch.zeros(n_layers, d_model, d_model, requires_grad=True)
    shift = torch.zeros(n_layers, d_model, requires_grad=True)
    best = TunedLens(turn.detach().clone(), shift.detach().clone(), {})
    lowest, waited = divergences(readout, stop, None).mean(dim=1), 0
    adam = torch.optim.Adam([turn, shift], lr=RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.05, steps)
    drawn = torch.Generator().manual_seed(seed)
    for step in range(1, steps + 1):
        chosen = torch.randint(n, (BATCH,), generator=drawn)
        goal = readout.log_probs(learn.last[chosen])
        adam.zero_grad()
        for layer in range(n_layers):
            x = TunedLens(turn, shift, {})(learn.before[layer, chosen], layer)
            torch.autograd.backward(divergence(goal, readout.log_probs(x)).mean())
        adam.step()
        schedule.step()
        if step % LOOK_EVERY == 0 or step == steps:
            now = TunedLens(turn.detach(), shift.detach(), {"steps": step})
            found = divergences(readout, stop, now).mean(dim=1)
            better = found < lowest
            best.turn[better], best.shift[better] = now.turn[better], now.shift[better]
            best.report["steps"], lowest = step, torch.minimum(found, lowest)
            waited = 0 if bool(better.any()) else waited + 1
            if waited == PATIENCE:
                break
    return best


def lens_file(context: ToolContext) -> Path:
    """Where the lens of a target and a corpus lies, whether or not it is there."""
    said = {"version": VERSION, "target": asdict(context.target.fingerprint()), "corpus": context.corpus.sha256}
    key = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]
    return cache_folder().parent / "lenses" / f"{key}.safetensors"


def kept_lens(context: ToolContext) -> TunedLens | None:
    """The lens that was trained for the target and the corpus."""
    path = lens_file(context)
    if not path.is_file():
        return None
    with safe_open(str(path), "pt") as file:
        report = json.loads(file.metadata()["report"])
        return TunedLens(file.get_tensor("turn"), file.get_tensor("shift"), report)


@tool("tune_lens")
def tune_lens(context: ToolContext, args: TuneLensArgs) -> ToolResult:
    """How far the tuned lens of each layer is from the model's output, beside the plain lens and a lens that knows no token; it
    is trained on explore text and kept for `logit_lens` and `prediction_story`.

    kl_tuned: KL(model's output ‖ lens) in nats, mean over layers and tokens of explore documents that it was neither trained
    nor stopped on; its null is the plain lens there. kl_shuffled: the same of a lens that was trained in the same way on outputs of
    other tokens: it can learn how likely tokens are at all, and nothing else. Of the documents 80 % train, 10 % stop, 10 % are
    measured. sha256: of the maps that are kept.
    Refuses: fewer than 20 explore documents; a model whose output is not its last norm and its unembedding.
    Source: Belrose et al. 2023, arXiv:2303.08112.
    """
    settings = {"n_tokens": args.n_tokens, "steps": args.steps, "seed": args.seed}
    lens = kept_lens(context)
    if args.again or lens is None or lens.report["settings"] != settings:
        lens = _trained(context, args)
        lens.report["settings"] = settings
        tensors = {"turn": lens.turn.contiguous(), "shift": lens.shift.contiguous()}
        write_whole(lens_file(context), save(tensors, metadata={"report": json.dumps(lens.report)}))
    report = lens.report
    mean = {name: float(np.mean([row[name] for row in report["layers"]])) for name in LENSES}
    found = [
        Measurement(
            f"kl_{name}",
            mean[name],
            "nats a token",
            report["documents"],
            tuple(report["intervals"][name]),
            mean["plain"],
        )
        for name in ("tuned", "shuffled")
    ]
    layers = [row["before"] for row in report["layers"]]
    lines = [Series(name, layers, [row[name] for row in report["layers"]]) for name in LENSES]
    axes = Axes("Divergence from the model's output", "layer before which the residual is read", "KL", "nats a token")
    payload = {name: report[name] for name in ("steps", "train_tokens", "sha256", "layers")}
    return ToolResult(tuple(found), payload, figures=(curve("tuned_lens", lines, axes),))


def _trained(context: ToolContext, args: TuneLensArgs) -> TunedLens:
    target, readout = context.target, Readout.of(context.target)
    spec = target.spec
    n_tokens = min(args.n_tokens, MOST_BYTES // (4 * (spec.n_layers + 1) * spec.d_model))
    residuals = residuals_of(target, context.sample("explore", n_tokens))
    learn, stop, unseen = _parted(residuals, args.seed)
    lens = train(readout, learn, stop, steps=args.steps, seed=args.seed)
    other = train(readout, learn.shuffled(args.seed), stop.shuffled(args.seed), steps=args.steps, seed=args.seed)
    far = {name: divergences(readout, unseen, one) for name, one in zip(LENSES, (lens, None, other), strict=True)}
    rows = [
        {"before": layer} | {name: round(float(found[layer].mean()), 5) for name, found in far.items()}
        for layer in range(spec.n_layers)
    ]
    said = {
        "train_tokens": len(learn.documents),
        "documents": len(np.unique(unseen.documents)),
        "sha256": _sha256(lens),
    }
    intervals = {name: _interval(found, unseen.documents) for name, found in far.items()}
    return TunedLens(lens.turn, lens.shift, {**lens.report, **said, "intervals": intervals, "layers": rows})


def _interval(far: Tensor, documents: NDArray[np.int64]) -> list[float]:
    """95 % bootstrap over documents of the mean over layers. far: (n_layers, n)."""
    sums, sizes = summed_by(documents, far.mean(dim=0).double().numpy(), np.ones(len(documents)))
    return list(percentile_interval(ratio_samples(sums, sizes)))


def _sha256(lens: TunedLens) -> str:
    return hashlib.sha256(lens.turn.numpy().tobytes() + lens.shift.numpy().tobytes()).hexdigest()


def _parted(residuals: Residuals, seed: int) -> Iterator[Residuals]:
    """What is learned from, stopped on and measured on: whole documents."""
    documents = np.random.default_rng(seed).permutation(np.unique(residuals.documents))
    if len(documents) < MIN_DOCUMENTS:
        raise ToolRefused(
            f"the sample holds {len(documents)} documents, and a lens needs {MIN_DOCUMENTS} to be trained and measured on "
            "different ones: give more n_tokens, or a corpus of shorter documents"
        )
    borders: Sequence[int] = [int(0.8 * len(documents)), int(0.9 * len(documents))]
    return (residuals.of(part) for part in np.split(documents, borders))
