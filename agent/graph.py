"""The loop as a LangGraph graph: one node a step of the answer, a checkpoint after each."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from neuronaut.agent.plan import Step
from neuronaut.agent.session import Session


class State(TypedDict):
    """What passes between steps: ids only. The notebook is the record, a checkpoint is a convenience."""

    run: str
    todo: list[str]


@contextmanager
def saver_at(checkpoints: Path) -> Iterator[Any]:
    """Where checkpoints are kept: plain values only, and nothing is traced anywhere."""
    os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"
    for name in ("LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2"):
        os.environ[name] = "false"
    from langgraph.checkpoint.sqlite import SqliteSaver

    checkpoints.parent.mkdir(parents=True, exist_ok=True)
    with SqliteSaver.from_conn_string(str(checkpoints)) as saver:
        yield saver


def run_graph(session: Session, steps: dict[str, Step], checkpoints: Path) -> None:
    """Work through the steps (`8.481 reads`, …), from the last checkpoint of the run where there is one.

    Deleting the checkpoints loses nothing: finished experiments are found in the notebook.
    """
    from langgraph.graph import END, START, StateGraph

    def work(state: State) -> State:
        steps[state["todo"][0]](session)
        return {"run": state["run"], "todo": state["todo"][1:]}

    graph = StateGraph(State)
    graph.add_node("work", work)
    graph.add_conditional_edges(START, lambda state: "work" if state["todo"] else END)
    graph.add_conditional_edges("work", lambda state: "work" if state["todo"] else END)
    with saver_at(checkpoints) as saver:
        app = graph.compile(checkpointer=saver)
        thread = {"configurable": {"thread_id": session.run}, "recursion_limit": 100}
        known = app.get_state(thread)  # type: ignore[arg-type]
        start = None if known.next else State(run=session.run, todo=list(steps))
        if start is not None or known.next:
            app.invoke(start, thread, durability="sync")  # type: ignore[call-overload]
