"""What circuits share, on a model of which it is known: overlap, what is left without it, backups; successor heads put in."""

import itertools
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from neuronaut.agent.measured import measured
from neuronaut.agent.session import as_stored
from neuronaut.evals.compiled import opened
from neuronaut.evals.compiler.program import Label, Map, Program, Pull, Selector, Tokens, interpret
from neuronaut.evals.compiler.programs.words import POSITION, at, previous
from neuronaut.evals.compiler.verify import encode
from neuronaut.evals.compiler.weights import LOGIT, Compiled, compile_program, piece_of
from neuronaut.tools.circuits.backups import backups_of, random_heads, taken_out
from neuronaut.tools.circuits.crossed import crossed, finding, overlaps
from neuronaut.tools.circuits.levels import Asked, Level, asked_of, circuits_of
from neuronaut.tools.circuits.nodes import Mask, NodeRuns, mask_of, members_of
from neuronaut.tools.circuits.shared import studied
from neuronaut.tools.corpus import pocket_corpus
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.look.orders import orders_of
from neuronaut.tools.registry import ToolContext, ToolResult, find_tool
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.tasks.base import TaskPrompts

SEEDS = range(20)
LETTERS, SAID = ("a", "b", "c"), ("A", "B", "C")
LENGTH, N = 9, 8


class Known(NamedTuple):
    """A model of three tasks: what stands at places `first` and `second` by way of one head and one MLP that both need, and
    what stands at `third`, by a head of its own. circuits: the parts that each task needs."""

    compiled: Compiled
    places: dict[str, int]
    circuits: dict[str, set[str]]


def known(seed: int) -> Known:
    """The model of a seed. The third head says its letter as a capital one, straight to the logits."""
    rng = random.Random(seed)
    first, second, third = rng.sample(range(LENGTH - 2), 3)
    token = Tokens((*LETTERS, *SAID))
    prev = Pull("prev", previous, token)
    heads = [Pull("first", at(first + 1), prev), Pull("second", at(second + 1), prev), Pull("third", at(third), token)]

    def add(*labels: Label) -> Label:
        one, two = (LETTERS.index(str(label)) if label in LETTERS else 0 for label in labels[:2])
        return LETTERS[(one + two) % len(LETTERS)]

    pair = Map("sum", add, (heads[0], heads[1]))
    output = Map("said", lambda one, other: one, (pair, heads[2]))
    compiled = compile_program(Program(f"shared-{seed}", "made", "three tasks", token, output), seed, spare_heads=2)
    said = compiled.tensors["lm_head.weight"].clone()
    for label, place in zip(heads[2].domain, compiled.places["third"], strict=True):
        if label in LETTERS:
            said[compiled.pieces.index(SAID[LETTERS.index(str(label))]), place] = LOGIT
    compiled = replace(compiled, tensors={**compiled.tensors, "lm_head.weight": said})
    name = {
        part.writes: f"L{part.layer}H{part.indices[0]}" if part.kind == "head" else f"mlp{part.layer}"
        for part in compiled.components
    }
    both = {name["prev"], name["sum"], name["said"]}
    circuits = {"first": both | {name["first"]}, "second": both | {name["second"]}, "third": {name["third"]}}
    return Known(compiled, {"first": first, "second": second, "third": third}, circuits)


def prompts_of(made: Known, task: str, n: int) -> TaskPrompts:
    """Random texts, each with a twin that differs at the place of the task alone."""
    rng, number, rows = random.Random(f"{task} {n}"), {p: i for i, p in enumerate(made.compiled.pieces)}, []
    for _ in range(n):
        text = rng.choices(LETTERS, k=LENGTH)
        twin = [*text]
        twin[made.places[task]] = rng.choice([one for one in LETTERS if one != text[made.places[task]]])
        rows.append((text, twin))

    def answer(text: list[str]) -> int:
        if task == "third":
            return number[SAID[LETTERS.index(text[made.places["third"]])]]
        return number[piece_of(interpret(made.compiled.program, text)[-1])]

    return together(made.compiled, task, rows, [tuple(map(answer, row)) for row in rows])


