"""Compiled programs against brute force, their weights against a forward pass by hand, and their truth against lies."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from neuronaut.evals.compiled import BY_NAME, SUITE, opened, program_named
from neuronaut.evals.compiler.drawn import drawn
from neuronaut.evals.compiler.program import MAX_LENGTH, Count, Map, Program, Pull, Selector, Tokens, interpret
from neuronaut.evals.compiler.programs import PROGRAMS
from neuronaut.evals.compiler.verify import Untrue, verify
from neuronaut.evals.compiler.weights import Compiled, compile_program
from neuronaut.evals.suite import Asking
from neuronaut.tools.targets.base import Site

Text = Sequence[str]


def _previous(text: Text) -> Any:
    return text[-2] if len(text) > 1 else None


def _induction(text: Text) -> Any:
    return next((text[i + 1] for i in range(len(text) - 2, -1, -1) if text[i] == text[-1]), None)


def _run_length(text: Text) -> Any:
    if len(set(text)) == 1:
        return None  # no change has come yet
    n = 1
    while n < len(text) and text[-1 - n] == text[-1]:
        n += 1
    return n


def _double(text: Text) -> Any:
    counts = [text[: i + 1].count(text[i]) for i in range(len(text))]
    return counts.count(counts[-1])


def _depth(text: Text) -> int:
    return text.count("(") - text.count(")")


def _well_formed(text: Text) -> Any:
    good = all(_depth(text[: i + 1]) >= 0 for i in range(len(text))) and _depth(text) == 0
    return "yes" if good else "no"


def _matching(text: Text) -> Any:
    if text[-1] != ")":
        return None
    open_now: list[int] = []
    partner = None
    for place, mark in enumerate(text):
        if mark == "(":
            open_now.append(place)
        elif mark == ")":
            partner = open_now.pop() if open_now else None
    return partner


BRUTE_FORCE: dict[str, Callable[[Text], Any]] = {
    "previous_token": _previous,
    "induction": _induction,
    "histogram": lambda text: text.count(text[-1]),
    "double_histogram": _double,
    "distinct": lambda text: len(set(text)),
    "fraction_a": lambda text: str(Fraction(text.count("a"), len(text))),
    "minimum": lambda text: min(text),
    "maximum": lambda text: max(text),
    "pointer": lambda text: text[int(text[-1])] if int(text[-1]) < len(text) else None,
    "seen_before": lambda text: "yes" if Counter(text)[text[-1]] > 1 else "no",
    "depth": _depth,
    "well_formed": _well_formed,
    "mean_digit": lambda text: sum(map(int, text)) // len(text),
    "ascending": lambda text: "yes" if list(text) == sorted(text) else "no",
    "a_then_b": lambda text: "yes" if "a" in text and "b" in text[text.index("a") :] else "no",
}


@pytest.mark.parametrize("name", BRUTE_FORCE)
def test_a_program_gives_what_brute_force_gives(name: str) -> None:
    program, rng = BY_NAME[name], random.Random(name)
    alphabet = [str(token) for token in program.tokens.domain]
    texts = [*product(alphabet, repeat=4), *(tuple(rng.choices(alphabet, k=MAX_LENGTH)) for _ in range(50))]
    for text in map(list, texts):
        assert interpret(program, text) == [BRUTE_FORCE[name](text[: i + 1]) for i in range(len(text))], text


def test_a_closing_bracket_finds_its_partner_in_balanced_text() -> None:
    text = list("(x(()x)())()")
    assert interpret(BY_NAME["matching"], text) == [_matching(text[: i + 1]) for i in range(len(text))]


def test_a_pull_of_labels_that_differ_is_refused() -> None:
    token = Tokens(("a", "b"))
    program = Program("both", "", "", token, Pull("all", Selector(((token, token, lambda k, q: True),)), token))
    with pytest.raises(ValueError, match="differ"):
        interpret(program, ["a", "b"])


def test_there_are_enough_programs_and_components_and_all_differ() -> None:
    cases = [batch.cases[0] for batch in SUITE.batches(len(PROGRAMS), 0)]
    labelled = [part for case in cases for part in case.truth["components"] if part["role"] != "none"]
    assert len({case.key for case in cases}) == len(PROGRAMS) >= 84
    assert len(labelled) >= 163
    assert {part["role"] for part in labelled} == {"indicator", "aggregator", "mover", "combiner", "output"}
    assert len({program.task for program in PROGRAMS}) == len(PROGRAMS)


@pytest.mark.parametrize("name", ["induction", "fraction_a", "histogram", "well_formed", "length_parity", "new_minima"])
def test_a_compiled_model_is_exact_and_each_labelled_part_matters(name: str) -> None:
    compiled = compile_program(BY_NAME[name], 3)
    with opened(compiled) as target:
        found = verify(target, compiled, 0)
    labelled = [part for part in compiled.components if part.role != "none"]
    assert found.confirmed == len(labelled)
    assert found.idle == len(compiled.components) - len(labelled) > 0
    assert found.margin > 19  # of 20


def test_a_wrong_truth_is_found() -> None:
    compiled = compile_program(BY_NAME["histogram"], 0)
    with opened(compiled) as target:
        other = replace(compiled, program=replace(BY_NAME["histogram"], output=BY_NAME["rank"].output))
        with pytest.raises(Untrue, match="answered wrongly"):
            verify(target, other, 0)
        lie = tuple(replace(part, role="none") for part in compiled.components)
        with pytest.raises(Untrue, match="idle"):
            verify(target, replace(compiled, components=lie), 0)
        boast = tuple(replace(part, role="mover") for part in compiled.components)
        with pytest.raises(Untrue, match="changes no input"):
            verify(target, replace(compiled, components=boast), 0)


def _by_hand(compiled: Compiled, ids: list[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Logits (pos, d_vocab) and attention (n_heads, query, key) a layer, in float64 from the tensors alone."""
    w = {name: tensor.double().numpy() for name, tensor in compiled.tensors.items()}
    cfg, patterns = compiled.config, []
    n_heads, d_model = cfg["n_head"], cfg["n_embd"]
    d_head = d_model // n_heads

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["transformer.wte.weight"][ids] + w["transformer.wpe.weight"][: len(ids)]
    for layer in range(cfg["n_layer"]):
        at = f"transformer.h.{layer}."
        qkv = norm(x, f"{at}ln_1") @ w[f"{at}attn.c_attn.weight"] + w[f"{at}attn.c_attn.bias"]
        q, k, v = (part.reshape(len(ids), n_heads, d_head).transpose(1, 0, 2) for part in np.split(qkv, 3, axis=-1))
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(d_head)
        scores = np.where(np.tril(np.ones((len(ids), len(ids)))) > 0, scores, -np.inf)
        weight = np.exp(scores - scores.max(-1, keepdims=True))
        pattern = weight / weight.sum(-1, keepdims=True)
        patterns.append(pattern)
        x = x + (pattern @ v).transpose(1, 0, 2).reshape(len(ids), d_model) @ w[f"{at}attn.c_proj.weight"]
        hidden = np.maximum(norm(x, f"{at}ln_2") @ w[f"{at}mlp.c_fc.weight"] + w[f"{at}mlp.c_fc.bias"], 0)
        x = x + hidden @ w[f"{at}mlp.c_proj.weight"]
    return norm(x, "transformer.ln_f") @ w["lm_head.weight"].T, patterns


