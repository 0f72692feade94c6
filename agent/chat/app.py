"""`neuronaut chat`: one conversation over a model, its experiments and the notebook; stopped anywhere, it goes on later."""

import json
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from neuronaut.agent import opening, runs
from neuronaut.agent.answer import answer_of
from neuronaut.agent.chat.actions import DEAR, act, all_offered
from neuronaut.agent.chat.graph import YES, Conversation, State, Value, conversation
from neuronaut.agent.chat.screen import JsonLines, Screen, Sentences, Terminal
from neuronaut.agent.chat.turns import as_call, as_turns, as_value
from neuronaut.agent.config import CONVERSATION, RunConfig
from neuronaut.agent.dictionaries import known_dictionaries
from neuronaut.agent.llm.base import Call, OutOfBudget, Request, Said, Told, plain
from neuronaut.agent.llm.gateway import NoReply
from neuronaut.agent.llm.opened import gateway_of
from neuronaut.agent.registered import named
from neuronaut.agent.session import Session
from neuronaut.agent.view import steps_on_stderr
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place, default_place
from neuronaut.memory.store import check_writable
from neuronaut.prompts import render
from neuronaut.tools.errors import UserError

ASKER = "asker"  # the id of a call that the person's own line makes, where no language model takes part
MOST_CALLS = 8  # of one turn
REFUSED = "the person did not allow this"
_ID = re.compile(r"\b[0-9A-HJKMNP-TV-Z]{26}\b")
_PART = re.compile(r"(?<![\w.])(?:\d+\.\d+-?|L\d+[HN]\d+|mlp\d+)(?![\w.]*\d)")
_VERDICTS = {
    "SUPPORTED": "supported|proved|proven|confirmed|established|verified",
    "REFUTED": "refuted|disproved|disproven",
    "PARTIAL": "partially (?:supported|proved|proven)",
    "UNRESOLVED": "unresolved",
    "ABSTAINED": "abstained",
}
HELP = """Ask in any words (with --llm) or in those of `neuronaut ask`; for example: what does neuron 8.481 do
test 8.481: at(1, token(" in"))    tests a hypothesis of your own
/cost  what was spent     /findings WORDS  claims in the notebook     /show ID  a record
/quit  leave; the conversation can go on later     Ctrl-C  stop what is running"""


