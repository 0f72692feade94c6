"""Planted units: every way to read a neuron sees the planted rule, and the loop finds it."""

import json
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuronaut.evals.admissible import best_tokens, inadmissible
from neuronaut.evals.draws import Draws
from neuronaut.evals.loop import supported
from neuronaut.evals.outside import Twist
from neuronaut.evals.overlay import FromPredicate
from neuronaut.evals.planted import SUITE, judged, of_modes
from neuronaut.evals.suite import Asking, Batch, Case
from neuronaut.evals.truths import FAMILIES, Family, Truth, families, truth_f1
from neuronaut.tools.corpus import Corpus, pocket_corpus
from neuronaut.tools.errors import UserError
from neuronaut.tools.intervene.pairs import edited_activations
from neuronaut.tools.look.activations import activations_of, layer_activations
from neuronaut.tools.predicates.edits import EditedText
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Mode, Modes, Token
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import canonical_json
from neuronaut.tools.registry import ToolContext, find_tool
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.targets.overlay import Overlay
from neuronaut.tools.together import BatchContext
from neuronaut.tools.tokens import tokens_from_ids
from neuronaut.tools.trials.dealt import prefix_keys, recent_keys, uniform
from neuronaut.tools.units import Unit

RULES: dict[str, Unit] = {
    "token(' the')": Unit("neuron", 2, 5),
    "inside('(', ')')": Unit("neuron", 2, 9),
    "all_of(capitalised, not(at(1, token('.'))))": Unit("neuron", 6, 5),
    "position(3, 5)": Unit("neuron", 6, 400),
}


@pytest.fixture(scope="module")
def pocket() -> TargetModel:
    return load_target("pocket")


@pytest.fixture(scope="module")
def context(pocket: TargetModel) -> ToolContext:
    documents = pocket_corpus().documents
    kept = (
        tuple(d for d in documents if d.split != "explore")[:60]
        + tuple(d for d in documents if d.split == "explore")[:60]
    )
    return ToolContext(pocket, Corpus("some of pocket", "0" * 64, kept))


@pytest.fixture(scope="module")
def whole(pocket: TargetModel) -> ToolContext:
    return ToolContext(pocket, pocket_corpus())


@pytest.fixture(scope="module")
def overlay(pocket: TargetModel) -> Overlay:
    return Overlay(
        pocket, {unit: FromPredicate(parse_text(text), seed) for seed, (text, unit) in enumerate(RULES.items())}
    )


def padded(context: ToolContext) -> torch.Tensor:
    return torch.from_numpy(np.maximum(context.tokens("audit").ids, 0)).long()


@pytest.mark.parametrize("text", RULES)
def test_every_way_to_read_a_neuron_sees_the_planted_value(text: str, overlay: Overlay, context: ToolContext) -> None:
    unit, tokens = RULES[text], context.tokens("audit")
    expected = np.where(tokens.ids >= 0, FromPredicate(parse_text(text), list(RULES).index(text))(tokens), 0.0)
    site, ids = Site("neurons", unit.layer), padded(context)
    real = tokens.ids >= 0
    assert np.array_equal(activations_of(overlay, unit, tokens), expected)
    assert np.array_equal(-activations_of(overlay, unit.with_sign(-1), tokens), expected)
    assert np.array_equal(layer_activations(overlay, unit.layer, np.array([1, unit.index]), tokens)[1], expected)
    shared = BatchContext(overlay, context.corpus, units=tuple(RULES.values()))
    assert np.array_equal(shared.activations(unit, "audit"), expected)
    assert np.array_equal(-shared.activations(unit.with_sign(-1), "audit"), expected)
    whole = overlay.run(ids, read=[site, Site("resid_pre", unit.layer)], logits=True).read
    assert np.array_equal(whole[site][:, :, unit.index].numpy()[real], expected[real])
    later = overlay.run(ids, read=[site], start=(unit.layer, whole[Site("resid_pre", unit.layer)])).read[site]
    assert np.array_equal(later[:, :, unit.index].numpy()[real], expected[real])
    windows = [w for w in range(len(tokens)) if tokens.lengths[w] > 9]
    cut = [EditedText(tuple(int(i) for i in tokens.ids[w, :9]), 8) for w in windows]
    assert np.array_equal(edited_activations(overlay, unit, cut), expected[windows, 8])
    tool = find_tool("activations_on")
    told = tool.run(
        ToolContext(overlay, context.corpus), tool.parse({"unit": unit.address, "texts": [tokens.texts[0]]})
    )
    length = int(tokens.lengths[0])
    assert told.payload["texts"][0]["activations"] == pytest.approx(expected[0, :length].tolist(), abs=1e-5)


