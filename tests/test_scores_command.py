"""`neuronaut score`: what is printed and recorded, what it says when something is missing, and that it moves no verdict."""

import json
import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuronaut.agent.scores.chosen import NAMES
from neuronaut.agent.scores.explained import best_claim
from neuronaut.evals.fake_provider.script import fails, says
from neuronaut.evals.fake_provider.server import Loopback
from neuronaut.memory import queries
from neuronaut.memory.experiments import ExperimentSpec
from neuronaut.memory.judge import ReadsCase, decide
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.search import search
from neuronaut.memory.verify import verify
from neuronaut.tools.corpus import load_corpus
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.learn.subject import items_of, other_subject, shown_windows, subject_of
from neuronaut.tools.learn.windows import documents_of
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import NO_SIDE, TOO_RARE
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.units import Unit

UNIT = Unit.parse("0.6")  # active in enough windows of the text that is kept for scores
Command = Callable[..., Any]


class Lab:
    """A small random model on 1200 short texts, its command line, and its notebook."""

    def __init__(self, folder: Path, command: Command) -> None:
        made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
        self.folder, self.command = folder, command
        self.model = made["make_model"]("gpt2", folder / "model")
        self.corpus = made["make_corpus"](folder / "corpus.jsonl", documents=1200)
        self.target: TargetModel = load_target(self.model)

    @property
    def context(self) -> ToolContext:
        return ToolContext(self.target, load_corpus(self.corpus))

    def script(self, *replies: Any) -> str:
        path = self.folder / f"{abs(hash(json.dumps(replies)))}.json"
        path.write_text(json.dumps(replies))
        return f"scripted:{path}"

    def score(self, *argv: object, unit: str = UNIT.address) -> Any:
        return self.command("score", unit, "--model", self.model, "--corpus", self.corpus, *argv)

    def row(self, *argv: object) -> dict[str, Any]:
        """The only row of a command that succeeds."""
        said = self.score(*argv, "--json")
        assert said.code == 0, said.err
        (row,) = json.loads(said.out)["scores"]
        return dict(row)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, neuronaut: Command) -> Lab:
    return Lab(tmp_path_factory.mktemp("scored"), neuronaut)


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return tmp_path / "notebook.db"  # the one that the command uses


ALL_FIT = {"labels": [1] * 5}
KEY = "sk-canary-0123456789"
DOG = ("--explanation", "the dog")


def test_what_is_scored_is_of_documents_that_no_explainer_is_shown(lab: Lab) -> None:
    context = lab.context
    for one in (subject_of(context, UNIT), other_subject(context, UNIT, 0)):
        explored = {document.group for document in context.corpus.of("explore")}
        assert documents_of(shown_windows(context, one)) <= explored
        assert documents_of(one.windows).isdisjoint(explored)
        assert len(items_of(one, 0).positives) == 50
    assert other_subject(context, UNIT, 0).unit.index != UNIT.index


def test_a_score_is_printed_with_its_correction_first_and_its_baselines_beside(lab: Lab) -> None:
    said = lab.score("--llm", lab.script(ALL_FIT), "--scores", "detection", *DOG)
    assert said.code == 0
    head, row = (line for line in said.out.splitlines() if line.startswith(("score ", "detection ")))
    assert head.split("  ")[0] == "score"
    assert (
        head.index("corrected")
        < head.index("other explanation")
        < head.index("random unit")
        < head.index("as published")
    )
    assert row.split() == ["detection", *["0.50", "[0.50,", "0.50]"], "0.5", *["0.50", "[0.50,", "0.50]"] * 3, "20/0/0"]
    assert f"{UNIT.address}: the dog (as given)" in said.out
    assert "a score is no verdict and changes none" in said.out


