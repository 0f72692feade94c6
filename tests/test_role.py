"""Which text needs a unit: losses against a second reading of the weights, matching against loops, a neuron whose role is known."""

import json
import random
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import torch

from neuronaut.agent import heads
from neuronaut.agent.config import Budget, RunConfig
from neuronaut.agent.session import Session
from neuronaut.evals.fixtures import BOS, gpt2_config, write_folder
from neuronaut.memory import queries, schema
from neuronaut.memory.causes import RoleCase, decide_role
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.science import verdict_problems
from neuronaut.tools.corpus import corpus_from_texts
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.attends import Role, canonical_json, role_from_json
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.registry import ToolContext, find_tool
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.tokens import Vocabulary, tokens_from_ids
from neuronaut.tools.trials.role import LossRise, contrast, loss_rise, matched
from neuronaut.tools.trials.without import Elsewhere
from neuronaut.tools.units import Unit

PlainModel = runpy.run_path(str(Path(__file__).with_name("plain_transformers.py")))["PlainModel"]
made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))

LETTERS = "abcdefghijkl"
WIDTH, USEFUL, IDLE = 16, 2, 5  # of the residual; neurons


def _useful_neuron(folder: Path) -> Path:
    """A model that says nothing but that "y" follows "x": one neuron reads "x" and writes "y", nothing else is there."""
    pieces = (BOS, *LETTERS, "x", "y")
    config = gpt2_config(n_layers=1, n_heads=2, d_model=WIDTH, d_mlp=8, n_ctx=33, d_vocab=len(pieces))
    zeros, at = torch.zeros, "transformer.h.0."
    embed = torch.eye(len(pieces), WIDTH)
    read, bias, write = zeros(WIDTH, 8), zeros(8), zeros(8, WIDTH)
    read[pieces.index("x"), USEFUL], bias[USEFUL], write[USEFUL, WIDTH - 1] = 1.0, -1.0, 2.0
    read[pieces.index("b"), IDLE], bias[IDLE] = 1.0, -1.0  # fires, and writes nothing
    head = zeros(len(pieces), WIDTH)
    head[pieces.index("y"), WIDTH - 1] = 1.5
    norms = {f"{at}{n}.weight": torch.ones(WIDTH) for n in ("ln_1", "ln_2")} | {
        f"{at}{n}.bias": zeros(WIDTH) for n in ("ln_1", "ln_2")
    }
    tensors = {
        "transformer.wte.weight": embed, "transformer.wpe.weight": zeros(33, WIDTH), "lm_head.weight": head,
        "transformer.ln_f.weight": torch.ones(WIDTH), "transformer.ln_f.bias": zeros(WIDTH),
        f"{at}attn.c_attn.weight": zeros(WIDTH, 3 * WIDTH), f"{at}attn.c_attn.bias": zeros(3 * WIDTH),
        f"{at}attn.c_proj.weight": zeros(WIDTH, WIDTH), f"{at}attn.c_proj.bias": zeros(WIDTH),
        f"{at}mlp.c_fc.weight": read, f"{at}mlp.c_fc.bias": bias, f"{at}mlp.c_proj.weight": write, f"{at}mlp.c_proj.bias": zeros(WIDTH),
    }  # fmt: skip
    return write_folder(folder, config, norms | tensors, pieces)


def _texts(n: int) -> list[str]:
    """Random letters; "y" comes behind each "x", and sometimes elsewhere."""
    rng, found = random.Random(0), []
    for _ in range(n):
        row: list[str] = []
        while len(row) < 30:
            row += ["x", "y"] if rng.random() < 0.06 else ["y"] if rng.random() < 0.05 else [rng.choice(LETTERS)]
        found.append(" ".join(row[:30]))
    return found


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> ToolContext:
    folder = _useful_neuron(tmp_path_factory.mktemp("role") / "useful")
    return ToolContext(load_target(folder), corpus_from_texts("x and y", _texts(700)))


AFTER_X = nodes.At(offset=1, inner=nodes.Token(any_of=("x",)))


