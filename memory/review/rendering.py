"""Templates and what they may use: everything is escaped, control characters are visible, a missing name is an error."""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from neuronaut.memory.review import formats
from neuronaut.memory.review.links import Links
from neuronaut.memory.review.opinions import VERBS
from neuronaut.tools.shown import visible

HERE = Path(__file__).parent
STATIC = HERE / "static"
SCRIPTS = ("htmx.min.js", "review.js")
STYLE = "review.css"
PICTURE = "image/svg+xml"
# Artifacts that can be had by themselves, by the end of their names.
TYPES = {"svg": (PICTURE,), "json": ("application/json", "application/vnd.plotly.v1+json")}


@cache
def environment() -> Environment:
    """The templates."""
    made = Environment(
        loader=FileSystemLoader(HERE / "pages"), autoescape=True, undefined=StrictUndefined, finalize=_shown,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {
        "number": formats.number, "duration": formats.duration, "dollars": formats.dollars, "when": formats.when,
        "lines": formats.lines, "pretty": formats.pretty, "cut": formats.cut,
    }  # fmt: skip
    made.globals |= {"interval": formats.interval, "verbs": VERBS}
    return made


def _shown(value: Any) -> Any:
    """What stands in a page for a value: foreign text with its control characters visible; what is missing says so."""
    if value is None:
        return formats.NOT_MEASURED
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def rendered(name: str, link: Links, **variables: Any) -> str:
    """The HTML of a page."""
    return environment().get_template(name).render(link=link, **variables)
