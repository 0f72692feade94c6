"""Results of another form than tools give: a notebook may be anybody's, and of any version."""

UNLIKE = (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)  # what reading one ends in


def unlike(run: str) -> str:
    """What is said of a run with such a result."""
    return f"run {run} holds results of another form than this version knows"
