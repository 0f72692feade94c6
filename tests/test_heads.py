"""What kind a head is: scores at 0 and 1 on heads put in by hand, and against loops over a second reading of the weights."""

import json
import runpy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neuronaut.evals.compiled import opened
from neuronaut.evals.fixtures import BOS, gpt2_config, write_folder
from neuronaut.evals.head_models.constructed import construct
from neuronaut.evals.head_models.trained import recipe, trained
from neuronaut.tools.corpus import pocket_corpus
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.look.attention import shuffled
from neuronaut.tools.look.head_attention import attention_of, repeated_random, strongest
from neuronaut.tools.look.head_weights import HeadWeights, copying_scores, own_rank
from neuronaut.tools.look.orders import Order, orders_of, successor_chance, successor_scores
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolContext, ToolResult, find_tool
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import POCKET, load_target
from neuronaut.tools.tokens import Tokens, Vocabulary

make_model = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))["make_model"]
PlainModel = runpy.run_path(str(Path(__file__).with_name("plain_transformers.py")))["PlainModel"]
FAMILIES = ("gpt2", "llama", "qwen3", "gemma2", "gemma3")
TEXTS = ("the cat sat on the cat and the dog", "the dog ran to the dog", "on the old town the cat sat on the old town")
MADE = {"previous": "previous", "induction": "induction", "duplicate": "duplicate", "successor": "current", "positional": "first"}  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """A model through the tools, and by its weights alone."""

    context: ToolContext
    plain: Any

    def run(self, name: str, **args: Any) -> ToolResult:
        tool = find_tool(name)
        return tool.run(self.context, tool.parse(json.dumps(args)))

    def pattern(self, ids: Sequence[int], layer: int, head: int) -> Tensor:
        """(query, key) by hand, one text at a time."""
        with torch.no_grad():
            self.plain.run(torch.tensor([list(ids)]))
        found: Tensor = self.plain.seen["pattern", layer][0, head]
        return found


