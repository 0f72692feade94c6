"""Dreams: a known best prompt is found, the front is the true one, and what is dreamt is never what a claim is tested on."""

import itertools
import json
import runpy
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neuronaut.agent.dream_lines import dream as dream_lines
from neuronaut.agent.dreams import synthetic
from neuronaut.agent.questions import parse_question
from neuronaut.agent.render import _rows as rows
from neuronaut.agent.view import visible
from neuronaut.evals.compiler.program import Map, Program, Pull, Tokens
from neuronaut.evals.compiler.programs.words import previous
from neuronaut.evals.compiler.weights import compile_program
from neuronaut.evals.fixtures import write_folder
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import File
from neuronaut.tools.corpus import load_corpus
from neuronaut.tools.dreams.chosen import logit_aim, null_aims, unit_aim
from neuronaut.tools.dreams.dream import DreamArgs, Searched, said
from neuronaut.tools.dreams.front import area, front
from neuronaut.tools.dreams.natural import grids, strongest, verbatim
from neuronaut.tools.dreams.search import Beginning, Plan, dreamt, random_search
from neuronaut.tools.dreams.writing import TextWriting
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.registry import ToolContext, find_tool
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.units import Unit

made: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))

SEEDS = 20
LENGTH = 5
EIGHT = (" cat", " sat", " mat", " dog", " ran", " the", " fell", " old")
WORDS = tuple(f"w{number}" for number in range(48))
PLAN = Plan(steps=40, population=4, children=8, keep=8, forwards=500)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def _rules() -> dict[tuple[str, str], str]:
    """One word just after another: as many such pairs as seeds."""
    drawn = np.random.default_rng(5).permutation(len(WORDS))[: 2 * SEEDS].reshape(SEEDS, 2)
    return {(WORDS[one], WORDS[other]): WORDS[one] for one, other in drawn.tolist()}


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> TargetModel:
    """A compiled model with neurons that fire on one word just after another, and on nothing else."""
    token, rules = Tokens(WORDS), _rules()
    before = Pull("before", previous, token)
    pair = Map("pair", lambda here, there: rules.get((here, there)), (token, before))
    compiled = compile_program(Program("pairs", "fixture", "pairs", token, pair), 0, turn=True)
    folder = tmp_path_factory.mktemp("models") / "pairs"
    return load_target(write_folder(folder, compiled.config, compiled.tensors, compiled.pieces))


def _text(target: TargetModel) -> Any:
    rng = np.random.default_rng(0)
    return target.tokenize([" ".join(rng.choice(WORDS, 10)) for _ in range(60)])


def _of_rules(target: TargetModel) -> dict[tuple[str, str], Unit]:
    """The neuron of each rule, by what every pair of words does to every neuron."""
    pieces = target.vocabulary.pieces
    pairs = [(pieces.index(one), pieces.index(other)) for one, other in itertools.product(WORDS, repeat=2)]
    ids = torch.tensor([[0, there, here] for here, there in pairs])
    found: dict[tuple[str, str], Unit] = {}
    for layer in range(target.spec.n_layers):
        site = Site("neurons", layer)
        fires = target.run(ids, read=[site]).read[site][:, -1] > 0.1
        for neuron in torch.nonzero(fires.sum(dim=0) == 1).flatten().tolist():
            here, there = pairs[int(fires[:, neuron].nonzero())]
            found[pieces[here], pieces[there]] = Unit("neuron", layer, neuron)
    return {rule: found[rule] for rule in _rules()}


def _nothing(writing: TextWriting, scale: float) -> Beginning:
    """No piece of natural text to begin with: what is found was searched for."""
    return Beginning(scale, writing.begun(torch.zeros((0, writing.length), dtype=torch.long)))


