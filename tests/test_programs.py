"""Descriptions as programs: against models compiled from known ones, a plain second reading of the weights, and nulls."""

import json
import random
import runpy
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuronaut.evals.compiled import BY_NAME, build, opened, reproduced
from neuronaut.evals.compiler.compare import auroc, compare
from neuronaut.evals.compiler.weights import compile_program
from neuronaut.tools.corpus import Corpus
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.programs.agreement import held_out, shuffled_program
from neuronaut.tools.programs.describe import describe
from neuronaut.tools.programs.grouping import Wiring, group_neurons
from neuronaut.tools.programs.parts import POSITION, TOKEN, Observed, Part
from neuronaut.tools.programs.program import Line, Program, Selection, Table, Term
from neuronaut.tools.programs.reads import Exchange
from neuronaut.tools.programs.rules import Attended, learn_rule
from neuronaut.tools.programs.texts import Words, find_words
from neuronaut.tools.programs.tools import DescribeArgs, describe_program
from neuronaut.tools.programs.values import find_values
from neuronaut.tools.programs.wording import term_in_words
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import load_target

make_model = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))["make_model"]
PlainModel = runpy.run_path(str(Path(__file__).with_name("plain_transformers.py")))["PlainModel"]
NO_TEXT = Corpus("no text", "", ())
SAME = frozenset


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[TargetModel, Any]]:
    opened: dict[str, tuple[TargetModel, Any]] = {}

    def get(family: str) -> tuple[TargetModel, Any]:
        if family not in opened:
            import transformers

            folder = make_model(family, tmp_path_factory.mktemp("models") / family)
            defaults = transformers.AutoConfig.from_pretrained(folder).to_dict()
            opened[family] = load_target(folder), PlainModel(folder, defaults)
        return opened[family]

    return get


def _some_words(target: TargetModel, length: int = 7) -> Words:
    pieces = [piece for piece in (" the", " cat", " and") if piece in target.vocabulary.pieces]
    return find_words(target, pieces, length)


def _induction() -> Program:
    """By hand: what followed the last earlier occurrence of this word, and "?" where there is none."""
    before = Selection(
        (Term("position", "position", tuple(SAME({at + 1} if at < 5 else ()) for at in range(6))),), "all", "otherwise"
    )
    previous = Line("L0H0", "mover", Table(("token",), {(0,): 0, (1,): 1}, 0), ("a", "b", "-"), before, 2)
    same = Selection((Term("L0H0", "token", (SAME({0}), SAME({1}), SAME())),), "last", "otherwise")
    follower = Line("L1H0", "mover", Table(("token",), {(0,): 0, (1,): 1}, 0), ("a", "b", "-"), same, 2)
    output = Table(("L1H0",), {(0,): 0, (1,): 1, (2,): 2}, 2)
    return Program(("a", "b"), 6, (previous, follower), output, ("a", "b", "?"))


def test_the_interpreter_says_what_brute_force_says_and_data_gives_the_same_program() -> None:
    program = _induction()
    again = Program.from_data(json.loads(json.dumps(program.as_data())))
    assert again == program
    rng = random.Random(0)
    for _ in range(50):
        text = rng.choices((0, 1), k=6)
        wanted = []
        for at, word in enumerate(text):
            after = [text[i] for i in range(1, at + 1) if text[i - 1] == word]
            wanted.append("ab"[after[-1]] if after else "?")
        assert again.says(text) == wanted


def test_a_number_is_the_mean_of_what_is_looked_at_and_takes_the_nearest_label() -> None:
    select = Selection((Term("token", "any", (SAME({0}), SAME())),), "all", "always")
    count = Line("L0H0", "aggregator", Table((), {(): 0.0}, 0.0), ("1/3", "1/2", "1"), select, 1.0, (1 / 3, 1 / 2, 1.0))
    program = Program(("a", "b"), 4, (count,), Table(("L0H0",), {(0,): 2, (1,): 1, (2,): 0}, 0), ("0", "1", "2"))
    assert program.says([1, 0, 1, 0]) == ["0", "1", "1", "2"]


@pytest.mark.parametrize("prefer", ["all", "last", "first"])
def test_a_planted_rule_is_learnt_with_its_preference_and_no_needless_table(prefer: Any) -> None:
    rng = np.random.default_rng(0)
    token, other = rng.integers(4, size=(200, 8)), rng.integers(3, size=(200, 8))
    place = np.broadcast_to(np.arange(8), token.shape)
    match = (token[:, None, :] == (token[:, :, None] + 1) % 4) & np.tri(8, dtype=bool)
    chosen = np.zeros_like(match)
    for text, at, keys in ((t, q, np.flatnonzero(match[t, q])) for t in range(200) for q in range(8)):
        chosen[text, at, keys if prefer == "all" else keys[-1:] if prefer == "last" else keys[:1]] = True
    names, sizes = ("token", "other", "position"), {"token": 4, "other": 3, "position": 8}
    features = {"token": token, "other": other, "position": place}
    rule = learn_rule(Attended(chosen, ~chosen.any(-1)), names, names, features, sizes)
    assert (rule.prefer, rule.start, rule.errors) == (prefer, "otherwise", 0)
    assert [(term.key, term.query) for term in rule.terms] == [("token", "token")]
    assert np.array_equal(rule.terms[0].allowed, np.roll(np.eye(4, dtype=bool), 1, axis=0))
    noise = np.tri(8, dtype=bool) & (rng.random(match.shape) < 0.3)
    assert learn_rule(Attended(noise, ~noise.any(-1)), names, names, features, sizes).errors > 800


