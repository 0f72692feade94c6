"""A read-out trained to tell the activation of a unit from the residual stream, on explore text."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.readouts.heads import Head, HeadConfig, Output
from neuronaut.tools.readouts.places import Beside, reach
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.tokens import Vocabulary
from neuronaut.tools.units import Unit

CLASSES = 10  # bins, or the digits 0 to 9
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # times the mean variance of the residual
DECAY = 1e-3  # of the weights of classes
STEPS = 60
KEPT_FOR_CHOICE = 4  # one in so many documents chooses the ridge and says how well the read-out does
OUTPUTS: dict[Output, str] = {"linear": "linear read-out", "bins": "read-out by ten bins", "digits": "read-out by ten digits"}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained read-out, and the share of the variance of the activation that it tells on documents it was not trained on."""

    head: Head
    r2: float
    n: int


def described(output: Output, site: Site, unit: Unit) -> str:
    """How a trained read-out is spoken of."""
    return f"the {OUTPUTS[output]} of {unit.address} at {site.name} {site.layer}"


def fit(target: TargetModel, site: Site, unit: Unit, seen: Beside, output: Output) -> Fitted:
    """The read-out of a unit at a site. Refuses a unit that never changes on the text, and digits where the vocabulary has none."""
    if float(seen.activation.std()) < 1e-6:
        raise ToolRefused(f"{unit.address} is the same everywhere on this text: there is nothing to predict")
    _, order = np.unique(seen.documents, return_inverse=True)
    apart = torch.from_numpy(order % KEPT_FOR_CHOICE == 0)
    config = {"weights_sha256": target.fingerprint().weights_sha256, "site": site.name, "layer": site.layer}
    about = described(output, site, unit)
    if output == "linear":
        found = _linear(about, config, seen, apart, target)
    else:
        basis = None if output == "digits" else torch.eye(CLASSES)
        found = _classes(about, config | {"output": output}, seen, ~apart, _digits(target) if basis is None else basis)
    return Fitted(found, r2_of(found.values(target, seen.residual[apart]), seen.activation[apart]), int(apart.sum()))


def r2_of(said: Tensor, true: Tensor) -> float:
    """The share of the variance that is told; below 0 where the mean would tell more."""
    return float(1 - (said - true).square().sum() / (true - true.mean()).square().sum().clamp(min=1e-12))


def _linear(about: str, config: dict[str, object], seen: Beside, apart: Tensor, target: TargetModel) -> Head:
    """Ridge regression; the ridge that does best on the documents apart."""
    x, y = seen.residual[~apart].double(), seen.activation[~apart].double()
    middle, mean = x.mean(dim=0), y.mean()
    x = x - middle
    gram, pull = x.T @ x, x.T @ (y - mean)
    scale = float(gram.diagonal().mean())
    best: tuple[float, Head] | None = None
    for ridge in RIDGES:
        w = torch.linalg.solve(gram + ridge * scale * torch.eye(len(gram), dtype=gram.dtype), pull)
        bias = (mean - middle @ w).float().reshape(1)
        head = Head(about, "", HeadConfig.model_validate(config), w.float()[None], bias)
        r2 = r2_of(head.values(target, seen.residual[apart]), seen.activation[apart])
        best = (r2, head) if best is None or r2 > best[0] else best
    assert best is not None
    return best[1]


def _classes(about: str, config: dict[str, object], seen: Beside, chosen: Tensor, basis: Tensor) -> Head:
    """Multinomial regression on ten equally wide bins, its scores a mixture (10, 10) of trained rows. The value of a class is
    the middle of its bin."""
    x, y = seen.residual[chosen], seen.activation[chosen]
    low, high = reach(y)
    if high - low < 1e-6:
        low, high = float(y.min()), float(y.max())
    width = (high - low) / CLASSES
    classes = ((y - low) / width).long().clamp(0, CLASSES - 1)
    middle, spread = x.mean(dim=0), x.std(dim=0).clamp(min=1e-6)
    z = (x - middle) / spread
    free = torch.zeros(len(basis), x.shape[1], requires_grad=True)
    bias = torch.zeros(len(basis), requires_grad=True)
    optimizer = torch.optim.LBFGS([free, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        weights = basis @ free
        loss = torch.nn.functional.cross_entropy(z @ weights.T + bias, classes) + DECAY * weights.square().sum()
        torch.autograd.backward(loss)
        return loss.detach()

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    weight = (basis @ free).detach() / spread
    centres = tuple(low + width * (k + 0.5) for k in range(CLASSES))
    return Head(
        about, "", HeadConfig.model_validate(config | {"centres": centres}), weight, bias.detach() - weight @ middle
    )


def _digits(target: TargetModel) -> Tensor:
    """(10, 10) what the scores of the digits share, as the model unembeds them: a residual moved along the unembedding of one
    digit moves the scores of those like it too."""
    columns = target.unembed[:, digit_tokens(target.vocabulary)]
    gram = columns.T @ columns
    return gram / gram.diagonal().mean()


def digit_tokens(vocabulary: Vocabulary) -> list[int]:
    """The tokens of "0" to "9", with a space before them where there are none without. Refuses a vocabulary without either."""
    place = {piece: token for token, piece in enumerate(vocabulary.pieces) if token not in vocabulary.special}
    for before in ("", " "):
        if all(f"{before}{digit}" in place for digit in range(CLASSES)):
            return [place[f"{before}{digit}"] for digit in range(CLASSES)]
    raise ToolRefused("the vocabulary has no token for each of the digits 0 to 9: ask for class bins instead")
