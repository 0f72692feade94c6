"""What views of the terminal are made of: fields, tables, token strips; each fits the width, and foreign text steers nothing."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from neuronaut.agent.view import visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

PIPED_WIDTH = 120
LABEL, LONGEST_LABEL = 11, 28  # characters of the names of fields
TEXT_COLUMN = 30  # characters that a column of long texts needs
STATUS = {"supported": "bold green", "partial": "yellow", "unresolved": "magenta", "refuted": "red", "stale": "dim yellow",
          "abstained": "dim", "withdrawn": "dim", "superseded": "dim", "failed": "red", "refused": "red", "measured": "cyan"}  # fmt: skip
WARM, COLD = (230, 97, 1), (94, 60, 153)  # of more and less than nothing: told apart by the colour-blind, too
STRONG = 0.5  # of the largest: from there on a token stands in brackets where there are no colours


def print_parts(parts: "Iterable[RenderableType]") -> None:
    """Print parts one below the other; lines end where their text does."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
    with console.capture() as printed:
        for part in parts:
            console.print(part)
    print("\n".join(line.rstrip() for line in printed.get().splitlines()), flush=True)


def heading(what: str, identifier: str, status: str = "") -> "Text":
    """The first line of a view: what it is, its id, how it stands."""
    from rich.text import Text

    text = Text(visible(what), style="bold") + Text(f"  {visible(identifier)}", style="cyan")
    return text + Text(f"  {status.upper()}", style=STATUS.get(status.lower(), "")) if status else text


def status_text(status: str) -> "Text":
    """A status or outcome in its colour."""
    from rich.text import Text

    return Text(visible(status.upper()), style=STATUS.get(status.lower(), ""))


def fields(rows: "Iterable[tuple[str, str | Text | None]]") -> "Table":
    """Names and values; those without a value are left out."""
    from rich.table import Table
    from rich.text import Text

    kept = [(visible(name), value) for name, value in rows if value is not None]
    grid = Table.grid(padding=(0, 2))
    grid.add_column(
        width=min(max([LABEL, *(len(name) for name, _ in kept)]), LONGEST_LABEL), overflow="fold", style="dim"
    )
    grid.add_column(overflow="fold")
    for name, value in kept:
        grid.add_row(name, value if isinstance(value, Text) else Text(shown(value)))
    return grid


def table(
    title: str, columns: Sequence[str], rows: "Iterable[Sequence[str | Text]]", *, right: Sequence[str] = ()
) -> "Table | Text":
    """A table under a title; ids are never broken, the other cells are wrapped to the width. An empty text without rows."""
    from rich.table import Table
    from rich.text import Text

    made = Table(
        box=None, padding=(0, 2, 0, 0), title=title, title_justify="left", title_style="bold", header_style="dim"
    )
    kept = [[cell if isinstance(cell, Text) else Text(shown(cell)) for cell in row] for row in rows]
    for at, name in enumerate(columns):
        whole = name in ("id", *right) or all(len(row[at]) <= 12 for row in kept)
        made.add_column(name, no_wrap=whole, overflow="fold", justify="right" if name in right else "left")
    for row in kept:
        made.add_row(*row)
    return made if kept else Text("")


class Rows:
    """Rows of a result as a table, or as one list of fields each where the terminal is too narrow for it."""

    def __init__(self, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        self.names, self.rows = names, rows

    def __rich_console__(self, console: "Console", _options: object) -> "Iterable[RenderableType]":
        """What rich prints."""
        heads = [visible(name).replace("_", "\n") for name in self.names]
        columns = list(zip(*self.rows, strict=True))
        widths = [
            max(*map(len, head.split("\n")), min(TEXT_COLUMN, max(map(len, cells))))
            for head, cells in zip(heads, columns, strict=True)
        ]
        if sum(widths) + 2 * len(widths) <= console.width:
            yield table("", heads, self.rows)
            return
        for at, row in enumerate(self.rows):
            yield from [""] * bool(at)
            yield fields(zip(self.names, row, strict=True))


def title(text: str) -> "Text":
    """The name of a part of a view."""
    from rich.text import Text

    return Text(shown(text), style="bold")


def shown_text(text: str) -> "Text":
    """Foreign text as a part of a view."""
    from rich.text import Text

    return Text(shown(text), overflow="fold")


def shown(text: str) -> str:
    """Foreign text with its lines kept and everything else that could steer a terminal made visible."""
    return "\n".join(visible(line.removesuffix("\r")) for line in text.split("\n"))


def number(value: float | None, digits: int = 4) -> str:
    """A number in few digits; what was not measured says so."""
    return "not measured" if value is None else f"{value + 0.0:.{digits}g}"


def measured(row: dict[str, Any]) -> str:
    """Value, interval and unit of a piece of evidence."""
    interval = "" if row["ci_low"] is None else f" [{row['ci_low']:.3g}, {row['ci_high']:.3g}]"
    return f"{row['value']:.4g}{interval} {row['unit_of_measure']}"


def beside(row: dict[str, Any]) -> str:
    """The null value of a piece of evidence, and where it stands among the nulls."""
    if row["null_value"] is None:
        return "none"
    percentile = "" if row["null_percentile"] is None else f", above {row['null_percentile']:.0f} %"
    return f"{row['null_value']:.3g}{percentile}"


class Strip:
    """The largest activation, and the text whose tokens are coloured by theirs; in brackets where no colours are."""

    def __init__(self, pieces: Sequence[str], values: Sequence[float]) -> None:
        self.pieces, self.values = pieces, values

    def __rich_console__(self, console: "Console", _options: object) -> "Iterable[RenderableType]":
        """What rich prints."""
        from rich.table import Table
        from rich.text import Text

        coloured = console.color_system is not None and console.is_terminal
        top = max((abs(value) for value in self.values), default=0.0)
        text = Text(overflow="fold")
        for piece, value in zip(self.pieces, self.values, strict=False):
            share = value / top if top else 0.0
            if coloured:
                text.append(visible(piece), style=_style(share))
            else:
                text.append(f"⟦{visible(piece)} {value:.3g}⟧" if abs(share) >= STRONG else visible(piece))
        grid = Table.grid(padding=(0, 2))
        grid.add_column(justify="right", width=8, style="dim")
        grid.add_column(overflow="fold")
        grid.add_row(f"{top:.3g}", text)
        yield grid


def _style(share: float) -> str:
    """The background of a share of the largest activation, from white on; little is not coloured."""
    if abs(share) < 0.05:
        return ""
    to = WARM if share > 0 else COLD
    red, green, blue = (round(255 + (one - 255) * abs(share)) for one in to)
    ink = "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else "#ffffff"
    return f"{ink} on #{red:02x}{green:02x}{blue:02x}"