@pytest.fixture(scope="module")
def open_bench(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    @cache
    def opened(name: str) -> Bench:
        import transformers

        folder = POCKET if name == "pocket" else make_model(name, tmp_path_factory.mktemp("models") / name)
        plain = PlainModel(folder, transformers.AutoConfig.from_pretrained(folder).to_dict())
        return Bench(ToolContext(load_target(folder), pocket_corpus()), plain)

    return opened


@pytest.fixture(params=FAMILIES)
def bench(request: pytest.FixtureRequest, open_bench: Callable[[str], Bench]) -> Bench:
    return open_bench(str(request.param))


@pytest.fixture
def pocket(open_bench: Callable[[str], Bench]) -> Bench:
    return open_bench("pocket")


def _rows(tokens: Tokens) -> list[list[int]]:
    return [row[:n].tolist() for row, n in zip(tokens.ids, tokens.lengths, strict=True)]


def _keys(name: str, ids: list[int], query: int, first: int) -> set[int]:
    """By hand; nothing at the first position of a window is a key."""
    match name:
        case "previous":
            found = {query - 1}
        case "current":
            found = {query}
        case "first":
            found = {first} if first else set()
        case "duplicate":
            found = {key for key in range(query) if ids[key] == ids[query]}
        case _:
            found = {key for key in range(1, query + 1) if ids[key - 1] == ids[query]}
    return {key for key in found if key >= max(1, first)}


@pytest.mark.parametrize("seed", [2, 3, 5])
def test_heads_put_in_by_hand_score_one_on_their_kind_and_nothing_on_the_others(seed: int) -> None:
    compiled, kinds = construct(seed)
    with opened(compiled) as target:
        tokens = repeated_random(target, range(1, target.spec.d_vocab - 1), 0)
        found = attention_of(target, tokens, 0)
    for (layer, head), kind in kinds.items():
        for name, values in found.values.items():
            if name == MADE[kind]:
                assert values[layer, head] > 0.99, (kind, name)
            elif name not in ("start", "entropy", "first", "duplicate"):
                assert values[layer, head] < 0.34, (kind, name)
        assert found.values["entropy"][layer, head] < 0.4
    assert all(found.values[MADE[kind]].max() > 0.99 for kind in kinds.values())


@pytest.mark.parametrize("kind", ["induction", "duplicate"])
def test_keys_of_the_shuffled_text_are_the_null_of_what_depends_on_tokens(kind: str) -> None:
    compiled, kinds = next(made for made in map(construct, range(20)) if kind in made[1].values())
    place = next(place for place, one in kinds.items() if one == kind)
    with opened(compiled) as target:
        found = attention_of(target, repeated_random(target, range(1, target.spec.d_vocab - 1), 0), 0)
    assert found.values[kind][place] > 0.99
    assert found.nulls[kind][place] < 0.5


def test_attention_scores_are_those_of_loops_by_hand(bench: Bench) -> None:
    target = bench.context.target
    tokens = target.tokenize(TEXTS)
    found, rows = attention_of(target, tokens, 0), _rows(tokens)
    first = int(target.spec.bos is not None)
    scored = [[at for at in range(len(ids)) if ids[at] not in tokens.vocabulary.special] for ids in rows]
    for layer, head in ((0, 1), (2, 3)):
        patterns = [bench.pattern(ids, layer, head).double() for ids in rows]
        for name in ("previous", "current", "first", "duplicate", "induction"):
            sums, even = [], []
            for ids, pattern, places in zip(rows, patterns, scored, strict=True):
                for query in (at for at in places if at >= 2):
                    if keys := _keys(name, ids, query, first) & set(places):
                        sums.append(sum(float(pattern[query, key]) for key in keys))
                        even.append(len(keys) / (query + 1))
            if name == "first" and not first:
                assert "first" not in found.values, "a model without a start token rests on the first token"
                continue
            assert found.queries[name] == len(sums) > 0
            assert found.values[name][layer, head] == pytest.approx(np.mean(sums), abs=1e-5)
            if name in ("previous", "current", "first"):
                assert found.nulls[name][layer, head] == pytest.approx(np.mean(even))
        queries = [(pattern, at) for pattern, places in zip(patterns, scored, strict=True) for at in places if at >= 2]
        entropy = [-sum(float(p * p.log()) for p in pattern[at, : at + 1] if p > 0) for pattern, at in queries]
        assert found.values["entropy"][layer, head] == pytest.approx(np.mean(entropy), abs=1e-4)
        assert found.nulls["entropy"][layer, head] == pytest.approx(np.mean([np.log(at + 1) for _, at in queries]))
        assert found.values["start"][layer, head] == pytest.approx(
            np.mean([float(p[at, 0]) for p, at in queries]), abs=1e-5
        )


def test_the_null_of_duplicate_and_induction_is_counted_on_the_patterns_of_the_plain_text(bench: Bench) -> None:
    target = bench.context.target
    tokens = target.tokenize(TEXTS)
    found, other = attention_of(target, tokens, 7), shuffled(tokens, np.random.default_rng(7))
    assert sorted(other.ids[0].tolist()) == sorted(tokens.ids[0].tolist())
    sums = []
    for ids, wrong in zip(_rows(tokens), _rows(other), strict=True):
        pattern = bench.pattern(ids, 1, 2)
        for query in range(2, len(ids)):
            if keys := _keys("duplicate", wrong, query, int(target.spec.bos is not None)):
                sums.append(sum(float(pattern[query, key]) for key in keys))
    assert found.nulls["duplicate"][1, 2] == pytest.approx(np.mean(sums), abs=1e-5)


def test_repeated_text_is_different_tokens_twice(bench: Bench) -> None:
    target = bench.context.target
    tokens = repeated_random(target, range(20, 300), 1)
    bos = int(target.spec.bos is not None)
    for row in tokens.ids[:, bos:]:
        half = len(row) // 2
        assert half == min(50, (target.spec.n_ctx - bos) // 2)
        assert (row[:half] == row[half:]).all()
        assert len(set(row.tolist())) == half
    assert not np.array_equal(tokens.ids, repeated_random(target, range(20, 300), 2).ids)
    with pytest.raises(ToolRefused, match="3 tokens twice"):
        repeated_random(target, [5, 6], 0)


LETTERS = tuple("abcdefgh")


@pytest.fixture(scope="module")
def copiers(tmp_path_factory: pytest.TempPathFactory) -> TargetModel:
    """A head a layer: one that says what it looks at, one that says anything but that, one that says the next letter."""
    width, n = 16, 1 + len(LETTERS)
    rng = np.random.default_rng(0)
    frame = np.linalg.qr(np.concatenate([np.ones((width, 1)), rng.normal(size=(width, n))], axis=1))[0][:, 1:].T
    after = [*range(2, n), 1]
    maps = [np.eye(width), -np.eye(width), sum(np.outer(frame[i + 1], frame[after[i]]) for i in range(n - 1))]
    config = gpt2_config(n_layers=3, n_heads=1, d_model=width, d_mlp=4, n_ctx=8, d_vocab=n)
    tensors: dict[str, Any] = {
        "transformer.wte.weight": frame,
        "transformer.wpe.weight": np.zeros((8, width)),
        "lm_head.weight": frame,
    }
    names = ["transformer.ln_f", *(f"transformer.h.{at}.ln_{i}" for at in range(3) for i in (1, 2))]
    tensors |= {
        f"{name}.{part}": np.full(width, float(part == "weight")) for name in names for part in ("weight", "bias")
    }
    for at, turn in enumerate(maps):
        silent = np.zeros((width, 2 * width))
        tensors |= {
            f"transformer.h.{at}.attn.c_attn.weight": np.concatenate([silent, np.eye(width)], axis=1),
            f"transformer.h.{at}.attn.c_attn.bias": np.zeros(3 * width),
            f"transformer.h.{at}.attn.c_proj.weight": turn,
            f"transformer.h.{at}.attn.c_proj.bias": np.zeros(width),
            f"transformer.h.{at}.mlp.c_fc.weight": np.zeros((width, 4)),
            f"transformer.h.{at}.mlp.c_fc.bias": np.zeros(4),
            f"transformer.h.{at}.mlp.c_proj.weight": np.zeros((4, width)),
            f"transformer.h.{at}.mlp.c_proj.bias": np.zeros(width),
        }
    torched = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in tensors.items()}
    return load_target(write_folder(tmp_path_factory.mktemp("copiers"), config, torched, (BOS, *LETTERS)))


@pytest.mark.parametrize("embedding", ["token", "mlp0"])
def test_copying_is_one_of_a_head_that_copies_and_zero_of_its_opposite(copiers: TargetModel, embedding: Any) -> None:
    ids = range(1, 9)
    scores = [
        [float(one) for one in copying_scores(HeadWeights(copiers, layer, embedding).ov(ids, ids))]
        for layer in range(3)
    ]
    assert [own for own, _ in scores[:2]] == [1.0, 0.0]
    assert scores[0][1] == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize("embedding", ["token", "mlp0"])
def test_successor_is_one_of_a_head_that_says_the_next_letter(copiers: TargetModel, embedding: Any) -> None:
    orders = orders_of(copiers.vocabulary)
    assert [(order.name, len(order.pairs())) for order in orders] == [("letters", 7)]
    copied, opposite, next_letter = successor_scores(copiers, orders, embedding)[:, 0]
    assert (copied, next_letter) == (0.0, 1.0)
    assert opposite < 0.5
    assert successor_chance(orders) == pytest.approx(1 / 8)


def test_a_trained_successor_head_is_found() -> None:
    target = load_target(trained(recipe("successor", 3)))
    orders = orders_of(target.vocabulary)
    assert [order.name for order in orders if order.name == "letters"]
    letters = [order for order in orders if order.name == "letters"]
    assert float(successor_scores(target, letters, "token")[0].max()) > 0.9


def test_ranks_count_what_is_below() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [1.0, 1.0, 1.0]])
    assert own_rank(scores, torch.tensor([0, 1, 2, 0])).tolist() == [1.0, 0.0, 0.5, 0.5]
    rng = torch.Generator().manual_seed(0)
    assert float(own_rank(torch.rand(400, 400, generator=rng), torch.arange(400)).mean()) == pytest.approx(
        0.5, abs=0.05
    )


