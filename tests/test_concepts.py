"""Units for a concept: what is planted is found, and labels without a concept give none."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuronaut.agent.questions import parse_question
from neuronaut.agent.registered import registered_config
from neuronaut.evals.overlay import FromPredicate
from neuronaut.tools.concepts.places import observed, read_at
from neuronaut.tools.concepts.ranks import interval, p_values, ranked, ranks_of
from neuronaut.tools.corpus import Corpus, load_corpus
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.labels import LabelFile, LabelledText, read_labels
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.registered import Registered
from neuronaut.tools.registry import ToolContext, find_tool
from neuronaut.tools.stats import q_values
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.targets.overlay import Overlay
from neuronaut.tools.units import Unit

tiny_models = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
WORDS = tuple(dict.fromkeys(tiny_models["TEXT"].split()))
SEEDS = range(20)
FAR = 2  # tokens from the place back to the word that makes it one of the concept


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TargetModel:
    return load_target(tiny_models["make_model"]("gpt2", tmp_path_factory.mktemp("concepts") / "model"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return load_corpus(tiny_models["make_corpus"](tmp_path_factory.mktemp("concepts") / "corpus.jsonl"))


def rows(seed: int, word: str, n: int = 160) -> list[dict[str, Any]]:
    """Places two words behind `word`, and as many others, each in a text of its own."""
    rng, found = np.random.default_rng(seed), []
    for number in range(n):
        words = list(rng.choice([one for one in WORDS if one != word], 9))
        at = int(rng.integers(3, 8))
        words[at - FAR] = word if number % 2 else words[at - FAR]
        begin = len(" ".join(words[:at])) + 1
        found.append({"text": " ".join(words), "label": number % 2 == 1, "span": [begin, begin + len(words[at])]})
    return found


def file_of(some: list[dict[str, Any]]) -> LabelFile:
    return LabelFile("words", tuple(LabelledText.model_validate(row) for row in some), "0" * 64)


def planted(model: TargetModel, seed: int) -> tuple[TargetModel, Unit, str]:
    rng = np.random.default_rng(seed)
    unit = Unit("neuron", int(rng.integers(0, 3)), int(rng.integers(0, 40)))
    word = str(rng.choice([one for one in WORDS if one not in ("the", "to")]))
    rule = FromPredicate(parse_text(f"at({FAR}, token(' {word}'))"), seed)
    return (
        Overlay(model, {unit: rule}, {unit: 20 * torch.randn(32, generator=torch.Generator().manual_seed(seed))}),
        unit,
        word,
    )


def run(context: ToolContext, name: str, **args: Any) -> dict[str, Any]:
    tool = find_tool(name)
    return tool.run(context, tool.parse({"labels": "words", **args})).payload


def test_a_planted_unit_comes_first_and_holds_on_unseen_texts_over_20_seeds(model: TargetModel, corpus: Corpus) -> None:
    for seed in SEEDS:
        target, unit, word = planted(model, seed)
        context = ToolContext(target, corpus, registered=Registered(labels={"words": file_of(rows(seed, word))}))
        found = run(context, "find_units", seed=seed)
        first = found["units"][0]
        assert (first["unit"], first["q"] < 0.001) == (unit.address, True), seed
        assert found["chance"]["best"] < first["interval"][0]
        assert found["said_as"] is not None
        assert json.loads(found["said_as"]["predicate"])["kind"] == "at"
        held = run(context, "test_units", units=[unit.address, found["directions"][0]["unit"]], seed=seed)
        assert held["units"][0]["tells"], seed


def test_labels_without_a_concept_find_nothing_over_20_seeds(model: TargetModel, corpus: Corpus) -> None:
    wrong = 0
    for seed in SEEDS:
        some = rows(seed, "cat")
        mixed = np.random.default_rng(seed).permutation([row["label"] for row in some])
        labels = file_of([{**row, "label": bool(label)} for row, label in zip(some, mixed, strict=True)])
        context = ToolContext(model, corpus, registered=Registered(labels={"words": labels}))
        found = run(context, "find_units", seed=seed)
        wrong += found["found"] > 0
        assert found["said_as"] is None
    assert wrong <= 2  # at a rate of 5 % the chance of more is 0.08


def test_a_direction_that_the_model_uses_steers_and_one_that_it_lacks_does_not(
    model: TargetModel, corpus: Corpus
) -> None:
    steers = {True: 0, False: 0}
    for seed in range(5):
        target, _, word = planted(model, seed)
        some = rows(seed, word)
        mixed = np.random.default_rng(seed).permutation([row["label"] for row in some])
        lacking = [{**row, "label": bool(label)} for row, label in zip(some, mixed, strict=True)]
        for has, given in ((True, some), (False, lacking)):
            context = ToolContext(target, corpus, registered=Registered(labels={"words": file_of(given)}))
            found = run(context, "steer_concept", seed=seed, n_random=20)
            steers[has] += found["directions"][0]["steers"]
    assert steers[True] >= 4
    assert steers[False] <= 1


def test_the_answer_registers_what_the_best_units_read(
    neuronaut: Callable[..., Any], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "words.jsonl"
    rng, lines = np.random.default_rng(0), []
    for number in range(160):
        words = list(rng.choice([one for one in WORDS if one != "cat"], 9))
        at = int(rng.integers(2, 8))
        words[at] = "cat" if number % 2 else words[at]
        begin = len(" ".join(words[:at])) + 1
        lines.append(
            {"text": " ".join(words), "label": ["other", "cat"][number % 2], "span": [begin, begin + len(words[at])]}
        )
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    asked = ("ask", "find units for the concept 'cat' in words", "--labels", f"words={file}", *tiny)
    said = neuronaut(*asked, "--json")
    assert said.code == 0, said.err
    answer = json.loads(said.out)
    tools = [one["tool"] for one in answer["measured"]]
    assert tools[:2] == ["find_units", "test_units"]
    claims = [claim for claim in answer["claims"] if claim["side"] == "reads"]
    assert claims
    assert any("the asker" in claim["author"] for claim in claims)
    shown = neuronaut(*asked)
    assert "answered before" in shown.err
    assert "null: with labels shuffled" in " ".join(shown.out.split())
    lines[0]["label"] = "cat"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    refused = neuronaut("rerun", answer["run"])
    assert (refused.code, "labels words changed since" in refused.err) == (2, True)


def test_places_are_read_at_the_last_token_of_a_span(model: TargetModel) -> None:
    some = [*rows(0, "cat"), {"text": "the cat sat on the mat", "label": True, "span": [4, 11]}]
    labels = file_of(some)
    found = observed(model, labels, "true")
    at = len(found) - 1
    window, position = int(found.windows[found.owners == at][0]), int(found.positions[found.owners == at][0])
    tokens = found.tokens
    assert tokens.vocabulary.pieces[tokens.ids[window, position]] == " sat"
    site = Site("resid_post", 1)
    by_hand = model.run(
        torch.from_numpy(model.tokenize(["the cat sat on the mat"]).ids).long(), read=[site], stop=2
    ).read[site]
    np.testing.assert_allclose(read_at(model, found, [site])[site][at], by_hand[0, position].numpy(), atol=1e-5)


def test_a_text_counts_once_with_each_label(model: TargetModel) -> None:
    some = rows(0, "cat")
    twice = observed(model, file_of([*some, *some]), "true")
    assert len(twice) == len(observed(model, file_of(some), "true"))


def test_a_whole_text_is_read_as_the_mean_over_its_tokens(model: TargetModel) -> None:
    some = [{key: value for key, value in row.items() if key != "span"} for row in rows(0, "cat")]
    found = observed(model, file_of(some), "true")
    assert np.bincount(found.owners)[0] == found.tokens.scored[found.windows[found.owners == 0][0]].sum() >= 9
    assert set(found.parts) == {"fit", "rank", "held"}


def test_auroc_and_its_p_are_those_of_mann_and_whitney() -> None:
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(0)
    values, positive = rng.integers(0, 6, (40, 3)).astype(float), np.arange(40) < 15
    own = ranked(ranks_of(values), positive)
    for column in range(3):
        test = mannwhitneyu(
            values[positive, column], values[~positive, column], use_continuity=False, method="asymptotic"
        )
        assert own.auroc[column] == pytest.approx(test.statistic / (15 * 25))
        assert p_values(own.z, two_sided=True)[column] == pytest.approx(test.pvalue, rel=1e-6)


def test_the_interval_covers_and_is_honest_at_one() -> None:
    assert interval(1.0, 10, 10)[0] < 0.9
    assert interval(1.0, 10, 10)[1] == 1.0
    rng, covered = np.random.default_rng(0), 0
    for _ in range(400):
        values, positive = np.append(rng.normal(1, 1, 20), rng.normal(0, 1, 30)), np.arange(50) < 20
        low, high = interval(float(ranked(ranks_of(values[:, None]), positive).auroc[0]), 20, 30)
        covered += low <= 0.7602 <= high  # the normal distribution at 1 / √2
    assert covered / 400 >= 0.92


def test_q_values_are_benjamini_and_hochbergs() -> None:
    from scipy.stats import false_discovery_control

    p = np.random.default_rng(0).uniform(size=50) ** 2
    np.testing.assert_allclose(q_values(p), false_discovery_control(p))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "are empty"),
        ('{"text": "a", "label": true}\n{"text": "b", "label": true}\n', "have one class, 'true'"),
        ("not json\n", "line 1 .* is not JSON"),
        ('{"text": "a"}\n', "line 1 .*[(]label: Field required"),
        ('{"text": "a", "label": 0.5}\n', "label: a word, true, false, 1 or 0"),
        ('{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n{"text": "a", "label": 0}\n', "'a' 'true' and 'false'"),
        ('{"text": "a", "label": 1, "span": [0, 5]}\n', "lies outside the text"),
        ('{"text": "a", "label": 1, "span": [0, 1], "token": 0}\n', "both name a place"),
    ],
)
def test_a_bad_file_of_labels_is_refused_in_one_sentence(content: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(content)
    with pytest.raises(UserError, match=says) as error:
        read_labels("bad", file)
    assert "\n" not in str(error.value)


def test_line_breaks_inside_a_text_and_a_byte_order_mark_are_no_mistakes(tmp_path: Path) -> None:
    rows = [{"text": f"one{mark}two", "label": label} for label, mark in enumerate(("\u2028", "\x85"))]
    file = tmp_path / "odd.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode())
    assert [row.text for row in read_labels("odd", file).rows] == ["one\u2028two", "one\x85two"]


def test_few_texts_and_unknown_names_are_refused(model: TargetModel, corpus: Corpus) -> None:
    context = ToolContext(model, corpus, registered=Registered(labels={"words": file_of(rows(0, "cat", 12))}))
    with pytest.raises(ToolRefused, match="which needs 8"):
        run(context, "find_units")
    with pytest.raises(ToolRefused, match="no labels are called 'other'"):
        run(context, "find_units", labels="other")
    with pytest.raises(ToolRefused, match="no row of 'words' is labelled 'dog'"):
        run(context, "find_units", concept="dog")
    with pytest.raises(ToolRefused, match="one set of texts is empty"):
        run(context, "find_units", labels="", having=["a"])


@pytest.mark.parametrize(
    ("text", "labels", "concept"),
    [
        ("find units for the concept months", "months", ""),
        ("which neurons carry the concept months?", "months", ""),
        ("find units for the concept 'day' in words", "words", "day"),
        ('which directions tell the label "a day" of my-labels.2', "my-labels.2", "a day"),
    ],
)
def test_a_concept_is_asked_of_registered_labels(text: str, labels: str, concept: str) -> None:
    question = parse_question(text)
    assert (question.intent, question.labels, question.answer) == ("concept", labels, concept)


def test_an_unregistered_concept_is_refused_before_anything_is_recorded(
    neuronaut: Callable[..., Any], tiny: tuple[str, ...]
) -> None:
    said = neuronaut("ask", "find units for the concept months", *tiny)
    assert said.code == 2
    assert "no labels are called 'months'" in said.err


@pytest.mark.parametrize("text", ["months.jsonl", "=x", "a b=x", "x="])
def test_what_is_registered_needs_a_name(text: str) -> None:
    with pytest.raises(UserError, match="has no name"):
        registered_config(None, [text], None)


def test_the_predicate_that_stands_for_a_concept_holds_where_it_says(model: TargetModel, corpus: Corpus) -> None:
    labels = file_of(rows(3, "dog"))
    context = ToolContext(model, corpus, registered=Registered(labels={"words": labels}))
    found = run(context, "find_units")["said_as"]
    places = observed(model, labels, "true")
    true = holds(parse_text(f"at({FAR}, token(' dog'))"), places.tokens)[places.windows, places.positions]
    assert found["words"] == f"at({FAR}, token(' dog'))"
    assert (true == places.positive[places.owners]).mean() > 0.95