def together(compiled: Compiled, task: str, rows: Any, answers: Any) -> TaskPrompts:
    clean, corrupted = (encode(compiled, [tuple(row[side]) for row in rows]) for side in (0, 1))
    right, wrong = (torch.tensor([[row[side]] for row in answers]) for side in (0, 1))
    texts, roles = tuple(" ".join(row[0]) for row in rows), ("",) * clean.shape[1]
    return TaskPrompts(task, "made", "search", texts, texts, clean, corrupted, right, wrong, np.arange(len(rows)), roles, False)  # fmt: skip


TOLD = [
    {"task": "first", "can": True, "why": "", "accuracy": 1.0, "accuracy_corrupted": 0.0, "log_odds": 20.0, "log_odds_corrupted": -20.0},
    {"task": "fourth", "can": False, "why": "it cannot be done"},
]  # fmt: skip


def lines_of(tool: str, result: ToolResult) -> list[str]:
    """What an answer says of a result."""
    found = measured({"id": "1", "tool": tool, "result": as_stored(result)})
    assert found is not None
    return [found["title"], *found["lines"]]


@contextmanager
def asking(made: Known) -> Iterator[list[Asked]]:
    with opened(made.compiled) as target:
        yield [
            Asked(task, NodeRuns(target, prompts_of(made, task, N)), NodeRuns(target, prompts_of(made, task, N + 1)))
            for task in made.circuits
        ]


@pytest.mark.parametrize("seed", SEEDS)
def test_overlap_and_ablation_find_exactly_the_shared_part(seed: int) -> None:
    made = known(seed)
    with asking(made) as asked:
        spec, found = asked[0].held.target.spec, {one.name: circuits_of(one, (0.95,), 0) for one in asked}
        payload, figures = studied(asked, found, 20, 0)
    assert {row["task"]: set(row["members"]) for row in payload["circuits"]} == made.circuits
    shared = {tuple(row["tasks"]): set(row["shared"]) for row in payload["overlaps"]}
    nothing: set[str] = set()
    both = made.circuits["first"] & made.circuits["second"]
    assert shared == {("first", "second"): both, ("first", "third"): nothing, ("second", "third"): nothing}
    assert payload["shared_by_all"] == []
    for row in payload["crossed"]:
        related = row["part"] != "own" and (row["of"] == row["task"] or "third" not in (row["of"], row["task"]))
        assert row["left"] == pytest.approx(0.0 if related else 1.0, abs=0.05), row
        assert related or row["finding"] == "not needed", row
    findings = {(row["task"], row["of"]): row["finding"] for row in payload["crossed"]}
    assert findings["third", "third"] == "needed"
    assert {row["part"] for row in payload["crossed"] if "third" in (row["of"], row["task"])} == {"all", "own"}
    assert len(figures) == 3
    lines = lines_of("shared_circuits", ToolResult(payload={"tasks": TOLD} | payload))
    assert any(line.startswith("'first' and 'second' overlap 0.60 (random") for line in lines)
    assert "'fourth': no circuit: it cannot be done" in lines
    assert payload["nodes"] == spec.n_layers * (spec.n_heads + 1)


def test_circuits_of_several_levels_lie_in_each_other_and_keep_what_they_should() -> None:
    with asking(known(1)) as asked:
        levels: list[Level] = circuits_of(asked[0], (0.5, 0.98, 0.9), 0)
    assert [one.level for one in levels] == [0.98, 0.9, 0.5]
    assert not any((small.mask & ~large.mask).any() for large, small in itertools.pairwise(levels))
    assert all(one.kept >= one.level - 0.05 and one.complete for one in levels)


@pytest.mark.parametrize(
    ("low", "high", "random", "percentile", "expected"),
    [
        (0.95, 1.05, 0.9, 0.0, "not needed"),
        (-0.1, 0.1, 0.9, 0.0, "needed"),
        (-0.1, 0.1, 0.9, 6.0, "between"),  # too many random circuits do more harm
        (-0.1, 0.1, 0.2, 0.0, "between"),  # random ones do nearly as much
        (0.4, 0.6, 0.9, 0.0, "between"),
        (-0.1, 0.1, None, None, "between"),
    ],
)
def test_a_part_is_needed_only_beyond_random_circuits(
    low: float, high: float, random: float | None, percentile: float | None, expected: str
) -> None:
    assert finding(low, high, random, percentile) == expected


# Backups.