def test_vectors_fall_into_labels_and_those_on_a_line_into_numbers() -> None:
    rng = np.random.default_rng(0)
    axes, which = np.linalg.qr(rng.normal(size=(6, 6)))[0], rng.integers(4, size=300)
    vectors = axes[which] + 1e-4 * rng.normal(size=(300, 6))
    found = find_values(vectors)
    assert (len(found), found.numeric, found.exact) == (4, False, True)
    assert len(set(zip(which.tolist(), found.labels(vectors).tolist(), strict=True))) == 4
    numbers = find_values(np.outer(which * 2.0 + 1, axes[0]))
    assert (len(numbers), numbers.numeric) == (4, True)
    assert not find_values(rng.normal(size=(3000, 6))).exact


def _fires(*at: int) -> Any:
    return np.isin(np.arange(6), at)


def test_neurons_are_one_group_where_sources_and_a_reader_are_shared_and_they_never_fire_together() -> None:
    head, key, query, value = Part(0, "head", (0,)), (1, "L1H0.k"), (1, "L1H0.q"), frozenset({(1, "L1H0.v")})
    both, one, readers = frozenset({TOKEN, head}), frozenset({head}), frozenset({key})
    wiring = {
        0: Wiring(both, readers, _fires(0)),
        1: Wiring(both, readers, _fires(1)),
        2: Wiring(one, readers, _fires(2, 3)),  # a row of the same table that does not depend on the token
        3: Wiring(one, value, _fires(3, 4)),  # another variable, read elsewhere
        4: Wiring(both, frozenset({query}), _fires(1, 2)),
        5: Wiring(both, frozenset(), _fires(4, 5)),  # read by nothing, silent where the group fires
        6: Wiring(frozenset({TOKEN, POSITION}), frozenset(), _fires(0, 5)),  # idle
        7: Wiring(frozenset(), value, _fires(0, 1, 2, 3, 4, 5)),  # always on: the constant of that variable
    }
    assert {part.indices for part in group_neurons(0, wiring)} == {(0, 1, 2, 5), (3, 7), (4,)}
    together = wiring | {2: Wiring(one, readers, _fires(1, 2))}  # fires with neuron 1: no row of the same table
    assert {part.indices for part in group_neurons(0, together)} == {(0, 1, 5), (2,), (3, 7), (4,)}


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3"])
def test_what_is_carried_and_written_and_moved_equals_a_plain_reading_of_the_weights(
    tiny: Callable[[str], Any], family: str
) -> None:
    target, plain = tiny(family)
    words = _some_words(target)
    texts = np.random.default_rng(0).integers(len(words.ids), size=(12, 7)).tolist()
    observed = Observed(target, words, words.tensor(texts))
    layer, head = 1, 2
    plain.run(observed.ids)
    residual, heads = plain.seen["resid_pre", layer], plain.seen["heads", layer]
    W_O = target.attention_weights(layer).W_O[head]
    assert torch.allclose(observed.written(Part(layer, "head", (head,))), heads[:, :, head] @ W_O, atol=1e-4)
    repeats = heads.shape[2] // plain.seen["v", layer].shape[2]
    values = plain.seen["v", layer][:, :, head // repeats]
    assert torch.allclose(observed.carried(layer, head), values @ W_O, atol=1e-4)
    source, exchange = Part(0, "head", (1,)), Exchange(observed, 0)
    found = exchange.heads(source, layer, [head])[0]
    moved: dict[str, list[float]] = {"q": [], "k": []}
    rows = torch.arange(len(texts))
    usual = plain.seen["pattern", layer][rows, head, exchange.query]
    for difference in exchange.differences(source):
        here = torch.zeros(observed.ids.shape).index_put((rows, exchange.query), torch.tensor(1.0))[..., None]
        for slot, mask in (("q", here), ("k", 1 - here)):
            plain.run(observed.ids, layers=range(layer, layer + 1), x=residual + mask * difference)
            pattern = plain.seen["pattern", layer][rows, head, exchange.query]
            moved[slot].append(float((pattern - usual).abs().sum(-1).mean() / 2))
    assert found.queries == pytest.approx(max(moved["q"]), abs=1e-4)
    assert found.keys == pytest.approx(max(moved["k"]), abs=1e-4)
    assert found.values > 0.01


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "gemma2", "gemma3"])
def test_models_of_every_kind_are_described_and_random_ones_badly(tiny: Callable[[str], Any], family: str) -> None:
    target, _ = tiny(family)
    words = _some_words(target, 5)
    args = DescribeArgs(vocabulary=words.pieces, length=5, n=40, held_out=40)
    result = describe_program(ToolContext(target, NO_TEXT), args)
    data = json.loads(json.dumps(result.payload))
    assert [line["role"] for line in data["program"]["lines"]]
    assert 0 <= result.measurements[0].value < 0.95
    assert {edge["to"] for edge in data["edges"] if edge["reads"]} >= {"output"}