def test_a_score_is_an_experiment_with_its_evidence(lab: Lab, notebook: Path) -> None:
    argv = ("--llm", lab.script(ALL_FIT), "--scores", "fuzz", *DOG)
    row = lab.row(*argv)
    with Notebook(notebook) as opened:
        (run,) = queries.runs(opened)
        (experiment,) = queries.experiments(opened, run["id"])
        assert (experiment["tool"], experiment["end"]["outcome"], run["outcome"]) == ("score_fuzz", "ok", "answered")
        evidence = {one["metric"]: one for one in experiment["evidence"]}
        assert set(evidence) == {"fuzz", "fuzz_published", "fuzz_shuffled", "fuzz_random_unit"}
        assert {one["subject"] for one in experiment["evidence"]} == {"the dog"}
        assert (evidence["fuzz"]["value"], evidence["fuzz"]["null_value"]) == (row["value"], row["shuffled"]["value"])
        assert len(queries.calls(opened, run["id"])) == 80  # 20 each for two baselines and the published form too
        assert queries.hypotheses(opened, run["id"]) == []
        assert verify(opened) == []
    shown = lab.command("show", run["id"])
    assert f"fuzz of {UNIT.address}: the dog" in shown.out
    assert "0.50 [0.50, 0.50]" in shown.out
    again = json.loads(lab.score(*argv, "--json").out)
    assert again["scores"] == [row]
    assert again["cost"]["llm_calls"] == 0
    following = json.loads(lab.command("show", run["id"], "--json").out)["next"]
    assert [line.split()[1] for line in following] == ["show", "verify"]  # not rerun, which is refused
    rerun = lab.command("rerun", run["id"])
    assert (rerun.code, "repeat them with `neuronaut score" in rerun.err) == (2, True)


def test_an_unfinished_run_of_scores_goes_on_with_its_command(lab: Lab, notebook: Path) -> None:
    argv = ("--llm", lab.script(ALL_FIT), "--scores", "detection", *DOG, "--corrected-only")
    whole = range(60)
    assert lab.score(*argv, "--budget-tokens", 3500).code == 1
    with Notebook(notebook) as opened:
        (run,) = queries.runs(opened)
        asked = len(queries.calls(opened, run["id"]))
    resumed = lab.command("resume", run["id"])
    assert (resumed.code, "give its `neuronaut score` command again" in resumed.err) == (2, True)
    answer = json.loads(lab.score(*argv, "--json").out)
    assert 0 < asked < len(whole)
    assert answer["cost"]["llm_calls"] == len(whole) - asked


