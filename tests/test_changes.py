"""What changed between two checkpoints: an edited neuron is found, noise is not, and each number is that of a plain count."""

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from neuronaut.agent.changes import change_case
from neuronaut.agent.questions import parse_question
from neuronaut.agent.session import Done
from neuronaut.memory import queries
from neuronaut.memory.judge import ChangeCase, Decision, decide
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import default_place
from neuronaut.tools.changes.carried import alone, drift
from neuronaut.tools.changes.chance import in_noises, row_chances, tail_chances
from neuronaut.tools.changes.held import _by_document
from neuronaut.tools.changes.moved import moved, units_of
from neuronaut.tools.changes.rule import MIN_TIMES
from neuronaut.tools.changes.weights import compared, folder_of, noise_folder
from neuronaut.tools.corpus import Corpus, load_corpus
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.registered import Registered
from neuronaut.tools.registry import ToolContext, ToolResult, find_tool
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.targets.others import OtherModel
from neuronaut.tools.units import Unit

MADE = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
CHANGED = runpy.run_path(str(Path(__file__).with_name("changed_models.py")))
SEEDS = range(20)
NOISE = 0.02  # of every tensor's norm; the edited neuron is moved by as much as its length


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(MADE["make_model"]("gpt2", tmp_path_factory.mktemp("changed") / "base"))


@pytest.fixture(scope="module")
def target(base: Path) -> TargetModel:
    return load_target(str(base))


@pytest.fixture(scope="module")
def corpus(base: Path) -> Corpus:
    return load_corpus(str(MADE["make_corpus"](base.parent / "corpus.jsonl")))


@pytest.fixture(scope="module")
def found(base: Path, target: TargetModel, corpus: Corpus) -> Callable[..., tuple[str, ToolResult]]:
    """What `diff_models` finds in a copy, and the neuron that was edited in it."""

    def run(*, seed: int, **how: Any) -> tuple[str, ToolResult]:
        place = base.parent / f"copy-{seed}-{len(how)}-{how.get('noise', 0)}"
        unit = CHANGED["changed_copy"](base, place, seed=seed, **how)
        context = ToolContext(target, corpus, registered=Registered({"tuned": OtherModel("tuned", str(place))}))
        tool = find_tool("diff_models")
        args = tool.parse({"other": "tuned", "twins": 4, "n_tokens": 400, "k": 2, "seed": seed})
        return unit, tool.run(context, args)

    return run


def _texts(corpus: Corpus, n: int) -> list[str]:
    return [document.text for document in corpus.of("explore")[:n]]


@pytest.mark.parametrize("seed", SEEDS)
def test_an_edited_neuron_is_first_and_alone_beyond_noise_in_a_model_moved_by_noise(
    found: Callable[..., tuple[str, ToolResult]], seed: int
) -> None:
    unit, result = found(seed=seed, edited=True, noise=NOISE)
    first = result.payload["units"][0]
    assert first["unit"] == unit
    assert "vectors" in first["beyond"]
    assert result.payload["beyond"]["any"] == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_no_unit_of_a_model_moved_by_noise_alone_is_beyond_noise(
    found: Callable[..., tuple[str, ToolResult]], seed: int
) -> None:
    _, result = found(seed=seed, noise=0.05)
    assert result.payload["beyond"]["any"] == 0


WIDE = 500  # neurons of a layer; of 40, the edit of one is a large part of what changed, and noise is given the size of that


@pytest.fixture(scope="module")
def wide(base: Path) -> Path:
    return Path(CHANGED["widened"](base, base.parent / "wide", WIDE))


