"""Measure the shipped model and write its card: `python -m neuronaut.evals.pocket.report FOLDER`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from . import abilities, baselines, reference
from .folder import Pocket
from .packing import pack
from .train import CROPPED, DAMAGED
from .world import CORPUS_SIZE, REGISTERS, corpus_documents, write_corpus

ABLE, UNABLE = 0.9, 0.6
# Activations of all neurons are held in memory at once: 3,000 documents are 3 GB.
NEURON_DOCUMENTS, ABILITY_DOCUMENTS = 3000, 4000
INTRODUCTION = (
    "# pocket\n\nA language model small enough to ship, trained on a generated world in which the truth "
    "about every token is "
    "known, so that claims about the model's parts can be checked.\n"
)
OUTSIDE = (
    "- It knows nothing outside its world: no English beyond about 780 words, no real country, no text longer than "
    "128 tokens. Numbers above 99 appear as years and telephone numbers only."
)


@dataclass(frozen=True)
class Measured:
    """Everything that the card says."""

    losses: list[baselines.RegisterLoss]
    scores: list[abilities.Score]
    layers: list[reference.LayerReadability]
    stages: list[dict[str, Any]]
    parameters: int


def measure(folder: Path, stages: list[dict[str, Any]]) -> Measured:
    """All measurements of the model in `folder`, on its corpus."""
    pocket, held_out = Pocket.load(folder), corpus_documents()
    texts = [made.text for made in held_out[:NEURON_DOCUMENTS]]
    encoded = [[pocket.bos, *encoding.ids] for encoding in pocket.tokenizer.encode_batch(texts)]
    tokens, acts = reference.run(pocket.model, pack(encoded, pocket.model.shape.context, 0))
    return Measured(
        losses=baselines.losses(pocket, baselines.fit(pocket), held_out),
        scores=list(abilities.measure(pocket, held_out[:ABILITY_DOCUMENTS])),
        layers=list(reference.readability(tokens, acts, pocket.tokenizer.get_vocab_size())),
        stages=stages,
        parameters=sum(p.numel() for p in pocket.model.parameters()),
    )


def table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """A Markdown table; numbers that are not whole get three decimals."""
    rows = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in [list(head), ["---"] * len(head), *rows])


def _files(folder: Path) -> str:
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "corpus.jsonl.gz")
    return table(
        ("file", "bytes", "sha256"),
        (
            (name, (folder / name).stat().st_size, f"`{sha256((folder / name).read_bytes()).hexdigest()}`")
            for name in names
        ),
    )


def _can(scores: list[abilities.Score]) -> str:
    def named(chosen: list[abilities.Score]) -> str:
        return "; ".join(f"{score.name} ({score.accuracy:.2f})" for score in chosen) or "none of those measured"

    asked = [score for score in scores if "first time" not in score.name]
    return "\n".join(
        (
            f"- **It can** (accuracy ≥ {ABLE}): {named([score for score in asked if score.accuracy >= ABLE])}.",
            f"- **In part**: {named([score for score in asked if UNABLE <= score.accuracy < ABLE])}.",
            f"- **It cannot** (< {UNABLE}): {named([score for score in asked if score.accuracy < UNABLE])}.",
            OUTSIDE,
        )
    )


def _sizes(measured: Measured) -> str:
    shape = measured.stages[0]["shape"]
    return (
        f"GPT-2 architecture, {shape['n_layers']} layers x {shape['d_mlp']} ReLU neurons, width {shape['d_model']}, "
        f"{shape['n_heads']} heads a layer, context {shape['context']}, vocabulary {shape['vocabulary']} "
        "(byte-level BPE, numbers "
        f"in pairs of digits, `<|bos|>` before every document), {measured.parameters:,} parameters, "
        "embeddings tied, weights in "
        "float16."
    )


def _training(measured: Measured) -> str:
    folders = ["DIR", *(f"DIR{number}" for number in range(2, len(measured.stages) + 1))]
    commands = []
    for number, stage in enumerate(measured.stages):
        recipe, start = stage["recipe"], f"--start {folders[number - 1]} " if number else ""
        noise = f" --noise {recipe['noise']}" if recipe["noise"] else ""
        commands.append(
            f"python -m neuronaut.evals.pocket.train {start}--out {folders[number]} --seed {recipe['seed']} "
            f"--tokens {recipe['tokens']} --sparsity {recipe['sparsity']} --rate {recipe['rate']}{noise}"
        )
    commands.append(f"python -m neuronaut.evals.pocket.report {folders[len(measured.stages) - 1]}")
    ending = (
        "The text is the same on every machine; the last bits of the weights follow the processor and the number of "
        "threads (2 here)."
    )
    parts = ["```\n" + "\n".join(commands) + "\n```"]
    for number, stage in enumerate(measured.stages):
        parts += [_stage_told(stage, number), _stage_log(stage["log"])]
    return "\n\n".join([*parts, ending])


def _stage_told(stage: dict[str, Any], number: int) -> str:
    recipe = stage["recipe"]
    told = (
        f"{recipe['tokens']:,} tokens of {len(REGISTERS)} registers, generated from the seed, each document alone behind "
        f"its `<|bos|>`. AdamW, {stage['rows'] // recipe['rows']:,} steps of {recipe['rows']} rows, cosine rate from "
        f"{recipe['rate']} to 0, bfloat16 products over float32 weights. Penalty {recipe['sparsity']} x (mean activation x "
        f"norm of the neuron's output weights, summed over a layer){'' if number else ', from 0 along a ramp'}; until "
        f"{recipe['revive'][1]:.0%} of the run, silent neurons are pointed at random inputs."
    )
    if recipe["noise"]:
        told = (
            f"Then, from those weights, {told} {CROPPED:.0%} of the documents lack a random part of their beginning; in "
            f"{DAMAGED:.0%} of the rows each token is replaced with chance {recipe['noise']} by one drawn from the text, "
            "and a replaced token is never a target. Hypotheses are tested on edited text; a model that has only seen "
            "perfect text falls silent at any edit."
        )
    return told


def _stage_log(log: list[dict[str, Any]]) -> str:
    step = max(1, len(log) // 20)
    shown = [*log[::step], *([log[-1]] if (len(log) - 1) % step else [])]
    head = ("step", "tokens", "seconds", "train loss", "held-out loss", "active share", "penalty")
    return table(head, (tuple(line.values()) for line in shown))


def _losses(measured: Measured) -> str:
    told = (
        "Nats a token, the end of a document included. The bigram model is fitted on 40,000 training texts "
        "(about 2 million "
        "tokens). Random strings cannot be foreseen the first time; nor can which of many equal words a "
        "template takes.\n\n"
    )
    return told + table(
        ("register", "tokens", "model", "bigram", "unigram"),
        ((line.register, line.tokens, line.model, line.bigram, line.unigram) for line in measured.losses),
    )


def _abilities(measured: Measured) -> str:
    told = (
        "Share of places at which the first token of the right answer is the likeliest of all tokens (of the "
        "two forms for "
        "verbs, pronouns; of the closing marks for brackets; of the years 10 to 99 for spans), on held-out documents. "
        '"A guess" knows the kind of answer.\n\n'
    )
    lines = ((score.name, score.accuracy, score.n, score.chance) for score in measured.scores)
    return told + table(("ability", "accuracy", "n", "a guess"), lines) + "\n\n" + _can(measured.scores)


def _neurons(measured: Measured) -> str:
    told = (
        "Live: active in at least 20 of the documents on which the tables were made. A neuron fires above "
        "half of the median of "
        "its 20 largest document maxima. Table: at most 20 tokens, chosen on one half of the documents, have "
        "precision ≥ 0.6 and "
        "cover ≥ 0.5 of the firing on the other half, as the current token or as the one before; shares of "
        "live neurons.\n\n"
    )
    head = ("layer", "live", "active at a token", "fires at a token", "table", "table of the token before", "either")
    return told + table(head, (astuple(line) for line in measured.layers))


def card(folder: Path, measured: Measured) -> str:
    """The text of MODEL_CARD.md."""
    tokens = measured.losses[-1].tokens - CORPUS_SIZE
    told = (
        f"The corpus holds {CORPUS_SIZE:,} documents ({tokens:,} tokens) that no training step saw, without labels.\n\n"
        "`dictionaries/resid6` holds 1,024 features of the residual stream behind layer 6, with a card and a report of their own.\n\n"
    )
    sections = {
        "Sizes": _sizes(measured),
        "Training": _training(measured),
        "Loss on held-out text": _losses(measured),
        "What it can do": _abilities(measured),
        "Neurons": _neurons(measured),
        "Files": told + _files(folder),
    }
    return INTRODUCTION + "".join(f"\n## {head}\n\n{text}\n" for head, text in sections.items())


def main(arguments: list[str] | None = None) -> None:
    """Write corpus.jsonl.gz and MODEL_CARD.md into the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--log", type=Path, help="the trainer's training_log.json; by default the one in the folder")
    chosen = parser.parse_args(arguments)
    stages = json.loads((chosen.log or chosen.folder / "training_log.json").read_text())["stages"]
    write_corpus(chosen.folder / "corpus.jsonl.gz", corpus_documents())
    measured = measure(chosen.folder, stages)
    (chosen.folder / "MODEL_CARD.md").write_text(card(chosen.folder, measured))


if __name__ == "__main__":
    main()