def test_orders_are_what_the_vocabulary_holds() -> None:
    held = [BOS, " January", " February", " March", " May", " December", "3", "4", "5", "6", " a", " c", "the"]
    months, digits = sorted(orders_of(Vocabulary(tuple(held), frozenset([0]))), key=lambda order: order.name)[::-1]

    def then(order: Order) -> list[tuple[int, int]]:
        return [(order.ids[one], order.ids[other]) for one, other in order.pairs()]

    assert (digits.name, then(digits)) == ("digits", [(6, 7), (7, 8), (8, 9)])
    assert (months.name, then(months)) == ("months", [(1, 2), (2, 3), (5, 1)])


def _gain(plain: Any, name: str) -> Tensor:
    found: Tensor = plain[name + ".weight"] if plain.family == "gpt2" else plain.gain(name)
    return found


def _ov_by_hand(plain: Any, x: Tensor, layer: int, head: int, outputs: Sequence[int]) -> Tensor:
    """(n_outputs,) what a head says of a residual (d_model,), the scales of norms and all biases left out."""
    centre = (lambda v: v - v.mean()) if plain.family == "gpt2" else (lambda v: v)
    x = centre(x)
    x = x / x.square().mean().sqrt()
    if plain.family == "gpt2":
        at, n_heads = f"h.{layer}.", plain.config["n_head"]
        x = x * _gain(plain, at + "ln_1")
        values = plain[at + "attn.c_attn.weight"].chunk(3, dim=1)[2].unflatten(1, (n_heads, -1))[:, head]
        out = (x @ values) @ plain[at + "attn.c_proj.weight"].unflatten(0, (n_heads, -1))[head]
        last = _gain(plain, "ln_f")
    else:
        at, d_head = f"layers.{layer}.", plain.config["head_dim"]
        x = x * _gain(plain, at + "input_layernorm")
        group = head // (plain.config["num_attention_heads"] // plain.config["num_key_value_heads"])
        values = plain[at + "self_attn.v_proj.weight"].unflatten(0, (-1, d_head))[group].T
        out = (x @ values) @ plain[at + "self_attn.o_proj.weight"].T.unflatten(0, (-1, d_head))[head]
        if plain.family.startswith("gemma"):
            out = out * _gain(plain, at + "post_attention_layernorm")
        last = _gain(plain, "norm")
    return (centre(out) * last) @ plain.unembed.T[:, list(outputs)]


