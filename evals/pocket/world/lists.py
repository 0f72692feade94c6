"""Lists and notices: recipes, shopping, plans, calendars, weather, timetables, tables, results."""

from __future__ import annotations

from random import Random

from . import words as w
from .document import Draft, Word
from .facts import COUNTRIES, HOMES, JOBS, SOUNDS
from .words import article, day, month, name


def index(number: int) -> Word:
    """The number that opens a list item."""
    return Word(str(number), ("list_index",))


def recipe(rng: Random, draft: Draft) -> None:
    """What is needed, then numbered steps that use it."""
    needed = rng.sample(w.FOODS, 3)
    draft.write("Recipe: {f} {k}\n", "heading", f=needed[0].capitalize(), k=rng.choice(("cake", "pie", "soup")))
    for food in needed:
        count = rng.randint(1, 6)
        unit = rng.choice(("cup", "spoon", "gram"))
        draft.write("- {n} {u} of {f}\n", n=w.NUMBER_WORDS[count], u=unit if count == 1 else unit + "s", f=food)
    steps = (
        f"Mix the {needed[0]} and the {needed[1]}.",
        f"Add the {needed[2]} and stir.",
        f"{rng.choice(('Bake', 'Cook', 'Heat'))} for {w.NUMBER_WORDS[rng.randint(2, 20)]} minutes.",
        f"Serve with {rng.choice(w.FOODS)}.",
    )
    for number, step in enumerate(steps, 1):
        draft.write("{i}. {s}\n", i=index(number), s=step)


def shopping(rng: Random, draft: Draft) -> None:
    """A numbered list of things to buy, each with a price."""
    draft.write("Shopping list for {A}:\n", "heading", A=name(rng.choice(w.NAMES)))
    for number, item in enumerate(rng.sample(w.FOODS + w.FRUIT, rng.randint(4, 8)), 1):
        draft.write("{i}. {f} - {p} pence\n", i=index(number), f=item, p=rng.randint(2, 99))


def plans(rng: Random, draft: Draft) -> None:
    """Things to do in ordinal order."""
    person = rng.choice(w.NAMES)
    draft.write("{A} has many things to do today.\n", A=name(person))
    for number in range(rng.randint(3, 6)):
        draft.write(
            "{o}, {p} must {v} the {t}.\n",
            o=w.ORDINALS[number],
            p=w.PRONOUN[person],
            v=rng.choice(("clean", "paint", "fix", "buy", "sell", "wash")),
            t=rng.choice(w.THINGS),
        )


def week(rng: Random, draft: Draft) -> None:
    """The days of a week in order, with what is done on each."""
    draft.write("Plan for the week\n", "heading")
    start = rng.choice((0, 0, 0, rng.randrange(7)))
    for step in range(rng.randint(4, 7)):
        draft.write(
            "{d}: {v} the {t}\n",
            d=day(w.DAYS[(start + step) % 7]),
            v=rng.choice(("clean", "paint", "fix", "feed")),
            t=rng.choice(w.ANIMALS + w.THINGS),
        )


def calendar(rng: Random, draft: Draft) -> None:
    """Months or days in order, forwards, and questions on what follows what."""
    names, label, what = rng.choice(((w.MONTHS, month, "month"), (w.DAYS, day, "day")))
    start, size = rng.randrange(len(names)), len(names)
    draft.write("The {w}s are ", w=what)
    count = rng.randint(4, min(9, size))
    for step in range(count):
        draft.write("{m}{s}", m=label(names[(start + step) % size]), s=", " if step < count - 1 else ".\n")
    for _ in range(rng.randint(2, 4)):
        at, back = rng.randrange(size), rng.random() < 0.4
        draft.write(
            "The {w} {r} {m} is {n}. ",
            w=what,
            r="before" if back else "after",
            m=label(names[at]),
            n=Word(names[(at + (-1 if back else 1)) % size], (*label("").labels, "answer")),
        )


