"""What starts experiments for the pages: a seam, for the notebook knows no model."""

from dataclasses import dataclass
from typing import Literal, Protocol

State = Literal["working", "done", "failed", "stopped"]


@dataclass(frozen=True)
class Job:
    """Work that a page began: its command in words, its lines so far, and the run that it made, "" before there is one."""

    id: str
    title: str
    state: State
    lines: tuple[str, ...]
    run: str = ""


class Runner(Protocol):
    """Does one thing at a time; each method that starts something refuses while another is at work."""

    def ask(self, question: str, like_run: str) -> Job:
        """Begin to ask a question, of the model and text of an earlier run."""

    def rerun(self, identifier: str) -> Job:
        """Begin to measure a run or an experiment again."""

    def jobs(self) -> list[Job]:
        """What was begun since the pages were started, the newest first."""

    def job(self, identifier: str) -> Job | None:
        """One of them; None for an unknown id."""

    def stop(self, identifier: str) -> None:
        """Interrupt it, as Ctrl-C would."""

    def close(self) -> None:
        """Interrupt what is at work; the pages end."""