@pytest.fixture(scope="module")
def judged(base: Path, wide: Path, corpus: Corpus) -> Callable[..., tuple[Decision, dict[str, Any]]]:
    """The verdict that a neuron changed more than noise changes any: the edited one of a wide model, else the one of a small model
    that explore text puts first."""
    targets = {place: load_target(str(place)) for place in (base, wide)}

    def run(*, seed: int, **how: Any) -> tuple[Decision, dict[str, Any]]:
        before, d_mlp = (wide, WIDE) if how.get("edited") else (base, CHANGED["D_MLP"])
        target, place = targets[before], base.parent / f"held-{seed}-{len(how)}"
        unit = CHANGED["changed_copy"](before, place, seed=seed, d_mlp=d_mlp, **how)
        context = ToolContext(target, corpus, registered=Registered({"tuned": OtherModel("tuned", str(place))}))
        if not how.get("edited"):
            change = moved(target, context.registered.other("tuned").target, context.sample("explore", 400)).change
            unit = units_of(target)[int(change.argmax())].address
        tool = find_tool("test_change")
        args = {"other": "tuned", "unit": unit, "block": 0, "twins": 4, "n_tokens": 400, "seed": seed}
        payload = tool.run(context, tool.parse(args)).payload
        return decide(change_case(Done("", payload, {}, ()), 1)), payload

    return run


@pytest.mark.parametrize("seed", SEEDS)
def test_that_an_edited_neuron_changed_more_than_noise_changes_any_holds_on_fresh_text(
    judged: Callable[..., tuple[Decision, dict[str, Any]]], seed: int
) -> None:
    decision, payload = judged(seed=seed, edited=True, noise=NOISE)
    assert (decision.status, payload["place"]) == ("SUPPORTED", 1), (decision, payload)


@pytest.mark.parametrize("seed", SEEDS)
def test_that_a_unit_moved_by_noise_alone_changed_more_does_not_hold(
    judged: Callable[..., tuple[Decision, dict[str, Any]]], seed: int
) -> None:
    """Of some, all documents bet for it, since noise moves one unit far: what noise moves most is moved as far."""
    decision, payload = judged(seed=seed, noise=0.05)
    assert decision.status in ("REFUTED", "PARTIAL", "UNRESOLVED"), (decision, payload)
    assert decision.e == 0


CHANGE: dict[str, Any] = {
    "n_claims": 1, "times": 9.0, "times_low": 7.0, "percentile": 100.0, "twins": 20, "place": 1, "units": 100, "bets": (1.0,) * 30,
}  # fmt: skip


@pytest.mark.parametrize(
    ("but", "status", "said"),
    [
        ({}, "SUPPORTED", "all conditions hold"),
        ({"percentile": 95.0}, "PARTIAL", "noise moves other units as far"),
        ({"times_low": MIN_TIMES - 0.01}, "PARTIAL", "true but small"),
        ({"bets": (1.0,) * 3}, "UNRESOLVED", "too few documents"),
        ({"bets": (1.0,) * 10}, "UNRESOLVED", "is below 1000"),
        ({"bets": (-1.0,) * 30}, "REFUTED", "noise of the same size moves it as far"),
        ({"bets": ()}, "UNRESOLVED", "too few documents"),
    ],
)
def test_the_rule_of_a_change_says_what_is_missing(but: dict[str, Any], status: str, said: str) -> None:
    decision = decide(ChangeCase.model_validate(CHANGE | but))
    assert decision.status == status
    assert said in decision.reason
    assert (decision.e > 0) == (status == "SUPPORTED")


def test_the_changes_of_single_documents_are_those_of_the_whole_text(
    base: Path, target: TargetModel, corpus: Corpus, tmp_path: Path
) -> None:
    unit = Unit.parse(CHANGED["changed_copy"](base, tmp_path / "copy", seed=6, edited=True, noise=NOISE))
    other, tokens = load_target(str(tmp_path / "copy")), target.tokenize(_texts(corpus, 9))
    for one in (unit, Unit("head", 1, 2)):
        found = _by_document(target, other, one, tokens)
        whole = moved(target, other, tokens).change[units_of(target).index(one)]
        assert len(found) == 9
        assert np.average(found, weights=tokens.scored.sum(axis=1)) == pytest.approx(whole, rel=1e-4)


