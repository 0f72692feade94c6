"""Mixtures of experts: what their neurons write adds up, the router is a unit, and a planted expert neuron is found."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from neuronaut.agent.questions import parse_question
from neuronaut.evals.overlay import FromPredicate
from neuronaut.tools import sweep
from neuronaut.tools.corpus import load_corpus
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.index import build_index
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.registry import ToolContext, find_tool
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.targets.load import Backend, has_mlx, load_target
from neuronaut.tools.targets.overlay import Overlay
from neuronaut.tools.targets.sites import neuron_sites, unit_at
from neuronaut.tools.units import Unit

made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
PlainModel = runpy.run_path(str(Path(__file__).with_name("plain_transformers.py")))["PlainModel"]
FAMILIES = ("mixtral", "qwen3_moe", "gpt_oss")
PLANTED = Unit("neuron", 0, 5, expert=3)
WORD = " dog"


@pytest.fixture(scope="module", params=FAMILIES)
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, backend: Backend
) -> tuple[TargetModel, Any]:
    folder = made["make_model"](request.param, tmp_path_factory.mktemp("models") / request.param)
    config = transformers.AutoConfig.from_pretrained(folder).to_dict()
    return load_target(folder, backend=backend), PlainModel(folder, config)


def _ids(target: TargetModel) -> Tensor:
    return torch.randint(0, target.spec.d_vocab, (3, 11), generator=torch.Generator().manual_seed(0))


def test_what_an_mlp_writes_is_the_sum_over_its_experts_neurons(model: tuple[TargetModel, Any]) -> None:
    target, plain = model
    ids = _ids(target)
    for layer in range(target.spec.n_layers):
        sites, router, out = neuron_sites(target.spec, layer), Site("router", layer), Site("mlp_out", layer)
        read = target.run(ids, read=[*sites, router, out]).read
        whole = sum(read[site] @ target.write_vectors(layer, site.expert) for site in sites)
        for expert in range(target.spec.n_experts):
            whole = whole + read[router][..., expert, None] * plain._expert(layer, expert)[3][2]
        torch.testing.assert_close(whole, read[out], atol=1e-5, rtol=1e-5)


def test_a_neuron_is_silent_where_its_expert_is_not_chosen(model: tuple[TargetModel, Any]) -> None:
    target, _ = model
    router = Site("router", 1)
    sites = neuron_sites(target.spec, 1)
    read = target.run(_ids(target), read=[*sites, router]).read
    n_chosen = (read[router] > 0).sum(dim=-1)
    assert n_chosen.unique().tolist() == [{"qwen3_moe": 3}.get(target.spec.name, 2)]
    for expert, site in enumerate(sites):
        off = read[router][..., expert] == 0
        assert bool(off.any())
        assert bool((read[site][off] == 0).all())
        assert bool((read[site][~off] != 0).any())


def test_only_sinks_take_attention_away(model: tuple[TargetModel, Any]) -> None:
    target, _ = model
    sums = target.run(_ids(target), read=[Site("pattern", 1)]).read[Site("pattern", 1)].sum(dim=-1)
    if target.spec.name == "gpt_oss":
        assert float(sums.max()) < 1
        assert float(sums.min()) > 0
    else:
        torch.testing.assert_close(sums, torch.ones_like(sums))


def test_an_expert_without_its_share_is_a_model_without_its_neurons(model: tuple[TargetModel, Any]) -> None:
    """Biases aside: the router set to 0 for an expert is all of its neurons and its bias taken out."""
    target, plain = model
    ids, site = _ids(target), Site("neurons", 1, expert=2)
    found = target.run(ids, edits=[Edit(Site("router", 1), "set", 0.0, index=2)], read=[site], logits=True)
    assert bool((found.read[site] == 0).all())
    bias = plain._expert(1, 2)[3][2]
    shares = target.run(ids, read=[Site("router", 1)]).read[Site("router", 1)][..., 2, None]
    without = [Edit(site, "set", 0.0), Edit(Site("mlp_out", 1), "add", -shares * bias)]
    expected = target.run(ids, edits=without, logits=True).logits
    assert expected is not None
    assert found.logits is not None
    torch.testing.assert_close(found.logits, expected, atol=1e-4, rtol=1e-4)
    plain_logits = target.run(ids, logits=True).logits
    assert float((expected - plain_logits).abs().max()) > 1e-2


def test_neurons_planted_in_experts_are_read_and_write(model: tuple[TargetModel, Any]) -> None:
    target, _ = model
    unit, vector = Unit.parse("1.e2.3"), torch.linspace(-1, 1, target.spec.d_model)
    plant = FromPredicate(parse_text("position(0, 30)"), seed=0)
    planted = Overlay(target, {unit: plant, Unit.parse("1.e0.3"): plant}, {unit: vector})
    ids, out = _ids(target), Site("mlp_out", 1)
    read = planted.run(ids, read=[Site("neurons", 1, expert=2), out]).read
    plain = target.run(ids, read=[*neuron_sites(target.spec, 1), out]).read
    values = read[Site("neurons", 1, expert=2)][..., 3]
    assert float(values.abs().max()) > 0.1
    other = planted.run(ids, read=[Site("neurons", 1, expert=0)]).read[Site("neurons", 1, expert=0)][..., 3]
    moved = values[..., None] * vector + other[..., None] * target.write_vectors(1, 0)[3]
    for expert in (0, 2):
        moved = moved - plain[Site("neurons", 1, expert=expert)][..., 3, None] * target.write_vectors(1, expert)[3]
    torch.testing.assert_close(read[out] - plain[out], moved, atol=1e-5, rtol=1e-4)


def test_experts_are_read_and_edited_in_bfloat16(tmp_path: Path) -> None:
    folder = made["make_model"]("gpt_oss", tmp_path / "gpt_oss")
    exact, rounded = load_target(folder), load_target(folder, dtype=torch.bfloat16)
    ids, edit = _ids(exact), Edit(Site("neurons", 2, expert=1), "set", 2.0, index=3)
    expected, found = (one.run(ids, edits=[edit], logits=True).logits for one in (exact, rounded))
    assert expected is not None
    assert found is not None
    close = (found.float() - expected).abs().amax(dim=-1) < 0.3  # rounding may send a token to another expert
    assert float(close.float().mean()) > 0.7


TOOLS: dict[str, dict[str, Any]] = {
    "ablate": {"answer": " cat"},
    "steer": {"token": " cat", "generate": 2},
    "swap_units": {"other": "1.e1.4", "n_tokens": 600},
    "weights_of": {},
    "promoted_tokens": {},
    "activations_on": {"texts": ["the cat sat on the mat"]},
}


@pytest.mark.parametrize("name", TOOLS)
def test_tools_take_a_neuron_of_an_expert(planted: tuple[str, ...], name: str) -> None:
    tool, args = find_tool(name), {"unit": "1.e1.3"} | TOOLS[name]
    if name in ("ablate", "steer"):
        args["prompts"] = [" ".join(made["TEXT"].split()[at : at + 5]) for at in range(8)]
    result = tool.run(_context(planted), tool.parse(json.dumps(args)))
    assert result.payload["unit"] == "1.e1.3"


def test_neurons_of_all_experts_are_named_by_what_they_add_to_an_answer(planted: tuple[str, ...]) -> None:
    context = _context(planted)
    lens, matter = find_tool("logit_lens"), find_tool("importance")
    said = lens.run(context, lens.parse(json.dumps({"text": "the cat sat", "k": 5}))).payload
    assert said["logit"] == pytest.approx(said["model_logit"], abs=1e-3)
    assert all(Unit.parse(row["neuron"]).expert is not None for row in said["neurons"])
    args = {"prompt": "the cat sat on", "parts": "neurons", "n_texts": 8}
    parts = matter.run(context, matter.parse(json.dumps(args))).payload
    assert parts["of"] == 3 * 4 * 40
    assert all(Unit.parse(row["part"]).expert is not None for row in parts["parts"])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("12.e7.345", "12.e7.345"),
        ("neuron 12.E7.345-", "12.e7.345-"),
        ("L12.E7.N345", "12.e7.345"),
        ("L12E7N345", "12.e7.345"),
        ("12.r7", "12.r7"),
        ("12.router.7", "12.r7"),
        ("router 12.7", "12.r7"),
    ],
)
def test_addresses_of_experts_are_parsed_and_printed(text: str, address: str) -> None:
    unit = Unit.parse(text)
    assert unit.address == address
    assert Unit.parse(unit.address) == unit


@pytest.mark.parametrize(
    ("question", "address"),
    [
        ("what does neuron 2.e1.7 do", "2.e1.7"),
        ("what does 2.e1.7- fire on", "2.e1.7"),
        ("what does neuron 7 of expert 1 of layer 2 do", "2.e1.7"),
        ("what does 2.r1 do", "2.r1"),
        ("test 2.e1.7: token(' dog')", "2.e1.7"),
    ],
)
def test_questions_name_neurons_of_experts_and_routers(question: str, address: str) -> None:
    unit = parse_question(question).unit
    assert unit is not None
    assert unit.with_sign(1).address == address


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("1.3", r"neurons of layer 1 of .* belong to experts 0 to 3; write 1\.e0\.3"),
        ("1.e4.3", "expert 4 does not exist: layer 1 of .* has experts 0 to 3"),
        ("1.e0.40", r"expert 0 of layer 1 of .* has neurons 0 to 39"),
        ("1.r4", "has experts 0 to 3"),
    ],
)
def test_what_is_no_unit_of_experts_is_refused(address: str, said: str, planted: tuple[str, ...]) -> None:
    tool = find_tool("top_examples")
    with pytest.raises(UserError, match=said):
        tool.run(_context(planted), tool.parse(json.dumps({"unit": address})))


def test_a_router_writes_nothing_of_its_own(planted: tuple[str, ...]) -> None:
    tool = find_tool("weights_of")
    with pytest.raises(ToolRefused, match="weighs what an expert writes"):
        tool.run(_context(planted), tool.parse('{"unit": "1.r2"}'))


# A neuron that fires on one word


@pytest.fixture(scope="module", params=["mixtral", "gpt_oss"])
def planted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The options of a command on a model in which PLANTED fires on WORD alone, by its weights.

    Attention of layer 0 writes nothing, so that its MLP reads the token alone. The expert is chosen at about half of all words.
    """
    folder = tmp_path_factory.mktemp(str(request.param))
    made["make_model"](request.param, folder / "model")
    corpus = made["make_corpus"](folder / "corpus.jsonl")
    target = load_target(folder / "model")
    words = sorted(
        {
            token
            for row in target.tokenize([made["TEXT"], "dog " + made["TEXT"]]).ids.tolist()
            for token in row
            if token >= 0
        }
    )
    pieces = target.vocabulary.pieces
    file = folder / "model" / "model.safetensors"
    weights = load_file(file)
    at = "model.layers.0."
    embedded = weights["model.embed_tokens.weight"][words]
    normed = (
        embedded
        * (embedded.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
        * weights[at + "post_attention_layernorm.weight"]
    )
    here = torch.tensor([float(pieces[word] == WORD) for word in words])
    chosen = torch.tensor([4.0 if number % 2 or here[number] else -9.0 for number in range(len(words))])
    reads, routes = (torch.linalg.pinv(normed) @ wanted for wanted in (here, chosen))
    assert float((normed @ reads - here).abs().max()) < 1e-3, "more words than dimensions"
    _plant(weights, at, str(request.param), reads, routes)
    save_file(weights, file, metadata={"format": "pt"})
    return ("--model", str(folder / "model"), "--corpus", str(corpus))


def _plant(weights: dict[str, Tensor], at: str, family: str, reads: Tensor, routes: Tensor) -> None:
    expert, neuron = PLANTED.expert, PLANTED.index
    assert expert is not None
    for name in ("weight", "bias"):
        if f"{at}self_attn.o_proj.{name}" in weights:
            weights[f"{at}self_attn.o_proj.{name}"].zero_()
    if family == "mixtral":
        weights[at + "block_sparse_moe.gate.weight"][expert] = routes
        for name in ("w1", "w3"):
            weights[f"{at}block_sparse_moe.experts.{expert}.{name}.weight"][neuron] = 4 * reads
        return
    weights[at + "mlp.router.weight"][expert], weights[at + "mlp.router.bias"][expert] = routes, 0.0
    both, bias = weights[at + "mlp.experts.gate_up_proj"][expert], weights[at + "mlp.experts.gate_up_proj_bias"][expert]
    both[:, 2 * neuron], bias[2 * neuron] = 5 * reads, 0.0
    both[:, 2 * neuron + 1], bias[2 * neuron + 1] = 0.0, 0.0


def _context(options: tuple[str, ...]) -> ToolContext:
    return ToolContext(load_target(Path(options[1])), load_corpus(Path(options[3])))


def test_the_plant_fires_on_its_word_alone(planted: tuple[str, ...]) -> None:
    target = load_target(Path(planted[1]))
    tokens = target.tokenize([made["TEXT"]])
    site = Site("neurons", 0, expert=PLANTED.expert)
    values = target.run(torch.from_numpy(tokens.ids).long(), read=[site]).read[site][0, :, PLANTED.index]
    here = torch.tensor([tokens.vocabulary.pieces[token] == WORD for token in tokens.ids[0].tolist()])
    assert int(here.sum()) == 1
    assert float(values[here].min()) > 1
    assert float(values[~here].abs().max()) < 0.01


def test_a_planted_expert_neuron_is_found(
    planted: tuple[str, ...], neuronaut: Callable[..., Any], backend: Backend
) -> None:
    said = neuronaut("ask", f"what does neuron {PLANTED.address} do", *planted, "--json", "--backend", backend)
    assert said.code == 0, said.err
    claims = json.loads(said.out)["claims"]
    supported = [one for one in claims if (one["status"], one["side"], one["sign"]) == ("SUPPORTED", "reads", 1)]
    assert len(supported) == 1, claims
    assert WORD in supported[0]["claim"]


@pytest.mark.skipif(not has_mlx(), reason='mlx and mlx-lm are not installed: pip install "mlx[cpu]" mlx-lm')
def test_both_engines_say_the_same_of_an_expert_neuron(planted: tuple[str, ...], neuronaut: Callable[..., Any]) -> None:
    asked = ("ask", f"what does neuron {PLANTED.address} do", *planted, "--json", "--fast")
    said = [neuronaut(*asked, "--backend", backend) for backend in ("torch", "mlx")]
    assert [one.code for one in said] == [0, 0], said[1].err
    theirs, ours = (json.loads(one.out)["claims"] for one in said)
    assert theirs
    same = ("claim", "status", "reason")
    assert [[one[key] for key in same] for one in ours] == [[one[key] for key in same] for one in theirs]
    for one, other in zip(ours, theirs, strict=True):
        assert one["scores"].keys() == other["scores"].keys()
        for name, score in one["scores"].items():
            assert score["value"] == pytest.approx(other["scores"][name]["value"], abs=1e-3), name


def test_a_router_s_share_is_asked_about(planted: tuple[str, ...], neuronaut: Callable[..., Any]) -> None:
    said = neuronaut("ask", "what does 0.r3 do", *planted, "--json", "--fast")
    assert said.code == 0, said.err
    answer = json.loads(said.out)
    assert {claim["side"] for claim in answer["claims"]} <= {"reads"}
    assert answer["claims"] or answer["outcomes"]


def test_neurons_of_experts_are_labelled_and_indexed(
    planted: tuple[str, ...], neuronaut: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "n.db"
    label = ("label", "0.e3.4-0.e3.6", *planted, "--fast", "--notebook", path)
    said = neuronaut(*label)
    assert said.code == 0, said.err
    assert "0.e3.5" in said.out + said.err
    built = neuronaut("index", "build", *planted, "--layers", "0")
    assert built.code == 0, built.err
    context = _context(planted)
    index = build_index(context.target, context.corpus, layers=[0])
    best = index.top_examples(PLANTED, 3)
    assert [one.piece for one in best] == [WORD] * 3
    table = index.table("neurons")
    assert len(table["address"]) == context.target.spec.n_experts * context.target.spec.d_mlp
    row = int((table["address"] == PLANTED.address).argmax())
    assert float(table["max"][row]) == pytest.approx(index.unit_stats(PLANTED).maximum)
    looked = neuronaut("tool", "top_examples", json.dumps({"unit": PLANTED.address, "k": 2}), *planted)
    assert looked.code == 0, looked.err
    assert "dog" in looked.out


def test_a_layer_that_does_not_fit_is_read_expert_by_expert(
    planted: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = _context(planted)
    monkeypatch.setattr(sweep, "READ_BYTES", 1)
    apart = build_index(context.target, context.corpus, cache=tmp_path, layers=[0, 1]).table("neurons")
    monkeypatch.undo()
    whole = build_index(context.target, context.corpus, cache=tmp_path / "whole", layers=[0, 1]).table("neurons")
    assert all((apart[name] == whole[name]).all() for name in whole)


def test_units_of_a_layer_of_experts_are_all_of_their_neurons(planted: tuple[str, ...]) -> None:
    spec = load_target(Path(planted[1])).spec
    addresses = [unit_at(site, n).address for site in neuron_sites(spec, 1) for n in range(spec.d_mlp)]
    assert len(set(addresses)) == spec.n_experts * spec.d_mlp