def test_the_role_of_a_neuron_is_found_registered_and_supported(known: ToolContext, tmp_path: Path) -> None:
    said: dict[int, Any] = {}
    with Notebook(tmp_path / "notebook.db") as notebook:
        for index in (USEFUL, IDLE):
            unit = Unit("neuron", 0, index)
            config = RunConfig(question=f"what does neuron {unit.address} do", seed=0, budget=Budget())
            corpus = (known.corpus.name, known.corpus.sha256, known.corpus.n_characters)
            run = notebook.start_run(config.model_dump(mode="json"), known.target.fingerprint(), corpus)
            heads.role(Session(run, config, notebook, known, [], lambda *_: None), unit)
            judged = [row for row in queries.hypotheses(notebook, run) if row["verdicts"]]
            held = [row for row in judged if row["verdicts"][-1]["outcome"] == "SUPPORTED"]
            said[index] = ([role_from_json(row["predicate"]) for row in held], queries.outcomes(notebook, run))
    (claim,), _ = said[USEFUL]
    tokens = known.tokens("audit")
    assert (holds(claim.text, tokens) == holds(AFTER_X, tokens)).all()
    claims, outcomes = said[IDLE]
    assert claims == []
    assert [row["status"] for row in outcomes] == ["ABSTAINED"]


def test_a_true_role_costs_what_the_text_says_and_a_false_one_nothing(known: ToolContext) -> None:
    tool, found = find_tool("test_role"), {}
    texts = {"after x": AFTER_X, "y": nodes.Token(any_of=("y",)), "b": nodes.Token(any_of=("b",))}
    for name, text in texts.items():
        args = {"unit": f"0.{USEFUL}", "claim": canonical_json(Role(text=text)), "block": 0}
        result = tool.run(known, tool.parse(args))
        found[name] = {m.metric: m for m in result.measurements} | {"payload": result.payload}
    delta = found["after x"]["delta"]
    assert delta.value > 1
    assert delta.null_percentile == 100.0
    assert abs(delta.null_value) < 1e-5
    assert abs(found["after x"]["elsewhere"].value) < delta.value / 4
    assert set(found["after x"]["payload"]["bets"]) == {1.0}
    assert found["b"]["delta"].value < 0.1
    assert 0 < found["y"]["delta"].value < delta.value


@pytest.mark.parametrize("address", ["1.7", "L1H2"])
def test_the_loss_of_each_token_is_that_of_a_second_reading_of_the_weights(address: str, tmp_path: Path) -> None:
    folder = made["make_model"]("gpt2", tmp_path / "model")
    target, plain = load_target(folder), PlainModel(folder, made["CONFIGS"]["gpt2"]().to_dict())
    words, unit = made["TEXT"].split(), Unit.parse(address)
    tokens = target.tokenize([" ".join(np.random.default_rng(i).permutation(words)[: 6 + i]) for i in range(4)])
    context = ToolContext(target, corpus_from_texts("none", _texts(200)))
    text = loss_rise(context, [unit], tokens, seed=3)
    donors = Elsewhere(target, tokens, [unit], 3)._donors
    site = "neurons" if unit.kind == "neuron" else "heads"
    rows = [torch.tensor([tokens.ids[w, : tokens.lengths[w]].tolist()]) for w in range(len(tokens))]
    natural = []
    for ids in rows:
        plain.run(ids)
        natural.append(plain.seen[site, 1][0, :, unit.index].clone())
    for window, ids in enumerate(rows):
        value = torch.stack([natural[w][at] for w, at in donors[window, : ids.shape[1]].tolist()])

        def change(name: str, layer: int, old: torch.Tensor, value: torch.Tensor = value) -> torch.Tensor:
            if (name, layer) != (site, 1):
                return old
            new = old.clone()
            new[0, :, unit.index] = value
            return new

        before, after = (torch.log_softmax(plain.run(ids, how), -1)[0] for how in (None, change))
        wanted = (before - after)[torch.arange(ids.shape[1] - 1), ids[0, 1:]].numpy()
        assert np.allclose(text.rises[0, window, 1 : ids.shape[1]], wanted, atol=2e-4)
    assert np.abs(text.rises).max() > 0.01
    assert not text.rises[0, :, 0].any()


VOCABULARY = Vocabulary(("<s>", "a", "b", "c", "d"), frozenset({0}))


def _rise(rows: list[list[int]], rises: list[list[float]]) -> LossRise:
    tokens = tokens_from_ids(rows, VOCABULARY)
    predicted = tokens.scored.copy()
    predicted[:, 0] = False
    return LossRise(tokens, np.array([rises], dtype=np.float32), predicted)