def test_nothing_but_the_edited_neuron_is_moved_where_nothing_else_changed(
    found: Callable[..., tuple[str, ToolResult]],
) -> None:
    unit, result = found(seed=0, edited=True)
    first, second = result.payload["units"]
    assert first["unit"] == unit
    assert first["write"] > 0.3
    assert second["write"] == second["vector"] == second["kl"] == 0
    assert [row["tensor"] for row in result.payload["tensors"] if row["change"]] == [
        f"h.{unit.split('.')[0]}.mlp.{name}.weight" for name in ("c_fc", "c_proj")
    ]
    changed = {row["after"]: row["share"] for row in result.payload["drift"]}
    before = ["embedding", *(f"layer {at}" for at in range(int(unit.split(".")[0])))]
    assert all(changed[name] == 0 for name in before)
    assert changed[f"layer {unit.split('.')[0]}"] > 0


def test_the_shares_are_those_of_the_activations_read_by_hand(
    base: Path, target: TargetModel, corpus: Corpus, tmp_path: Path
) -> None:
    unit = Unit.parse(CHANGED["changed_copy"](base, tmp_path / "copy", seed=3, edited=True))
    other, tokens = load_target(str(tmp_path / "copy")), target.tokenize(_texts(corpus, 20))
    result, at = moved(target, other, tokens), units_of(target).index(unit)
    ids, site = torch.from_numpy(np.maximum(tokens.ids, 0)).long(), Site("neurons", unit.layer)
    scored = torch.from_numpy(tokens.scored)
    was, now = (model.run(ids, read=[site]).read[site][scored][:, unit.index].double() for model in (target, other))
    written = was[:, None] * target.write_vector(unit).double()
    gone = now[:, None] * other.write_vector(unit).double() - written
    assert result.fired_change[at] == pytest.approx(float(((now - was) ** 2).mean()), rel=1e-4)
    assert result.written[at] == pytest.approx(float((written**2).sum(dim=1).mean()), rel=1e-4)
    assert result.change[at] == pytest.approx(float((gone**2).sum(dim=1).mean()), rel=1e-4)
    assert result.correlation[at] == pytest.approx(float(np.corrcoef(was, now)[0, 1]), abs=1e-4)


def test_the_change_of_the_only_edited_neuron_put_into_the_model_gives_the_other_model(
    base: Path, target: TargetModel, corpus: Corpus, tmp_path: Path
) -> None:
    unit = Unit.parse(CHANGED["changed_copy"](base, tmp_path / "copy", seed=4, edited=True))
    other, tokens = load_target(str(tmp_path / "copy")), target.tokenize(_texts(corpus, 12))
    effects, drifted = alone(target, other, [unit], tokens), drift(target, other, tokens)
    assert drifted.kl.mean() > 1e-6
    np.testing.assert_allclose(effects.kl[0], drifted.kl, rtol=0.02, atol=1e-7)
    np.testing.assert_allclose(effects.loss[0], drifted.loss, rtol=0.02, atol=1e-5)


def test_the_change_of_a_head_put_into_the_model_is_what_replacing_its_values_gives(
    base: Path, target: TargetModel, corpus: Corpus, tmp_path: Path
) -> None:
    shutil.copytree(base, tmp_path / "copy")
    weights = load_file(base / "model.safetensors")
    weights["transformer.h.1.attn.c_attn.weight"][:, 64 + 8 : 64 + 16] *= -1  # the values of L1H1
    weights["transformer.h.1.attn.c_attn.bias"][64 + 8 : 64 + 16] *= -1
    CHANGED["save"](weights, tmp_path / "copy")
    other, tokens = load_target(str(tmp_path / "copy")), target.tokenize(_texts(corpus, 8))
    found = alone(target, other, [Unit("head", 1, 1)], tokens).kl[0]
    ids = torch.from_numpy(np.maximum(tokens.ids, 0)).long()
    plain = target.run(ids, logits=True).logits
    turned = target.run(ids, edits=[Edit(Site("heads", 1), "scale", -1.0, index=1)], logits=True).logits
    assert plain is not None
    assert turned is not None
    one, two = plain.log_softmax(-1), turned.log_softmax(-1)
    kl = (one.exp() * (one - two)).sum(dim=-1) * torch.from_numpy(tokens.scored)
    np.testing.assert_allclose(found, kl.sum(dim=1).numpy() / tokens.scored.sum(axis=1), rtol=1e-3, atol=1e-7)


