"""Attention heads of known kinds, put into small models by hand or by training: what there is to find is built and measured.

Trained models are kept on disk; `python -m neuronaut.evals.heads` builds those that are not there.
"""

import argparse
import random
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

import torch

from neuronaut.evals.compiled import opened
from neuronaut.evals.compiler.program import MAX_LENGTH, interpret
from neuronaut.evals.compiler.verify import Untrue, encode, inputs_of, verify
from neuronaut.evals.compiler.weights import Compiled, piece_of
from neuronaut.evals.head_models.asked import ask_heads
from neuronaut.evals.head_models.constructed import construct
from neuronaut.evals.head_models.measure import KINDS, UNSCORED, Task, accuracy
from neuronaut.evals.head_models.trained import (
    LESSONS,
    LETTERS,
    Lesson,
    expected,
    more_texts,
    recipe,
    task_of,
    trained,
)
from neuronaut.evals.head_models.truths import MIN_EFFECT, Head, learnt, stated
from neuronaut.evals.suite import Asking, Batch, Case, Row, Score, Size, share
from neuronaut.tools.corpus import Corpus, corpus_from_texts
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import load_target

MIN_MODELS = 20
N_TEXTS = 600  # of the corpus on which heads are asked about
MIN_ACCURACY = 0.9  # of a trained model on its own task, below which nothing can be said of its heads
NEXT_LETTER = {letter: letter % LETTERS + 1 for letter in range(1, LETTERS + 1)}


@dataclass(frozen=True)
class HeadsSuite:
    """See Suite. A case is a model; all of its heads are asked about, the idle ones too."""

    name: str = "heads"
    about: str = "Previous-token, induction, duplicate-token, successor and positional heads in small transformers."

    @property
    def sizes(self) -> Mapping[Size, int]:
        """Models of each selection; every other one is trained."""
        return {"smoke": 4, "standard": 32, "full": 80}

    def batches(self, n: int, seed: int) -> Sequence[Batch]:
        """A batch for each model; lessons take turns."""
        found = []
        for number in range(n):
            one, again = seed * 1000 + number, number // 2
            family = "constructed" if number % 2 == 0 else LESSONS[again % len(LESSONS)]
            if family == "constructed":
                heads = [{"layer": at[0], "head": at[1], "kind": kind} for at, kind in construct(one)[1].items()]
                truth = {"made": family, "seed": one, "heads": heads}
            else:
                truth = {"made": "trained", "seed": one, "recipe": asdict(recipe(family, one))}
            case = Case(f"{family} {one}", family, truth)
            found.append(Batch(case.key, (case,)))
        return found

    def ask(self, batch: Batch, wanted: Collection[str], asking: Asking) -> Iterator[Row]:
        """A row for each model with what was said of each of its heads, the idle ones too.

        discarded: why a trained model is left out; its heads are none of the truth and are not asked about.
        """
        for case in batch.cases:
            if case.key not in wanted:
                continue
            began, path = monotonic(), asking.folder / f"{batch.name}.db"
            seed = int(case.truth["seed"])
            try:
                asked = _constructed(seed, path) if case.family == "constructed" else _trained(case.family, seed, path)  # type: ignore[arg-type]
            except Untrue as error:
                asked = {"outcome": "failed", "error": str(error), "forwards": 0.0}
            yield {"case": case.key, "family": case.family, **asked, "seconds": monotonic() - began}

    def scores(self, rows: Sequence[Row]) -> list[Score]:
        """How many models and heads there are, and how many of the heads got the tag that is theirs."""
        sound = [row for row in rows if row["outcome"] != "failed"]
        kept = [row for row in sound if not row["discarded"]]
        heads = [head for row in kept for head in row["heads"]]
        goal = MIN_MODELS if len(rows) >= MIN_MODELS else None
        return [
            Score("models kept", len(kept), len(rows), goal=goal),
            Score("models discarded", len(sound) - len(kept), len(rows)),
            Score("models whose truth failed", len(rows) - len(sound), len(rows), at_most=0),
            *_tags([head for head in heads if head["kind"] != "unclear"]),
            Score("heads not asked about", sum(head["kind"] == "unclear" for head in heads), len(heads)),
        ]


