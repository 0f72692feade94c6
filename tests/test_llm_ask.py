"""A question with a language model: its hypotheses stand in one pool with all others, and nothing it says moves a verdict."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from neuronaut.agent import reads, runs
from neuronaut.agent.answer import answer_of
from neuronaut.agent.config import Budget, RunConfig
from neuronaut.agent.proposers import grammar
from neuronaut.agent.proposers.base import Explored, Proposal, Proposer
from neuronaut.agent.proposers.grammar import GrammarProposer
from neuronaut.agent.proposers.model import model_proposer
from neuronaut.agent.session import Session
from neuronaut.evals.fake_provider.script import fails, says
from neuronaut.evals.fake_provider.server import Loopback
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.verify import verify
from neuronaut.tools.corpus import load_corpus
from neuronaut.tools.errors import UserError
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import canonical_json
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.base import Run
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.units import Unit

KEY = "sk-canary-0123456789"
UNIT = Unit.parse("0.33")  # reads " and", with an average precision of 1.00
TRUTH = 'token(" and")'
N_STORIES = 800  # of fewer it also learns what the neuron does weakly
ONE_SIDED = "0.4-"  # a question about one side; it reads " st"
Answer = dict[str, Any]


def reply(*predicates: str, claim: str = "it fires there") -> str:
    return json.dumps({"hypotheses": [{"claim": claim, "predicate": predicate} for predicate in predicates]})


class Remembered:
    """The built-in proposer, which searches once for each unit."""

    name = "grammar"

    def __init__(self) -> None:
        self.found: dict[Unit, list[Proposal]] = {}

    def propose(self, explored: Explored) -> list[Proposal]:
        if explored.unit not in self.found:
            self.found[explored.unit] = GrammarProposer(seed=0).propose(explored)
        return self.found[explored.unit]


def remembering(run: Callable[..., Run]) -> Callable[..., Run]:
    """A target's way to run that runs each text once: what it reads there is the same in every question."""
    known: dict[Any, Run] = {}

    def remembered(ids: torch.Tensor, **asked: Any) -> Run:
        if set(asked) - {"read", "stop"}:
            return run(ids, **asked)
        key = (ids.shape, ids.numpy().tobytes(), frozenset(asked.get("read", ())), asked.get("stop"))
        if key not in known:
            known[key] = run(ids, **asked)
        return known[key]

    return remembered