def test_a_noise_twin_changes_each_tensor_by_as_much_and_no_other(base: Path, tmp_path: Path) -> None:
    CHANGED["changed_copy"](base, tmp_path / "copy", seed=5, edited=True)
    found = compared(folder_of(load_target(str(base))), folder_of(load_target(str(tmp_path / "copy"))))
    twin, again = (noise_folder(found, 7, tmp_path / name) for name in ("twin", "again"))
    was, now = (load_file(one / "model.safetensors") for one in (base, twin.path))
    wanted = {one.name: one.change for one in found.tensors}
    for name, tensor in was.items():
        change = float((now[name] - tensor).norm())
        assert change == pytest.approx(wanted[name.removeprefix("transformer.")], rel=1e-4)
    assert now.keys() == was.keys()
    assert (twin.path / "model.safetensors").read_bytes() == (again.path / "model.safetensors").read_bytes()


def test_the_p_of_a_row_is_the_share_of_noise_with_so_large_a_row() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(20_000, 5, 6))
    shares = (noise**2).sum(axis=2)
    for times in (1.2, 1.5, 1.8):
        row = np.sqrt(np.array([times, *([(5 - times) / 4] * 4)]))
        simulated = float((shares[:, 0] / shares.sum(axis=1) > times / 5).mean())
        assert row_chances(row, 6)[0] == pytest.approx(simulated, abs=0.01)
    assert (row_chances(np.zeros(5), 6) == 1).all()


def test_the_tail_calls_noise_noise_and_a_large_change_none() -> None:
    rng, falsely = np.random.default_rng(1), 0
    for _ in range(200):
        squares = rng.chisquare(1, size=(21, 500))
        times, of_noise = in_noises(squares[0], squares[1:])
        falsely += bool((tail_chances(times, of_noise) * 500 < 0.001).any())
    assert falsely <= 3
    times, of_noise = in_noises(np.r_[60.0, squares[0, 1:]], squares[1:])
    assert tail_chances(times, of_noise)[0] * 500 < 0.001


def test_refusals_are_one_sentence_and_exit_code_2(
    neuronaut: Callable[..., Any], base: Path, corpus: Corpus, tmp_path: Path
) -> None:
    text = ("--model", str(base), "--corpus", str(base.parent / "corpus.jsonl"))
    shutil.copytree(base, tmp_path / "same")
    other = MADE["make_model"]("llama", tmp_path / "llama")
    renamed = CHANGED["retokenized"](base, tmp_path / "renamed")
    shutil.copytree(base, broken := tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    next(value for name, value in weights.items() if name.endswith("mlp.c_fc.weight"))[0, 0] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    cases = (
        (("--other", f"x={tmp_path / 'same'}"), "nothing changed"),
        (("--other", f"x={broken}"), "numbers that are not finite"),
        (("--other", f"x={other}"), "is no checkpoint of"),
        (("--other", f"x={renamed}"), "another tokenizer"),
        (("--other", f"x={tmp_path / 'nowhere'}"), "there is no model folder"),
        ((), "names no other checkpoint"),
        (("--other", str(other)), "has no name"),
    )
    for options, said in cases:
        ended = neuronaut("ask", "what changed", *text, *options)
        assert ended.code == 2, (options, ended)
        complaint = [line for line in ended.err.splitlines() if line.startswith("neuronaut: ")]
        assert len(complaint) == 1
        assert said in complaint[0], complaint
        assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("text", "unit", "other"),
    [
        ("what changed in tuned", None, "tuned"),
        ("What has changed?", None, ""),
        ("what changed in neuron 8.481 in tuned?", Unit("neuron", 8, 481), "tuned"),
        ("what is different about head 5.1", Unit("head", 5, 1), ""),
        ("what changed between this model and step-2000", None, "step-2000"),
    ],
)
def test_a_question_about_a_change_names_the_other_and_perhaps_a_unit(text: str, unit: Unit | None, other: str) -> None:
    question = parse_question(text)
    assert (question.intent, question.unit, question.others) == ("changed", unit, (other,) if other else ())