@pytest.mark.parametrize(
    ("provider", "score", "reply", "n"),
    [
        ("openai", "saebench_autointerp", {"active": []}, 1),
        ("anthropic", "saebench_autointerp", {"active": []}, 1),
        ("compatible", "detection", ALL_FIT, 20),
    ],
)
def test_the_services_take_the_questions_and_a_broken_one_gives_no_number(
    lab: Lab, provider: str, score: str, reply: Any, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "NEURONAUT_LLM_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    options = ("--corrected-only", *DOG, "--budget-calls", 1000, "--json", "--base-url")
    argv = ("--llm", f"{provider}:m", "--scores", score, *options)
    for step, told in ((says(json.dumps(reply)), None), (fails(400, "no luck"), f"{n} never came), more than 5%")):
        with Loopback(step, key=KEY) as server:
            said = lab.score(*argv, server.url + ("" if provider == "anthropic" else "/v1"))
            assert len(server.requests) >= n
        (row,) = json.loads(said.out)["scores"]
        assert KEY not in said.out + said.err
        if told is None:
            assert (said.code, row["value"], row["replies"]["n_ok"]) == (0, 0.5, n)
        else:
            assert said.code == 3
            assert told in row["refused"]
            assert "no luck" in row["refused"]


def test_only_the_corrected_form_asks_a_quarter_less(lab: Lab) -> None:
    said = lab.score("--llm", lab.script(ALL_FIT), "--scores", "detection", *DOG, "--corrected-only", "--json")
    answer = json.loads(said.out)
    assert answer["scores"][0]["published"] is None
    assert answer["cost"]["llm_calls"] == 60


def test_the_baselines_name_another_unit_and_its_explanation(lab: Lab) -> None:
    row, other = (
        lab.row("--llm", lab.script(ALL_FIT), "--scores", "detection", *DOG),
        other_subject(lab.context, UNIT, 0),
    )
    assert row["random_unit"]["unit"] == row["shuffled"]["unit"] == other.unit.address
    assert row["shuffled"]["source"] == "its 3 strongest tokens"
    assert row["shuffled"]["explanation"].startswith("fires on ")
    assert row["shuffled"]["explanation"] != row["explanation"]


def test_the_unit_is_judged_without_an_explanation_by_its_intruders(lab: Lab) -> None:
    row = lab.row("--llm", lab.script({"intruder": 1}), "--scores", "intruder", *DOG)
    assert row["shuffled"] is None
    assert row["ci"][0] < 0.2 < row["ci"][1]
    assert row["replies"] == {"n_ok": 50, "n_parse_fail": 0, "n_api_fail": 0}


def test_local_judges_score_beside_each_other_and_one_that_cannot_says_why(lab: Lab, notebook: Path) -> None:
    """The context of the small model, 24 tokens, holds a text but none of the longer prompts."""
    said = lab.score("--simulator", "target", "--explanation", 'token(" dog")', "--json")
    assert said.code == 3
    rows = {row["score"]: row for row in json.loads(said.out)["scores"]}
    assert list(rows) == ["simulation", "simulation_transluce", "embedding", "surprisal", "intervention", "n2g_f1"]
    assert {name for name, row in rows.items() if not row["refused"]} == {"embedding", "n2g_f1"}
    assert "single token for '10'" in rows["simulation"]["refused"]
    assert "does not fit into the context" in rows["surprisal"]["refused"]
    assert 0 <= rows["embedding"]["ci"][0] <= rows["embedding"]["value"] <= rows["embedding"]["ci"][1] <= 1
    assert rows["n2g_f1"]["judge"] == "the predicate"
    with Notebook(notebook) as opened:
        (run,) = queries.runs(opened)
        found = {one["tool"]: one for one in queries.experiments(opened, run["id"])}
        assert found["score_surprisal"]["end"]["outcome"] == "refused"
        assert found["score_surprisal"]["evidence"] == []
        assert verify(opened) == []


def test_replies_that_cannot_be_read_give_no_number(lab: Lab, notebook: Path) -> None:
    said = lab.score("--llm", lab.script("no labels"), "--scores", "detection", *DOG)
    assert said.code == 3
    assert (
        "detection: no number: 20 of 20 replies failed (20 could not be used, 0 never came), more than 5%" in said.out
    )
    with Notebook(notebook) as opened:
        (run,) = queries.runs(opened)
    assert "rerun" not in lab.command("show", run["id"]).out


def test_out_of_its_budget_the_command_says_so(lab: Lab) -> None:
    said = lab.score("--llm", lab.script(ALL_FIT), "--scores", "detection", *DOG, "--budget-tokens", 2000)
    assert (said.code, "the budget of 2,000 tokens has" in said.err) == (1, True)


# The claim that is scored when no explanation is given


def supported(lab: Lab, path: Path, claims: dict[str, float], weights: str | None = None) -> None:
    """SUPPORTED claims about the unit with these F1, and a refuted one that is better."""
    fingerprint, corpus = lab.target.fingerprint(), load_corpus(lab.corpus)
    if weights is not None:
        fingerprint = replace(fingerprint, weights_sha256=weights)
    with Notebook(path) as notebook:
        size = (corpus.name, corpus.sha256, corpus.n_characters)
        run = notebook.start_run({"question": "what does neuron 0.6 do", "seed": 0}, fingerprint, size)
        for word, f1 in (claims | {"mat": 0.99}).items():
            row = {"side": "reads", "claim": f'fires on " {word}"', "author": "grammar", "complexity": 1,
                   "predicate": json.dumps({"kind": "token", "any_of": [f" {word}"]})}  # fmt: skip
            hypothesis = notebook.add_hypothesis(run, UNIT, row)
            frozen = {"metric": "f1", "comparator": ">", "threshold": 0, "baseline": "rivals", "split": "confirm/0"}
            prediction = notebook.register(hypothesis, {**frozen, "payload": {"word": word}})
            case = ReadsCase(
                complexity=1, n_claims=1, places=80, precision=0.9, precision_low=0.8, coverage=0.9, coverage_low=0.8, f1=f1,
                base_rate=0.01, ap=0.9, ap_null=0.1, r_low=0.5, dense=False, graded=False, bets=(-1.0 if word == "mat" else 1.0,) * 20,
            )  # fmt: skip
            spec = ExperimentSpec("test_reads", "s", {"word": word})
            started = notebook.begin_experiment(run, spec, prediction=prediction)
            measured = [("claim", Measurement("f1", f1, "share", 40))]
            evidence = notebook.end_experiment(started.id, {"payload": {}, "measurements": []}, evidence=measured)
            notebook.verdict(prediction, case, decide(case), evidence)
        notebook.end_run(run, "answered", "", {"seconds": 1.0, "forwards": 1.0})


def test_the_best_supported_claim_is_scored_and_keeps_its_verdict(lab: Lab, notebook: Path) -> None:
    supported(lab, notebook, {"cat": 0.8, "dog": 0.9, "men": 0.7})
    with Notebook(notebook) as opened:
        before = {row["id"]: row["status"] for row in search(opened, "")}
    row = lab.row("--llm", lab.script({"active": [1]}), "--scores", "saebench_autointerp")
    assert row["explanation"] == 'fires on " dog"'
    assert row["source"].startswith("SUPPORTED in run ")
    with Notebook(notebook) as opened:
        assert {row["id"]: row["status"] for row in search(opened, "")} == before
        assert sorted(before.values()) == ["refuted", "supported", "supported", "supported"]
        assert verify(opened) == []


def test_a_claim_about_other_weights_is_none_about_this_unit(lab: Lab, notebook: Path) -> None:
    supported(lab, notebook, {"dog": 0.9}, weights="w" * 64)
    with Notebook(notebook) as opened:
        assert best_claim(opened, lab.target.fingerprint().weights_sha256, UNIT) is None
        assert best_claim(opened, "w" * 64, UNIT) is not None
    said = lab.score("--llm", lab.script(ALL_FIT), "--scores", "detection")
    assert (said.code, "ask about it first, or give --explanation" in said.err) == (2, True)


# What is refused before anything is loaded or stored


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (DOG, "without a judge: name a language model"),
        ((*DOG, "--scores", "detection"), "detection needs a judge: name one with --llm"),
        ((*DOG, "--scores", "surprisal"), "surprisal needs a judge: name one with --simulator"),
        ((*DOG, "--scores", "simulation"), "name one with --llm or --simulator"),
        ((*DOG, "--scores", "n2g_f1"), "n2g_f1 is computed from a predicate, and --explanation is none"),
        ((*DOG, "--scores", "embedding,n2g_f1", "--simulator", "target"), "or leave n2g_f1 out"),
        (("--explanation", "digit(", "--scores", "n2g_f1"), "write it in the predicate language"),
        ((*DOG, "--scores", "detect"), f"'detect' is no score: choose from {', '.join(NAMES)}"),
        (("--explanation", " ", "--simulator", "target"), "--explanation is empty"),
        (("--explanation", "x" * 3000, "--simulator", "target"), "3,000 characters"),
        ((*DOG, "--base-url", "http://127.0.0.1/v1", "--simulator", "target"), "name that too"),
        ((*DOG, "--llm", "nobody:x"), "provider must be"),
        ((*DOG, "--llm", "scripted:nowhere.json"), "cannot be read"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_a_sentence(
    lab: Lab, notebook: Path, argv: tuple[str, ...], reason: str
) -> None:
    said = lab.score(*argv)
    assert (said.code, said.out) == (2, "")
    assert reason in said.err
    assert "loading" not in said.err
    assert not notebook.exists()


@pytest.mark.parametrize(
    ("unit", "reason"),
    [
        ("L0H1", "only neurons"),
        ("9.1", "layer 9 does not exist"),
        ("dog", "names no unit"),
        ("1.36", "hardly ever above 0"),
    ],
)
def test_a_unit_that_cannot_be_scored_is_refused(lab: Lab, notebook: Path, unit: str, reason: str) -> None:
    said = lab.score("--simulator", "target", *DOG, unit=unit)
    assert said.code == 2
    assert reason in said.err


def test_a_head_is_refused_before_anything_is_loaded(lab: Lab, notebook: Path) -> None:
    said = lab.score("--simulator", "target", *DOG, unit="L0H1")
    assert (said.code, "loading" in said.err, notebook.exists()) == (2, False, False)


def test_a_side_that_never_rises_above_0_is_told_with_the_other_side_where_that_can_be_scored(lab: Lab) -> None:
    unit, context = Unit.parse("1.36"), lab.context
    tokens = context.sample("explore", EXPLORE_TOKENS)
    activations = np.where(tokens.scored, context.activations(unit, "explore", n_tokens=EXPLORE_TOKENS), -np.inf)
    maxima = [activations[tokens.documents == document].max() for document in np.unique(tokens.documents)]
    assert np.median(sorted(maxima)[-20:]) <= 0
    with pytest.raises(ToolRefused, match=r"name its other side, 1\.36-, or another neuron"):
        subject_of(context, unit)
    assert subject_of(context, unit.with_sign(-1)).unit.address == "1.36-"


@pytest.mark.parametrize(
    ("reason", "told"), [(NO_SIDE, "hardly ever above 0"), (TOO_RARE, "active in fewer than 20 documents")]
)
def test_a_unit_without_a_rule_on_either_side_is_not_sent_to_the_other(
    lab: Lab, reason: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuronaut.tools.learn.subject.rule_of", lambda *_: reason)
    with pytest.raises(ToolRefused, match=told) as refused:
        subject_of(lab.context, UNIT)
    assert str(refused.value).endswith("; name another neuron")