@pytest.mark.parametrize("name", ["induction", "histogram", "where_ab", "a_xor_b", "fraction_marked", "matching"])
def test_a_compiled_program_is_found_with_its_edges_and_roles(name: str) -> None:
    compiled = compile_program(BY_NAME[name], 11)
    words = tuple(str(token) for token in compiled.program.tokens.domain)
    with opened(compiled) as target:
        result = describe_program(ToolContext(target, NO_TEXT), DescribeArgs(vocabulary=words, n=400, held_out=100))
    found = compare(result.payload, [asdict(part) for part in compiled.components], compiled.program.output.name)
    assert (found.auroc, found.wrong) == (1.0, ())
    assert found.right == found.tags == len(compiled.components)
    program = Program.from_data(json.loads(json.dumps(result.payload["program"])))
    assert reproduced(compiled, program, 5) >= 0.99
    assert reproduced(compiled, shuffled_program(program, 0), 5) < 0.6
    reproduced_share = result.measurements[0]
    assert reproduced_share.null_value is not None
    assert reproduced_share.value >= 0.99 > 0.6 > reproduced_share.null_value


def test_a_turned_basis_and_other_programs_make_no_difference_to_what_is_found() -> None:
    compiled = compile_program(BY_NAME["induction"], 2, turn=True)
    with opened(compiled) as target:
        described = describe(target, find_words(target, ["a", "b", "c", "d"], None), n=300, seed=1)
    assert [line.role for line in described.program.lines] == ["mover", "mover"]
    assert reproduced(compiled, described.program, 3) >= 0.99


def test_the_comparison_is_1_for_the_truth_and_at_chance_for_nothing() -> None:
    compiled = build("range", 4)
    components = [asdict(part) for part in compiled.components]
    names = {part["writes"]: f"part {i}" for i, part in enumerate(components) if part["writes"]}
    parts = [
        {"part": names[part["writes"]], **{key: part[key] for key in ("kind", "layer", "indices", "role")}}
        for part in components
        if part["writes"]
    ]
    named = names | {"token": "token", "position": "position"}
    edges = [
        {"from": named[read], "to": names[part["writes"]], "effects": {"q": 0.5}}
        for part in components
        for read in part["reads"]
    ]
    edges.append({"from": names["range"], "to": "output", "effects": {"logits": 0.9}})
    whole = compare({"parts": parts, "edges": edges}, components, "range")
    assert (whole.auroc, whole.right, whole.wrong) == (1.0, len(components), ())
    nothing = compare({"parts": [], "edges": []}, components, "range")
    assert (nothing.auroc, nothing.right) == (0.5, nothing.idle)
    turned = [edge | {"effects": {"q": -1.0}} for edge in edges]
    assert compare({"parts": parts, "edges": turned}, components, "range").auroc == 0.0
    other = [part | {"role": "mover" if part["role"] != "mover" else "output"} for part in parts]
    assert compare({"parts": other, "edges": edges}, components, "range").right == whole.idle
    assert auroc(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, False, True, True])) == pytest.approx(7 / 8)


def test_held_out_texts_are_kept_apart_and_what_cannot_be_described_is_refused(tiny: Callable[[str], Any]) -> None:
    target, _ = tiny("gpt2")
    words = _some_words(target, 4)
    kept = held_out(words, 40, 0)
    assert len(set(kept)) == 40
    learnt = describe(target, words, n=60, seed=0, apart=kept).texts
    assert len(learnt) > 60
    assert not set(learnt) & set(kept)
    with pytest.raises(ToolRefused, match="only 81 texts of 4 of the words"):
        held_out(words, 41, 0)
    with pytest.raises(ToolRefused, match="' dragon' is no token"):
        find_words(target, [" cat", " dragon"], None)
    with pytest.raises(ToolRefused, match="2 to 32 different words, not 1"):
        find_words(target, [" cat"], None)
    with pytest.raises(ToolRefused, match="do not fit"):
        find_words(target, [" cat", " the"], 60)
    assert replace(words, bos=3).lead == 1


@pytest.mark.parametrize("labels", [("²", "3"), ("--1", "2"), ("٣", "4")])
def test_labels_that_only_look_like_numbers_are_words(labels: tuple[str, ...]) -> None:
    term = Term("token", "token", (frozenset({0}), frozenset({1})))
    assert term_in_words(term, {"token": labels}) == "token is that of here"
    larger = Term("token", "token", (frozenset({1}), frozenset()))
    assert f"{labels[1]}: {labels[0]}" in term_in_words(larger, {"token": labels})


def test_labels_that_are_numbers_are_compared_as_numbers() -> None:
    less = Term("token", "token", (frozenset({1}), frozenset()))
    assert term_in_words(less, {"token": ("-2", "10")}) == "token is less than that of here"