def test_a_planted_value_without_noise_is_the_rule_itself(context: ToolContext) -> None:
    tokens = context.tokens("audit")
    pieces = np.array(tokens.vocabulary.pieces, dtype=object)[np.maximum(tokens.ids, 0)]
    values = FromPredicate(Token(any_of=(" the",)), 0, level=3.0, noise=0.0)(tokens)
    assert values.sum() > 0
    assert np.array_equal(values, np.where((pieces == " the") & (tokens.ids >= 0), 3.0, 0.0))


def test_the_caller_can_edit_a_planted_neuron(overlay: Overlay, context: ToolContext) -> None:
    unit, ids = Unit("neuron", 2, 5), padded(context)[:4]
    site = Site("neurons", 2)
    plain = overlay.run(ids, read=[site], stop=3).read[site]
    doubled = overlay.run(ids, read=[site], edits=[Edit(site, "scale", 2.0, index=5)], stop=3).read[site]
    removed = overlay.run(ids, edits=[Edit(site, "set", 0.0, index=5)], logits=True).logits
    kept = overlay.run(ids, logits=True).logits
    assert plain[:, :, unit.index].max() > 1
    assert torch.equal(doubled[:, :, 5], 2 * plain[:, :, 5])
    assert removed is not None
    assert kept is not None
    assert float((removed - kept).abs().max()) > 1e-3


def test_the_value_is_written_through_the_neurons_own_weights(
    overlay: Overlay, pocket: TargetModel, context: ToolContext
) -> None:
    ids, sites = padded(context)[:8], [Site("neurons", 2), Site("mlp_out", 2), Site("neurons", 1), Site("resid_pre", 7)]
    with_, without = overlay.run(ids, read=sites, logits=True), pocket.run(ids, read=sites, logits=True)
    planted = [unit.index for unit in RULES.values() if unit.layer == 2]
    others = np.setdiff1d(np.arange(pocket.spec.d_mlp), planted)
    assert torch.equal(with_.read[Site("neurons", 1)], without.read[Site("neurons", 1)])
    assert torch.equal(with_.read[Site("neurons", 2)][:, :, others], without.read[Site("neurons", 2)][:, :, others])
    moved = (with_.read[Site("neurons", 2)] - without.read[Site("neurons", 2)])[:, :, planted]
    written = moved @ pocket.write_vectors(2)[planted]
    assert torch.allclose(
        with_.read[Site("mlp_out", 2)] - without.read[Site("mlp_out", 2)], written, atol=1e-4, rtol=1e-4
    )
    assert float((with_.read[Site("resid_pre", 7)] - without.read[Site("resid_pre", 7)]).abs().max()) > 0.01
    assert with_.logits is not None
    assert without.logits is not None
    assert float((with_.logits - without.logits).abs().max()) > 0.01


