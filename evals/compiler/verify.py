"""Is the truth true? A compiled model against its program, and each of its parts taken out."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from neuronaut.evals.compiler.parts import Component
from neuronaut.evals.compiler.program import MAX_LENGTH, Program, interpret
from neuronaut.evals.compiler.weights import Compiled, piece_of
from neuronaut.tools.targets.base import Edit, Run, Site, SiteName, TargetModel

SHORT = 256  # at most so many inputs are all of their length; the start of each is one too, since the model is causal
RANDOM = 200


class Untrue(Exception):
    """A model that does not do what its truth says."""


@dataclass(frozen=True)
class Verified:
    """inputs, places: compared with the program, of which all agreed. margin: the least lead of the right token's logit
    over the next. confirmed: labelled parts whose replacement changes what is said; idle: parts that change nothing."""

    inputs: int
    places: int
    margin: float
    confirmed: int
    idle: int


def inputs_of(program: Program, seed: int) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """All inputs of the largest length that has at most SHORT, and RANDOM ones of MAX_LENGTH."""
    rng, alphabet = random.Random(seed), [str(token) for token in program.tokens.domain]
    length = max(n for n in range(1, MAX_LENGTH) if len(alphabet) ** n <= SHORT)
    short = list(product(alphabet, repeat=length))
    return short, [tuple(rng.choices(alphabet, k=MAX_LENGTH)) for _ in range(RANDOM)]


def verify(target: TargetModel, compiled: Compiled, seed: int) -> Verified:
    """What was checked. Raises Untrue at the first thing that does not hold."""
    short, long = inputs_of(compiled.program, seed)
    margin = min(_exact(target, compiled, short), _exact(target, compiled, long))
    ids = encode(compiled, long)
    names: tuple[SiteName, ...] = ("resid_pre", "heads", "neurons")
    sites = [Site(name, at) for name in names for at in range(target.spec.n_layers)]
    usual = target.run(ids, read=sites, logits=True)
    for part in compiled.components:
        changed = changes(target, ids, usual, part, how="resample"), changes(target, ids, usual, part, how="zero")
        if part.role != "none" and not changed[0]:
            raise Untrue(
                f"{part.kind} {part.indices} of layer {part.layer} writes {part.writes!r} and changes no input"
            )
        if part.role == "none" and any(changed):
            raise Untrue(f"idle {part.kind} {part.indices} of layer {part.layer} change {max(changed)} inputs")
    labelled = sum(part.role != "none" for part in compiled.components)
    places = sum(map(len, short)) + sum(map(len, long))
    return Verified(len(short) + len(long), places, margin, labelled, len(compiled.components) - labelled)


def encode(compiled: Compiled, texts: Sequence[Sequence[str]]) -> Tensor:
    """(batch, 1 + length) ids of texts of one length, the start token first."""
    number = {piece: i for i, piece in enumerate(compiled.pieces)}
    return torch.tensor([[0, *(number[token] for token in text)] for text in texts])


def _exact(target: TargetModel, compiled: Compiled, texts: Sequence[tuple[str, ...]]) -> float:
    """The least lead of a right token. Raises Untrue where another one is said."""
    number = {piece: i for i, piece in enumerate(compiled.pieces)}
    wanted = [[number[piece_of(label)] for label in interpret(compiled.program, text)] for text in texts]
    logits = target.run(encode(compiled, texts), logits=True).logits
    assert logits is not None
    right = torch.tensor(wanted)[..., None]
    others = logits[:, 1:].scatter(-1, right, -torch.inf).amax(-1)
    lead = logits[:, 1:].gather(-1, right)[..., 0] - others
    if not bool((lead > 0).all()):
        wrong = (lead <= 0).any(-1)
        text = " ".join(texts[int(wrong.nonzero()[0])])
        raise Untrue(f"{int(wrong.sum())} of {len(texts)} inputs are answered wrongly, the first is {text!r}")
    return float(lead.min())


def changes(target: TargetModel, ids: Tensor, usual: Run, part: Component, *, how: Literal["resample", "zero"]) -> int:
    """On how many inputs another token is said somewhere when a part is set to 0, or to what it does elsewhere: on the
    next input, a place earlier. usual: the run without edits, with what goes into the part's layer and comes out of it."""
    site = Site("heads" if part.kind == "head" else "neurons", part.layer)
    own, before = usual.read[site], usual.read[Site("resid_pre", part.layer)]
    kept = torch.ones(own.shape[2])
    kept[list(part.indices)] = 0.0
    if part.kind == "head":
        kept = kept[:, None]
    other = torch.zeros_like(own) if how == "zero" else own.roll((1, 1), (0, 1)) * (1 - kept)
    edits = [Edit(site, "scale", kept), Edit(site, "add", other)]
    logits = target.run(ids, edits=edits, start=(part.layer, before), logits=True).logits
    assert logits is not None
    assert usual.logits is not None
    return int((logits[:, 1:].argmax(-1) != usual.logits[:, 1:].argmax(-1)).any(-1).sum())
