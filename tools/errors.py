"""The three audiences of an error: the person, the caller of a tool, the record."""


class UserError(Exception):
    """Bad input: one sentence saying what, why it matters and what to do next; printed without a traceback, exit 2."""


class Altered(UserError):
    """A record is not as it was written: the fault of no input, so the sentence says how to find what else was changed."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: it was altered; `neuronaut verify` says what else was")


class ToolRefused(UserError):
    """The arguments of a tool are outside its bounds; the caller may correct them. No forward pass was spent."""


class ToolFailed(Exception):
    """The experiment went wrong; final, recorded as a failed experiment and never as a number."""
