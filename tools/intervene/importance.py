"""Which components the answer to one prompt rests on: each put back to what it carries on other text, alone."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from scipy import stats as scipy_stats
from torch import Tensor

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.intervene.answers import answer_ids
from neuronaut.tools.intervene.patch import PromptPair
from neuronaut.tools.look.activations import to_ids
from neuronaut.tools.look.examples import Prompt, read_texts
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import Array, ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.stats import mean_interval, percentile_of
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.targets.sites import all_neuron_sites, heads_of, unit_at

MOST_BYTES = 8 << 30  # of the activations of all neurons
N_RANDOM_NEURONS = 32
N_FOLLOWED = 32  # neurons of the largest estimates, which are then measured exactly

Parts = Literal["components", "heads", "neurons"]


class ImportanceArgs(ToolArgs):
    """The prompt and what may matter: `components` are all heads and MLPs. answer: "" is the model's likeliest token; it may
    be several tokens, and without a leading space the likelier of both is meant. n_texts: of explore text, whose
    activations take the place of the prompt's, and as many again to choose by."""

    example: ClassVar = {"prompt": "After Mary and Lucy", "parts": "heads", "n_texts": 8}
    prompt: Prompt
    answer: str = ""
    parts: Parts = "components"
    n_texts: int = Field(default=16, ge=4, le=200)
    k: int = Field(default=10, ge=1, le=1000)
    seed: int = 0


@dataclass(frozen=True)
class Prompted:
    """A prompt, (1, pos) ids, the tokens of the answer, and other text of the same length, (n_texts, pos) ids: some by which
    parts are chosen, and some on which they are measured."""

    target: TargetModel
    text: str
    ids: Tensor
    answer: tuple[int, ...]
    choosing: Tensor
    others: Tensor

    def log_probs(self, edits: list[Edit]) -> Array:
        """(n_edits,) float64 log-probability of the whole answer with each edit made alone; (1,) of the plain run without."""
        found = PromptPair(self.target, self.ids, self.ids).after(self.ids, self.answer, edits)
        return found[:, torch.arange(len(self.answer)), torch.tensor(self.answer)].sum(dim=1).numpy()

    def drops(self, parts: list[tuple[Site, int | None]], texts: Tensor) -> Array:
        """(n_parts, n_texts) how far the answer falls when each part carries what it carries on each of the texts."""
        carried = self.target.run(texts, read={site for site, _ in parts}).read
        edits = []
        for site, index in parts:
            values = carried[site] if index is None else carried[site][:, :, index]
            edits += [Edit(site, "set", value[None], index=index) for value in values]
        plain = float(self.log_probs([])[0])
        return plain - self.log_probs(edits).reshape(len(parts), len(texts))


@tool("importance")
def importance(context: ToolContext, args: ImportanceArgs) -> ToolResult:
    """What the answer to a prompt rests on: how far its log-probability falls when a head, an MLP or a neuron carries what it
    carries on other text (resample ablation at all positions, total effect), each alone.

    drop: nats, mean over the texts with its interval; positive helps the answer, negative opposes it. The parts stand in the
    order of their drops on other texts than those on which they are measured, so that the first is not the luckiest. Null:
    components and heads: the median of all of them; neurons: 32 random ones of the model. Of neurons only those of the
    largest gradient estimates are measured; rank_agreement is the Spearman correlation of estimate and measurement, null 0.
    Refuses a prompt that is longer than most texts.
    Source: Chan et al. 2022, "Causal scrubbing" (resample ablation); Nanda 2023, "Attribution patching".
    """
    prompted = _prompted(context, args)
    spec = context.target.spec
    if args.parts == "neurons":
        units, drops, nulls, agreement = _neurons(prompted, args)
    else:
        heads = heads_of(spec)
        parts: list[tuple[Site, int | None]] = [(Site("heads", head.layer), head.index) for head in heads]
        names = [head.address for head in heads]
        if args.parts == "components":
            parts += [(Site("mlp_out", at), None) for at in range(spec.n_layers)]
            names += [f"mlp{at}" for at in range(spec.n_layers)]
        chosen_by = prompted.drops(parts, prompted.choosing).mean(axis=1)
        order = np.argsort(-np.abs(chosen_by), kind="stable")
        units, drops = [names[i] for i in order], prompted.drops([parts[i] for i in order], prompted.others)
        nulls, agreement = drops.mean(axis=1), None
    means = drops.mean(axis=1)
    best = Measurement(
        "drop_first",
        float(means[0]),
        "nats",
        drops.shape[1],
        mean_interval(drops[0]),
        float(np.median(nulls)),
        percentile_of(means[0], nulls),
        n_of="texts",
    )
    plain = float(prompted.log_probs([])[0])
    pieces = context.target.vocabulary.pieces
    likeliest, probability = _likeliest(context.target, prompted.ids)
    payload: dict[str, Any] = {
        "prompt": prompted.text,
        "kind": args.parts,
        "answer": "".join(pieces[token] for token in prompted.answer),
        "likeliest": pieces[likeliest],
        "likeliest_probability": round(probability, 5),
        "log_prob": round(plain, 5),
        "probability": round(float(np.exp(plain)), 5),
        "null_spread": round(float(np.std(nulls)), 5),
        "parts": [
            {"part": units[i], "drop": round(float(means[i]), 5), "interval": _rounded(mean_interval(drops[i]))}
            for i in range(min(args.k, len(units)))
        ],
        "of": len(units) if agreement is None else spec.n_layers * spec.d_mlp * max(1, spec.n_experts),
    }
    return ToolResult((best,) if agreement is None else (best, agreement), payload)