def _finds(prompts: Any, rule: tuple[str, str], target: TargetModel) -> bool:
    best = prompts.ids[int(prompts.values.argmax())].tolist()
    pieces = target.vocabulary.pieces
    return prompts.values.max() > 0.1 and (pieces[best[-1]], pieces[best[-2]]) == rule


def test_a_word_just_after_another_is_found_more_often_than_by_random_search(ruled: TargetModel) -> None:
    text, hits = _text(ruled), {"dream": 0, "blind": 0, "random": 0}
    for seed, (rule, unit) in enumerate(_of_rules(ruled).items()):
        aim, writing = unit_aim(ruled, unit), TextWriting(ruled, text, LENGTH)
        begun = _nothing(writing, 1.0)
        found = dreamt(aim, writing, PLAN, begun, np.random.default_rng(seed))
        blind = dreamt(aim, writing, PLAN, begun, np.random.default_rng(seed), guided=False)
        drawn = random_search(aim, writing, begun, found.forwards, np.random.default_rng(seed))
        assert drawn.forwards >= found.forwards - 1
        for name, one in (("dream", found), ("blind", blind), ("random", drawn)):
            hits[name] += _finds(one.prompts, rule, ruled)
    print(hits)
    assert hits["dream"] >= 18, hits
    assert hits["random"] <= 9, hits


class Few(TextWriting):
    """Writes with eight words, a vocabulary so small that all prompts can be tried."""

    @property
    def tokens(self) -> Tensor:  # type: ignore[override]
        words = [token for token, piece in enumerate(self.target.vocabulary.pieces) if piece in EIGHT]
        return torch.tensor(words)

    def draw(self, n: int, rng: np.random.Generator) -> Tensor:
        return self.begun(torch.from_numpy(rng.choice(self.tokens.numpy(), size=(n, self.length))))


def test_the_front_is_that_of_all_prompts_of_a_tiny_vocabulary(tmp_path: Path) -> None:
    target, shares = load_target(made["make_model"]("gpt2", tmp_path / "gpt2")), []
    for seed in range(SEEDS):
        aim, writing = unit_aim(target, Unit("neuron", 1, seed)), Few(target, target.tokenize(["the cat"]), 3)
        everything = torch.tensor(list(itertools.product(writing.tokens.tolist(), repeat=3)))
        assert len(everything) == 512
        values, costs = (column.numpy() for column in aim.measure(writing.begun(everything))[:2])
        worst = (float(np.median(values)), float(costs.max()))
        begun = _nothing(writing, float(np.ptp(values)))
        found = dreamt(aim, writing, replace(PLAN, forwards=400), begun, np.random.default_rng(seed))
        prompts = found.prompts
        assert len(prompts.ids) < 300, "the search must not have tried all of them"
        shares.append(area(prompts.values, prompts.costs, worst) / area(values, costs, worst))
    print(shares)
    assert max(shares) <= 1 + 1e-6, "no front is better than that of all prompts"
    assert np.median(shares) > 0.97, shares
    assert min(shares) > 0.8, shares


def test_the_front_holds_what_no_other_point_beats() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        values, costs = rng.integers(0, 6, 30).astype(float), rng.integers(0, 6, 30).astype(float)
        beaten = [
            any((v >= value and c <= cost) and (v > value or c < cost) for v, c in zip(values, costs, strict=True))
            for value, cost in zip(values, costs, strict=True)
        ]
        kept = front(values, costs)
        assert not any(beaten[i] for i in kept)
        assert {(values[i], costs[i]) for i in kept} == {
            (v, c) for v, c, worse in zip(values, costs, beaten, strict=True) if not worse
        }
    assert area(np.array([1.0, 3.0]), np.array([1.0, 2.0]), (0.0, 4.0)) == 7.0
    assert area(np.array([]), np.array([]), (0.0, 4.0)) == 0.0


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> TargetModel:
    return load_target(made["make_model"]("llama", tmp_path_factory.mktemp("models") / "llama"))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox", "olmo2"])