def test_a_place_is_matched_with_others_of_its_token_or_of_its_frequency() -> None:
    # a and b stand three times each, c twice; every a is claimed, of the b the first
    text = _rise([[0, 1, 2, 3, 2], [0, 1, 2, 1, 3]], [[0, 5, 7, 1, 2], [0, 5, 4, 5, 3]])
    held = np.zeros((2, 5), dtype=bool)
    held[text.tokens.ids == 1] = True
    held[0, 2] = True
    found = matched(text.rises[0], held, text)
    assert found[2] == pytest.approx((2 + 4) / 2)  # the same token elsewhere
    assert found[1] == pytest.approx((2 + 4) / 2)  # b is as frequent as a
    assert found[3] == pytest.approx((1 + 3) / 2)
    assert found[4] == pytest.approx((2 + 4 + 1 + 3) / 4)  # nothing is as rare
    own = contrast(text.rises[0], held, text)
    assert own.delta.tolist() == pytest.approx([((5 - 3) + (7 - 3)) / 2, 5 - 3])
    assert own.elsewhere.tolist() == pytest.approx([(1 + 2) / 2, (4 + 3) / 2])


def test_a_loss_that_is_the_same_everywhere_is_no_role() -> None:
    rng = np.random.default_rng(0)
    rows = [[0, *rng.integers(1, 5, size=9).tolist()] for _ in range(30)]
    text = _rise(rows, [[0.0] + [1.0] * 9] * 30)
    own = contrast(text.rises[0], rng.random((30, 10)) < 0.3, text)
    assert np.allclose(own.delta, 0, atol=1e-6)
    assert np.allclose(own.elsewhere, 1)


CASE = {
    "complexity": 2, "n_claims": 1, "delta": 0.4, "delta_low": 0.3, "elsewhere": 0.01, "elsewhere_low": 0.0,
    "elsewhere_high": 0.02, "percentile": 100.0, "bets": (1.0,) * 25,
}  # fmt: skip


@pytest.mark.parametrize(
    ("other", "status", "told"),
    [
        ({}, "SUPPORTED", "all conditions hold"),
        ({"bets": (-1.0,) * 20}, "REFUTED", "no more than matched text"),
        ({"bets": (1.0, -1.0)}, "UNRESOLVED", "too few documents"),
        ({"bets": (1.0,) * 10}, "UNRESOLVED", "is below 1000"),
        ({"delta": 0.01, "delta_low": 0.005, "elsewhere_high": 0.002}, "PARTIAL", "only 0.010 nats"),
        ({"delta_low": -0.1}, "PARTIAL", "lower bound -0.100"),
        ({"elsewhere_high": 0.11}, "PARTIAL", "other text is not left alone"),
        ({"elsewhere_low": -0.11}, "PARTIAL", "other text is not left alone"),
        ({"percentile": 90.0}, "PARTIAL", "other units matter"),
    ],
)
def test_each_condition_of_the_rule_counts(other: dict[str, Any], status: str, told: str) -> None:
    decision = decide_role(RoleCase(**(CASE | other)))
    assert decision.status == status
    assert told in decision.reason
    assert (decision.e > 0) == (status == "SUPPORTED")


def test_a_case_that_differs_from_what_was_measured_is_found_out(known: ToolContext, tmp_path: Path) -> None:
    path = tmp_path / "notebook.db"
    unit = Unit("neuron", 0, USEFUL)
    with Notebook(path) as notebook:
        config = RunConfig(question=f"what does neuron {unit.address} do", seed=0, budget=Budget())
        corpus = (known.corpus.name, known.corpus.sha256, known.corpus.n_characters)
        run = notebook.start_run(config.model_dump(mode="json"), known.target.fingerprint(), corpus)
        heads.role(Session(run, config, notebook, known, [], lambda *_: None), unit)
        rows = {"experiment_end": {}, "evidence": {}, "verdict_evidence": {}, "verdict": {}, "hypothesis_status": {}}
        for table in rows:
            found = notebook.rows(sa.select(getattr(schema, table)))
            rows[table] = {str(number): row for number, row in enumerate(found)} if table == "verdict_evidence" else {
                str(row.get("id", number)): row for number, row in enumerate(found)
            }  # fmt: skip
        assert verdict_problems(notebook, rows) == []
        verdict = next(iter(rows["verdict"].values()))
        case = json.loads(verdict["case"])
        for name, other in (("delta_low", 9.0), ("elsewhere_high", 0.0), ("delta", 9.0)):
            verdict["case"] = json.dumps(case | {name: other})
            assert any(f"rests on {name}" in problem for problem in verdict_problems(notebook, rows))