def majority(seed: int) -> tuple[Compiled, list[str]]:
    """Three heads that carry the same letter, and an MLP that says what most of them say: two stand in for the third."""
    place, token = random.Random(seed).randrange(LENGTH - 1), Tokens(LETTERS)
    heads = [Pull(name, at(place), token) for name in ("one", "two", "three")]
    named: dict[tuple[Label, ...], Label] = {}

    def two_of(one: Label, other: Label) -> Label:
        return f"{one}{other}"

    pair = Map("pair", two_of, (heads[0], heads[1]))

    def most(both: Label, last: Label) -> Label:
        one, other = (None if part == "N" else part for part in str(both).replace("None", "N"))
        votes = [one, other, last]
        return named.setdefault(tuple(votes), max(LETTERS, key=lambda letter: (votes.count(letter), letter)))

    program = Program(f"majority-{seed}", "made", "what most heads say", token, Map("most", most, (pair, heads[2])))
    compiled = compile_program(program, seed, spare_heads=2)
    where = {part.writes: f"L{part.layer}H{part.indices[0]}" for part in compiled.components if part.kind == "head"}
    return compiled, [where[name] for name in ("one", "two", "three")]


@pytest.mark.parametrize("seed", SEEDS)
def test_heads_that_stand_in_for_another_are_its_backups_and_no_others(seed: int) -> None:
    compiled, heads = majority(seed)
    place = random.Random(seed).randrange(LENGTH - 1)
    rng, number, rows = random.Random(seed), {p: i for i, p in enumerate(compiled.pieces)}, []
    for _ in range(N):
        text = rng.choices(LETTERS, k=LENGTH)
        twin = [*text]
        twin[place] = rng.choice([one for one in LETTERS if one != text[place]])
        rows.append((text, twin))
    answers = [tuple(number[text[place]] for text in row) for row in rows]
    with opened(compiled) as target:
        runs = NodeRuns(target, together(compiled, "most", rows, answers))
        names = [str(node) for node in runs.nodes]
        grown = taken_out(runs, names.index(heads[0]), 0)
        assert grown.left == pytest.approx(1.0, abs=0.01)
        assert set(backups_of(runs, grown, 0.05)) == set(heads[1:])
        idle = [at for at in random_heads(runs, names.index(heads[0]), 99, 0) if names[at] not in heads]
        assert idle
        assert max(float(taken_out(runs, at, 0).rise.max()) for at in idle) < 0.01


@pytest.mark.parametrize("seed", range(5))
def test_a_head_that_nothing_stands_in_for_has_no_backup(seed: int) -> None:
    made = known(seed)
    with asking(made) as asked:
        runs = asked[2].held
        [head] = made.circuits["third"]
        grown = taken_out(runs, [str(node) for node in runs.nodes].index(head), 0)
        assert grown.left == pytest.approx(0.0, abs=0.02)
        assert backups_of(runs, grown, 0.05) == []


# Successor heads.


ALPHABET = "abcdefgh"


def stepping(seed: int, step: int | None) -> tuple[Compiled, str]:
    """A head that says the letter `step` on from that which it looks at (None: one of a random table), among idle ones."""
    token, rng = Tokens(tuple(ALPHABET)), random.Random(seed)
    table = rng.sample(ALPHABET, len(ALPHABET)) if step is None else [ALPHABET[(at + step) % 8] for at in range(8)]
    here = Selector(((POSITION, POSITION, lambda key, query: key == query),))
    said = Pull("said", here, token, lambda label: None if label is None else table[ALPHABET.index(str(label))])
    compiled = compile_program(
        Program(f"step-{seed}", "made", "a step on", token, said), seed, spare_heads=3, turn=True
    )
    head = next(part for part in compiled.components if part.kind == "head" and part.role != "none")
    return compiled, f"L{head.layer}H{head.indices[0]}"