def test_the_gradient_of_a_site_is_that_of_a_small_step(family: str, tmp_path: Path) -> None:
    target = load_target(made["make_model"](family, tmp_path / family))
    ids, entry, at = torch.tensor([[5, 70, 99, 23]]), Site("resid_pre", 0), Site("neurons", 1)
    weights = torch.randn(target.spec.d_mlp, generator=torch.Generator().manual_seed(0))
    before = target.forwards
    value, slope = target.gradients(ids, [entry], lambda grid: grid[:, -1] @ weights, at=at)[entry]
    assert target.forwards - before == pytest.approx(3 * 2 / target.spec.n_layers)
    step = 2e-3 * slope / slope.norm()

    def score(residual: Tensor) -> float:
        return float(target.run(ids, read=[at], start=(0, residual), stop=2).read[at][0, -1] @ weights)

    risen = (score(value + step) - score(value - step)) / 2
    assert risen == pytest.approx(float((slope * step).sum()), rel=2e-2)
    with pytest.raises(ToolRefused, match="score at"):
        target.gradients(ids, [entry], lambda grid: grid, at=Site("pattern", 1))


def test_what_switches_a_unit_on_orders_prompts_as_its_activation_does(ruled: TargetModel) -> None:
    rule, unit = next(iter(_of_rules(ruled).items()))
    here, there = (ruled.vocabulary.pieces.index(word) for word in rule)
    other = next(i for i in range(1, 40) if i not in (here, there))
    ids = torch.tensor([[0, other, other], [0, there, other], [0, other, here], [0, there, here]])
    found = unit_aim(ruled, unit).measure(ids)
    assert found.values[:3].max() < 0.1 < found.values[3]
    assert found.hints[0] < found.hints[1] < found.hints[3]
    assert found.hints[0] < found.hints[2] < found.hints[3]


def test_null_aims_have_the_norm_of_one_unit_and_logits_are_compared_with_other_pairs(llama: TargetModel) -> None:
    unit = Unit.parse("1.3")
    nulls = null_aims(unit_aim(llama, unit), unit, 4, 0)
    assert [round(float(one.weights.norm()), 5) for one in nulls] == [1.0] * 4
    logits = logit_aim(llama, " cat", " dog")
    assert all(not set(one.columns) & set(logits.columns) for one in null_aims(logits, None, 6, 0))
    with pytest.raises(ToolRefused, match="never differ"):
        logit_aim(llama, " cat", " cat")
    with pytest.raises(ToolRefused, match="is a head"):
        unit_aim(llama, Unit.parse("L1H1"))


def test_a_logit_difference_and_a_downward_side_are_what_the_model_says(llama: TargetModel) -> None:
    ids = llama.tokenize(["the cat sat on the mat"]).ids
    rows = torch.from_numpy(ids).long()
    logits = llama.run(rows, logits=True).logits
    assert logits is not None
    one, other = (llama.vocabulary.pieces.index(piece) for piece in (" cat", " dog"))
    found = logit_aim(llama, " cat", " dog").measure(rows)
    assert float(found.values) == pytest.approx(float(logits[0, -1, one] - logits[0, -1, other]), abs=1e-5)
    log_probs = torch.log_softmax(logits[0, :-1], dim=-1)
    spelt = -float(np.mean([float(log_probs[i, rows[0, i + 1]]) for i in range(rows.shape[1] - 1)]))
    assert float(found.costs) == pytest.approx(spelt, abs=1e-5)
    up, down = (unit_aim(llama, Unit.parse(unit)).measure(rows).values for unit in ("1.3", "1.3-"))
    assert float(up) == -float(down)