class Talk:
    """The steps of one conversation: what is heard, said and done."""

    def __init__(self, session: Session, screen: Screen, approve: str) -> None:
        self.session, self.screen, self._approve = session, screen, approve

    @property
    def speaks(self) -> bool:
        """Whether a language model takes part."""
        return self.session.config.llm is not None

    def heard(self, state: State, line: str) -> State:
        """With the person's line; without a language model it is a question of its own."""
        if not self.speaks:
            call = Call(ASKER, "ask_question", json.dumps({"question": line}))
            return State(**{**state, "calls": [as_call(call)], "results": []})
        if not state["first"]:
            return State(**{**state, "first": line})
        return State(**{**state, "turns": [*state["turns"], as_value(Told(line))]})

    def think(self, state: State) -> State:
        """With what the language model says, shown sentence by sentence, and the calls that it makes."""
        turns = [*state["turns"], as_value(Told("", tuple((i, text) for i, text in state["results"])))][
            : len(state["turns"]) + bool(state["results"])
        ]
        words = Sentences(lambda sentence: self.screen.show("said", _marked(sentence)), self._stands)
        said, gateway = Said(""), gateway_of(self.session)
        request = Request(
            "talk", render("talk_system"), self._prompt(state["first"]), None, min(2_000, gateway.model.max_tokens),
            as_turns(turns), all_offered(),
        )  # fmt: skip
        with _held_back(self.session):
            try:
                reply = gateway.converse(request, words.hear)
                said = Said(reply.text, reply.calls[:MOST_CALLS])
            except (NoReply, OutOfBudget) as error:
                self.screen.show("note", f"no reply: {error}")
            words.end()
        if words.held_back:
            self.screen.show(
                "note", f"{words.held_back} of its sentences cited no record that bears them out: held back"
            )
        turns = [*turns, as_value(said)] if said.text or said.calls else turns
        return State(**{**state, "turns": turns, "calls": [as_call(call) for call in said.calls], "results": []})

    def leave_for(self, call: Value) -> str | None:
        """The call where it is dear and the language model's own idea."""
        dear = call["name"] in DEAR and call["id"] != ASKER and self._approve == "ask"
        return _shown(call) if dear else None

    def done(self, state: State, allowed: bool) -> State:
        """With the result of the first call."""
        value, *rest = state["calls"]
        call = Call(**value)
        if self._approve == "never" and call.name in DEAR and call.id != ASKER:
            allowed = False
        if call.id != ASKER:
            self.screen.show("call", _shown(value) if allowed else f"{_shown(value)}: not allowed")
        text = REFUSED
        if allowed:
            found = act(self.session, call, lambda question: self._answer(question, f"{len(state['turns'])}.{call.id}"))
            if found.answer is not None:
                self.screen.answer(found.answer)
            elif found.shown:
                self.screen.show("result", found.shown)
            text = found.text
        return State(**{**state, "calls": rest, "results": [*state["results"], [call.id, text]]})

    def _answer(self, question: str, at: str) -> str:
        """The run that answers a question of this conversation: begun once, gone on with where it was stopped."""
        config = self.session.config.model_copy(
            update={"question": question, "conversation": f"{self.session.run}/{at}"}
        )
        return runs.answer_in(self.session, config)

    def _stands(self, sentence: str) -> bool:
        """Whether all records that a sentence cites exist, and each verdict that it names is that of one of them."""
        bare = "".join(c for c in unicodedata.normalize("NFKC", sentence) if unicodedata.category(c) != "Cf")
        found = [self._outcomes(cited) for cited in _ID.findall(bare)]
        named = {status for status, words in _VERDICTS.items() if re.search(rf"\b(?:{status}|(?i:{words}))\b", bare)}
        return None not in found and named <= {outcome for outcomes in found for outcome in outcomes or ()}

    def _outcomes(self, identifier: str) -> set[str] | None:
        """The verdicts of a record, None where there is no such record."""
        try:
            table, row = queries.find(self.session.notebook, identifier)
        except UserError:
            return None
        if table == "run":
            answer = answer_of(self.session.notebook, identifier)
            return {one["status"] for one in [*answer["claims"], *answer["outcomes"]]}
        if table == "hypothesis":
            return {queries.states(self.session.notebook, [identifier])[identifier].upper()}
        return {str(row["outcome"])} if table == "verdict" else set()

    def _prompt(self, first: str) -> str:
        spec, corpus = self.session.context.target.spec, self.session.context.corpus
        target = (
            f"The model is {spec.name}: layers 0 to {spec.n_layers - 1}, each with heads 0 to {spec.n_heads - 1} and neurons 0 to "
            f"{spec.d_mlp - 1}"
            + (f" in each of {spec.n_experts} experts." if spec.n_experts else ".")
            + f" {named(self.session.config)}".rstrip()
        )
        return render("talk", target=target, corpus=corpus.name, line=first)


@contextmanager
def _held_back(session: Session) -> Iterator[None]:
    """Steps are said after the words of a reply, not between them."""
    say, waiting = session.say, list[tuple[str, str]]()
    session.say = lambda label, line: waiting.append((label, line))
    try:
        yield
    finally:
        session.say = say
        for one in waiting:
            say(*one)


def _marked(sentence: str) -> str:
    """The sentence; one that tells something of a part of the model and cites nothing says so."""
    told = _PART.search(sentence) and not _ID.search(sentence) and not sentence.rstrip().endswith("?")
    return f"{sentence} (cites no record)" if told else sentence


def _shown(call: Value) -> str:
    return f"{plain(call['name'], 40)} {plain(call['arguments'], 200)}"


