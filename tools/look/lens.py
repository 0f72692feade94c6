"""What the model would predict after each layer, and which component says how much of the answer."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from neuronaut.tools.circuits.wires import Wires
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.figures import Axes, Figure, heat_map, layer_map
from neuronaut.tools.intervene.next_token import divergence, token_id
from neuronaut.tools.look.activations import to_ids
from neuronaut.tools.look.examples import Prompt, read_texts
from neuronaut.tools.look.margins import Places, margins, neuron_margins, part_names
from neuronaut.tools.look.readout import Readout
from neuronaut.tools.look.tuned_lens import TunedLens, kept_lens
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import Array, ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.targets.base import Site, TargetModel

TITLE = "Probability, before each layer, of the token that the model says in the end"


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
    target, tokens = context.target, read_texts(context.target, (args.text,))
    ids = to_ids(tokens)
    position = _position(args.position, ids.shape[1])
    asked, rival = _answers(target, args)
    lens = trained_lens(context) if args.lens == "tuned" else None
    logits = predictions(target, ids, lens)
    here = logits[:, position]
    said = here.argmax(dim=-1)
    answer = int(said[-1]) if asked is None else asked
    parts, neurons = _added(target, Places(ids, [position]), (answer, rival), args.k)
    pieces = target.vocabulary.pieces
    payload: dict[str, Any] = {
        "lens": args.lens,
        "position": tokens.named(0, position),
        "answer": pieces[answer],
        "wrong_answer": args.wrong_answer,
        "logit": round(sum(parts.values()), 4),
        "model_logit": round(float(here[-1, answer] - (0 if rival is None else here[-1, rival])), 4),
        "layers": _layers(target, here, answer, args.k),
        "components": [{"component": name, "logit": round(value, 4)} for name, value in parts.items()],
        "neurons": neurons,
    }
    first = float(settled(said[:, None], said[-1:])[0])
    measurement = Measurement("settled_from", first, "row", 1, null_value=len(here) - 1.0, n_of="position")
    arrays = {"logits": logits.numpy(), "components": np.array(list(parts.values()))}
    axes = Axes(TITLE, "token", "", "probability")
    grid = said_map("logit_lens", logits, logits[-1].argmax(dim=-1), [pieces[i] for i in ids[0].tolist()], axes)
    return ToolResult((measurement,), payload, arrays, (grid, _parts(target, parts)))


def _added(
    target: TargetModel, where: Places, pair: tuple[int, int | None], k: int
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """What each part adds to the answer at a place, by name, and the k neurons that add or take away most."""
    readout = Readout.of(target)
    parts = margins(target, readout, where.ids, *(torch.tensor(token) for token in pair if token is not None))
    neurons = neuron_margins(target, readout, where, pair)
    rows = [
        {"neuron": neurons.units[at].address, "logit": round(float(neurons.values[at, 0]), 4)}
        for at in neurons.largest(k)
    ]
    return dict(zip(part_names(target.spec), parts[:, where.at[0]].tolist(), strict=True)), rows


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


def settled(best: Tensor, said: Tensor) -> Array:
    """(n,) the first row from which on `best` (rows, n) is `said` (n,) to the end; the number of rows where it is not."""
    right = (best == said).numpy()
    return len(right) - np.asarray(np.logical_and.accumulate(right[::-1], axis=0).sum(axis=0))


def _position(asked: int, n_pos: int) -> int:
    if not -n_pos <= asked < n_pos:
        raise ToolRefused(f"position {asked} does not exist: the text has positions 0 to {n_pos - 1}")
    return asked % n_pos


def _answers(target: TargetModel, args: LogitLensArgs) -> tuple[int | None, int | None]:
    """The answer and the wrong one, None where none is given."""
    if args.wrong_answer is not None and args.answer is None:
        raise ToolRefused("wrong_answer is taken off the logit of answer: give both")
    if args.wrong_answer is not None and args.wrong_answer == args.answer:
        raise ToolRefused(f"answer and wrong_answer are both {args.answer!r}: their logits never differ, so name two")
    answer, wrong = (None if text is None else token_id(target, text) for text in (args.answer, args.wrong_answer))
    return answer, wrong


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
                "kl": round(float(divergence(last, row)), 4),
                "tokens": [
                    f"{pieces[int(i)]} {float(p.exp()):.2f}" for p, i in zip(top.values, top.indices, strict=True)
                ],
            }
        )
    return rows


def said_map(name: str, logits: Tensor, said: Tensor, labels: Sequence[str], axes: Axes) -> Figure:
    """Of each layer and position the probability of the token that is said there. logits: (n_layers + 1, pos, d_vocab); said:
    (pos,)."""
    grid = torch.softmax(logits, dim=-1).gather(-1, said.expand(len(logits), -1)[..., None])[..., 0]
    rows = [f"before {layer}" for layer in range(len(logits) - 1)] + ["output"]
    return heat_map(name, grid.numpy(), rows, labels, axes, rising=True)


def _parts(target: TargetModel, parts: dict[str, float]) -> Figure:
    """Heads and MLP of each layer."""
    spec, wires = target.spec, Wires.of(target.spec)
    values = list(parts.values())
    numbers = [[*wires.heads(layer), *wires.mlp(layer)] for layer in range(spec.n_layers)]
    columns = [*(f"head {head}" for head in range(spec.n_heads)), *(["MLP"] * bool(len(wires.mlp(0))))]
    grid = np.array([[values[at] for at in row] for row in numbers])
    axes = Axes("What each head and MLP adds to the logit of the answer", "", "", "logits")
    return layer_map("logit_components", grid, axes, columns)
