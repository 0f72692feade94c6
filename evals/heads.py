"""Attention heads of known kinds, put into small models by hand or by training: what there is to find is built and measured.

Trained models are kept on disk; `python -m neuronaut.evals.heads` builds those that are not there.
"""

import argparse
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic

import torch

from neuronaut.evals.compiled import opened
from neuronaut.evals.compiler.program import interpret
from neuronaut.evals.compiler.verify import Untrue, encode, inputs_of, verify
from neuronaut.evals.compiler.weights import Compiled, piece_of
from neuronaut.evals.head_models.constructed import construct
from neuronaut.evals.head_models.measure import KINDS, UNSCORED, Task, accuracy
from neuronaut.evals.head_models.trained import LESSONS, LETTERS, Lesson, expected, recipe, task_of, trained
from neuronaut.evals.head_models.truths import learnt, stated
from neuronaut.evals.suite import Asking, Batch, Case, Row, Score, Size
from neuronaut.tools.targets.load import load_target

MIN_MODELS = 20
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
        """A row for each model with the heads that were confirmed; nothing explains heads yet.

        discarded: why a trained model is left out; its heads are none of the truth.
        """
        for case in batch.cases:
            if case.key not in wanted:
                continue
            began = monotonic()
            seed = int(case.truth["seed"])
            try:
                checked = _constructed(seed) if case.family == "constructed" else _trained(case.family, seed)  # type: ignore[arg-type]
            except Untrue as error:
                checked = {"outcome": "failed", "error": str(error), "forwards": 0.0}
            yield {"case": case.key, "family": case.family, **checked, "seconds": monotonic() - began}

    def scores(self, rows: Sequence[Row]) -> list[Score]:
        """How many models and heads there are to find, and how many models were left out."""
        sound = [row for row in rows if row["outcome"] != "failed"]
        kept = [row for row in sound if not row["discarded"]]
        heads = [head for row in kept for head in row["heads"]]
        each = [Score(f"{kind} heads", sum(head["kind"] == kind for head in heads), len(heads)) for kind in KINDS]
        goal = MIN_MODELS if len(rows) >= MIN_MODELS else None
        return [
            Score("models kept", len(kept), len(rows), goal=goal),
            Score("models discarded", len(sound) - len(kept), len(rows)),
            Score("models whose truth failed", len(rows) - len(sound), len(rows), at_most=0),
            *each,
            Score("idle heads", sum(head["kind"] == "none" for head in heads), len(heads)),
            Score("heads not asked about", sum(head["kind"] == "unclear" for head in heads), len(heads)),
            Score("kinds recovered", None, 0),
        ]


def _constructed(seed: int) -> Row:
    compiled, kinds = construct(seed)
    with opened(compiled) as target:
        found = verify(target, compiled, seed)
        heads = stated(target, _task_of(compiled, seed), kinds)
        forwards = target.forwards
    row = {"outcome": "not attempted", "discarded": "", "exact": True, "inputs": found.inputs, "forwards": forwards}
    return row | {"heads": [asdict(head) for head in heads]}


def _task_of(compiled: Compiled, seed: int) -> Task:
    """Random texts and what the program says at each place."""
    _, texts = inputs_of(compiled.program, seed)
    number = {piece: i for i, piece in enumerate(compiled.pieces)}
    answers = [[UNSCORED, *(number[piece_of(label)] for label in interpret(compiled.program, text))] for text in texts]
    ids = encode(compiled, texts)
    return Task(ids, torch.tensor(answers), ids)


def _trained(lesson: Lesson, seed: int) -> Row:
    target, task = load_target(trained(recipe(lesson, seed))), task_of(lesson, seed)
    heads, against = learnt(target, task, expected(lesson), NEXT_LETTER)
    if (right := accuracy(target, task)) < MIN_ACCURACY:
        against.insert(0, f"{right:.2f} of the answers are right")
    row = {"outcome": "not attempted", "discarded": "; ".join(against), "exact": False, "inputs": len(task.ids)}
    return row | {"accuracy": right, "heads": [asdict(head) for head in heads], "forwards": target.forwards}


SUITE = HeadsSuite()


def main() -> None:
    """Command line: build and measure the models, print a line each and the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=SUITE.sizes["standard"])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    asking, rows = Asking(args.seed, "", "full", Path()), []
    for batch in SUITE.batches(args.n, args.seed):
        for row in SUITE.ask(batch, [case.key for case in batch.cases], asking):
            rows.append(row)
            heads = (
                f"L{h['layer']}H{h['head']} {h['kind']} {h['score']:.2f} {h['effect']:.2f}"
                for h in row.get("heads", [])
            )
            said = row.get("error") or row["discarded"] or "; ".join(heads)
            print(f"{row['case']:<18} {row['seconds']:5.1f} s  {said}", flush=True)
    for score in SUITE.scores(rows):
        print(f"{score.name:<28} {score.value}")


if __name__ == "__main__":
    main()