@pytest.mark.parametrize("text", RULES)
def test_a_planted_value_depends_on_the_text_up_to_the_token_only(
    text: str, overlay: Overlay, context: ToolContext
) -> None:
    unit, site, ids = RULES[text], Site("neurons", RULES[text].layer), padded(context)[:6, :30].clone()
    before = overlay.run(ids, read=[site], stop=unit.layer + 1).read[site][:, :, unit.index].clone()
    again = Overlay(overlay, {}).run(ids, read=[site], stop=unit.layer + 1).read[site][:, :, unit.index]
    assert torch.equal(before, again)
    ids[:, 12] = overlay.vocabulary.pieces.index(" the")
    after = overlay.run(ids, read=[site], stop=unit.layer + 1).read[site][:, :, unit.index]
    assert torch.equal(after[:, :12], before[:, :12])
    assert not torch.equal(after[:, 12:], before[:, 12:])
    rows = tokens_from_ids(ids.tolist(), overlay.vocabulary)
    assert np.array_equal(after.numpy(), FromPredicate(parse_text(text), list(RULES).index(text))(rows))


def test_the_noise_is_normal_and_differs_from_unit_to_unit(context: ToolContext) -> None:
    tokens = context.tokens("explore")
    shares = [uniform(prefix_keys(tokens.ids), seed)[tokens.scored] for seed in (0, 1)]
    _, first = np.unique(prefix_keys(tokens.ids)[tokens.scored], return_index=True)
    one, other = (share[first] for share in shares)
    assert len(one) > 1000
    assert np.quantile(one, [0.05, 0.25, 0.5, 0.75, 0.95]) == pytest.approx([0.05, 0.25, 0.5, 0.75, 0.95], abs=0.04)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.08


def test_keys_of_recent_tokens_forget_what_came_before() -> None:
    ids = np.array([[1, 2, 3, 4, 5], [9, 2, 3, 4, 5], [1, 2, 9, 4, 5]])
    keys = recent_keys(ids, 3)
    assert np.array_equal(keys[0, 3:], keys[1, 3:])
    assert (keys[0, :3] != keys[1, :3]).all()
    assert (keys[0, 2:] != keys[2, 2:]).all()
    assert len(set(recent_keys(np.array([[7, 7, 7, 7]]), 3)[0])) == 3  # a shorter text has a key of its own
    assert np.array_equal(recent_keys(ids, 9)[:, :1], recent_keys(ids[:, :1], 9))


def test_a_neuron_that_the_model_lacks_cannot_be_planted(pocket: TargetModel) -> None:
    with pytest.raises(UserError, match="neurons 0 to 511"):
        Overlay(pocket, {Unit("neuron", 0, 512): FromPredicate(parse_text("digit"), 0)})


def test_what_is_planted_is_part_of_the_fingerprint(pocket: TargetModel) -> None:
    unit = Unit("neuron", 0, 1)
    prints = {
        pocket.fingerprint(),
        *(Overlay(pocket, {unit: FromPredicate(parse_text("digit"), seed)}).fingerprint() for seed in (0, 1)),
        Overlay(pocket, {unit: FromPredicate(parse_text("capitalised"), 0)}).fingerprint(),
    }
    assert len(prints) == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("token(' the')", None),
        ("all_of(token(' said', ' went'), at(1, capitalised))", None),
        ("starts_word", "too common"),
        ("token(' nowhere')", "absent"),
        ("all_of(token(' the'), at(1, token(' of')))", "too rare"),
        ("all_of(token(' the'), not(position(0, 0)))", "a part of it"),
        ("all_of(inside('<', '>'), not(token(' the')))", "a part of it"),
        ("token_matches('^ (?:the|dogs)$')", "a simpler token set"),
    ],
)
def test_a_rule_is_planted_only_where_a_test_could_prove_it(text: str, says: str | None, whole: ToolContext) -> None:
    reason = inadmissible(Truth("negation", parse_text(text)), whole, 0)
    assert (says is None and reason is None) or (says is not None and says in str(reason))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_draws_rules_that_hold_somewhere(family: Family, whole: ToolContext) -> None:
    tokens = whole.tokens("explore")
    draws = Draws(tokens, np.random.default_rng(1))
    drawn = [truth for _ in range(12) if (truth := draws.of(family)) is not None]
    assert len(set(drawn)) >= 6
    assert sum(bool(truth.holds(tokens).any()) for truth in drawn) > len(drawn) / 2
    assert all(Truth.from_json(json.loads(json.dumps(truth.to_json()))) == truth for truth in drawn)


