"""Tasks: each answer found again from the text alone, what a tokenizer makes of it, and what the embedded model can do."""

import calendar
import json
import re
import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from neuronaut.evals.compiled import build, opened
from neuronaut.evals.pocket.world import facts as world
from neuronaut.evals.pocket.world.words import OPPOSITES
from neuronaut.tools.corpus import pocket_corpus
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.registry import ToolContext, find_tool
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.tasks.base import Half, require_solved, solved
from neuronaut.tools.tasks.catalogue import task_named, tasks
from neuronaut.tools.tasks.sequences import NUMBER_WORDS

make_model = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))["make_model"]
HALVES: tuple[Half, Half] = ("search", "test")
NAMES = [task.name for task in tasks()]
CANNOT = {"every second letter", "opposites"}  # of the opposites it knows some


@pytest.fixture(scope="module")
def pocket() -> TargetModel:
    return load_target("pocket")


def _after(items: list[str], step: int) -> Callable[[str], set[str]]:
    """The answer of a list: what stands `step` places after the last item, in a circle."""

    def answer(text: str) -> set[str]:
        last = re.findall(r"\w+", text)[-1]
        return {items[(items.index(last) + step) % len(items)]}

    return answer


def _opposite(text: str) -> set[str]:
    word = re.findall(r"opposite of (\w+)", text)[-1]
    return {{**OPPOSITES, **{b: a for a, b in OPPOSITES.items()}}[word]}


def _receiver(text: str) -> set[str]:
    names = re.findall(r"\b[A-Z][a-z]+\b", re.sub(r"^(When|After|While|Then) ", "", text))
    return {name for name in names if names.count(name) == 1}


def _repeated(text: str) -> set[str]:
    words = text.split()
    tail = words[-4:]
    return {words[i + 4] for i in range(len(words) - 4) if words[i : i + 4] == tail}


def _later(text: str) -> set[str]:
    return {f"{year:02}" for year in range(int(re.findall(r"\d{4}", text)[0][2:]) + 1, 99)}


def _closing(text: str) -> set[str]:
    still_open: list[str] = []
    for mark in text.split():
        if mark in "([{":
            still_open.append(mark)
    return {{"(": ")", "[": "]", "{": "}"}[still_open[-1]]}


def _fact(text: str) -> set[str]:
    word = re.findall(r"\w+", re.sub(r" (is|are)$", "", text))[-1]
    for country in world.COUNTRIES:
        if country.name == word:
            kinds = {"capital": country.capital, "people": country.people, "flag": country.colour}
            return {kinds[re.findall("capital|people|flag", text)[0]]}
    return {world.SOUNDS[word]}


def _verb(text: str) -> set[str]:
    subject = re.findall(r"[Tt]he (\w+) (?:near|behind|under|with)", text)[-1]
    return {"are", "were"} if subject.endswith("s") else {"is", "was"}


MONTHS, DAYS = list(calendar.month_name)[1:], list(calendar.day_name)
DIGITS, LETTERS = [str(n) for n in range(100)], [chr(code) for code in range(ord("A"), ord("Z") + 1)]
ANSWERS: dict[str, Callable[[str], set[str]]] = {
    "repeated tokens": _repeated,
    "docstring": lambda text: set(re.findall(r"\((?:self, )?\w+, (\w+)\)", text)),
    "indirect object": _receiver,
    "greater than": _later,
    "increasing digits": _after(DIGITS, 1),
    "decreasing digits": _after(DIGITS, -1),
    "digits by two": _after(DIGITS, 2),
    "digits by five": _after(DIGITS, 5),
    "increasing number words": _after(list(NUMBER_WORDS), 1),
    "decreasing number words": _after(list(NUMBER_WORDS), -1),
    "months": _after(MONTHS, 1),
    "days": _after(DAYS, 1),
    "letters": _after(LETTERS, 1),
    "letters backwards": _after(LETTERS, -1),
    "every second letter": _after(LETTERS, 2),
    "agreement": _verb,
    "brackets": _closing,
    "facts": _fact,
    "capitals": _fact,
    "opposites": _opposite,
    "month after": lambda text: _after(MONTHS, 1)(re.sub(r" is$", "", text)),
    "day after": lambda text: _after(DAYS, 1)(re.sub(r" is$", "", text)),
}


def _said(target: TargetModel, row: torch.Tensor) -> set[str]:
    return {target.vocabulary.pieces[token].strip() for token in row.tolist() if token >= 0}


@pytest.mark.parametrize("name", NAMES)
def test_the_answers_are_those_that_the_text_alone_gives(name: str, pocket: TargetModel) -> None:
    for half in HALVES:
        prompts = task_named(name).prompts(pocket, 24, seed=3, half=half)
        for text, right, wrong in zip(prompts.clean_texts, prompts.right, prompts.wrong, strict=True):
            assert _said(pocket, right) == ANSWERS[name](text), text
            assert not _said(pocket, wrong) & _said(pocket, right)


