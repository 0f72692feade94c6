"""Known heads: their scores against loops, their truth against lies, and what training gives against what it should."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from neuronaut.evals.compiled import opened
from neuronaut.evals.compiler.program import Map, Variable, interpret
from neuronaut.evals.compiler.verify import Untrue
from neuronaut.evals.head_models.asked import kind_of
from neuronaut.evals.head_models.constructed import construct, draw
from neuronaut.evals.head_models.measure import KINDS, UNSCORED, Kind, attended, carries, keys_of, loss, without
from neuronaut.evals.head_models.trained import ASK, LETTERS, PLACE, folder_of, recipe, task_of, trained
from neuronaut.evals.head_models.truths import MIN_EFFECT, learnt, stated
from neuronaut.evals.heads import NEXT_LETTER, SUITE, _task_of
from neuronaut.evals.suite import Asking
from neuronaut.tools.predicates.attends import Attends, Copies, Current, First, Offset, Previous, Successor
from neuronaut.tools.predicates.nodes import Token
from neuronaut.tools.targets.load import load_target

# The start token, then a b a a b: ids 0 1 2 1 1 2. Keys of each query, by hand.
TEXT = torch.tensor([[0, 1, 2, 1, 1, 2]])
BY_HAND: dict[Kind, dict[int, set[int]]] = {
    "previous": {2: {1}, 3: {2}, 4: {3}, 5: {4}},
    "duplicate": {3: {1}, 4: {1, 3}, 5: {2}},
    "induction": {3: {2}, 4: {2, 4}, 5: {3}},
    "successor": {1: {1}, 2: {2}, 3: {3}, 4: {4}, 5: {5}},
    "positional": {3: {1}, 4: {1}, 5: {1}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_keys_of_a_kind_are_those_found_by_hand(kind: Kind) -> None:
    found = keys_of(kind, TEXT)[0]
    assert {q: set(found[q].nonzero()[:, 0].tolist()) for q in range(6) if found[q].any()} == BY_HAND[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_attention_on_just_those_keys_scores_one_and_off_them_zero(kind: Kind) -> None:
    keys = keys_of(kind, TEXT)
    perfect = keys / keys.sum(-1, keepdim=True).clamp(min=1)
    assert attended(perfect, keys) == pytest.approx(1.0)
    assert attended((~keys).float(), keys) == 0.0
    pattern = torch.rand(1, 6, 6).tril().softmax(-1)
    by_loop = [sum(float(pattern[0, q, k]) for k in ks) for q, ks in BY_HAND[kind].items()]
    assert attended(pattern, keys) == pytest.approx(sum(by_loop) / len(by_loop))


def _carried(kind: Kind, text: str, letters: str) -> str | None:
    """What a head of the kind carries to the last letter."""
    here, before = text[-1], text[:-1]
    match kind:
        case "previous":
            return before[-1] if before else None
        case "induction":
            return next((text[i + 1] for i in range(len(text) - 2, -1, -1) if text[i] == here), None)
        case "duplicate":
            return here if here in before else None
        case "successor":
            return letters[(letters.index(here) + 1) % len(letters)]
        case "positional":
            return text[0]


def _added(output: Variable) -> list[str]:
    return [name for one in output.arguments for name in _added(one)] if isinstance(output, Map) else [output.name]


@pytest.mark.parametrize("seed", range(6))
def test_a_constructed_task_adds_up_what_its_heads_carry(seed: int) -> None:
    program, kinds = draw(seed)
    letters, rng = "".join(map(str, program.tokens.domain)), random.Random(seed)
    numbers: dict[str | None, int] = {letter: i for i, letter in enumerate(letters)} | {None: len(letters)}  # type: ignore[dict-item]
    for _ in range(20):
        text = "".join(rng.choices(letters, k=12))
        said = interpret(program, text)
        for at in range(12):
            carried = [_carried(kinds[name], text[: at + 1], letters) for name in _added(program.output)]
            total = sum(numbers[one] for one in carried) % (len(letters) + 1)
            assert numbers[said[at]] == (numbers[carried[0]] if len(carried) == 1 else total)  # type: ignore[index]


def test_constructed_heads_attend_as_stated_and_a_lie_about_them_is_found() -> None:
    compiled, kinds = construct(2)
    assert set(kinds.values()) >= {"previous", "induction"}
    with opened(compiled) as target:
        task = _task_of(compiled, 2)
        heads = {(head.layer, head.head): head for head in stated(target, task, kinds)}
        assert {place: head.kind for place, head in heads.items() if head.kind != "none"} == kinds
        assert all(heads[place].score > 0.99 and heads[place].effect > 1 for place in kinds)
        assert len(heads) == target.spec.n_layers * target.spec.n_heads > len(kinds)
        place = next(place for place, kind in kinds.items() if kind == "induction")
        lie: dict[tuple[int, int], Kind] = {**kinds, place: "positional"}
        with pytest.raises(Untrue, match="made as positional"):
            stated(target, task, lie)
        with pytest.raises(Untrue, match="made as idle"):
            stated(target, task, {at: kind for at, kind in kinds.items() if at != place})


@pytest.mark.parametrize("lesson", ["duplicate", "successor", "induction", "positional"])
def test_the_answers_of_a_lesson_are_those_of_a_loop(lesson: Any) -> None:
    task = task_of(lesson, 5)
    for ids, answers in zip(task.ids[:20].tolist(), task.answers[:20].tolist(), strict=True):
        assert ids[0] == 0
        assert answers[0] == UNSCORED
        for at in range(1, len(ids)):
            before = [i for i in range(1, at) if ids[i] == ids[at]]
            match lesson:
                case "duplicate":
                    right = PLACE + before[0] - 1 if len(before) == 1 else UNSCORED
                case "induction":
                    right = ids[before[0] + 1] if len(before) == 1 else UNSCORED
                case "successor":
                    right = ids[at - 1] % LETTERS + 1 if ids[at] == ASK else UNSCORED
                case _:
                    right = ids[1] if at > 1 else UNSCORED
            assert answers[at] == right


def test_a_trained_head_is_confirmed_by_what_it_carries_and_by_what_is_lost() -> None:
    target, task = load_target(trained(recipe("successor", 3))), task_of("successor", 3)
    heads, against = learnt(target, task, ["successor"], NEXT_LETTER)
    assert against == []
    best = max(heads, key=lambda head: head.effect)
    assert best.kind == "successor"
    assert best.effect >= MIN_EFFECT
    same = {letter: letter for letter in NEXT_LETTER}
    assert carries(target, task, best.layer, best.head, NEXT_LETTER) > 0.9
    assert carries(target, task, best.layer, best.head, same) < 0.1
    rise = loss(target, task, without(target, task.ids, best.layer, best.head)) - loss(target, task)
    assert rise == pytest.approx(best.effect)


def test_an_untrained_model_is_left_out() -> None:
    target = load_target(trained(replace(recipe("positional", 0), steps=2)))
    heads, against = learnt(target, task_of("positional", 0), ["positional"], NEXT_LETTER)
    assert against == ["no positional head was confirmed"]
    assert all(head.kind in ("none", "unclear") for head in heads)


def test_a_recipe_gives_the_same_weights_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, weights = replace(recipe("positional", 1), steps=10), []
    for name in ("first", "second"):
        monkeypatch.setenv("NEURONAUT_CACHE", str(tmp_path / name))
        weights.append((trained(one) / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    before = (folder_of(one) / "model.safetensors").stat().st_mtime_ns
    assert (trained(one) / "model.safetensors").stat().st_mtime_ns == before
    assert folder_of(one) != folder_of(replace(one, seed=2))


def test_the_suite_asks_about_every_head_and_names_the_kinds(tmp_path: Path) -> None:
    batches = SUITE.batches(8, 0)
    assert batches == SUITE.batches(8, 0)
    assert [batch.cases[0].family == "constructed" for batch in batches] == [True, False] * 4
    asking, rows = Asking(0, "", "full", tmp_path), []
    for at in (2, 3):
        (row,) = SUITE.ask(batches[at], [batches[at].cases[0].key], asking)
        assert row["outcome"] == "ok"
        assert (tmp_path / f"{batches[at].name}.db").is_file()
        assert all(head["said"]["kind"] == head["kind"] for head in row["heads"] if head["kind"] != "unclear")
        rows.append(row)
    assert {(head["layer"], head["head"]): head["kind"] for head in rows[0]["heads"] if head["kind"] != "none"} == {
        (head["layer"], head["head"]): head["kind"] for head in batches[2].cases[0].truth["heads"]
    }
    assert {head["said"]["carries"] for head in rows[1]["heads"]} == {"successor"}  # read off the vocabulary
    assert list(SUITE.ask(batches[2], [], asking)) == []


def _head(kind: str, said: str, **other: Any) -> dict[str, Any]:
    claim = "" if said == "none" else "attends somewhere"
    return {"kind": kind, "effect": 1.0, "said": {"kind": said, "claim": claim, "carries": ""} | other}


def test_the_scores_count_right_tags_and_wrong_kinds() -> None:
    heads = [
        _head("previous", "previous"),
        _head("induction", "none"),
        _head("none", "duplicate"),
        _head("none", "none"),
    ]
    rows = [
        {"outcome": "ok", "discarded": "", "heads": [*heads, {"kind": "unclear"}]},
        {"outcome": "ok", "discarded": "no head", "heads": [{"kind": "unclear"}]},
        {"outcome": "failed", "error": "wrong"},
    ]
    scores = {score.name: score for score in SUITE.scores(rows)}
    assert [scores[f"models {what}"].value for what in ("kept", "discarded", "whose truth failed")] == [1, 1, 1]
    assert scores["heads with their tag"].value == 0.5
    assert scores["heads with their tag"].met is False
    assert scores["heads with a kind that is not theirs"].value == 0.25
    assert scores["previous heads named"].value == 1
    assert scores["induction heads named"].value == 0
    assert "successor heads named" not in scores
    assert scores["idle heads with a claim of any kind"].value == 0.5
    assert scores["heads not asked about"].value == 1


@pytest.mark.parametrize(
    ("claim", "kind"),
    [
        (Attends(key=Previous()), "previous"),
        (Attends(key=First(), carries=Copies()), "positional"),
        (Attends(key=Current()), "successor"),
        (Attends(key=Current(), carries=Copies()), "none"),
        (Attends(key=Previous(), queries=Token(any_of=("?",))), "previous"),
        (Attends(key=Current(), queries=Token(any_of=("?",))), "none"),
        (Attends(key=Previous(), queries=Token(any_of=("?",)), carries=Successor()), "successor"),
        (Attends(key=Offset(n=3)), "none"),
    ],
)
def test_a_claim_is_of_the_kind_that_it_describes(claim: Attends, kind: str) -> None:
    assert kind_of(claim) == kind
