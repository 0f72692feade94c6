"""One suite over every target: the seam against a second reading of the weights and against plain transformers."""

import runpy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.look.activations import activations_of
from neuronaut.tools.targets import branches
from neuronaut.tools.targets.base import Edit, Site, SiteName, TargetModel
from neuronaut.tools.targets.load import POCKET, Backend, check_unit, load_target
from neuronaut.tools.targets.sites import neuron_sites, unit_at
from neuronaut.tools.tokens import PAD
from neuronaut.tools.units import Unit

_made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
make_model, FAMILIES = _made["make_model"], tuple(_made["CONFIGS"])
PlainModel = runpy.run_path(str(Path(__file__).with_name("plain_transformers.py")))["PlainModel"]
PUBLIC = ("stories260K", "tinystories-char-gpt", "gpt-nano-sort")
EDITABLE: tuple[SiteName, ...] = ("resid_pre", "attn_out", "mlp_out", "resid_post", "neurons", "heads", "router")
SITES: tuple[SiteName, ...] = (*EDITABLE, "pattern")
Hand = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """One model three times: through the seam, from its weights alone, and in plain transformers."""

    name: str
    folder: Path
    target: TargetModel
    plain: Any
    theirs: Any

    def ids(self, batch: int = 3, seed: int = 0) -> Tensor:
        """(batch, pos) random tokens, more than the sliding windows of the tiny models see."""
        made = torch.Generator().manual_seed(seed)
        return torch.randint(0, self.target.spec.d_vocab, (batch, min(11, self.target.spec.n_ctx)), generator=made)

    def site(self, name: SiteName, layer: int | None = None) -> Site:
        """In the middle layer; of neurons those of one expert where there are experts."""
        layer, n_experts = self.target.spec.n_layers // 2 if layer is None else layer, self.target.spec.n_experts
        if name == "router" and not n_experts:
            pytest.skip("the layers have no experts")
        return Site(name, layer, expert=1 if name == "neurons" and n_experts else None)

    def sites(self, names: Sequence[SiteName], layers: Sequence[int]) -> list[Site]:
        """Every site of some names: the neurons of all experts, the router where there is one."""
        found = [Site(name, layer) for layer in layers for name in names if name not in ("neurons", "router")]
        for layer in layers:
            found += neuron_sites(self.target.spec, layer) if "neurons" in names else []
            found += [Site("router", layer)] if "router" in names and self.target.spec.n_experts else []
        return found

    def seen(self, site: Site) -> Tensor:
        """What the last run of the second reading had there."""
        found: Tensor = self.plain.seen[key(site)]
        return found

    def neuron(self, index: int) -> Unit:
        """A neuron of the middle layer."""
        return unit_at(self.site("neurons"), index)

    def by_hand(self, ids: Tensor, site: Site, hand: Hand) -> Tensor:
        """Logits of the second reading with one activation replaced by what `hand` makes of it."""
        found: Tensor = self.plain.run(
            ids, lambda name, layer, value: hand(value.clone()) if (name, layer) == key(site) else value
        )
        return found


def key(site: Site, name: str = "") -> tuple[str, int]:
    """Under which name the second reading keeps what is at a site, or what goes before it."""
    return ("" if site.expert is None else f"e{site.expert}.") + (name or site.name), site.layer