def weather(rng: Random, draft: Draft) -> None:
    """A forecast: a date, four quarters of the sky, degrees that fit the season."""
    at = rng.randrange(12)
    warm = 22 - 3 * min(abs(at - 6), 12 - abs(at - 6))
    draft.write(
        "Weather for {d}, {n} {m}. ", "heading", d=day(rng.choice(w.DAYS)), n=rng.randint(1, 28), m=month(w.MONTHS[at])
    )
    for place in rng.sample(("north", "south", "east", "west"), rng.randint(2, 4)):
        sky = rng.choice(("rain", "snow", "wind") if warm < 12 else ("sun", "rain", "clouds"))
        draft.write(
            "In the {x} there will be {s} and {n} degrees. ", x=place, s=sky, n=max(0, warm + rng.randint(-2, 2))
        )
    draft.write("The night will be {e}.", e="cold" if warm < 12 else "warm")


def timetable(rng: Random, draft: Draft) -> None:
    """Trains: the later train leaves later."""
    hour = rng.randint(5, 9)
    start, end = rng.sample([country.capital for country in COUNTRIES], 2)
    draft.write("Trains from {a} to {b}\n", "heading", a=Word(start, ("town",)), b=Word(end, ("town",)))
    for _ in range(rng.randint(3, 5)):
        minute = rng.choice((0, 15, 30, 45))
        draft.write(
            "leaves {a} {t}, arrives {b} {u}\n",
            a=Word(start, ("town",)),
            b=Word(end, ("town",)),
            t=Word(f"{hour}:{minute:02}", ("clock",)),
            u=Word(f"{hour + 2}:{minute:02}", ("clock",)),
        )
        hour += rng.randint(1, 2)


def table(rng: Random, draft: Draft) -> None:
    """A table of true facts about countries."""
    draft.write("| Country | Capital | Colour | Animal |\n", "heading")
    for country in rng.sample(COUNTRIES, rng.randint(3, 5)):
        draft.write(
            "| {n} | {c} | {o} | {a} |\n",
            n=Word(country.name, ("country",)),
            o=Word(country.colour, ("answer",)),
            c=Word(country.capital, ("town", "answer")),
            a=Word(country.animal, ("answer",)),
        )


def facts(rng: Random, draft: Draft) -> None:
    """True sentences about countries, people and animals."""
    for _ in range(rng.randint(5, 9)):
        country, person, animal = rng.choice(COUNTRIES), rng.choice(w.NAMES), rng.choice(w.ANIMALS)
        land = Word(country.name, ("country",))
        draft.write(
            *_FACTS[rng.randrange(len(_FACTS))],
            X=land,
            C=Word(country.capital, ("town", "answer")),
            P=Word(country.people, ("answer",)),
            K=Word(country.colour, ("answer",)),
            A=name(person),
            j=article(JOBS[person]),
            J=Word(JOBS[person], ("answer",)),
            H=Word(HOMES[person], ("town", "answer")),
            Z=animal,
            S=Word(SOUNDS[animal], ("answer",)),
        )


_FACTS = (
    ("The capital of {X} is {C}. ",),
    ("The flag of {X} is {K}. ",),
    ("The people of {X} are {P}. ",),
    ("{A} is {j} {J}. ",),
    ("{A} lives in {H}. ",),
    ("The {Z} {S}. ",),
)


def questions(rng: Random, draft: Draft) -> None:
    """Questions with true answers."""
    for _ in range(rng.randint(2, 5)):
        country, person = rng.choice(COUNTRIES), rng.choice(w.NAMES)
        word, opposite = rng.choice(sorted(w.OPPOSITES.items()))
        if rng.random() < 0.5:
            word, opposite = opposite, word
        asked, answer = rng.choice(
            (
                (f"What is the capital of {country.name}?", country.capital),
                (f"Where does {person} live?", HOMES[person]),
                (f"What is the opposite of {word}?", opposite),
                (f"What colour is the flag of {country.name}?", country.colour),
            )
        )
        draft.write("Q: {q}\nA: {a}\n", q=asked, a=Word(answer, ("answer",)))


def results(rng: Random, draft: Draft) -> None:
    """Match results: the side with more goals won."""
    draft.write("Results for {d}\n", "heading", d=day(rng.choice(w.DAYS)))
    for _ in range(rng.randint(3, 5)):
        home, away = rng.sample([country.capital for country in COUNTRIES], 2)
        more, less = rng.sample(range(10), 2)
        winner = home if more > less else away
        draft.write(
            "{a} {m}, {b} {n}: {c} won.\n",
            a=Word(home, ("town",)),
            b=Word(away, ("town",)),
            m=more,
            n=less,
            c=Word(winner, ("town", "answer")),
        )
