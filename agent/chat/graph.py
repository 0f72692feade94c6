"""The conversation as a LangGraph graph: it waits for the person, lets the language model speak, and does what it calls for.

The person's lines and their leave for dear experiments are interrupts, so that a conversation can be stopped at either and go on
later.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict, cast

from neuronaut.agent.graph import saver_at

Value = dict[str, Any]
YES = "yes"


class State(TypedDict):
    """The conversation so far: first is what the person said first, turns what followed (see `agent.chat.turns`), calls those of
    the last turn that are still to be done, results of those that are done."""

    run: str
    first: str
    turns: list[Value]
    calls: list[Value]
    results: list[list[str]]
    over: bool


class Steps(Protocol):
    """What the nodes do."""

    @property
    def speaks(self) -> bool:
        """Whether a language model takes part."""
        ...

    def heard(self, state: State, line: str) -> State:
        """With the person's line."""
        ...

    def think(self, state: State) -> State:
        """With what the language model says, and the calls that it makes."""
        ...

    def leave_for(self, call: Value) -> str | None:
        """How a call is shown that the person must allow; None where it needs no leave."""
        ...

    def done(self, state: State, allowed: bool) -> State:
        """With the result of the first call."""
        ...


@dataclass(frozen=True)
class Waiting:
    """What the graph waits for: a `line` of the person, or their `leave` for a call, which is shown."""

    kind: str
    call: str = ""


@contextmanager
def conversation(steps: Steps, checkpoints: Path, run: str) -> Iterator["Conversation"]:
    """The conversation of a run, from its last checkpoint where there is one."""
    with saver_at(checkpoints) as saver:
        yield Conversation(_graph(steps).compile(checkpointer=saver), run)


def _graph(steps: Steps) -> Any:
    from langgraph.graph import END, START, StateGraph
    from langgraph.types import interrupt

    def listen(state: State) -> State:
        return steps.heard(state, interrupt({"kind": "line"}))

    def act(state: State) -> State:
        shown = steps.leave_for(state["calls"][0])
        allowed = shown is None or interrupt({"kind": "leave", "call": shown}) == YES
        return steps.done(state, allowed)

    def after_line(state: State) -> str:
        return END if state["over"] else "act" if state["calls"] else "think"

    def after_act(state: State) -> str:
        return "act" if state["calls"] else "think" if steps.speaks else "listen"

    graph = StateGraph(State)
    for name, node in (("listen", listen), ("think", steps.think), ("act", act)):
        graph.add_node(name, node)
    graph.add_edge(START, "listen")
    graph.add_conditional_edges("listen", after_line)
    graph.add_conditional_edges("think", lambda state: "act" if state["calls"] else "listen")
    graph.add_conditional_edges("act", after_act)
    return graph


class Conversation:
    """A compiled graph at work. `go` runs until the person is needed, and says what for."""

    def __init__(self, app: Any, run: str) -> None:
        self._app, self._run = app, run
        self._thread = {"configurable": {"thread_id": run}, "recursion_limit": 1_000}

    @property
    def state(self) -> State | None:
        """What was said so far; None at the beginning."""
        values = self._app.get_state(self._thread).values
        return cast(State, values) if values else None

    def go(self, answer: str | None = None) -> Waiting | None:
        """Go on, with the person's line or leave (YES) where one was waited for. None when the conversation is over."""
        from langgraph.types import Command

        known = self._app.get_state(self._thread)
        waits = any(task.interrupts for task in known.tasks)
        if not known.values and not known.next:
            begin: Any = State(run=self._run, first="", turns=[], calls=[], results=[], over=False)
        elif waits and answer is None:
            return self._waiting(known)
        else:
            begin = Command(resume=answer) if waits else None
        self._app.invoke(begin, self._thread, durability="sync")
        return self._waiting(self._app.get_state(self._thread))

    def give_up(self, reason: str) -> None:
        """Leave the call undone that is under way; the language model is told why."""
        known = self._app.get_state(self._thread)
        if known.values.get("calls"):
            call, *rest = known.values["calls"]
            results = [*known.values["results"], [call["id"], reason]]
            self._app.update_state(self._thread, {"calls": rest, "results": results}, as_node="act")

    @staticmethod
    def _waiting(known: Any) -> Waiting | None:
        for task in known.tasks:
            for one in task.interrupts:
                return Waiting(one.value["kind"], one.value.get("call", ""))
        return None
