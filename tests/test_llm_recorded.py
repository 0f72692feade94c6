"""A recorded run is repeated from its notebook alone: the same requests, replies, authors and hashes."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from neuronaut.agent.config import ModelName, RunConfig, parse_llm, placed_llm
from neuronaut.agent.llm.base import Call, LanguageModelError, Offered, Reply, Request, Said, Told
from neuronaut.agent.llm.log import NotebookLog
from neuronaut.agent.llm.opened import gateway_of
from neuronaut.agent.llm.recorded import RecordedModel
from neuronaut.agent.llm.registry import open_language_model
from neuronaut.agent.session import Session
from neuronaut.evals.fake_provider.script import says
from neuronaut.evals.fake_provider.server import Loopback
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.base import Fingerprint


class Answer(BaseModel):
    n: int


CONTEXT: Any = SimpleNamespace(forwards=0.0)  # no model is studied here
TOOL = Offered("look", "Looks.", {"type": "object", "properties": {}, "required": []})
PLAIN = Request("count", "the system prompt", "how many? ≥ 3", Answer)
TALK = Request("talk", "the system prompt", "look", tools=(TOOL,))
CALLED = Call("call_1", "look", "{not JSON")
NEXT = Request(
    "talk", "the system prompt", "look", turns=(Said("", (CALLED,)), Told("", (("call_1", "3"),))), tools=(TOOL,)
)
REQUESTS = (PLAIN, TALK, NEXT)
REPLIES: list[Any] = [
    Reply('{"n": 3}', "paid-2026", "completed", 70, 10, 30),
    Reply("I look.", "paid-2026", "tool_use", 7, None, None, (CALLED,)),
    LanguageModelError("paid gave no reply within 3 seconds", maybe_billed=True),
]


class Paid:
    """A paid model whose replies depend on what it is asked."""

    provider, model, billed, max_tokens = "openai", "paid", True, 1000

    def __init__(self, model: str = "paid", source: str = "http://127.0.0.1/v1") -> None:
        self.model, self.source = model, source

    def ask(self, request: Request, heard: Any = None) -> Reply:
        found = REPLIES[REQUESTS.index(request)]
        if isinstance(found, Exception):
            raise found
        return found


def record(path: Path, *models: Any, requests: tuple[Request, ...] = REQUESTS) -> list[Any]:
    """What a run in a new notebook at `path` gets, and its call rows."""
    got: list[Any] = []
    with Notebook(path) as notebook:
        run = notebook.start_run(
            RunConfig(question="q").model_dump(mode="json"),
            Fingerprint("m", "w", "t", "float32", "torch", "1", "none"),
            ("c", "s", 1),
        )
        for model in models:
            config = RunConfig(question="q", llm=f"recorded:{path}")
            session = Session(run, config, notebook, CONTEXT, [], lambda *_: None)
            log = NotebookLog(session)
            for request in requests:
                sha256 = str(len(got))
                body = request.as_json() | {"provider": model.provider, "model": model.model, "source": model.source}
                call = log.begin_call(request.purpose, model, body, sha256)
                try:
                    reply, error = model.ask(request), None
                except LanguageModelError as failed:
                    reply, error = None, str(failed)
                log.end_call(call, reply=reply, error=error, usd_micro=None, seconds=0.1)
                got.append(reply or error)
    return got


def outcome(model: Any, request: Request) -> Any:
    try:
        return model.ask(request)
    except LanguageModelError as error:
        return str(error)


def test_a_recording_gives_each_reply_and_each_failure_again(tmp_path: Path) -> None:
    first = record(tmp_path / "n.db", Paid())
    model = RecordedModel.from_file(str(tmp_path / "n.db"))
    assert [outcome(model, request) for request in REQUESTS] == first
    assert first[:2] == REPLIES[:2]
    assert "no reply within" in first[2]


def test_it_goes_by_the_name_of_the_model_that_was_recorded(tmp_path: Path) -> None:
    record(tmp_path / "n.db", Paid())
    model = open_language_model(parse_llm(f"recorded:{tmp_path / 'n.db'}"))
    assert (model.provider, model.model, model.source) == ("openai", "paid", "http://127.0.0.1/v1")
    assert not model.billed


def test_the_limit_of_the_reply_is_not_part_of_what_was_asked(tmp_path: Path) -> None:
    record(tmp_path / "n.db", Paid())
    model = RecordedModel.from_file(str(tmp_path / "n.db"))
    other = Request("count", "the system prompt", "how many? ≥ 3", Answer, max_tokens=17)
    assert model.ask(other) == REPLIES[0]


@pytest.mark.parametrize(
    "other",
    [
        Request("counts", "the system prompt", "how many? ≥ 3", Answer),
        Request("count", "the system prompt.", "how many? ≥ 3", Answer),
        Request("count", "the system prompt", "how many?", Answer),
        Request("count", "the system prompt", "how many? ≥ 3"),
        Request("count", "the system prompt", "how many? ≥ 3", Answer, turns=(Told("x"),)),
        Request("count", "the system prompt", "how many? ≥ 3", Answer, tools=(TOOL,)),
    ],
)
def test_a_request_that_differs_in_anything_else_is_refused(tmp_path: Path, other: Request) -> None:
    record(tmp_path / "n.db", Paid())
    with pytest.raises(UserError, match="holds no reply to this request"):
        RecordedModel.from_file(str(tmp_path / "n.db")).ask(other)


def test_a_reply_counts_more_than_an_earlier_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = Reply("late", "paid", "stop", 1, 0, 1)
    path = tmp_path / "n.db"
    record(path, Paid())
    monkeypatch.setattr(Paid, "ask", lambda *_: late)
    record(path, Paid(), requests=(NEXT,))
    assert RecordedModel.from_file(str(path)).ask(NEXT) == late


def test_one_of_several_models_is_chosen_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "n.db"
    record(path, Paid(), Paid("other"))
    with pytest.raises(UserError, match=r"several language models \(openai:other .*, openai:paid .*PROVIDER:MODEL"):
        RecordedModel.from_file(str(path))
    assert RecordedModel.from_file(f"{path}@openai:other").model == "other"
    with pytest.raises(UserError, match="no replies of openai:third"):
        RecordedModel.from_file(f"{path}@openai:third")


def test_a_notebook_without_calls_and_one_that_is_not_there_are_refused(tmp_path: Path) -> None:
    record(tmp_path / "n.db")
    with pytest.raises(UserError, match="holds no replies of a language model"):
        RecordedModel.from_file(str(tmp_path / "n.db"))
    with pytest.raises(UserError, match="there is no notebook"):
        RecordedModel.from_file(str(tmp_path / "missing.db"))
    (tmp_path / "text.db").write_text("no notebook")
    with pytest.raises(UserError):
        RecordedModel.from_file(str(tmp_path / "text.db"))


def test_the_recording_is_not_altered(tmp_path: Path) -> None:
    path = tmp_path / "n.db"
    record(path, Paid())
    before = path.read_bytes()
    path.chmod(0o400)
    RecordedModel.from_file(str(path)).ask(PLAIN)
    assert path.read_bytes() == before


def test_a_replay_asks_with_the_hashes_and_the_author_of_the_recording(tmp_path: Path) -> None:
    """Through the gateway, as a run asks, into a notebook of its own."""
    path = tmp_path / "n.db"
    record(path, Paid())

    def ask(folder: str, llm: str | None, model: Any = None) -> list[dict[str, Any]]:
        (tmp_path / folder).mkdir()
        with Notebook(tmp_path / folder / "n.db") as notebook:
            config = RunConfig(question="q", llm=llm)
            run = notebook.start_run(
                config.model_dump(mode="json"),
                Fingerprint("m", "w", "t", "float32", "torch", "1", "none"),
                ("c", "s", 1),
            )
            session = Session(run, config, notebook, CONTEXT, [], lambda *_: None)
            gateway = gateway_of(session)
            gateway.model = model or gateway.model
            assert gateway.converse(PLAIN) == REPLIES[0]
            assert gateway.converse(TALK) == REPLIES[1]
            return queries.calls(notebook, run)

    first, again = ask("first", f"recorded:{path}", Paid()), ask("again", f"recorded:{path}")
    names = ("provider", "model", "purpose", "request_sha256")
    assert [[row[name] for name in names] for row in again] == [[row[name] for name in names] for row in first]
    assert [row["end"]["response"] for row in again] == [row["end"]["response"] for row in first]
    assert [row["end"]["usd_micro"] for row in again] == [0, 0]


def test_a_question_is_answered_again_from_its_notebook_without_a_key_or_a_server(
    neuronaut: Any, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = {"hypotheses": [{"claim": "It fires there.", "predicate": "starts_word"}], "against": []}
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def ask(name: str, *options: str) -> dict[str, Any]:
        asked = ("ask", "what does neuron 0.3 do", *tiny, "--fast", "--json", "--notebook", tmp_path / name, *options)
        said = neuronaut(*asked)
        assert said.code == 0, said.err
        return json.loads(said.out)

    with Loopback(says(json.dumps(reply)), key=None) as server, monkeypatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "any key")
        first = ask("first.db", "--llm", "openai:some", "--base-url", f"{server.url}/v1")
        n_sent = len(server.requests)
    again = ask("again.db", "--llm", f"recorded:{tmp_path / 'first.db'}")
    assert n_sent == again["cost"]["llm_calls"] == first["cost"]["llm_calls"] > 0
    assert "openai:some" in json.dumps(again["claims"] + again["proposed"])
    told = ("status", "reason", "claim", "predicate", "author", "authors")
    for part in ("claims", "proposed"):
        facts = [[{key: one.get(key) for key in told} for one in answer[part]] for answer in (first, again)]
        assert facts[0] == facts[1]
    assert (again["examples"], again["outcomes"]) == (first["examples"], first["outcomes"])


def test_a_file_means_the_same_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert placed_llm("recorded:n.db") == f"recorded:{tmp_path / 'n.db'}"
    assert placed_llm("scripted:s.json") == f"scripted:{tmp_path / 's.json'}"
    assert placed_llm("openai:m") == "openai:m"
    assert placed_llm(None) is None
    assert parse_llm("recorded:n.db") == ModelName("recorded", "n.db")