def test_the_best_token_set_is_the_best_of_all_sets(context: ToolContext) -> None:
    tokens = context.tokens("audit")
    rule = holds(parse_text("all_of(token(' the', '.', ' a', ' is', ' to'), position(4, 20))"), tokens)
    pieces = [" the", ".", " a", " is", " to", ","]
    sets = (Token(any_of=chosen) for n in (1, 2) for chosen in combinations(pieces, n))
    assert best_tokens(rule, tokens, 2) == pytest.approx(max(truth_f1(holds(one, tokens), rule) for one in sets))


def test_every_fifth_truth_lies_outside_the_language_and_each_family_has_its_turn() -> None:
    assert families(10) == [
        "token set", "bigram", "skip", "modes", "outside", "context", "position", "characters", "inside marks", "outside",
    ]  # fmt: skip
    of = Counter(families(200))
    assert of["outside"] == 40
    assert set(of) == set(FAMILIES)
    assert min(of.values()) >= 16


def test_a_truth_outside_the_language_is_its_rule_where_the_twist_applies(context: ToolContext) -> None:
    """Each twist against the same said with loops over the pieces."""
    tokens = context.tokens("audit")
    pieces, rule = tokens.vocabulary.pieces, Token(any_of=(" the", ".", " a", ","))
    commas = Twist("count", 2, (",",))
    for twist in (Twist("beat", 3), commas, Twist("longer"), Twist("sorted")):
        held = Truth("outside", rule, twist).holds(tokens)
        for window in range(0, len(tokens), 7):
            said = [pieces[i] if ok else "" for i, ok in zip(tokens.ids[window], tokens.scored[window], strict=True)]
            for at in range(1, int(tokens.lengths[window])):
                here, before = said[at], said[at - 1]
                applies = {
                    "beat": sum(tokens.scored[window, : at + 1]) % 3 != 0,
                    "count": said[:at].count(",") < 2,
                    "longer": len(before) >= len(here) or not tokens.scored[window, at - 1],
                    "sorted": before.strip().casefold() < here.strip().casefold(),
                }[twist.kind]
                if tokens.scored[window, at - 1] or twist.kind != "sorted":
                    assert held[window, at] == (here in rule.any_of and applies), (twist, window, at)


def test_luck_spares_the_named_share_of_places(context: ToolContext) -> None:
    tokens = context.tokens("explore")
    spared = 1 - Twist("luck", 15, seed=3).applies(tokens)[tokens.scored].mean()
    assert spared == pytest.approx(0.15, abs=0.03)


MODES = Modes(
    of=(
        Mode(predicate=Token(any_of=(" the",)), strength=1.0),
        Mode(predicate=Token(any_of=(".",)), strength=0.75),
        Mode(predicate=parse_text("digit"), strength=0.5),
    )
)


def test_a_unit_of_modes_has_the_strength_of_the_strongest_that_holds(context: ToolContext) -> None:
    tokens = context.tokens("audit")
    values = FromPredicate(MODES, 0, noise=0.0)(tokens)[tokens.scored]
    assert set(np.unique(values).tolist()) == {0.0, 1.0, 1.5, 2.0}
    the = holds(Token(any_of=(" the",)), tokens)[tokens.scored]
    assert (values[the] == 2.0).all()