@pytest.mark.parametrize(
    "name",
    [name for name in NAMES if task_named(name).family == "sequences" or name in ("capitals", "brackets", "docstring")],
)
def test_the_wrong_answer_is_what_the_corrupted_prompt_asks_for(name: str, pocket: TargetModel) -> None:
    for corruption in set(task_named(name).corruptions) - ({"random"} if name == "brackets" else set()):
        prompts = task_named(name).prompts(pocket, 16, seed=0, corruption=corruption)
        for text, wrong in zip(prompts.corrupted_texts, prompts.wrong, strict=True):
            assert ANSWERS[name](text) <= _said(pocket, wrong), text


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_equally_long_and_answers_are_single_tokens_behind_them(name: str, pocket: TargetModel) -> None:
    task = task_named(name)
    for corruption in task.corruptions:
        prompts = task.prompts(pocket, 16, seed=1, corruption=corruption, half="test")
        assert prompts.clean.shape == prompts.corrupted.shape
        assert prompts.clean.dtype == prompts.right.dtype == torch.int64
        assert bool((prompts.clean != prompts.corrupted).any(1).all())
        assert len(set(zip(prompts.clean_texts, prompts.corrupted_texts, strict=True))) == len(prompts)
        assert len(prompts.roles) == prompts.clean.shape[1]
        assert prompts.roles[-1] == "end"
        for at, text in enumerate(prompts.clean_texts):
            for token in [int(one) for one in (*prompts.right[at], *prompts.wrong[at]) if one >= 0]:
                whole = pocket.tokenize([text + pocket.vocabulary.pieces[token]]).ids[0].tolist()
                assert whole == [*prompts.clean[at].tolist(), token]


@pytest.mark.parametrize("name", NAMES)
def test_no_prompt_of_a_half_is_a_corrupted_twin_of_the_other_half(name: str, pocket: TargetModel) -> None:
    for corruption in task_named(name).corruptions:
        search, unseen = (
            task_named(name).prompts(pocket, 48, seed=0, corruption=corruption, half=half) for half in HALVES
        )
        for one, other in ((search, unseen), (unseen, search)):
            assert not set(one.corrupted_texts) & set(other.clean_texts), corruption


@pytest.mark.parametrize("name", NAMES)
def test_prompts_follow_from_the_seed_and_the_halves_share_no_filler(name: str, pocket: TargetModel) -> None:
    task = task_named(name)
    one, again, other = (task.prompts(pocket, 40, seed=seed) for seed in (0, 0, 1))
    assert (one.clean_texts, one.corrupted_texts) == (again.clean_texts, again.corrupted_texts)
    assert (one.clean_texts, one.corrupted_texts) != (other.clean_texts, other.corrupted_texts)
    unseen = task.prompts(pocket, 40, seed=0, half="test")
    assert not set(one.clean_texts) & set(unseen.clean_texts)
    if task.family == "sequences":
        first = [{re.findall(r"\w+", text)[-task_length(name)] for text in p.clean_texts} for p in (one, unseen)]
        assert not first[0] & first[1]
    if task.family == "names":
        people = [{n for text in p.clean_texts for n in re.findall(r" ([A-Z]\w+)", text)} for p in (one, unseen)]
        assert len(people[0]) > 5
        assert not people[0] & people[1]


def task_length(name: str) -> int:
    """Items that a sequence shows, as the longest run of its wording says."""
    return max(wording.text.count("{") - wording.text.count("{name}") for wording in task_named(name).wordings)


def test_each_corruption_of_a_sequence_is_what_it_is_called(pocket: TargetModel) -> None:
    for corruption in task_named("months").corruptions:
        prompts = task_named("months").prompts(pocket, 24, seed=0, corruption=corruption)
        for clean, twin in zip(prompts.clean_texts, prompts.corrupted_texts, strict=True):
            shown, other = ([MONTHS.index(word) for word in re.findall(r"\w+", text)[-4:]] for text in (clean, twin))
            expected = {
                "random": len(set(other)) == 4 and other[-1] != shown[-1],
                "shift": [(at - other[0]) % 12 for at in other] == [0, 1, 2, 3] and other != shown,
                "swap": other == [*shown[:2], shown[3], shown[2]],
                "repeat": other == [*shown[:3], shown[2]],
                "permute": sorted(other) == sorted(shown) and other[-1] != shown[-1],
            }
            assert expected[corruption], (clean, twin)