@pytest.fixture(scope="session")
def open_case(tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Callable[[str, Path | None], Case]:
    @cache
    def opened(name: str, folder: Path | None) -> Case:
        folder = folder or make_model(name, tmp_path_factory.mktemp("models") / name)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        plain = PlainModel(folder, theirs.config.to_dict())
        return Case(name, folder, load_target("pocket" if name == "pocket" else folder, backend=backend), plain, theirs)

    return opened


@pytest.fixture(scope="session", params=["pocket", *FAMILIES, *PUBLIC])
def case(request: pytest.FixtureRequest, open_case: Callable[[str, Path | None], Case]) -> Case:
    name = str(request.param)
    if name in PUBLIC:
        return open_case(name, request.getfixturevalue("real_data") / "models" / name)
    return open_case(name, POCKET if name == "pocket" else None)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def _near(found: Tensor | None, expected: Tensor, tolerance: float = 1e-4) -> None:
    assert found is not None
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < tolerance


def _logits(case: Case, ids: Tensor, **options: Any) -> Tensor:
    found = case.target.run(ids, logits=True, **options).logits
    assert found is not None
    return found


def test_logits_are_those_of_plain_transformers(case: Case) -> None:
    ids = case.ids()
    expected = case.theirs(ids).logits
    assert float(expected.std()) > 0.01, "a model whose logits are all alike would pass anything"
    _near(_logits(case, ids), expected)
    _near(case.plain.run(ids), expected)


def test_every_site_reads_what_a_computation_by_hand_gives(case: Case) -> None:
    ids = case.ids()
    spec = case.target.spec
    sites = case.sites(SITES, range(spec.n_layers))
    read = case.target.run(ids, read=sites).read
    case.plain.run(ids)
    assert set(read) == set(sites)
    for site in sites:
        _near(read[site], case.seen(site))
    batch, pos = ids.shape
    shapes = {
        "neurons": (batch, pos, spec.d_mlp),
        "heads": (batch, pos, spec.n_heads, spec.d_head),
        "pattern": (batch, spec.n_heads, pos, pos),
        "router": (batch, pos, spec.n_experts),
    }
    for site in sites:
        assert tuple(read[site].shape) == shapes.get(site.name, (batch, pos, spec.d_model))


def test_neurons_are_what_enters_the_down_projection_of_plain_transformers(case: Case) -> None:
    if case.target.spec.n_experts:
        pytest.skip("experts have no module of their own that neurons enter")
    ids, layer, entered = case.ids(), case.site("neurons").layer, []
    named = {"gpt2": f"transformer.h.{layer}.mlp.c_proj", "gpt_neox": f"gpt_neox.layers.{layer}.mlp.dense_4h_to_h"}
    name = named.get(case.plain.family, f"model.layers.{layer}.mlp.down_proj")
    handle = case.theirs.get_submodule(name).register_forward_pre_hook(lambda _, args: entered.append(args[0]))
    case.theirs(ids)
    handle.remove()
    _near(case.target.run(ids, read=[Site("neurons", layer)]).read[Site("neurons", layer)], entered[0])


def test_residuals_are_the_hidden_states_of_plain_transformers(case: Case) -> None:
    ids, layer = case.ids(), case.site("resid_pre").layer
    sites = [Site("resid_pre", 0), Site("resid_pre", layer), Site("resid_post", layer - 1)]
    hidden = case.theirs(ids, output_hidden_states=True).hidden_states
    read = case.target.run(ids, read=sites).read
    for site, expected in zip(sites, (hidden[0], hidden[layer], hidden[layer]), strict=True):
        _near(read[site], expected)


@pytest.mark.parametrize("name", EDITABLE)
@pytest.mark.parametrize("how", ["set", "add", "scale"])
def test_an_edit_is_the_same_edit_made_by_hand(case: Case, name: SiteName, how: Any) -> None:
    ids, site = case.ids(), case.site(name)
    plain = case.plain.run(ids)
    size = case.seen(site).abs().flatten(3 if name == "heads" else 2)
    index = int(size.sum(dim=(0, 1, *range(3, size.dim()))).argmax())  # a ReLU neuron that is 0 cannot be scaled
    positions = torch.rand(ids.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    positions[0, -1] = True

    def hand(value: Tensor) -> Tensor:
        part = value[:, :, index]
        new = {"set": torch.full_like(part, 1.5), "add": part + 1.5, "scale": part * 1.5}[how]
        value[:, :, index] = torch.where(positions if part.dim() == 2 else positions[..., None], new, part)
        return value

    expected = case.by_hand(ids, site, hand)
    edit = Edit(site, how, 1.5, index=index, positions=positions)
    assert float((expected - plain).abs().max()) > 1e-3, "the edit must do something"
    _near(_logits(case, ids, edits=[edit]), expected)


@pytest.mark.parametrize("name", EDITABLE)
def test_a_whole_site_can_be_replaced_by_that_of_other_text(case: Case, name: SiteName) -> None:
    ids, other, site = case.ids(), case.ids(seed=5), case.site(name)
    carried = case.target.run(other, read=[site]).read[site]
    case.plain.run(other)
    theirs = case.seen(site)
    _near(_logits(case, ids, edits=[Edit(site, "set", carried)]), case.by_hand(ids, site, lambda _: theirs))


def test_edits_at_a_site_apply_in_order_and_before_it_is_read(case: Case) -> None:
    ids, site = case.ids(), case.site("neurons")
    edits = [Edit(site, "set", 2.0, index=0), Edit(site, "scale", 3.0), Edit(site, "add", 1.0, index=0)]
    read = case.target.run(ids, read=[site], edits=edits).read[site]
    case.plain.run(ids)
    expected = case.seen(site) * 3.0
    expected[:, :, 0] = 7.0
    _near(read, expected)


def test_what_was_edited_is_plain_again_in_the_next_run(case: Case) -> None:
    ids, site = case.ids(), case.site("mlp_out")
    before = _logits(case, ids)
    _logits(case, ids, edits=[Edit(site, "scale", 0.0)])
    with pytest.raises(ToolRefused, match="does not fit"):
        _logits(case, ids, edits=[Edit(site, "set", torch.zeros(7, 5, 3))])
    case.target.run(ids, read=[Site("pattern", 0)], stop=1)
    assert torch.equal(_logits(case, ids), before)


def test_a_read_activation_keeps_its_value_when_a_later_site_is_edited(case: Case) -> None:
    ids, site = case.ids(), case.site("resid_post")
    later = Site("resid_pre", site.layer + 1) if site.layer + 1 < case.target.spec.n_layers else site
    read = case.target.run(ids, read=[site], edits=[Edit(later, "add", 1.0, index=0)] if later != site else []).read
    case.plain.run(ids)
    _near(read[site], case.plain.seen["resid_post", site.layer])


def test_a_run_resumed_at_a_layer_ends_as_the_whole_run(case: Case) -> None:
    ids, n_layers = case.ids(), case.target.spec.n_layers
    residuals = case.target.run(ids, read=[Site("resid_pre", layer) for layer in range(n_layers)]).read
    whole = _logits(case, ids)
    for layer in range(n_layers):
        _near(_logits(case, ids, start=(layer, residuals[Site("resid_pre", layer)])), whole, 1e-5)


def test_a_run_resumed_at_a_layer_can_be_read_and_edited(case: Case) -> None:
    ids, layer = case.ids(), case.target.spec.n_layers - 1
    start = case.target.run(ids, read=[Site("resid_pre", layer)]).read[Site("resid_pre", layer)]
    site, edit = Site("resid_post", layer), Edit(Site("heads", layer), "scale", -1.0, index=0)
    found = case.target.run(ids, start=(layer, start), read=[site], edits=[edit], logits=True)

    def hand(value: Tensor) -> Tensor:
        value[:, :, 0] *= -1.0
        return value

    _near(found.logits, case.by_hand(ids, edit.site, hand))
    _near(found.read[site], case.plain.seen["resid_post", layer])


def test_a_run_stopped_at_a_layer_reads_the_same(case: Case) -> None:
    ids = case.ids()
    sites = case.sites(EDITABLE, range(2))
    whole, part = case.target.run(ids, read=sites), case.target.run(ids, read=sites, stop=2)
    assert part.logits is None
    for site in sites:
        assert torch.equal(part.read[site], whole.read[site])


def test_part_of_the_layers_counts_its_share_of_a_forward(case: Case) -> None:
    ids, n_layers = case.ids(batch=4), case.target.spec.n_layers
    before = case.target.forwards
    start = case.target.run(ids, read=[Site("resid_pre", 1)], stop=2).read[Site("resid_pre", 1)]
    assert case.target.forwards - before == pytest.approx(4 * 2 / n_layers)
    case.target.run(ids, start=(1, start), logits=True)
    assert case.target.forwards - before == pytest.approx(4 * (n_layers + 1) / n_layers)


def test_padding_and_its_value_change_nothing_before_it(case: Case) -> None:
    ids, short = case.ids(batch=2), 4
    sites = case.sites(("neurons", "heads", "resid_post"), [case.target.spec.n_layers - 1])
    alone = case.target.run(ids[:1, :short], read=sites).read
    for value in (0, case.target.spec.d_vocab - 1):
        padded = ids.clone()
        padded[0, short:] = value
        together = case.target.run(padded, read=sites).read
        for site in sites:
            _near(together[site][:1, :short], alone[site], 1e-5)


def test_a_neuron_moves_the_residual_along_its_write_vector(case: Case) -> None:
    ids, site = case.ids(), case.site("neurons")
    unit = case.neuron(case.target.spec.d_mlp // 2)
    after = Site("resid_post", site.layer)
    write = case.target.write_vector(unit)
    assert write.shape == (case.target.spec.d_model,)
    assert torch.equal(case.target.write_vectors(site.layer, site.expert)[unit.index], write)
    moved = case.target.run(ids, read=[after], edits=[Edit(site, "add", 2.0, index=unit.index)]).read[after]
    plain = case.target.run(ids, read=[after]).read[after]
    if not case.plain.post_norm:
        _near(moved - plain, (2.0 * write).expand_as(plain))
        return
    case.plain.run(ids)
    raw = case.plain.seen["raw_mlp_out", site.layer]
    scale = (raw.square().mean(-1, keepdim=True) + case.plain.config["rms_norm_eps"]).rsqrt()
    neurons = case.target.run(ids, read=[site]).read[site]
    _near(neurons @ case.target.write_vectors(site.layer) * scale, case.plain.seen["mlp_out", site.layer])


def test_the_normed_residual_drives_a_neuron_along_its_read_vector(case: Case) -> None:
    ids, site, unit = case.ids(), case.site("neurons"), case.neuron(3)
    layer = site.layer
    read = case.target.read_vector(unit)
    assert read.shape == (case.target.spec.d_model,)
    reads = case.target.read_vectors(layer, site.expert)
    assert torch.equal(reads[unit.index], read)
    direction = torch.randn(case.target.spec.d_model, generator=torch.Generator().manual_seed(2))
    case.plain.run(ids)
    before = case.plain.seen[key(site, "gate")]
    case.plain.run(ids, lambda name, at, x: x + direction if (name, at) == ("normed", layer) else x)
    moved = case.plain.seen[key(site, "gate")] - before
    _near(moved[..., unit.index], (direction @ read).expand(ids.shape), 1e-3)
    _near(moved, (reads @ direction).expand_as(moved), 1e-3)


def test_the_unembedding_of_the_normed_last_residual_gives_the_logits(case: Case) -> None:
    ids, last = case.ids(), Site("resid_post", case.target.spec.n_layers - 1)
    run = case.target.run(ids, read=[last], logits=True)
    found = case.target.final_norm(run.read[last]) @ case.target.unembed
    cap = case.plain.config.get("final_logit_softcapping")
    _near(run.logits, torch.tanh(found / cap) * cap if cap else found)
    assert case.target.embed.shape == (case.target.spec.d_vocab, case.target.spec.d_model)
    same = torch.equal(case.target.embed, case.target.unembed.T)
    assert case.target.spec.tied_embeddings == same


def test_the_gain_of_the_final_norm_is_what_it_multiplies_with(case: Case) -> None:
    residual = torch.randn(5, case.target.spec.d_model, generator=torch.Generator().manual_seed(3)) * 4
    centred = residual - residual.mean(-1, keepdim=True) if case.target.spec.norm == "layernorm" else residual
    unit = centred / centred.square().mean(-1, keepdim=True).sqrt()
    bias = case.plain[case.plain.last_norm + ".bias"] if case.plain.layernorm else 0.0
    _near(case.target.final_norm(residual), unit * case.target.final_norm_gain() + bias, 1e-3)


def test_the_spec_says_what_the_configuration_says(case: Case) -> None:
    config, spec = case.plain.config, case.target.spec
    gpt2 = case.plain.family == "gpt2"
    assert spec.n_layers == config["n_layer" if gpt2 else "num_hidden_layers"]
    assert spec.d_model == config["n_embd" if gpt2 else "hidden_size"]
    assert spec.n_heads == config["n_head" if gpt2 else "num_attention_heads"]
    assert spec.n_kv_heads == config.get("num_key_value_heads", spec.n_heads)
    assert spec.gated is not case.plain.layernorm
    assert spec.parallel is (case.plain.family == "gpt_neox")
    assert spec.n_experts == config.get("num_local_experts", config.get("num_experts", 0))
    assert spec.norm == ("layernorm" if case.plain.layernorm else "rmsnorm")
    assert spec.n_ctx == config["n_positions" if gpt2 else "max_position_embeddings"]
    names = ("activation_function",) if gpt2 else ("hidden_activation", "hidden_act")
    assert spec.activation in [config.get(name) for name in names]


def test_the_minus_side_of_a_neuron_is_its_negated_activation(case: Case) -> None:
    tokens = case.target.tokenize(["the cat sat", "the dog ran to the town"])
    site = case.site("neurons", 1)
    unit = unit_at(site, 2)
    plus, minus = activations_of(case.target, unit, tokens), activations_of(case.target, unit.with_sign(-1), tokens)
    assert (plus == -minus).all()
    for row, length in enumerate(tokens.lengths):
        case.plain.run(torch.from_numpy(tokens.ids[row : row + 1, :length]).long())
        np.testing.assert_allclose(plus[row, :length], case.seen(site)[0, :, 2], atol=1e-4)
        assert (plus[row, length:] == 0).all()


def test_text_is_cut_into_windows_and_comes_back_whole(case: Case) -> None:
    words = "the cat sat on the mat and the dog ran to the old town"
    text = " ".join([words] * 60) if case.name != "gpt-nano-sort" else "ABCABACBBCAABC" * 3
    tokens = case.target.tokenize([text, text[:7]], [40, 41])
    spec, special = case.target.spec, tokens.vocabulary.special
    assert "".join(tokens.texts[:-1]) == text
    assert tokens.ids.shape[1] <= spec.n_ctx
    assert tokens.documents.tolist() == [40] * (len(tokens) - 1) + [41]
    assert ((tokens.ids[:, 0] == spec.bos) if spec.bos is not None else ~np.isin(tokens.ids, list(special))).all()
    for row, length in enumerate(tokens.lengths):
        assert (tokens.ids[row, length:] == PAD).all()
        for pos in np.flatnonzero(tokens.scored[row]):
            start, end = tokens.starts[row, pos], tokens.ends[row, pos]
            piece = tokens.vocabulary.pieces[tokens.ids[row, pos]]
            assert tokens.texts[row][start:end] == piece or (start == 0 and piece == " " + tokens.texts[row][:end])
    assert case.target.decode(tokens.ids[-1][tokens.ids[-1] != PAD].tolist()).strip() == text[:7].strip()


def test_what_cannot_be_run_is_refused_in_a_sentence(case: Case) -> None:
    ids, n_layers = case.ids(), case.target.spec.n_layers
    last = n_layers - 1
    width = case.target.spec.d_mlp
    residual = torch.zeros(*ids.shape, case.target.spec.d_model)
    refused: list[tuple[str, dict[str, Any]]] = [
        (f"has layers 0 to {last}", {"read": [case.site("neurons", n_layers)]}),
        ("outside the layers that are run", {"read": [case.site("neurons", 1)], "stop": 1}),
        ("outside the layers that are run", {"read": [case.site("neurons", 0)], "start": (1, residual)}),
        (r"0\.e99\.neurons does not exist", {"read": [Site("neurons", 0, expert=99)]}),
        ("leave out stop", {"stop": 1, "logits": True}),
        ("cannot be run", {"stop": n_layers + 1}),
        ("read but not edited", {"edits": [Edit(Site("pattern", 0), "set", 0.0)]}),
        (f"indices 0 to {width - 1}", {"edits": [Edit(case.site("neurons", 0), "set", 0.0, index=width)]}),
        ("does not fit", {"edits": [Edit(case.site("neurons", 0), "set", torch.zeros(width + 1))]}),
    ]
    for message, options in refused:
        with pytest.raises(ToolRefused, match=message):
            case.target.run(ids, **options)
    with pytest.raises(ToolRefused, match=f"1 to {case.target.spec.n_ctx} tokens"):
        case.target.run(torch.zeros((1, case.target.spec.n_ctx + 1), dtype=torch.int64))
    for name, message in (
        (unit_at(case.site("neurons", n_layers), 0).address, f"layers 0 to {last}"),
        (unit_at(case.site("neurons", 0), width).address, f"neurons 0 to {width - 1}"),
        ("0.e99.1", "expert 99 does not exist" if case.target.spec.n_experts else "have no experts"),
        ("0.r99", "has experts 0 to" if case.target.spec.n_experts else "have no experts"),
        ("L0H99", "heads 0"),
    ):
        with pytest.raises(UserError, match=message):
            check_unit(case.target.spec, Unit.parse(name))


def _branch_edits(case: Case, n_pos: int) -> list[Edit]:
    """Edits at every site, of one position, some and all, of a head or neuron and of the whole site, in mixed order."""
    made = torch.Generator().manual_seed(1)
    one, some = torch.zeros(1, n_pos, dtype=torch.bool), torch.zeros(1, n_pos, dtype=torch.bool)
    one[0, n_pos - 3], some[0, [2, 5]] = True, True
    spec, found = case.target.spec, []
    for name in EDITABLE if spec.n_experts else EDITABLE[:-1]:
        width = {"neurons": (spec.d_mlp,), "router": (spec.n_experts,), "heads": (spec.n_heads, spec.d_head)}.get(
            name, (spec.d_model,)
        )
        whole = torch.randn(1, n_pos, *width, generator=made)
        for layer in (spec.n_layers - 1, 0):
            site = case.site(name, layer)
            found += [
                Edit(site, "set", whole, positions=one),
                Edit(site, "set", whole),
                Edit(site, "add", whole[:, :1], positions=some),
                Edit(site, "scale", 0.5),
            ]
            if name in ("neurons", "heads"):
                found.append(Edit(site, "set", 2.0, index=1, positions=some))
                found.append(Edit(site, "set", whole[:, :, 1], index=1))
    return found


@pytest.mark.parametrize("keep", [1, 2])
def test_branches_are_as_many_runs(case: Case, keep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the second reading of the weights, one edit at a time."""
    ids = case.ids(batch=1, seed=3)
    n_pos = ids.shape[1]
    if n_pos < 6:
        pytest.skip("the model sees too few tokens")
    edits = _branch_edits(case, n_pos)
    monkeypatch.setattr(branches, "BRANCH_TOKENS", 4 * n_pos)
    found = case.target.branches(ids, edits, keep=keep)
    for edit, logits in zip(edits, found, strict=True):

        def hand(value: Tensor, edit: Edit = edit) -> Tensor:
            where = torch.ones(1, n_pos, dtype=torch.bool) if edit.positions is None else edit.positions
            part = value if edit.index is None else value[:, :, edit.index]
            number = torch.as_tensor(edit.value).expand_as(part)
            new = {"set": number, "add": part + number, "scale": part * number}[edit.how]
            part[where] = new[where]
            return value

        expected = case.by_hand(ids, edit.site, hand)[0, -keep:]
        torch.testing.assert_close(
            logits, expected, atol=2e-4, rtol=1e-4, msg=lambda said, edit=edit: f"{edit.site} {edit.how}: {said}"
        )


def test_branches_cost_what_they_run(open_case: Callable[[str, Path | None], Case]) -> None:
    target, ids = open_case("gpt2", None).target, torch.arange(8)[None]
    last = torch.zeros(1, 8, dtype=torch.bool)
    last[0, 6] = True
    before = target.forwards
    target.branches(ids, [Edit(Site("resid_pre", layer), "scale", 0.0, positions=last) for layer in (1, 2)])
    assert target.forwards - before == pytest.approx(1 + (2 / 3 + 1 / 3) * 2 / 8)


def test_branches_refuse_what_is_no_branch_of_one_prompt(open_case: Callable[[str, Path | None], Case]) -> None:
    target, ids = open_case("gpt2", None).target, torch.arange(6)[None]
    site = Site("resid_pre", 1)
    with pytest.raises(ToolRefused, match="one prompt, not 2"):
        target.branches(ids.expand(2, -1), [Edit(site, "scale", 0.0)])
    with pytest.raises(ToolRefused, match="do not mark some of the 6"):
        target.branches(ids, [Edit(site, "scale", 0.0, positions=torch.zeros(1, 6, dtype=torch.bool))])
    with pytest.raises(ToolRefused, match=r"does not fit 1\.resid_pre"):
        target.branches(ids, [Edit(site, "set", torch.zeros(7))])


def test_gradients_are_those_of_autograd_on_the_second_reading(case: Case) -> None:
    ids, made = case.ids(batch=2, seed=5), torch.Generator().manual_seed(2)
    weights = torch.randn(case.target.spec.d_vocab, generator=made)
    sites = [case.site(name) for name in (EDITABLE if case.target.spec.n_experts else EDITABLE[:-1])]
    found = case.target.gradients(ids, sites, lambda logits: logits[:, -1] @ weights)
    for site, (value, gradient) in found.items():
        leaves: list[Tensor] = []

        def leaf(x: Tensor, leaves: list[Tensor] = leaves) -> Tensor:
            leaves.append(x.detach().requires_grad_())
            return leaves[0]

        with torch.enable_grad():
            (case.by_hand(ids, site, leaf)[:, -1] @ weights).sum().backward()
        expected = leaves[0].grad
        assert expected is not None
        scale = float(expected.abs().max())
        torch.testing.assert_close(value, leaves[0].detach(), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(gradient / scale, expected / scale, atol=1e-4, rtol=1e-3, msg=str(site))


def test_gradients_of_a_score_at_a_site_are_those_of_autograd_on_the_second_reading(case: Case) -> None:
    ids, spec, entry = case.ids(batch=2, seed=5), case.target.spec, Site("resid_pre", 0)
    for name in EDITABLE if spec.n_experts else EDITABLE[:-1]:
        at, leaves, before = case.site(name), list[Tensor](), case.target.forwards
        width = case.target.run(ids, read=[at]).read[at][0, -1].numel()
        weights = torch.randn(width, generator=torch.Generator().manual_seed(2))
        ran = case.target.forwards - before

        def score(grid: Tensor, weights: Tensor = weights) -> Tensor:
            return (grid.flatten(2) @ weights).sum(dim=1)  # of all places: an expert is not chosen at each

        value, gradient = case.target.gradients(ids, [entry], score, at=at)[entry]
        assert case.target.forwards - before - ran == pytest.approx(3 * len(ids) * (at.layer + 1) / spec.n_layers)

        def leaf(x: Tensor, leaves: list[Tensor] = leaves) -> Tensor:
            leaves.append(x.detach().requires_grad_())
            return leaves[0]

        with torch.enable_grad():
            case.by_hand(ids, entry, leaf)
            score(case.seen(at)).sum().backward()
        expected = leaves[0].grad
        assert expected is not None
        scale = float(expected.abs().max())
        assert scale > 0, "a score without a gradient would pass anything"
        torch.testing.assert_close(value, leaves[0].detach(), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(gradient / scale, expected / scale, atol=1e-4, rtol=1e-3, msg=str(at))
    with pytest.raises(ToolRefused, match="score at"):
        case.target.gradients(ids, [entry], lambda grid: grid, at=case.site("pattern"))


def test_a_run_after_gradients_is_as_before(open_case: Callable[[str, Path | None], Case]) -> None:
    case = open_case("llama", None)
    ids = case.ids()
    before = case.target.run(ids, logits=True).logits
    case.target.gradients(ids, [case.site("neurons")], lambda logits: logits.sum(dim=(1, 2)))
    after = case.target.run(ids, logits=True).logits
    assert before is not None
    assert after is not None
    assert torch.equal(before, after)
    assert not after.requires_grad
    with pytest.raises(ToolRefused, match="attention pattern"):
        case.target.gradients(ids, [case.site("pattern")], lambda logits: logits)