def chat(config: RunConfig, notebook_path: Place | None, screen: Screen, *, approve: str) -> int:
    """Begin a conversation; 0 when the person ends it, 130 when they stop it."""
    runs.check_language_model(config)
    path, say = notebook_path or default_place(), steps_on_stderr()
    check_writable(path)
    target, corpus = opening.open_inputs(config, say)
    config = known_dictionaries(config, target)
    with Notebook(path) as notebook:
        size = (corpus.name, corpus.sha256, corpus.n_characters)
        run = notebook.start_run(config.model_dump(mode="json"), target.fingerprint(), size)
        session = Session(run, config, notebook, opening.context_of(target, corpus, say, config), [], say)
        return _talk(session, screen, approve)


def go_on(run: str, notebook_path: Place | None, screen: Screen, *, approve: str) -> int:
    """Go on with a conversation."""
    with runs.reopened(run, notebook_path or default_place()) as session:
        if session.config.question != CONVERSATION:
            raise UserError(f"run {run} is a question and no conversation: `neuronaut resume {run}` goes on with it")
        return _talk(session, screen, approve)


def screen_of(*, as_json: bool) -> Screen:
    """The terminal, or JSON lines."""
    return JsonLines() if as_json else Terminal()


def _talk(session: Session, screen: Screen, approve: str) -> int:
    place = session.notebook.place
    later = f"neuronaut chat --go-on {session.run}" + ("" if place == default_place() else f" --notebook {place}")
    with conversation(Talk(session, screen, approve), place.checkpoints, session.run) as talk:
        _greet(session, screen, talk)
        try:
            _loop(session, screen, talk)
        except KeyboardInterrupt:
            screen.show("note", f"stopped; go on with: {later}")
            return 130
    screen.show("note", f"go on later with: {later}")
    return 0


def _greet(session: Session, screen: Screen, talk: Conversation) -> None:
    name, state = session.context.target.spec.name, talk.state
    who = session.config.llm or "the parser alone (give --llm to talk in any words)"
    screen.show("note", f"about {name}, with {who}; /help says what can be done")
    for value in [] if state is None else state["turns"][-4:]:
        if value["text"]:
            screen.show(
                "said" if "calls" in value else "note", value["text"] if "calls" in value else f"you: {value['text']}"
            )


def _loop(session: Session, screen: Screen, talk: Conversation) -> None:
    waiting = _go(screen, talk, None)
    while waiting is not None:
        if waiting.kind == "leave":
            allowed = screen.allows(waiting.call)
            if allowed is None:
                return
            waiting = _go(screen, talk, YES if allowed else "no")
            continue
        line = screen.line()
        if line is None or line.strip() in ("/quit", "/exit"):
            return
        if line.strip().startswith("/"):
            _command(session, screen, line.strip())
        elif line.strip():
            waiting = _go(screen, talk, line.strip())


def _go(screen: Screen, talk: Conversation, answer: str | None) -> Any:
    """Go on; stopped by Ctrl-C, ask whether to leave what was running undone."""
    try:
        return talk.go(answer)
    except KeyboardInterrupt:
        screen.show("note", "stopped; what was finished is kept")
        if not screen.allows("the rest of it later, and talk on now"):
            raise
        talk.give_up("the person stopped it")
        return _go(screen, talk, None)


def _command(session: Session, screen: Screen, line: str) -> None:
    name, _, rest = line.partition(" ")
    match name:
        case "/help":
            screen.show("note", HELP)
        case "/cost":
            spent = gateway_of(session).budget.line() if session.config.llm else "no language model is asked"
            screen.show("note", f"{spent}; {session.context.target.forwards:.0f} forward passes")
        case "/findings" | "/show":
            form = {"/findings": ("search_findings", "words"), "/show": ("show_record", "id")}[name]
            found = act(session, Call(ASKER, form[0], json.dumps({form[1]: rest.strip()})), lambda _: "")
            screen.show("result", found.shown)
        case _:
            screen.show("note", f"there is no command {name}\n{HELP}")
