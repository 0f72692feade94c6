"""Read-outs that are constructed to read a neuron, what it reads, or neither; predictors, heads on disk, what training moved."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from neuronaut.agent.api.lab import Lab
from neuronaut.agent.config import RunConfig
from neuronaut.agent.questions import parse_question
from neuronaut.agent.questions.readouts import ReadoutAsked
from neuronaut.agent.readouts import readout_case
from neuronaut.agent.registered import changed_registered, hashes_used, opened, registered_config
from neuronaut.agent.session import Done
from neuronaut.memory.judge import ReadoutCase, case_from_json, decide
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import File
from neuronaut.memory.verify import verify
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.readouts.heads import Head, HeadConfig, check_head, read_head, save_head
from neuronaut.tools.registered import Registered
from neuronaut.tools.registry import ToolContext, ToolResult, find_tool
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.targets.others import OtherModel
from neuronaut.tools.units import Unit

made = runpy.run_path(str(Path(__file__).with_name("readout_models.py")))
UNIT, SEEDS = "0.7", 20
CORPUS = made["random_texts"]()
TRUTH = {
    "writer": ("SUPPORTED", "REFUTED", "REFUTED"),
    "inputs": ("REFUTED", "SUPPORTED", "REFUTED"),
    "stranger": ("REFUTED", "REFUTED", "SUPPORTED"),
}
Command = Callable[..., Any]


def run(context: ToolContext, name: str, **args: Any) -> ToolResult:
    tool = find_tool(name)
    return tool.run(context, tool.parse(json.dumps(args)))


def judged(context: ToolContext, head: str, relation: str) -> str:
    """The verdict on one relation."""
    found = run(context, "test_readout", unit=UNIT, head=head, relation=relation, block=0)
    return decide(readout_case(Done("", found.payload, {}, ()), 3)).status


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> ToolContext:
    return made["opened"](tmp_path_factory.mktemp("one") / "model", 0, CORPUS)


# The answer


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_constructed_read_out_is_seen_for_what_it_reads(seed: int, tmp_path: Path) -> None:
    context = made["opened"](tmp_path / "model", seed, CORPUS)
    for head, truth in TRUTH.items():
        for relation, expected in zip(("unit", "inputs", "neither"), truth, strict=True):
            status = judged(context, head, relation)
            if expected == "SUPPORTED":
                assert status == "SUPPORTED", (head, relation)
            else:
                assert status in (expected, "UNRESOLVED", "PARTIAL"), (head, relation)


def test_a_read_out_before_the_unit_cannot_read_it_and_reads_its_inputs(one: ToolContext) -> None:
    target = one.target
    heads = made["heads"](target, 0, site=("resid_pre", 0))
    context = ToolContext(target, one.corpus, registered=Registered(heads=heads))
    found = run(context, "test_readout", unit=UNIT, head="inputs", relation="unit", block=0)
    assert found.payload["by_unit"]["effect"] == 0.0
    assert judged(context, "inputs", "unit") == "REFUTED"
    assert judged(context, "inputs", "inputs") == "SUPPORTED"


# What is measured


def test_the_cosines_of_constructed_read_outs_are_one_and_others_are_chance(one: ToolContext) -> None:
    for head, near, far in (("writer", "write", "read"), ("inputs", "read", "write")):
        found = run(one, "read_out", unit=UNIT, head=head).payload["cosines"]
        assert found[near]["cosine"] == pytest.approx(1.0, abs=1e-5)
        assert found[near]["z"] == pytest.approx(made["D_MODEL"] ** 0.5, abs=1e-3)
        assert found[near]["percentile"] == 100.0
        assert found[near]["nearest"][0]["unit"] == UNIT
        assert abs(found[far]["z"]) < 4


def test_a_read_out_of_the_same_layer_follows_the_unit_by_weights_alone(one: ToolContext) -> None:
    """The slope is the product of the head and the write vector; nothing comes by other ways."""
    heads = made["heads"](one.target, 0, site=("resid_post", 0))
    context = ToolContext(one.target, one.corpus, registered=Registered(heads=heads))
    write = one.target.write_vector(Unit.parse(UNIT))
    for name, head in heads.items():
        expected = float(head.weight[0] @ write)
        for row in run(context, "read_out", unit=UNIT, head=name).payload["patching"]:
            assert row["slope"] == pytest.approx(expected, abs=2e-4), (name, row["how"], row["where"])
            assert row["direct"] == pytest.approx(expected, abs=2e-4)
            assert row["rest"] == pytest.approx(0.0, abs=2e-4)


def test_behind_another_layer_the_direct_path_is_the_same_and_the_rest_is_apart(one: ToolContext) -> None:
    write = one.target.write_vector(Unit.parse(UNIT))
    rows = run(one, "read_out", unit=UNIT, head="writer").payload["patching"]
    for row in rows:
        assert row["direct"] == pytest.approx(float(write @ write), abs=1e-3)
        assert row["slope"] == pytest.approx(row["direct"] + row["rest"], abs=1e-6)
        assert row["n"] == len(row["inputs"])
        assert row["slope"] == pytest.approx(np.mean(row["inputs"]), abs=1e-5)
    assert max(abs(row["rest"]) for row in rows) > 1e-3


def test_a_change_by_hand_moves_the_read_out_as_the_tool_says(one: ToolContext) -> None:
    """The unit raised by its standard deviation, one document at a time, the whole model run anew."""
    from neuronaut.tools.readouts.moved import by_unit
    from neuronaut.tools.readouts.places import places
    from neuronaut.tools.readouts.read_out import ReadoutArgs, _opened
    from neuronaut.tools.targets.base import Edit, Site

    reader = _opened(one, ReadoutArgs(unit=UNIT, head="writer")).reader
    chosen = places(one.target, reader.head.site, reader.unit, one.sample("explore", 4000))
    moved = by_unit(reader, chosen, 0)
    for row in (0, 5, len(chosen) - 1):
        ids, at = chosen.ids[row : row + 1, : int(chosen.at[row]) + 1], int(chosen.at[row])
        mask = torch.zeros(1, at + 1, dtype=torch.bool)
        mask[0, at] = True
        raised = Edit(Site("neurons", 0), "add", float(reader.spreads[7]), 7, mask)
        plain, changed = (
            one.target.run(ids, read=[reader.head.site], edits=edits).read[reader.head.site][0, at]
            for edits in ([], [raised])
        )
        expected = float((changed - plain) @ reader.head.weight[0]) / reader.spread
        assert moved.own[row] == pytest.approx(expected, abs=1e-4)


# Predictors that are trained here


@pytest.mark.parametrize("output", ["linear", "bins", "digits"])
def test_a_trained_read_out_tells_its_neuron_and_goes_with_it(one: ToolContext, output: str) -> None:
    found = run(one, "read_out", unit=UNIT, site="resid_post", layer=0, output=output)
    assert {m.metric: m.value for m in found.measurements}["told"] > 0.4
    assert found.payload["natural"]["r"] > 0.7
    n = 1 if output == "linear" else 10
    assert found.arrays["weight"].shape == (n, made["D_MODEL"])
    assert [figure.name for figure in found.figures] == ["weights", "pca", "doses"]


def test_the_linear_read_out_is_least_squares(one: ToolContext) -> None:
    from neuronaut.tools.readouts.places import beside
    from neuronaut.tools.targets.base import Site

    found = run(one, "read_out", unit=UNIT, site="resid_post", layer=0)
    seen = beside(one.target, Site("resid_post", 0), Unit.parse(UNIT), one.sample("explore", 16384))
    _, order = np.unique(seen.documents, return_inverse=True)
    kept = order % 4 != 0
    x = np.column_stack([seen.residual.numpy()[kept], np.ones(int(kept.sum()))])
    by_hand = np.linalg.lstsq(x, seen.activation.numpy()[kept], rcond=None)[0][:-1]
    cosine = by_hand @ found.arrays["weight"][0] / np.linalg.norm(by_hand) / np.linalg.norm(found.arrays["weight"][0])
    assert cosine > 0.99


def test_digits_are_refused_where_there_are_none(tmp_path: Path) -> None:
    models = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
    from neuronaut.tools.readouts.fit import digit_tokens
    from neuronaut.tools.tokens import Vocabulary

    assert digit_tokens(Vocabulary(("<s>", *(f" {d}" for d in range(10))), frozenset({0}))) == list(range(1, 11))
    with pytest.raises(ToolRefused, match="no token for each of the digits"):
        digit_tokens(Vocabulary(tuple(models["TEXT"].split()), frozenset()))


# Heads on disk


def saved(folder: Path, context: ToolContext, name: str = "writer") -> Path:
    return save_head(context.registered.heads[name], folder / name)


def test_a_head_is_read_as_it_was_saved(one: ToolContext, tmp_path: Path) -> None:
    folder = saved(tmp_path, one)
    found, was = read_head(folder, "mine"), one.registered.heads["writer"]
    assert torch.equal(found.weight, was.weight)
    assert (found.config, found.about) == (was.config, "head mine")
    assert found.sha256 != read_head(saved(tmp_path, one, "inputs"), "mine").sha256
    with pytest.raises(UserError, match="holds a head already"):
        saved(tmp_path, one)


def test_a_head_of_classes_reads_the_mean_of_their_values(one: ToolContext) -> None:
    sha256 = one.target.fingerprint().weights_sha256
    given = {"weights_sha256": sha256, "site": "resid_post", "layer": 0, "output": "bins", "centres": (0.0, 2.0)}
    weight = torch.zeros(2, made["D_MODEL"])
    weight[1, 3] = 1.0
    head = Head("h", "", HeadConfig.model_validate(given), weight, torch.zeros(2))
    residual = torch.zeros(1, made["D_MODEL"])
    residual[0, 3] = 1.5
    share = 1 / (1 + np.exp(-1.5))
    assert float(head.values(one.target, residual)[0]) == pytest.approx(2 * share)
    slope = 2 * share * (1 - share)
    assert float(head.direction(one.target, residual)[3]) == pytest.approx(slope, abs=1e-6)


def spoilt(folder: Path, context: ToolContext, **changes: Any) -> Path:
    """A head with other tensors or another configuration."""
    place = saved(folder, context)
    config = json.loads((place / "config.json").read_text())
    tensors = load_file(place / "head.safetensors")
    for name, value in changes.items():
        if name in ("weight", "bias"):
            tensors[name] = value
        else:
            config[name] = value
    (place / "config.json").write_text(json.dumps(config))
    save_file({name: value for name, value in tensors.items() if value is not None}, place / "head.safetensors")
    return place


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weight": None}, "no tensor `weight`"),
        ({"weight": torch.zeros(3, 64)}, "3 outputs and 1 biases"),
        ({"weight": torch.full((1, 64), torch.nan)}, "not finite"),
        ({"weight": torch.eye(1, 32)}, "reads 32 numbers, and the residual stream of model has 64"),
        ({"weights_sha256": "0" * 64}, "trained on a model with the weights 000000000000…"),
        ({"weights_sha256": "mine"}, "weights_sha256"),
        ({"layer": 2}, "reads layer 2, which does not exist"),
        ({"site": "mlp_out"}, "site"),
        ({"output": "bins", "centres": [1.0]}, "at least 2"),
        ({"weight": torch.ones(1, 64)}, "reads the same off every residual"),
        (
            {"output": "bins", "centres": [1.0, 1.0], "weight": torch.eye(2, 64), "bias": torch.zeros(2)},
            "reads the same off every residual",
        ),
    ],
)
def test_a_head_that_does_not_fit_is_refused_in_one_sentence(
    one: ToolContext, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    place = spoilt(tmp_path, one, **changes)
    with pytest.raises(UserError) as refusal:
        check_head(read_head(place, "mine"), one.target.spec, one.target.fingerprint())
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_head_may_not_be_called_like_a_part_of_a_model(one: ToolContext, tmp_path: Path) -> None:
    place = saved(tmp_path, one)
    for name in ("L8H3", "8.3", "a/b", "", "L1"):
        with pytest.raises(UserError, match="cannot name a head"):
            read_head(place, name)


# What training moved


def trained(folder: Path, before: ToolContext, along: torch.Tensor) -> ToolContext:
    """The model with a vector added to what its first MLP always writes; `base` is the one without."""
    base, path = (made["random_model"](folder / name, 0) for name in ("base", "tuned"))
    weights = load_file(path / "model.safetensors")
    weights["transformer.h.0.mlp.c_proj.bias"] += along
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    target = load_target(path)
    heads = made["heads"](target, 0, site=("resid_post", 0))
    return ToolContext(
        target, before.corpus, registered=Registered({"base": OtherModel("base", str(base))}, heads=heads)
    )


def test_training_along_a_frozen_head_is_seen_and_training_elsewhere_is_not(one: ToolContext, tmp_path: Path) -> None:
    head = made["heads"](one.target, 0)["stranger"].weight[0]
    along = trained(tmp_path / "along", one, 0.01 * head)
    found = run(along, "readout_shift", unit=UNIT, head="stranger", other="base")
    share = {m.metric: m for m in found.measurements}
    assert share["share_head"].value == pytest.approx(1.0, abs=1e-3)
    assert share["share_head"].null_percentile == 100.0
    assert share["share_write"].value < 0.2
    other = torch.randn(made["D_MODEL"], generator=torch.Generator().manual_seed(5))
    elsewhere = run(
        trained(tmp_path / "else", one, 0.01 * other), "readout_shift", unit=UNIT, head="stranger", other="base"
    )
    assert abs(elsewhere.payload["along"]["head"]["z"]) < 3
    assert elsewhere.payload["changed"]["write"]["turned"] == pytest.approx(0.0, abs=1e-6)


def test_models_that_cannot_be_compared_are_refused(one: ToolContext, tmp_path: Path) -> None:
    tiny = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))["make_model"]("gpt2", tmp_path / "gpt2")
    places = {"same": made["random_model"](tmp_path / "same", 0), "small": tiny}
    others = {name: OtherModel(name, str(place)) for name, place in places.items()}
    context = ToolContext(one.target, one.corpus, registered=Registered(others, heads=one.registered.heads))
    for other, says in (
        ("same", "nothing was trained between them"),
        ("small", "is another model than model"),
        ("gone", "no other model is called 'gone' \\(there are same, small\\)"),
    ):
        with pytest.raises(ToolRefused, match=says):
            run(context, "readout_shift", unit=UNIT, head="writer", other=other)


# The verdict


STRONG = {
    "effect": 0.5,
    "low": 0.4,
    "high": 0.6,
    "sign": 1.0,
    "z": 6.0,
    "percentile": 100.0,
    "random": 0.08,
    "others": 0.1,
}
WEAK = STRONG | {"effect": 0.05, "low": 0.04, "high": 0.06, "z": 0.7, "percentile": 50.0}
SHARE = {"share": 0.8, "share_low": 0.7, "share_high": 0.9, "natural_slope": 1.0}


def case(relation: str, by_unit: Any = None, by_inputs: Any = None, **changes: Any) -> ReadoutCase:
    given = {
        "n_claims": 3,
        "relation": relation,
        "by_unit": by_unit,
        "by_inputs": by_inputs,
        "line": 0.9,
        "bets": (1.0,) * 30,
    }
    return ReadoutCase.model_validate(given | changes)


@pytest.mark.parametrize(
    ("found", "status", "says"),
    [
        (case("unit", STRONG | SHARE), "SUPPORTED", "all conditions hold"),
        (case("inputs", None, STRONG), "SUPPORTED", "all conditions hold"),
        (case("neither", WEAK | SHARE, WEAK), "SUPPORTED", "all conditions hold"),
        (case("neither", STRONG | SHARE, WEAK), "REFUTED", "the unit moves it"),
        (case("neither", WEAK | SHARE, STRONG), "REFUTED", "what the unit reads moves it"),
        (case("unit", WEAK | SHARE), "REFUTED", "random directions"),
        (case("unit", STRONG | SHARE | {"effect": 0.001, "high": 0.005}), "REFUTED", "nothing measurable"),
        (case("unit", STRONG | SHARE, bets=(-1.0,) * 30), "REFUTED", "other units of the layer"),
        (case("unit", STRONG | SHARE | {"share": 0.05, "share_low": 0.04}), "PARTIAL", "5% of how it goes with the unit"),
        (case("unit", STRONG | SHARE, line=0.1), "PARTIAL", "on no line"),
        (case("unit", STRONG | SHARE | {"percentile": 80.0}), "PARTIAL", "percentile 80"),
        (case("inputs", None, STRONG | {"low": 0.05}), "PARTIAL", "true but small"),
        (case("inputs", None, STRONG | {"z": 2.5}), "PARTIAL", "hardly more"),
        (case("unit", STRONG | SHARE, bets=(1.0,) * 3), "UNRESOLVED", "too few documents"),
        (case("unit", STRONG | SHARE, n_claims=10**9), "UNRESOLVED", "is below"),
    ],
)  # fmt: skip
def test_the_rule_says_what_is_missing(found: ReadoutCase, status: str, says: str) -> None:
    decision = decide(found)
    assert decision.status == status
    assert says in decision.reason
    assert (decision.e > 0) == (status == "SUPPORTED")
    assert decide(case_from_json(found.model_dump(mode="json"))) == decision


# The question


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("does the read-out of 8.481 at resid_post 9 use it", ReadoutAsked(layer=9)),
        (
            "Does a probe for neuron 8.481 at resid_pre of layer 3 really read it?",
            ReadoutAsked(site="resid_pre", layer=3),
        ),
        ("does the predictor of 8.481 use it", ReadoutAsked()),
        ("does the readout of 8.481 at resid_post 9 by class bins use it", ReadoutAsked(layer=9, output="bins")),
        ("does the read-out of 8.481 by digits at resid_post 9 use it", ReadoutAsked(layer=9, output="digits")),
        ("does head mine use neuron 8.481", ReadoutAsked(head="mine")),
        ("does the head of-mine read 8.481?", ReadoutAsked(head="of-mine")),
        ("does head mine use 8.481 since base", ReadoutAsked(head="mine", since="base")),
    ],
)
def test_a_question_names_a_read_out_and_a_unit(text: str, asked: ReadoutAsked) -> None:
    question = parse_question(text, n_heads=4, d_mlp=512)
    assert (question.intent, question.unit, question.readout) == ("readout", Unit("neuron", 8, 481), asked)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("does this probe read what neuron 8.481 writes", "names no read-out: register it"),
        ("does the read-out of 8.481 at layer nine use it", "names no site"),
        ("does the read-out of 8.481 at resid_post 9 use 8.480", "another unit than the read-out is of"),
        ("does the read-out of nothing use it", "names no unit"),
    ],
)
def test_what_names_no_read_out_is_refused(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        parse_question(text)


def test_a_prompt_about_probes_is_no_question_about_a_read_out() -> None:
    text = "why does the model say ' dust' after 'The probe of 8.481 reads'"
    assert parse_question(text).intent == "why"


# The command


def corpus_file(folder: Path) -> Path:
    file = folder / "letters.jsonl"
    file.write_text("".join(json.dumps({"text": document.text}) + "\n" for document in CORPUS.documents))
    return file


def test_the_question_is_answered_recorded_and_repeated(one: ToolContext, tmp_path: Path, neuronaut: Command) -> None:
    model = made["random_model"](tmp_path / "model", 0)
    head, book = saved(tmp_path, one), tmp_path / "n.db"
    asked = ("ask", f"does head mine use neuron {UNIT}", "--model", model, "--corpus", corpus_file(tmp_path))
    named = ("--head", f"mine={head}", "--notebook", book)
    answer = json.loads(neuronaut(*asked, *named, "--json").out)
    assert {claim["claim"]: claim["status"] for claim in answer["claims"]}["is read by head mine"] == "SUPPORTED"
    assert answer["measured"][0]["title"].startswith(f"head mine and {UNIT}, on explore text")
    assert {figure["name"] for figure in answer["figures"]} == {"weights", "pca", "doses"}
    shown = neuronaut(*asked, *named)
    assert "answered before" in shown.err
    assert "is read by head mine" in shown.out
    with Notebook(File(book), read_only=True) as notebook:
        assert verify(notebook) == []
    assert "different" not in neuronaut("rerun", answer["run"], "--notebook", book).out
    spoilt_one = load_file(head / "head.safetensors")
    save_file({name: value + 1 for name, value in spoilt_one.items()}, head / "head.safetensors")
    assert "answered before" not in neuronaut(*asked, *named, "--budget-forwards", "1").err
    said = neuronaut("rerun", answer["run"], "--notebook", book)
    assert said.code == 2
    assert "head mine changed since" in said.err


@pytest.mark.parametrize(
    ("question", "options", "says"),
    [
        (f"does head mine use neuron {UNIT}", (), "no head is called 'mine' (none are registered): register it, --head mine=FOLDER"),
        (f"does head mine use neuron {UNIT}", ("--head", "FOLDER"), "has no name: write --head NAME=FOLDER"),
        (f"does head mine use neuron {UNIT}", ("--head", "mine=gone"), "cannot be read"),
        (f"does head mine use neuron {UNIT}", ("--head", "mine=a", "--head", "mine=b"), "--head names two things 'mine'"),
        ("does the read-out of L1H1 at resid_post 1 use it", (), "is no neuron"),
        (f"does the read-out of {UNIT} at resid_post 7 use it", (), "layer 7 does not exist"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_code_2(
    tiny: tuple[str, ...], neuronaut: Command, question: str, options: tuple[str, ...], says: str
) -> None:
    said = neuronaut("ask", question, *tiny, *options)
    assert (said.code, said.out) == (2, "")
    assert "Traceback" not in said.err
    assert says in said.err.splitlines()[-1]


def test_a_head_of_another_model_is_refused_before_anything_is_recorded(
    one: ToolContext, tmp_path: Path, tiny: tuple[str, ...], neuronaut: Command
) -> None:
    head, book = saved(tmp_path, one), tmp_path / "n.db"
    asked = ("ask", f"does head mine use neuron {UNIT} since base", *tiny, "--notebook", book)
    said = neuronaut(*asked, "--head", f"mine={head}")
    assert said.code == 2
    assert "was trained on another model" in said.err
    model = ("--model", made["random_model"](tmp_path / "model", 0), "--corpus", corpus_file(tmp_path))
    said = neuronaut(*asked[:2], *model, "--notebook", book, "--head", f"mine={head}")
    assert said.code == 2
    assert "no other model is called 'base'" in said.err
    assert not book.exists()


def test_the_result_of_a_tool_depends_on_the_heads_and_models_that_it_names(one: ToolContext, tmp_path: Path) -> None:
    folder, other = saved(tmp_path, one), made["random_model"](tmp_path / "other", 1)
    config = RunConfig(question="", backend="mlx", dtype="bfloat16").model_copy(
        update=registered_config([f"base={other}"], None, [f"mine={folder}"])
    )
    known = opened(config)
    used = hashes_used({"head": "mine", "other": None}, known)
    assert used == {"head mine": read_head(folder, "mine").sha256}
    assert hashes_used({"head": None, "other": "base"}, known) == {"other model base": config.others["base"].sha256}
    assert hashes_used({"unit": UNIT}, known) == {}
    assert (known.others["base"].backend, known.others["base"].dtype) == ("mlx", "bfloat16")
    assert changed_registered(config) == []
    save_head(one.registered.heads["inputs"], tmp_path / "new")
    (folder / "head.safetensors").write_bytes((tmp_path / "new" / "head.safetensors").read_bytes())
    assert changed_registered(config) == ["head mine"]


def test_a_lab_knows_the_heads_that_it_is_given(one: ToolContext, tmp_path: Path) -> None:
    folder, model = saved(tmp_path, one), made["random_model"](tmp_path / "model", 0)
    with Lab(model, corpus=corpus_file(tmp_path), notebook=tmp_path / "n.db", heads=[f"mine={folder}"]) as lab:
        found = lab.read_out(UNIT, head="mine")
    assert found.payload["readout"] == "head mine"
    assert found.payload["cosines"]["write"]["cosine"] == pytest.approx(1.0, abs=1e-5)
