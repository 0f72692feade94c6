"""The three audiences of an error: the person, the caller of a tool, the record."""


class UserError(Exception):
    """Bad input: one sentence saying what, why it matters and what to do next; printed without a traceback, exit 2."""


class ToolRefused(UserError):
    """The arguments of a tool are outside its bounds; the caller may correct them. No forward pass was spent."""


class ToolFailed(Exception):
    """The experiment went wrong; final, recorded as a failed experiment and never as a number."""