def test_the_groups_are_wording_and_filler(pocket: TargetModel) -> None:
    prompts = task_named("days").prompts(pocket, 60, seed=0)
    groups: dict[int, set[tuple[str, str]]] = {}
    for text, group in zip(prompts.clean_texts, prompts.groups.tolist(), strict=True):
        lead = re.sub(r"\b[A-Z]\w+(?= said)|(?<=Thank )\w+", "NAME", text)
        first = re.findall(r"\w+", text)[-4]
        groups.setdefault(group, set()).add((lead.partition(first)[0], first))
    assert all(len(kinds) == 1 for kinds in groups.values())
    assert len(groups) == len(set().union(*groups.values()))
    half = prompts.select(np.flatnonzero(prompts.groups % 2 == 1))
    assert sorted(set(half.groups.tolist())) == list(range(len(groups) // 2))


def test_the_score_is_the_log_odds_of_the_answers_and_accuracy_the_share_of_likeliest(pocket: TargetModel) -> None:
    prompts = replace(
        task_named("months").prompts(pocket, 3, seed=0).select([0, 1, 2]),
        right=torch.tensor([[0, 1], [2, -1], [3, -1]]),
        wrong=torch.tensor([[2, -1], [0, 1], [4, -1]]),
    )
    logits = torch.tensor([[1.0, 2.0, 3.0, 0.0, 0.0], [1.0, 2.0, 3.0, 0.0, 0.0], [9.0, 0.0, 0.0, 5.0, 1.0]])
    odds = np.log((np.exp(1) + np.exp(2)) / np.exp(3))
    assert prompts.score(logits).tolist() == pytest.approx([odds, -odds, 4.0])
    assert prompts.answered(logits).tolist() == [False, True, False]
    assert replace(prompts, among_answers=True).answered(logits).tolist() == [False, True, True]


def test_solved_is_the_model_read_prompt_by_prompt(pocket: TargetModel) -> None:
    prompts = task_named("increasing digits").prompts(pocket, 12, seed=5, corruption="repeat", half="test")
    found = solved(pocket, prompts)
    scores, hits = [], []
    for at in range(len(prompts)):
        last = []
        for ids in (prompts.clean, prompts.corrupted):
            logits = pocket.run(ids[at : at + 1], logits=True).logits
            assert logits is not None
            last.append(logits[0, -1])
        right, wrong = int(prompts.right[at, 0]), int(prompts.wrong[at, 0])
        scores.append([float(one[right] - one[wrong]) for one in last])
        hits.append(int(last[0].argmax()) == right)
    np.testing.assert_allclose(np.stack([found.clean, found.corrupted], 1), scores, atol=1e-4)
    assert found.kept.tolist() == hits
    assert found.accuracy == pytest.approx(np.mean(hits))
    assert found.gap == pytest.approx(np.mean([one - other for one, other in scores]), abs=1e-4)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in CANNOT])
def test_the_embedded_model_can_do_it_on_both_halves(name: str, pocket: TargetModel) -> None:
    for half in HALVES:
        found = solved(pocket, task_named(name).prompts(pocket, 60, seed=0, half=half))
        assert found.accuracy >= 0.8
        assert found.gap > 1


def test_what_cannot_be_done_is_refused(pocket: TargetModel, tmp_path: Path) -> None:
    with pytest.raises(ToolRefused, match="cannot do 'every second letter': accuracy 0"):
        require_solved(pocket, task_named("every second letter").prompts(pocket, 16, seed=0))
    with pytest.raises(ToolRefused, match="there is no task 'chess': choose from repeated tokens"):
        task_named("chess")
    with pytest.raises(ToolRefused, match="no corruption 'upside down': choose from 'random', 'shift'"):
        task_named("days").prompts(pocket, 8, seed=0, corruption="upside down")
    with opened(build("induction", 0)) as letters, pytest.raises(ToolRefused, match="its tokenizer does not cut"):
        task_named("months").prompts(letters, 8, seed=0)
    same = task_named("days").prompts(pocket, 8, seed=0)
    with pytest.raises(ToolRefused, match="makes no difference"):
        require_solved(pocket, replace(same, corrupted=same.clean))
    random = load_target(make_model("llama", tmp_path / "llama"))
    with pytest.raises(ToolRefused, match="cannot be asked"):
        task_named("indirect object").prompts(random, 8, seed=0)


def test_the_tool_lists_what_can_be_done(pocket: TargetModel) -> None:
    tool = find_tool("tasks")
    context = ToolContext(pocket, pocket_corpus())
    found = tool.run(context, tool.parse(json.dumps({"names": ["days", "every second letter"], "n": 16}))).payload
    assert found["can"] == ["days"]
    days, letters = found["tasks"]
    prompts = task_named("days").prompts(pocket, 16, seed=0)
    assert days["accuracy"] == pytest.approx(solved(pocket, prompts).accuracy, abs=1e-4)
    assert days["gap"] == pytest.approx(solved(pocket, prompts).gap, abs=1e-4)
    assert letters["can"] is False
    with opened(build("induction", 0)) as small:
        told = tool.run(ToolContext(small, pocket_corpus()), tool.parse({"names": ["days"], "n": 16})).payload
    assert told["can"] == []
    assert "tokenizer" in told["tasks"][0]["refused"]