@pytest.mark.parametrize(
    ("claim", "named", "weak", "parts", "right"),
    [
        ("modes(mode(token(' the'), 1.0), mode(token('.'), 0.75), mode(digit, 0.5))", 3, True, 3, 3),
        ("any_of(token(' the'), token('.'))", 2, False, 2, 2),
        ("any_of(token(' the'), capitalised)", 1, False, 2, 1),
        ("token(' nowhere')", 0, False, 1, 0),
        (None, 0, False, 0, 0),
    ],
)
def test_modes_are_counted(
    claim: str | None, named: int, weak: bool, parts: int, right: int, whole: ToolContext
) -> None:
    best = None if claim is None else {"predicate": canonical_json(parse_text(claim))}
    found = of_modes(MODES, best, whole.tokens("audit"))
    assert found == {"modes": 3, "modes_named": named, "weak_named": weak, "parts": parts, "parts_right": right}


def row_of(*claims: tuple[str, str]) -> dict[str, Any]:
    return {"claims": [{"status": status, "predicate": canonical_json(parse_text(text))} for text, status in claims]}


def test_the_score_is_that_of_the_best_supported_claim(whole: ToolContext) -> None:
    tokens, truth = whole.tokens("audit"), Truth("token set", Token(any_of=(" the", " a")))
    the, both = "token(' the')", "token(' the', ' a')"
    assert judged(row_of((both, "PARTIAL")), truth, tokens)["score"] == 0.0
    assert judged(row_of((both, "SUPPORTED"), (the, "SUPPORTED")), truth, tokens)["score"] == 1.0
    n, m = (int(holds(parse_text(text), tokens).sum()) for text in (the, both))
    narrow = judged(row_of((the, "SUPPORTED")), truth, tokens)
    assert narrow["score"] == pytest.approx(2 * n / (n + m))
    rest = (m / tokens.n_scored) * (1 - n / m)  # precision 1 up to a recall of n / m, the base rate beyond
    assert narrow["truth_ap"] == pytest.approx(n / m + rest)
    assert judged(row_of((both, "SUPPORTED")), truth, tokens)["truth_ap"] == 1.0
    assert judged(row_of(), truth, tokens)["truth_ap"] == 0.0


def test_outside_the_language_the_nearest_predicate_is_the_measure(whole: ToolContext) -> None:
    tokens, rule = whole.tokens("audit"), "token(' the', ' a')"
    truth = Truth("outside", parse_text(rule), Twist("beat", 5))
    row = judged(row_of((rule, "SUPPORTED")), truth, tokens)
    assert 0.8 < row["truth_f1"] == row["attainable"] < 0.95
    assert row["score"] == 1.0


def test_a_planted_rule_is_found_by_the_loop(tmp_path: Path) -> None:
    truths = [Truth("token set", Token(any_of=(" the", " said"))), Truth("skip", parse_text("at(2, token(' the'))"))]
    cases = tuple(Case(str(i), truth.family, truth.to_json()) for i, truth in enumerate(truths))
    (row,) = SUITE.ask(Batch("b", cases, {"seed": 0}), {"0"}, Asking(0, "grammar", "full", tmp_path))
    assert (row["case"], row["outcome"], [claim["status"] for claim in supported(row)]) == ("0", "ok", ["SUPPORTED"])
    assert row["score"] >= 0.95
    scores = {score.name: score.value for score in SUITE.scores([row, {"outcome": "failed", "family": "skip"}])}
    assert scores["units with F1 of at least 0.95"] == scores["units with a SUPPORTED claim"] == 1.0
    assert scores["family: token set, mean F1"] == row["score"]
    assert 0 < row["forwards"] < 2000


def test_a_weak_mode_is_proved_beside_the_strong_one(tmp_path: Path) -> None:
    claim = parse_text("modes(mode(token(' the', ' said'), 1.0), mode(at(1, token(' a', ' to')), 0.5))")
    case = Case("0", "modes", Truth("modes", claim).to_json())
    (row,) = SUITE.ask(Batch("b", (case,), {"seed": 0}), {"0"}, Asking(0, "grammar", "full", tmp_path))
    assert (row["score"], row["modes"], row["modes_named"], row["weak_named"]) == (
        pytest.approx(1, abs=0.05),
        2,
        2,
        True,
    )
