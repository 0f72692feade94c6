"""What is said where work was interrupted."""


def interrupted(run: str) -> str:
    """That what was finished is kept, and how to go on."""
    return f"run {run} was stopped; what was finished is kept: lab.resume({run!r}) goes on with it"