def test_the_same_is_asked_of_both_and_shown(
    neuronaut: Callable[..., Any], base: Path, corpus: Corpus, tmp_path: Path
) -> None:
    place = tmp_path / "copy"
    unit = CHANGED["changed_copy"](base, place, seed=1, edited=True)
    options = ("--model", str(base), "--corpus", str(base.parent / "corpus.jsonl"), "--other", f"tuned={place}")
    ended = neuronaut("ask", "what changed in tuned", "--fast", "--json", *options)
    assert ended.code == 0, ended.err
    answer = json.loads(ended.out)
    (other,) = answer["asked_of"]
    assert other["question"] == f"what does neuron {unit} do"
    assert other["target"]["weights_sha256"] != answer["target"]["weights_sha256"]
    assert {row["unit"].rstrip("-") for row in [*answer["claims"], *answer["outcomes"]]} == {unit}
    assert {row["unit"].rstrip("-") for row in [*other["claims"], *other["outcomes"]]} == {unit}
    shown = neuronaut("resume", answer["run"])
    assert f"asked of tuned: run {other['run']}" in shown.out
    (change,) = (row for row in answer["claims"] if row["predicate"].get("kind") == "change")
    assert change["status"] == "SUPPORTED"
    assert f"{unit} changed in tuned more than noise of the same size changes any unit" in " ".join(shown.out.split())
    with Notebook(default_place(), read_only=True) as notebook:
        registered = next(row for row in queries.hypotheses(notebook, answer["run"]) if row["id"] == change["id"])
        (prediction,) = registered["predictions"]
        tests = [row for row in queries.experiments(notebook, answer["run"]) if row["prediction"] == prediction["id"]]
    assert (prediction["split"], prediction["threshold"]) == ("confirm/0", MIN_TIMES)
    assert [row["tool"] for row in tests] == ["test_change"]
    assert prediction["id"] < tests[0]["id"]  # ids rise with time: it was registered before its text was opened
    again = neuronaut("ask", "what changed in tuned", "--fast", "--json", *options)
    assert json.loads(again.out)["run"] == answer["run"]
    assert neuronaut("verify").code == 0


def test_a_model_that_a_name_means_is_part_of_what_makes_a_result_the_same(
    neuronaut: Callable[..., Any], base: Path, corpus: Corpus, tmp_path: Path
) -> None:
    runs = []
    for seed in (1, 2):
        CHANGED["changed_copy"](base, tmp_path / str(seed), seed=seed, noise=0.05)
        options = ("--model", str(base), "--corpus", str(base.parent / "corpus.jsonl"))
        ended = neuronaut("ask", "what changed", "--json", *options, "--other", f"tuned={tmp_path / str(seed)}")
        assert ended.code == 0, ended.err
        runs.append(json.loads(ended.out))
    assert runs[0]["run"] != runs[1]["run"]
    assert runs[0]["measured"][0]["lines"] != runs[1]["measured"][0]["lines"]


def test_an_unknown_name_is_refused_with_those_that_there_are(target: TargetModel, corpus: Corpus) -> None:
    tool = find_tool("diff_models")
    with pytest.raises(ToolRefused, match="no other model is called 'tuned'"):
        tool.run(ToolContext(target, corpus), tool.parse({"other": "tuned"}))
    with pytest.raises(UserError):
        parse_question("what changed in 8.1 and 8.2 in tuned")