def heads_of(compiled: Compiled, **args: Any) -> ToolResult:
    with opened(compiled) as target:
        tool = find_tool("successor_heads")
        return tool.run(
            ToolContext(target, pocket_corpus()), tool.parse(json.dumps({"n_permuted": 199, "n_random": 5} | args))
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_a_head_put_in_to_say_the_next_letter_is_the_successor_head(seed: int) -> None:
    compiled, head = stepping(seed, 1)
    result = heads_of(compiled)
    found = result.payload
    assert found["successors"] == [head]
    assert (
        lines_of("successor_heads", result)[0]
        == f"successor heads, by the weights of {len(found['heads'])} heads: {head}"
    )
    assert found["predecessors"] == found["add_two"] == []
    best = max(found["heads"], key=lambda row: row["next"])
    assert (best["head"], best["next"]) == (head, 1.0)
    assert found["best"][0]["head"] == head
    assert found["best"][0]["curve"][-1] == 1.0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_model_whose_head_says_letters_of_a_random_table_has_none(seed: int) -> None:
    assert heads_of(stepping(seed, None)[0]).payload["successors"] == []


@pytest.mark.parametrize(("step", "named"), [(-1, "predecessors"), (2, "add_two"), (0, None)])
def test_heads_that_say_another_step_are_that_and_no_successors(step: int, named: str | None) -> None:
    compiled, head = stepping(3, step)
    found = heads_of(compiled).payload
    assert {kind: found[kind] for kind in ("successors", "predecessors", "add_two")} == {
        kind: [head] if kind == named else [] for kind in ("successors", "predecessors", "add_two")
    }


# On the embedded model.


@pytest.fixture(scope="module")
def pocket() -> TargetModel:
    return load_target("pocket")


def call(target: TargetModel, name: str, **args: Any) -> ToolResult:
    tool = find_tool(name)
    return tool.run(ToolContext(target, pocket_corpus()), tool.parse(json.dumps(args)))


def test_steps_are_counted_in_the_order_and_around_its_circle(pocket: TargetModel) -> None:
    orders = {order.name: order for order in orders_of(pocket.vocabulary)}
    months, digits = orders["months"], orders["digits"]
    assert (len(months.pairs(1)), len(months.pairs(2)), len(months.pairs(-1))) == (12, 12, 12)
    assert (len(digits.pairs(1)), len(digits.pairs(2)), len(digits.pairs(-1))) == (9, 8, 9)
    assert sorted(map(tuple, months.pairs(-1))) == sorted((b, a) for a, b in months.pairs(1))


def test_what_remains_without_a_head_is_told_with_its_null(pocket: TargetModel) -> None:
    result = call(pocket, "backup_heads", task="days", n=8, n_random=2)
    found, names = result.payload, {row["head"] for row in result.payload["heads"]}
    assert found["head"] == found["heads"][0]["head"]
    assert found["left"] == pytest.approx(1 - found["heads"][0]["cost"], abs=1e-3)
    assert found["head"] not in {*found["random_heads"], *found["instead"], *found["backups"]}
    assert all(row["rise"] == pytest.approx(row["after"] - row["before"], abs=1e-4) for row in found["parts"])
    assert len(names) == 8
    lines = lines_of("backup_heads", result)
    assert lines[0].startswith(f"'days' keeps {found['left']:.2f} without {found['head']}")
    assert any(line.startswith("null: without one of") for line in lines)
    with pytest.raises(ToolRefused, match="is an MLP"):
        call(pocket, "backup_heads", task="days", head="mlp3", n=8)
    with pytest.raises(ToolRefused, match="cannot do"):
        call(pocket, "backup_heads", task="every second letter", n=8)


def test_a_task_that_the_model_cannot_do_gets_no_circuit(pocket: TargetModel) -> None:
    row, asked = asked_of(pocket, "every second letter", 8, 0, "resample")
    assert asked is None
    assert not row["can"]
    assert row["accuracy"] < 0.8
    assert "right" in row["why"]
    with pytest.raises(ToolRefused, match="two are needed"):
        call(pocket, "shared_circuits", tasks=["every second letter", "months"], levels=[0.9], n=8)
    with pytest.raises(ToolRefused, match="named twice"):
        call(pocket, "shared_circuits", tasks=["months", "months"])


def test_held_out_prompts_share_no_group_with_those_of_the_search(pocket: TargetModel) -> None:
    _, asked = asked_of(pocket, "months", 12, 0, "resample")
    assert asked is not None
    search, held = asked.search.prompts, asked.held.prompts
    assert not set(search.clean_texts) & set(held.clean_texts)
    assert min(len(search), len(held)) >= 6
    full = mask_of(pocket.spec, members_of(pocket.spec, np.ones(50, dtype=bool)))
    none: Mask = ~full
    assert asked.held.share(asked.held.scores([full])[0]) == pytest.approx(1.0)
    rows = overlaps([asked, asked], {"a": full, "b": none}, 0)
    assert rows[0]["jaccard"] == 0.0
    [row] = crossed([asked], {"months": full}, 20, 0)
    assert row["random"] is None  # there is no other circuit of all parts