def test_a_dream_says_that_it_is_synthetic_and_has_its_nulls(llama: TargetModel, tmp_path: Path) -> None:
    corpus = load_corpus(made["make_corpus"](tmp_path / "texts.jsonl"))
    context = ToolContext(llama, corpus)
    for asked in ({"unit": "1.3"}, {"answer": " cat", "wrong_answer": " dog"}):
        args = DreamArgs.model_validate({**asked, "length": 5, "forwards": 150, "nulls": 3})
        result = find_tool("dream").run(context, args)
        payload = result.payload
        assert payload["synthetic"] is True
        assert len(payload["nulls"]) == 3
        assert [row["name"] for row in payload["searches"]] == ["dream", "without gradients", "random prompts"]
        for row in payload["front"]:
            again = llama.tokenize([row["text"]])
            assert int(again.lengths[0]) == 5 + (llama.spec.bos is not None)
        costs = [row["cost"] for row in payload["front"]]
        assert costs == sorted(costs, reverse=True)
        metrics = {one.metric: one for one in result.measurements}
        assert metrics["dreamt"].null_value is not None
        assert metrics["beyond_natural"].null_value is not None
        assert "synthetic" in result.figures[0].svg
        told = list(dream_lines(payload, {name: asdict(one) for name, one in metrics.items()}))
        assert "synthetic" in told[0]
        assert told[-1] == payload["said"]
        for line, row in zip(told[1:], payload["front"], strict=False):
            assert visible(row["text"]) in line
            assert ("fluent" in line.split(" · ")[1], "natural" in line.split(" · ")[1]) == (
                row["fluent"],
                row["natural"],
            )
        repeated = find_tool("dream").run(ToolContext(llama, corpus), args)
        assert repeated.payload["front"] == payload["front"], "the seed decides"


def test_no_dream_ends_below_the_natural_text_it_began_with(llama: TargetModel, tmp_path: Path) -> None:
    context = ToolContext(llama, load_corpus(made["make_corpus"](tmp_path / "texts.jsonl")))
    tokens, writing = context.sample("explore", 5000), TextWriting(llama, context.sample("explore", 5000), 5)
    for index in range(4):
        aim = unit_aim(llama, Unit("neuron", 1, index))
        pieces, whole = strongest(aim, writing, grids([aim], tokens)[0], tokens)
        assert len(whole) == len(pieces.ids) > 5
        found = dreamt(aim, writing, PLAN, Beginning(1.0, pieces.ids), np.random.default_rng(index)).prompts
        for value, cost in zip(pieces.values, pieces.costs, strict=True):
            assert ((found.values >= value - 1e-6) & (found.costs <= cost + 1e-6)).any()
        assert found.values.max() > pieces.values.max()


def test_what_stands_in_the_text_is_told_apart_from_what_was_written(llama: TargetModel) -> None:
    tokens = llama.tokenize(["the cat sat on the mat and the dog ran", "the old dog sat", "a cat"])
    windows = [tokens.ids[row, : tokens.lengths[row]].tolist() for row in range(len(tokens))]
    rng, told = np.random.default_rng(0), []
    for _ in range(200):
        row = windows[int(rng.integers(len(windows)))]
        piece = row[(at := int(rng.integers(len(row)))) : at + 3]
        piece = (piece + [int(rng.choice(windows[0])) for _ in range(3)])[:3]
        there = any(other[i : i + 3] == piece for other in windows for i in range(len(other) - 2))
        assert bool(verbatim(torch.tensor([piece]), tokens)[0]) == there
        told.append(there)
    assert 20 < sum(told) < 180, "both cases must have come up"
    assert not verbatim(torch.tensor([windows[0] * 3]), tokens).any(), "longer than any text"


def test_a_dream_no_better_than_chance_is_said_to_be_none() -> None:
    def row(name: str, best: float, beyond: float) -> Searched:
        return Searched(name, best, None, beyond, None, 10, 10.0, 0)

    nulls = [row(f"null {number}", 1.0, 0.5 + number) for number in range(4)]
    assert said([row("dream", 1.0, 0.8), row("random prompts", 1.0, 0.8)], nulls).startswith("none better than chance")
    assert "no dream" in said([row("dream", 1.0, 0.8), row("random prompts", 0.5, 0.4)], nulls)
    assert "no further than null units" in said([row("dream", 2.0, 2.0), row("random prompts", 1, 1)], nulls)
    assert "further than 100 %" in said([row("dream", 9.0, 9.0), row("random prompts", 1, 1)], nulls)