def _tags(heads: Sequence[Row]) -> list[Score]:
    """The scores over the heads that are asked about, idle ones among them."""
    right = [head for head in heads if head["said"]["kind"] == head["kind"]]
    named = [head for head in heads if head["said"]["kind"] != "none"]
    false = [head for head in named if head["said"]["kind"] != head["kind"]]
    idle = [head for head in heads if head["kind"] == "none"]
    successors = [head for head in heads if head["kind"] == "successor"]
    read = [head for head in successors if head["said"]["carries"] == "successor"]
    confirmed = [head for head in named if head["effect"] >= MIN_EFFECT]
    each = [
        share(f"{kind} heads named", sum(one["kind"] == kind for one in right), n)
        for kind in KINDS
        if (n := sum(head["kind"] == kind for head in heads))
    ]
    return [
        share("heads with their tag", len(right), len(heads), goal=0.97),
        share("heads with a kind that is not theirs", len(false), len(heads), at_most=0.01),
        share("named heads of which the answers lose by their removal", len(confirmed), len(named), goal=1.0),
        *each,
        share("idle heads with a claim of any kind", sum(bool(one["said"]["claim"]) for one in idle), len(idle)),
        share("successor heads whose successor is read off", len(read), len(successors)),
    ]


def _constructed(seed: int, path: Path) -> Row:
    compiled, kinds = construct(seed)
    with opened(compiled) as target:
        found = verify(target, compiled, seed)
        heads = stated(target, _task_of(compiled, seed), kinds)
        row = {"outcome": "ok", "discarded": "", "exact": True, "inputs": found.inputs}
        return row | _asked(target, _letters(compiled, seed), heads, seed, path)


def _asked(target: TargetModel, corpus: Corpus, heads: Sequence[Head], seed: int, path: Path) -> Row:
    rows = ask_heads(target, corpus, [head for head in heads if head.kind != "unclear"], seed, path)
    rows += [asdict(head) for head in heads if head.kind == "unclear"]
    return {"heads": rows, "forwards": target.forwards}


def _letters(compiled: Compiled, seed: int) -> Corpus:
    """Random texts of the model's letters, as long as it takes them."""
    rng, alphabet = random.Random(seed), [str(token) for token in compiled.program.tokens.domain]
    return corpus_from_texts("letters", [" ".join(rng.choices(alphabet, k=MAX_LENGTH)) for _ in range(N_TEXTS)])


def _task_of(compiled: Compiled, seed: int) -> Task:
    """Random texts and what the program says at each place."""
    _, texts = inputs_of(compiled.program, seed)
    number = {piece: i for i, piece in enumerate(compiled.pieces)}
    answers = [[UNSCORED, *(number[piece_of(label)] for label in interpret(compiled.program, text))] for text in texts]
    ids = encode(compiled, texts)
    return Task(ids, torch.tensor(answers), ids)


def _trained(lesson: Lesson, seed: int, path: Path) -> Row:
    target, task = load_target(trained(recipe(lesson, seed))), task_of(lesson, seed)
    heads, against = learnt(target, task, expected(lesson), NEXT_LETTER)
    if (right := accuracy(target, task)) < MIN_ACCURACY:
        against.insert(0, f"{right:.2f} of the answers are right")
    row = {"outcome": "ok", "discarded": "; ".join(against), "exact": False, "inputs": len(task.ids), "accuracy": right}
    if against:
        return row | {"heads": [asdict(head) for head in heads], "forwards": target.forwards}
    pieces = target.vocabulary.pieces
    texts = [" ".join(pieces[i] for i in text) for text in more_texts(lesson, N_TEXTS, seed).tolist()]
    return row | _asked(target, corpus_from_texts(lesson, texts), heads, seed, path)


def _line(head: Row) -> str:
    said = f" said {head['said']['kind']}" if "said" in head else ""
    return f"L{head['layer']}H{head['head']} {head['kind']}{said} {head['score']:.2f} {head['effect']:.2f}"


SUITE = HeadsSuite()


def main() -> None:
    """Command line: build the models, ask about their heads, print a line each and the scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=SUITE.sizes["standard"])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        asking = Asking(args.seed, "", "full", Path(folder))
        for batch in SUITE.batches(args.n, args.seed):
            for row in SUITE.ask(batch, [case.key for case in batch.cases], asking):
                rows.append(row)
                said = row.get("error") or row["discarded"] or "; ".join(map(_line, row["heads"]))
                print(f"{row['case']:<18} {row['seconds']:5.1f} s  {said}", flush=True)
    for score in SUITE.scores(rows):
        print(f"{score.name:<28} {score.value}")


if __name__ == "__main__":
    main()