def test_attention_and_logits_are_those_of_a_forward_pass_by_hand() -> None:
    compiled = compile_program(BY_NAME["count_previous"], 1)
    text = "b a b b a"
    ids = [0, *(compiled.pieces.index(token) for token in text.split())]
    logits, patterns = _by_hand(compiled, ids)
    previous = next(part for part in compiled.components if part.writes == "previous")
    counting = next(part for part in compiled.components if part.writes == "occurrences")
    looks_back = np.eye(6)[[0, 0, 1, 2, 3, 4]]  # position 0 and the first token look at the start
    assert np.allclose(patterns[previous.layer][previous.indices[0]], looks_back, atol=1e-6)
    # The last token is a, before it stood b; b stands at 1, 3, 4, and the start token gets an equal share.
    assert np.allclose(patterns[counting.layer][counting.indices[0]][5], [1 / 4, 1 / 4, 0, 1 / 4, 1 / 4, 0], atol=1e-4)
    assert compiled.pieces[int(logits[5].argmax())] == "3"
    with opened(compiled) as target:
        assert target.tokenize([text]).ids[0].tolist() == ids
        site = Site("pattern", previous.layer)
        run = target.run(torch.tensor([ids]), read=[site], logits=True)
        assert run.logits is not None
        assert np.allclose(run.read[site][0].numpy(), patterns[previous.layer], atol=1e-3)
        assert np.allclose(run.logits[0].numpy(), logits, atol=0.05)