@pytest.mark.parametrize(
    ("text", "unit"),
    [("dream of 8.481", "8.481"), ("Dreams for neuron 8.481", "8.481"), ("dream of feature sae:a/3", "sae:a/3"), ("dream of 8.481-", "8.481-")],
)  # fmt: skip
def test_a_dream_of_a_unit_is_understood(text: str, unit: str) -> None:
    question = parse_question(text)
    assert question.intent == "dream"
    assert question.unit == Unit.parse(unit)


def test_what_was_dreamt_stands_before_the_claims_that_go_on_from_it() -> None:
    found = [{"tool": tool, "title": f"of {tool}", "lines": ["a line"]} for tool in ("top_examples", "dream")]
    empty: dict[str, Any] = {key: [] for key in ("known", "notes", "proposed", "claims")}
    outcome = {"unit": "1.3", "side": "reads", "status": "ABSTAINED", "reason": "too rare here"}
    answer = {**empty, "measured": found, "outcomes": [outcome], "words": None, "unexplained": {"units": []}}
    titles = [body.plain.split("\n")[0] for _, body in rows(answer)]
    assert titles == ["of dream", "1.3 reads: too rare here", "of top_examples"]


def test_a_dream_of_logits_names_two_tokens() -> None:
    question = parse_question("dream of ' Mary' over ' Lucy'")
    assert (question.intent, question.unit, question.answer, question.wrong_answer) == ("dream", None, " Mary", " Lucy")
    with pytest.raises(UserError, match="names 1 tokens"):
        parse_question("dream of ' Mary'")
    with pytest.raises(UserError, match="is a head"):
        parse_question("dream of head 8.3")
    with pytest.raises(UserError, match="names no neuron"):
        parse_question("dream of something nice")


@pytest.mark.parametrize(
    "args", [{}, {"unit": "1.3", "answer": " cat"}, {"answer": " cat"}, {"unit": "1.3", "length": 1}]
)
def test_a_dream_of_nothing_or_of_two_things_is_refused(args: dict[str, Any]) -> None:
    with pytest.raises(ToolRefused, match="dream:"):
        find_tool("dream").parse(args)


def test_an_earlier_dream_is_evidence_for_proposers_and_its_trail_says_synthetic(
    neuronaut: Callable[..., Any], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    asked, place = '{"unit": "1.3", "length": 4, "forwards": 100, "nulls": 2}', tmp_path / "n.db"
    dreamt_of = neuronaut("ask", f"tool dream {asked}", *tiny, "--notebook", place)
    assert dreamt_of.code == 0, dreamt_of.err
    assert "synthetic" in dreamt_of.out
    answered = neuronaut("ask", "what does neuron 1.3 do", *tiny, "--notebook", place, "--json")
    run = json.loads(answered.out)["run"]
    with Notebook(File(place)) as notebook:
        session: Any = SimpleNamespace(notebook=notebook, run=run, config=SimpleNamespace(loop="full"))
        found = synthetic(session, Unit.parse("1.3"))
        assert found
        front = queries.looks(notebook, run, ("dream",), ("1.3",))["dream", "1.3"]["front"]
        assert [one.text for one in found] == [row["text"] for row in front if not row["natural"]]
        assert synthetic(session, Unit.parse("1.4")) == ()
        texts = [one.text for one in found]
        kept = [row for row in queries.experiments(notebook, run) if row["tool"] != "dream"]
        assert kept
        assert not any(text in json.dumps(row["args"]) for row in kept for text in texts), "tested on a dream"