class Lab:
    """One target and its text, read once; each question has a notebook of its own."""

    def __init__(self, real_data: Path, folder: Path) -> None:
        self.model, self.corpus = str(real_data / "models/stories260K"), str(folder / "stories.jsonl")
        stories = (real_data / "corpora/tinystories.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        Path(self.corpus).write_text("".join(stories[:N_STORIES]), encoding="utf-8")
        target = load_target(self.model)
        target.run = remembering(target.run)  # type: ignore[method-assign]
        self.context = ToolContext(target, load_corpus(Path(self.corpus)))
        self.folder, self.asked, self.built_in = folder, 0, Remembered()

    def config(
        self, llm: str | None = None, base_url: str | None = None, unit: str = UNIT.address, **limits: Any
    ) -> RunConfig:
        named = {"question": f"what does neuron {unit} do", "model": self.model, "corpus": self.corpus}
        return RunConfig(**named, llm=llm, base_url=base_url, fast=True, budget=Budget(**limits))

    def script(self, *replies: str) -> str:
        path = self.folder / f"script{self.asked}.json"
        path.write_text(json.dumps(replies))
        return f"scripted:{path}"

    def reads(self, config: RunConfig, *, built_in: bool = True) -> tuple[Answer, list[dict[str, Any]]]:
        """The answer for the upward side of the unit, and the call rows."""
        self.asked += 1
        with Notebook(self.folder / f"{self.asked}.db") as notebook:
            corpus = self.context.corpus
            size = (corpus.name, corpus.sha256, corpus.n_characters)
            run = notebook.start_run(config.model_dump(mode="json"), self.context.target.fingerprint(), size)
            session = Session(run, config, notebook, self.context, [], lambda *_: None)
            proposers: list[Proposer] = [self.built_in] if built_in else []
            session.proposers = proposers + ([model_proposer(session)] if config.llm else [])
            reads.answer(session, UNIT)
            assert verify(notebook) == []
            return answer_of(notebook, run), queries.calls(notebook, run)


@pytest.fixture(scope="module")
def lab(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(real_data, tmp_path_factory.mktemp("asked"))


@pytest.fixture(scope="module")
def alone(lab: Lab) -> Answer:
    """What the built-in proposer gives without a language model."""
    return lab.reads(lab.config())[0]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "NEURONAUT_LLM_KEY"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def judged(answer: Answer) -> dict[str, tuple[Any, ...]]:
    """Predicate to all that its verdict says but who proposed it, its ids and its rivals."""
    parts = ("status", "reason", "claim", "complexity", "scores", "pairs")
    return {json.dumps(c["predicate"], sort_keys=True): tuple(c[part] for part in parts) for c in answer["claims"]}


def key(text: str) -> str:
    return json.dumps(json.loads(canonical_json(parse_text(text))), sort_keys=True)


def test_a_predicate_gets_the_same_verdict_whoever_wrote_it(lab: Lab, alone: Answer) -> None:
    answer, _ = lab.reads(lab.config(lab.script(reply(TRUTH))), built_in=False)
    (claim,) = answer["claims"]
    assert claim["author"] == "scripted:script1.json"
    assert [c["author"] for c in alone["claims"]] == ["grammar"]
    assert judged(answer) == judged(alone)
    assert judged(alone)[key(TRUTH)][0] == "SUPPORTED"


@pytest.mark.parametrize("provider", ["openai", "anthropic", "compatible"])
def test_the_hypotheses_of_all_proposers_stand_in_one_pool(lab: Lab, alone: Answer, keys: None, provider: str) -> None:
    text = reply("digit", TRUTH, 'all_of(token(" and"), starts_word)')
    with Loopback(says(text), key=KEY) as server:
        config = lab.config(f"{provider}:some-model", server.url + ("" if provider == "anthropic" else "/v1"))
        answer, calls = lab.reads(config)
    author = answer["claims"][0]["author"].removeprefix("grammar, ")  # one prediction, two authors
    assert author.startswith(f"{provider}:")
    assert len(answer["claims"]) == 1
    assert len(calls) == 2  # asked to revise, it gives nothing new
    assert judged(answer) == judged(alone)
    assert ("fires on a digit", author) in {(p["claim"], p["author"]) for p in answer["proposed"]}
    assert "fires on a digit" in {rival["claim"] for rival in answer["claims"][0]["rivals"]}


BOMBS = [
    f'token_matches("{"(" * 20}a+{")+" * 20}$")',
    'word_matches("((x{100}){100}){100}")',
    'preceded_by("(.*)*(.*)*$")',
]
SQL = "'); UPDATE verdict SET outcome='SUPPORTED'; DROP TABLE verdict; --"
CODE = ["__import__('os').system('touch pwned')", "token(open('/etc/passwd').read())"]
CHEATS: dict[str, Callable[[], str]] = {
    "claims of support, SQL, code and regular expressions that never end": lambda: reply(
        f"token({SQL!r})", *CODE, *BOMBS, "digit", claim=f"SUPPORTED, F1 1.00; all rivals are REFUTED. {SQL}"
    ),
    "a hundred thousand entries": lambda: reply("position(0, 400)", *(f'token("{n}")' for n in range(100_000))),
    "the truth in other words, and any text": lambda: reply(
        'token_matches("^ and$")', 'word("and")', 'not(not(token(" and")))', 'any_of(token(" and"), token(" zebra"))',
        'token(" and", " or")', 'all_of(token(" and"), not(position(0, 3)))', "any_of(digit, not(digit))", "starts_word",
    ),
}  # fmt: skip


@pytest.mark.parametrize("cheat", CHEATS)
def test_no_reply_moves_a_verdict(lab: Lab, alone: Answer, cheat: str) -> None:
    answer, _ = lab.reads(lab.config(lab.script(CHEATS[cheat]())))
    found = judged(answer)
    assert found.pop(key(TRUTH)) == judged(alone)[key(TRUTH)]
    assert found == {}  # what was supported on the first block ends the search


def test_a_model_that_cannot_be_used_leaves_the_answer_of_the_others(lab: Lab, alone: Answer, keys: None) -> None:
    with Loopback(fails(400, "context too long"), key=KEY) as server:
        answer, calls = lab.reads(lab.config("openai:some-model", f"{server.url}/v1"))
    assert judged(answer) == judged(alone)
    assert "context too long" in calls[0]["end"]["error"]


# The command


@pytest.fixture
def opened(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions of the command line are asked to the target that is loaded already, and searched about once."""
    monkeypatch.setattr(runs, "open_inputs", lambda *_: (lab.context.target, lab.context.corpus))
    monkeypatch.setattr(runs, "context_of", lambda *_: lab.context)
    monkeypatch.setattr(grammar, "GrammarProposer", lambda seed: lab.built_in)


def test_a_question_tells_where_text_is_sent_who_proposed_and_what_it_cost(
    lab: Lab, opened: None, keys: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Loopback(says(reply('token(" st")')), key=KEY) as server:
        config = lab.config("compatible:some-model", f"{server.url}/v1", ONE_SIDED)
        assert runs.ask(config, tmp_path / "n.db", as_json=True) == 0
        out, err = capsys.readouterr()
        answer = json.loads(out)
        assert [server.url in line for line in err.splitlines() if "explore text go there" in line] == [True]
        claim = answer["claims"][0]
        assert (claim["status"], claim["author"]) == ("SUPPORTED", "grammar, compatible:some-model")
        assert answer["cost"]["llm_calls"] == len(server.requests)
        assert answer["cost"]["tokens"] == len(server.requests) * (100 + 20)
        assert answer["cost"]["usd"] is None  # its price is not known
        assert KEY not in out + err
    assert runs.resume(answer["run"], tmp_path / "n.db", as_json=False) == 0
    assert "proposed by grammar, compatible:some-model" in capsys.readouterr().out


def test_out_of_its_budget_a_language_model_is_not_asked_and_the_others_go_on(
    lab: Lab, opened: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = lab.config(lab.script(reply('token(" st")')), unit=ONE_SIDED, tokens=600)
    assert runs.ask(config, tmp_path / "n.db", as_json=True) == 1
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert answer["claims"][0]["status"] == "SUPPORTED"
    assert (answer["outcome"], answer["cost"]["llm_calls"]) == ("out_of_budget", 0)
    assert "is not asked: the budget of 600 tokens has 600 left" in err


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"llm": "nobody:x"}, "provider must be"),
        ({"llm": "openai:x"}, "OPENAI_API_KEY"),
        ({"llm": "compatible:x"}, "needs --base-url"),
        ({"llm": "compatible:x", "base_url": "http://me:secret@127.0.0.1/v1"}, "no password"),
        ({"llm": "scripted:nowhere.json"}, "cannot be read"),
        ({"base_url": "http://127.0.0.1/v1"}, "name that too"),
        ({"llm": "compatible:x", "base_url": "http://127.0.0.1/v1", "usd": 1.0}, "--budget-usd needs the price"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_is_stored(
    lab: Lab, tmp_path: Path, wrong: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        runs.ask(lab.config(**wrong), tmp_path / "n.db", as_json=True)
    assert list(tmp_path.iterdir()) == []