def _rounded(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else [round(end, 5) for end in interval]


def _prompted(context: ToolContext, args: ImportanceArgs) -> Prompted:
    target = context.target
    prompt = read_texts(target, (args.prompt,))
    ids = to_ids(prompt)
    n_pos, answer = ids.shape[1], _answer(target, ids, args.answer)
    tokens = context.tokens("explore")
    rng = np.random.default_rng(args.seed)
    long_enough = rng.permutation(np.flatnonzero(tokens.lengths >= n_pos))
    if len(long_enough) < 2 * args.n_texts:
        raise ToolRefused(
            f"the prompt has {n_pos} tokens and only {len(long_enough)} texts are as long: give a shorter prompt, or longer text"
        )
    texts = torch.from_numpy(tokens.ids[long_enough[: 2 * args.n_texts], :n_pos]).long()
    return Prompted(target, prompt.texts[0], ids, answer, texts[: args.n_texts], texts[args.n_texts :])


def _likeliest(target: TargetModel, ids: Tensor) -> tuple[int, float]:
    """The token that the model says after a prompt, (1, pos) ids, and its probability."""
    logits = target.run(ids, logits=True).logits
    assert logits is not None
    said = logits[0, -1].float().softmax(dim=-1)
    return int(said.argmax()), float(said.max())


def _answer(target: TargetModel, ids: Tensor, text: str) -> tuple[int, ...]:
    """The tokens of the answer after a prompt, (1, pos) ids; the likeliest token for no text, and the likelier one with and
    without a leading space."""
    if not text:
        return (_likeliest(target, ids)[0],)
    written = answer_ids(target, text)
    if text[0].isspace() or f" {text}" not in target.vocabulary.pieces:
        return written
    spaced = answer_ids(target, f" {text}")
    said = [Prompted(target, "", ids, one, ids, ids).log_probs([])[0] for one in (written, spaced)]
    return spaced if said[1] > said[0] else written


def _neurons(prompted: Prompted, args: ImportanceArgs) -> tuple[list[str], Array, Array, Measurement]:
    """Names and drops of the neurons that were measured, the mean drops of random ones, and how well the estimate ranks."""
    spec = prompted.target.spec
    estimates = _estimates(prompted)
    flat = np.abs(estimates).ravel()
    random = np.random.default_rng(args.seed).permutation(len(flat))[:N_RANDOM_NEURONS]
    largest = np.argsort(-flat, kind="stable")[: max(N_FOLLOWED, args.k)]
    chosen = np.array([*largest, *np.setdiff1d(random, largest)])
    sites = all_neuron_sites(spec)
    places = [(sites[int(i) // spec.d_mlp], int(i) % spec.d_mlp) for i in chosen]
    drops = prompted.drops(list(places), prompted.others)
    rank = scipy_stats.spearmanr(estimates.ravel()[chosen], drops.mean(axis=1)).statistic
    nulls = drops[np.isin(chosen, random)].mean(axis=1)
    agreement = Measurement(
        "rank_agreement",
        float(np.nan_to_num(rank)),
        "Spearman correlation",
        len(chosen),
        null_value=0.0,
        n_of="neurons",
    )
    return [unit_at(*place).address for place in places], drops, nulls, agreement


def _estimates(prompted: Prompted) -> Array:
    """(n_sites, d_mlp) what the answer loses, to first order, when a neuron carries its mean over the choosing texts."""
    target = prompted.target
    sites = all_neuron_sites(target.spec)
    if (needed := 4 * prompted.choosing.numel() * len(sites) * target.spec.d_mlp) > MOST_BYTES:
        raise ToolRefused(
            f"the neurons of {len(sites)} layers and experts would take {needed / 2**30:.0f} GiB: ask about components, or "
            "give fewer texts"
        )
    means = {site: value.mean(dim=0) for site, value in target.run(prompted.choosing, read=sites).read.items()}
    answer, n_pos = prompted.answer, prompted.ids.shape[1]
    whole = torch.cat([prompted.ids, torch.tensor([answer[:-1]], dtype=torch.long)], dim=1)

    def score(logits: Tensor) -> Tensor:
        said = torch.log_softmax(logits[:, n_pos - 1 :].double(), dim=-1)
        return said[:, torch.arange(len(answer)), torch.tensor(answer)].sum(dim=1)

    found = target.gradients(whole, sites, score)
    estimates = [((found[site][0][0, :n_pos] - means[site]) * found[site][1][0, :n_pos]).sum(dim=0) for site in sites]
    return torch.stack(estimates).double().numpy()
