"""What the model would predict after each layer, and which component says how much of the answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from neuronaut.tools.circuits.wires import Wires
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.figures import Axes, Figure, heat_map
from neuronaut.tools.intervene.next_token import token_id
from neuronaut.tools.look.activations import to_ids
from neuronaut.tools.look.examples import Prompt, read_texts
from neuronaut.tools.look.readout import Readout
from neuronaut.tools.look.tuned_lens import TunedLens, kept_lens
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.targets.sites import neuron_sites, unit_at
from neuronaut.tools.units import Unit


class LogitLensArgs(ToolArgs):
    """Which text, which answers (single tokens). answer: the model's own without one; wrong_answer: its logit is taken off
    that of the answer. position: in the text as tokens, the start token counted; negative ones count from the end. lens:
    `tuned` is the one that `tune_lens` has trained. k: tokens a layer, and neurons."""

    example: ClassVar = {"text": "After Mary and Lucy met at the river, Lucy gave a ring to", "answer": " Mary"}
    text: Prompt
    answer: str | None = None
    wrong_answer: str | None = None
    position: int = -1
    lens: Literal["plain", "tuned"] = "plain"
    k: int = Field(default=5, ge=1, le=1000)


@tool("logit_lens")
def logit_lens(context: ToolContext, args: LogitLensArgs) -> ToolResult:
    """What the model would predict if it ended before each layer, and how much each head, MLP and neuron adds to the answer.

    layers: prediction at the position by the residual before each layer, read by the last norm and the unembedding (tuned: after
    the trained map); the last row is the model's own output. kl: of that output from the prediction, in nats. components:
    logits, less those of wrong_answer; with the embedding, the biases of attention and of the last norm they add up to the
    model's logit (before a soft cap) as long as the last norm's scale is taken as it is.
    settled_from: the first row from which on the likeliest token stays; its null is the last row.
    Refuses: answers that are no single tokens or equal; a position outside the text; `tuned` before it was trained.
    Source: nostalgebraist 2020, "interpreting GPT: the logit lens"; Belrose et al. 2023, arXiv:2303.08112; Elhage et al. 2021
    (direct attribution).
    """
    target = context.target
    tokens = read_texts(target, (args.text,))
    ids = to_ids(tokens)
    position = _position(args.position, ids.shape[1])
    answers = _answers(target, args)
    lens = trained_lens(context) if args.lens == "tuned" else None
    logits, said = predictions(target, ids, lens), Attribution.of(target, ids, position)
    here = logits[:, position]
    columns = answers or [int(here[-1].argmax())]
    parts, settled = said.components(columns), _settled(here)
    pieces = target.vocabulary.pieces
    payload: dict[str, Any] = {
        "lens": args.lens,
        "position": tokens.named(0, position),
        "answer": pieces[columns[0]],
        "wrong_answer": args.wrong_answer,
        "logit": round(sum(parts.values()), 4),
        "model_logit": round(float(_less(here[-1], columns)), 4),
        "layers": _layers(target, here, columns[0], args.k),
        "components": [{"component": name, "logit": round(value, 4)} for name, value in parts.items()],
        "neurons": [
            {"neuron": unit.address, "logit": round(value, 4)} for unit, value in said.neurons(columns, args.k)
        ],
    }
    measurement = Measurement("settled_from", float(settled), "row", 1, null_value=len(here) - 1.0, n_of="position")
    arrays = {"logits": logits.numpy(), "components": np.array(list(parts.values()))}
    figures = (_grid(logits, [pieces[i] for i in ids[0].tolist()]), _parts(target, parts))
    return ToolResult((measurement,), payload, arrays, figures)


def predictions(target: TargetModel, ids: Tensor, lens: TunedLens | None = None) -> Tensor:
    """(n_layers + 1, pos, d_vocab) logits from the residual before each layer and behind the last, by the model's own last
    norm and unembedding. ids: (1, pos)."""
    n_layers = target.spec.n_layers
    sites = [*(Site("resid_pre", layer) for layer in range(n_layers)), Site("resid_post", n_layers - 1)]
    read = target.run(ids, read=sites).read
    rows = []
    for layer, site in enumerate(sites):
        residual = read[site].float() if lens is None else lens(read[site].float(), layer)
        run = target.run(ids, start=(n_layers, residual), logits=True)
        assert run.logits is not None
        rows.append(run.logits[0].float())
    return torch.stack(rows)


@dataclass(frozen=True)
class Attribution:
    """What each component writes at one position, (n_senders, d_model), what they leave out of the residual (biases), and
    the scale by which the last norm divides there.

    acts: (d_mlp,) of the neurons of each layer or expert, by site; mlp_out: (n_layers, d_model).
    """

    target: TargetModel
    readout: Readout
    writes: Tensor
    rest: Tensor
    scale: float
    acts: dict[Site, Tensor]
    mlp_out: Tensor

    @classmethod
    def of(cls, target: TargetModel, ids: Tensor, position: int) -> "Attribution":
        """Of one text, ids (1, pos)."""
        n_layers, readout = target.spec.n_layers, Readout.of(target)
        last = Site("resid_post", n_layers - 1)
        neurons = [site for layer in range(n_layers) for site in neuron_sites(target.spec, layer)]
        outs = [Site("mlp_out", layer) for layer in range(n_layers)]
        run = target.run(ids, read=[last, *neurons, *outs])
        read = {site: value[0, position].float() for site, value in run.read.items()}
        writes = target.senders(ids)[0, :, position].float()
        residual = read[last]
        scale = float(readout.scale(residual, target.final_norm(residual)))
        acts, mlp_out = {site: read[site] for site in neurons}, torch.stack([read[site] for site in outs])
        return cls(target, readout, writes, residual - writes.sum(dim=0), scale, acts, mlp_out)

    def logits(self, writes: Tensor, columns: Sequence[int]) -> Tensor:
        """(n,) what each write (n, d_model) adds to the logit of the first column, less that of the second if there is one."""
        said = self.readout.middle(writes) * self.readout.gain / self.scale
        return _less(said @ self.target.unembed, columns)

    def components(self, columns: Sequence[int]) -> dict[str, float]:
        """Logits by the name of the component, in the order in which they write; biases last."""
        wires = Wires.of(self.target.spec)
        found = dict(zip(wires.senders, self.logits(self.writes, columns).tolist(), strict=True))
        found["attention biases"] = float(self.logits(self.rest[None], columns)[0])
        found["last norm's bias"] = float(_less(self.readout.bias @ self.target.unembed, columns))
        return found

    def neurons(self, columns: Sequence[int], k: int) -> list[tuple[Unit, float]]:
        """The k neurons that add or take away most."""
        found = []
        for site, acts in self.acts.items():
            writes = acts[:, None] * self.target.write_vectors(site.layer, site.expert)
            whole, out = writes.sum(dim=0), self.mlp_out[site.layer]
            along = torch.nn.functional.cosine_similarity(whole, out, dim=0)
            # A norm behind the MLP divides all neurons alike; without one the rest is a bias of the MLP, or other experts.
            normed = float(along) > 0.99999 and site.expert is None
            found.append(self.logits(writes * (float(out.norm() / whole.norm()) if normed else 1.0), columns))
        every = torch.stack(found)
        best = torch.topk(every.abs().flatten(), min(k, every.numel())).indices.tolist()
        sites, places = list(self.acts), [divmod(at, every.shape[1]) for at in best]
        return [(unit_at(sites[row], index), float(every[row, index])) for row, index in places]


def _less(logits: Tensor, columns: Sequence[int]) -> Tensor:
    return logits[..., columns[0]] - (logits[..., columns[1]] if len(columns) > 1 else 0.0)


def _position(asked: int, n_pos: int) -> int:
    if not -n_pos <= asked < n_pos:
        raise ToolRefused(f"position {asked} does not exist: the text has positions 0 to {n_pos - 1}")
    return asked % n_pos


def _answers(target: TargetModel, args: LogitLensArgs) -> list[int]:
    if args.wrong_answer is not None and args.answer is None:
        raise ToolRefused("wrong_answer is taken off the logit of answer: give both")
    if args.wrong_answer is not None and args.wrong_answer == args.answer:
        raise ToolRefused(f"answer and wrong_answer are both {args.answer!r}: their logits never differ, so name two")
    return [token_id(target, text) for text in (args.answer, args.wrong_answer) if text is not None]


def trained_lens(context: ToolContext) -> TunedLens:
    """The tuned lens of a target and a corpus. Refuses where none is trained."""
    lens = kept_lens(context)
    if lens is None:
        raise ToolRefused(
            f"no lens is trained for {context.target.spec.name} and {context.corpus.name}: run the tool tune_lens first"
        )
    return lens


def _layers(target: TargetModel, logits: Tensor, answer: int, k: int) -> list[dict[str, Any]]:
    log_probs = torch.log_softmax(logits.double(), dim=-1)
    last, pieces, rows = log_probs[-1], target.vocabulary.pieces, []
    for layer, row in enumerate(log_probs):
        top = torch.topk(row, min(k, len(row)))
        rows.append(
            {
                "before": layer if layer < len(log_probs) - 1 else "output",
                "answer": round(float(row[answer]), 4),
                "rank": int((row > row[answer]).sum()) + 1,
                "kl": round(float((last.exp() * (last - row)).sum()), 4),
                "tokens": [
                    f"{pieces[int(i)]} {float(p.exp()):.2f}" for p, i in zip(top.values, top.indices, strict=True)
                ],
            }
        )
    return rows


def _settled(logits: Tensor) -> int:
    best = logits.argmax(dim=-1)
    other = torch.nonzero(best != best[-1])
    return int(other.max()) + 1 if len(other) else 0


def _grid(logits: Tensor, labels: Sequence[str]) -> Figure:
    """Of each layer and position the probability of the token that the model says there."""
    probs = torch.softmax(logits, dim=-1)
    said = logits[-1].argmax(dim=-1)
    grid = probs.gather(-1, said.expand(len(logits), -1)[..., None])[..., 0]
    rows = [f"before {layer}" for layer in range(len(logits) - 1)] + ["output"]
    axes = Axes(
        "Probability, before each layer, of the token that the model says in the end", "token", "", "probability"
    )
    return heat_map("logit_lens", grid.numpy(), rows, labels, axes, rising=True)


def _parts(target: TargetModel, parts: dict[str, float]) -> Figure:
    """Heads and MLP of each layer."""
    spec, wires = target.spec, Wires.of(target.spec)
    values = list(parts.values())
    numbers = [[*wires.heads(layer), *wires.mlp(layer)] for layer in range(spec.n_layers)]
    columns = [*(f"head {head}" for head in range(spec.n_heads)), *(["MLP"] * bool(len(wires.mlp(0))))]
    grid = np.array([[values[at] for at in row] for row in numbers])
    axes = Axes("What each head and MLP adds to the logit of the answer", "", "", "logits")
    rows = [f"layer {layer}" for layer in range(spec.n_layers)]
    return heat_map("logit_components", grid, rows, columns, axes, rising=True)