@pytest.mark.parametrize("embedding", ["token", "mlp0"])
def test_what_a_head_says_of_a_token_is_that_by_hand(bench: Bench, embedding: Any) -> None:
    target, sources, outputs = bench.context.target, [270, 300, 310], [5, 280, 333, 340]
    for layer in (0, 2):
        found = HeadWeights(target, layer, embedding).ov(sources, outputs)
        for row, source in enumerate(sources):
            if embedding == "token" or layer == 0:
                x = target.embed[source]
            else:
                ids = torch.tensor([[source] if target.spec.bos is None else [target.spec.bos, source]])
                with torch.no_grad():
                    bench.plain.run(ids, lambda name, at, v: v * 0 if (name, at) == ("attn_out", 0) else v)
                x = bench.plain.seen["resid_post", 0][0, -1]
            for head in (0, 3):
                expected = _ov_by_hand(bench.plain, x, layer, head, outputs)
                np.testing.assert_allclose(found[head, row], expected, rtol=2e-3, atol=2e-3)


def test_which_token_looks_at_which_is_that_by_hand(bench: Bench) -> None:
    plain, ids, layer, head = bench.plain, [270, 300, 310], 1, 3
    found = HeadWeights(bench.context.target, layer, "token").qk(head, ids, ids[:2])
    x = bench.context.target.embed[ids]
    x = x - x.mean(-1, keepdim=True) if plain.family == "gpt2" else x
    x = x / x.square().mean(-1, keepdim=True).sqrt()
    if plain.family == "gpt2":
        x = x * _gain(plain, f"h.{layer}.ln_1")
        q, k, _ = (w.unflatten(1, (4, -1))[:, head] for w in plain[f"h.{layer}.attn.c_attn.weight"].chunk(3, dim=1))
    else:
        x = x * _gain(plain, f"layers.{layer}.input_layernorm")
        weights = (plain[f"layers.{layer}.self_attn.{name}_proj.weight"].unflatten(0, (-1, 12)) for name in ("q", "k"))
        q, k = (w[at].T for w, at in zip(weights, (head, head // 2), strict=True))
    expected = (x @ q) @ (x[:2] @ k).T / q.shape[1] ** 0.5
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_head_tokens_lists_the_largest_pairs(pocket: Bench) -> None:
    target, chosen = pocket.context.target, [" cat", " dog", " is", " the", " Mary"]
    ids = sorted(target.vocabulary.pieces.index(piece) for piece in chosen)
    found = pocket.run("head_tokens", unit="L5H1", tokens=chosen, k=2)
    weights = HeadWeights(target, 5, "mlp0")
    ov, qk = weights.ov(ids, ids)[1], weights.qk(1, ids, ids)
    pieces = [target.vocabulary.pieces[i] for i in ids]
    best = max((float(ov[a, b]), pieces[a], pieces[b]) for a in range(5) for b in range(5))
    row = found.payload["output_value"][0]
    assert (row["logit"], row["source"], row["raises"]) == (pytest.approx(best[0], abs=1e-4), *best[1:])
    low = min((float(ov[a, b]), pieces[a], pieces[b]) for a in range(5) for b in range(5))
    row = found.payload["output_value_lowered"][0]
    assert (row["logit"], row["source"], row["lowers"]) == (pytest.approx(low[0], abs=1e-4), *low[1:])
    apart = qk - qk.mean(0)
    best = max((float(apart[a, b]), pieces[a], pieces[b]) for a in range(5) for b in range(5))
    row = found.payload["query_key"][0]
    assert (row["score"], row["query"], row["key"]) == (pytest.approx(best[0], abs=1e-4), *best[1:])
    for measurement, grid in zip(found.measurements, (ov, qk), strict=True):
        below = [float(grid[a, b] < grid[a, a]) for a in range(5) for b in range(5) if b != a]
        assert measurement.value == pytest.approx(np.mean(below))
        assert measurement.n == 5


def _measured(result: ToolResult, metric: str) -> Measurement:
    [found] = [one for one in result.measurements if one.metric == metric]
    return found


def test_head_scores_of_one_head_stand_among_all_others(pocket: Bench) -> None:
    found = pocket.run("head_scores", unit="L7H0", n_tokens=1024)
    rows = {row["head"]: row for row in found.payload["random"]}
    assert len(rows) == 40
    induction = _measured(found, "induction_random")
    assert induction.value == pytest.approx(rows["L7H0"]["induction"], abs=1e-4)
    others = [row["induction"] for head, row in rows.items() if head != "L7H0"]
    assert induction.null_percentile == pytest.approx(
        100 * np.mean([one < rows["L7H0"]["induction"] for one in others])
    )
    assert induction.null_percentile == 100, "the head that the embedded model carries repeated lists on"
    assert induction.ci is not None
    assert induction.ci[0] <= induction.value <= induction.ci[1]
    assert induction.null_value is not None
    assert induction.value > 3 * induction.null_value
    for name in ("previous", "copying"):
        np.testing.assert_allclose(
            found.arrays[f"random_{name}"].ravel(), [row[name] for row in rows.values()], atol=1e-4
        )
    assert {figure.name for figure in found.figures} >= {"head_scores_induction", "head_scores_copying"}
    assert found.payload["orders"]["months"] == 12


def test_without_a_head_the_one_with_most_is_told_and_no_percentile_is_claimed_of_it(pocket: Bench) -> None:
    found = pocket.run("head_scores", n_tokens=1024)
    best = _measured(found, "induction_random")
    assert best.value == pytest.approx(found.arrays["random_induction"].max())
    assert best.unit.endswith("L7H0")
    assert all(one.null_percentile is None for one in found.measurements)


def test_attention_on_is_the_pattern_by_hand(bench: Bench) -> None:
    found = bench.run("attention_on", unit="L1H2", texts=TEXTS, k=1000)
    tokens = bench.context.target.tokenize(TEXTS)
    expected = []
    for text, ids in enumerate(_rows(tokens)):
        pattern = bench.pattern(ids, 1, 2)
        np.testing.assert_allclose(found.arrays["pattern"][text, : len(ids), : len(ids)], pattern, atol=1e-5)
        assert found.payload["resting"][text] == pytest.approx(float(pattern[2:, 0].mean()), abs=1e-4)
        for query in range(1, len(ids)):
            expected += [(text + 1, query, key) for key in range(1, query + 1) if float(pattern[query, key]) >= 0.1]
    pairs = [(row["text"], int(row["query"].split()[0]), int(row["key"].split()[0])) for row in found.payload["pairs"]]
    assert sorted(pairs) == sorted(expected)
    weights = [row["weight"] for row in found.payload["pairs"]]
    assert weights == sorted(weights, reverse=True)
    assert [figure.name for figure in found.figures] == ["attention_1", "attention_2", "attention_3"]


def test_texts_too_long_for_a_figure_are_still_listed(pocket: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuronaut.tools.look.heads.MAX_DRAWN", 8)
    texts = ("Mary met Leo.", "Mary met Leo at the river, and then Mary met Leo again at the river.")
    found = pocket.run("attention_on", unit="L5H1", texts=texts, k=1000)
    assert [figure.name for figure in found.figures] == ["attention_1"]
    assert 2 in {row["text"] for row in found.payload["pairs"]}


def test_pairs_leave_out_special_tokens_and_the_first_position() -> None:
    vocabulary = Vocabulary((BOS, "a", "b"), frozenset([0]))
    ids = np.array([[0, 1, 2, 0, 1]], dtype=np.int32)
    tokens = Tokens(ids, ids * 0, ids * 0, np.array([0]), ("",), vocabulary)
    pattern = np.full((1, 5, 5), 0.5, dtype=np.float32)
    pattern[0, 2, 1], pattern[0, 4, 2] = 0.05, 0.9
    found = [(query, key) for _, query, key in strongest(np.tril(pattern), tokens)]
    assert found == [(4, 2), (1, 1), (2, 2), (4, 1), (4, 4)]


@pytest.mark.parametrize("band", ["top", "quantiles", "random"])
def test_examples_of_a_head_are_its_strongest_pairs(pocket: Bench, band: str) -> None:
    found = pocket.run("top_examples", unit="L7H0", k=4, band=band)
    rows = found.payload["examples"]
    assert len(rows) == 4
    assert len({row["document"] for row in rows}) == 4
    texts = pocket.context.tokens("explore")
    for row in rows:
        assert row["pieces"][row["centre"]] == row["query"]
        at = int(np.argmax(row["activations"]))
        assert row["pieces"][at] == row["key"]
        assert row["activations"][at] == pytest.approx(row["activation"], abs=1e-4)
        windows = np.flatnonzero(texts.documents == row["document"])
        found_by_hand = []
        for window in windows:
            ids = texts.ids[window, : texts.lengths[window]].tolist()
            pattern = pocket.pattern(ids, 7, 0)[2:, 1:]
            assert pattern.numel()
            found_by_hand.append(
                float(pattern.max())
                if band == "top"
                else float((pattern.max(-1).values - row["activation"]).abs().min())
            )
        if band == "top":
            assert max(found_by_hand) == pytest.approx(row["activation"], abs=1e-4)
        else:
            assert min(found_by_hand) == pytest.approx(0.0, abs=1e-4)
    if band == "top":
        values = [row["activation"] for row in rows]
        assert values == sorted(values, reverse=True)
        assert values[0] > 0.9


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("head_scores", {"unit": "8.481"}, "is a neuron"),
        ("head_scores", {"unit": "L99H0"}, "does not exist"),
        ("attention_on", {"unit": "8.481", "texts": ["a"]}, "is a neuron"),
        ("attention_on", {"unit": "L1H1", "texts": ["the " * 200]}, "longer than the context"),
        ("head_tokens", {"unit": "8.481"}, "is a neuron"),
        ("attention_on", {"unit": "task:months", "texts": ["a"]}, "is a task"),
        ("activations_on", {"unit": "task:months", "texts": ["a"]}, "is a task"),
        ("head_tokens", {"unit": "L1H1", "tokens": [" cat", " dog"]}, "at least 3"),
        ("head_tokens", {"unit": "L1H1", "tokens": [" cat", " dog", "no such token"]}, "is not one token"),
        ("top_examples", {"unit": "L1H1-"}, "no other side"),
    ],
)
def test_what_cannot_be_told_of_a_head_is_refused(pocket: Bench, name: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolRefused, match=message) as refusal:
        pocket.run(name, **args)
    assert "\n" not in str(refusal.value)
