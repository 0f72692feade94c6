"""Greater than: the second year of a span comes after the first.

Source: Hanna et al. 2023, arXiv:2305.00586.
"""

from neuronaut.tools.tasks.base import Setting, Task, of_half
from neuronaut.tools.tasks.names import NAMES
from neuronaut.tools.tasks.wordings import Pair, Wording

SUBJECTS = ("war", "peace", "great storm", "work on the tower")
CENTURIES = ("12", "13", "14", "15", "16", "17", "18")
YEARS = range(10, 99)  # written with two digits that are one token
FIRST, LAST = 20, 88  # enough earlier and later ones are left


def draw(setting: Setting) -> Pair:
    """Right are all later years of the century, wrong the year itself and all earlier ones.

    early: the span begins in the years 10 to 12 of the century, after which almost every year is right; earlier: at
    least five years earlier, after which more of the years are right.
    """
    rng, half = setting.rng, setting.half
    year = rng.choice(of_half(range(FIRST, LAST + 1), half))
    century = rng.choice(CENTURIES)
    clean = {
        "subject": rng.choice(SUBJECTS),
        "name": rng.choice(of_half(NAMES, half)),
        "century": century,
        "year": str(year),
        "again": century,
    }
    # None is the year of a clean prompt of the other half
    mine = [*YEARS[: FIRST - YEARS[0]], *of_half(range(FIRST, LAST + 1), half)]
    before = 12 if setting.corruption == "early" else year - 5
    other = str(rng.choice([one for one in mine if one <= before]))
    later, earlier = (tuple(str(one) for one in YEARS if (one > year) == after) for after in (True, False))
    return Pair(clean, clean | {"year": other}, later, earlier, str(year))


TASKS = (
    Task(
        "greater than",
        "order",
        "a span of years ends after it began",
        (
            Wording("The {subject} lasted from the year {century}{year} to the year {again}"),
            Wording("{name} ({century}{year}-{again}"),
            Wording("The {subject} began in the year {century}{year} and ended in the year {again}"),
        ),
        ("early", "earlier"),
        draw,
        forms=True,
    ),
)