def test_weights_lie_as_gpt2_has_them_and_say_what_the_truth_says() -> None:
    compiled = compile_program(BY_NAME["induction"], 2)
    cfg, w = compiled.config, compiled.tensors
    d_model, d_mlp = cfg["n_embd"], cfg["n_inner"]
    assert w["transformer.h.0.attn.c_attn.weight"].shape == (d_model, 3 * d_model)
    assert w["transformer.h.0.attn.c_proj.weight"].shape == (d_model, d_model)
    assert w["transformer.h.0.mlp.c_fc.weight"].shape == (d_model, d_mlp)
    assert w["transformer.h.0.mlp.c_proj.weight"].shape == (d_mlp, d_model)
    assert w["lm_head.weight"].shape == w["transformer.wte.weight"].shape == (len(compiled.pieces), d_model)
    part = next(part for part in compiled.components if part.writes == "previous")
    d_head, (head,) = d_model // cfg["n_head"], part.indices
    columns = slice(2 * d_model + head * d_head, 2 * d_model + (head + 1) * d_head)
    value = w["transformer.h.0.attn.c_attn.weight"][:, columns]
    out = w["transformer.h.0.attn.c_proj.weight"][head * d_head : (head + 1) * d_head]
    copied = (value @ out)[list(compiled.places["token"])][:, list(compiled.places["previous"])]
    assert torch.equal(copied[:, :4], torch.eye(4))  # a to d; the fifth label is "nothing there"
    for name in ("transformer.wte.weight", "transformer.h.0.attn.c_proj.weight", "transformer.h.1.mlp.c_proj.weight"):
        assert float(w[name].sum(-1).abs().max()) < 1e-4


def test_a_turned_basis_computes_the_same() -> None:
    compiled = compile_program(BY_NAME["equals_first"], 0, turn=True)
    with opened(compiled) as target:
        assert verify(target, compiled, 0).margin > 19
    assert float((compiled.tensors["transformer.wpe.weight"].abs() < 1e-6).float().mean()) < 0.1


def test_what_cannot_be_compiled_is_refused() -> None:
    token = Tokens(("a", "b"))
    count = Count("count", Selector(((token, token, lambda k, q: k == q),)))
    with pytest.raises(ValueError, match="number together with something else"):
        compile_program(Program("", "", "", token, Map("pair", lambda n, t: n, (count, token))), 0)
    twice = Map("token", lambda t: t, (token,))
    with pytest.raises(ValueError, match="same name"):
        compile_program(Program("", "", "", token, twice), 0)


@pytest.mark.parametrize("number", range(8))
def test_a_drawn_program_is_always_the_same_and_its_model_is_exact_with_no_part_that_does_not_matter(
    number: int,
) -> None:
    program = program_named(f"drawn {number}")
    drawn.cache_clear()
    again = drawn(number)
    text = [str(token) for token in program.tokens.domain] * 3
    assert interpret(program, text) == interpret(again, text)
    compiled = compile_program(again, 0)
    with opened(compiled) as target:
        found = verify(target, compiled, 0)
    assert found.confirmed == sum(part.role != "none" for part in compiled.components) > 0


def test_the_suite_asks_the_same_cases_of_a_seed_and_scores_what_was_found(tmp_path: Any) -> None:
    first, again, other = SUITE.batches(8, 1), SUITE.batches(8, 1), SUITE.batches(8, 2)
    assert first == again
    assert [batch.name for batch in first] != [batch.name for batch in other]
    asking = Asking(1, "", "full", tmp_path)
    rows = [row for batch in first[:2] for row in SUITE.ask(batch, [batch.cases[0].key], asking)]
    assert [row["outcome"] for row in rows] == ["ok"] * 2
    assert list(SUITE.ask(first[0], [], asking)) == []
    scores = {score.name: score for score in SUITE.scores([*rows, {"outcome": "failed", "error": "wrong"}])}
    assert scores["programs"].value == 2
    assert scores["models exact and causally confirmed"].value == pytest.approx(2 / 3)
    assert scores["edges: mean AUROC"].value == pytest.approx(sum(row["auroc"] for row in rows) / 2)
    parts = sum(len(batch.cases[0].truth["components"]) for batch in first[:2])
    assert scores["roles right"].n == parts
    assert scores["roles right"].value == pytest.approx(sum(row["tags_right"] for row in rows) / parts)
    undescribed = {"outcome": "failed", "verified": True, "program": "x", "family": "drawn", "labelled": 3, "idle": 2}
    worse = {score.name: score for score in SUITE.scores([undescribed])}
    assert worse["edges: mean AUROC"].value == 0.5
    assert worse["roles right"].value == worse["tasks: 95 % of held-out texts reproduced"].value == 0.0
