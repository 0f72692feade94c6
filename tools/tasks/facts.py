"""Facts that are always true: of countries, animals and opposites; invented countries for the embedded model."""

from collections.abc import Mapping

from neuronaut.tools.tasks.base import Setting, Task, of_half
from neuronaut.tools.tasks.sequences import DAYS, MONTHS
from neuronaut.tools.tasks.wordings import Pair, Wording


def _table(text: str) -> dict[str, str]:
    """ "France Paris, Italy Rome" as a mapping."""
    return dict(pair.split() for pair in text.split(", "))


TABLES: Mapping[str, Mapping[str, str]] = {
    "capital": _table(
        "France Paris, Germany Berlin, Italy Rome, Spain Madrid, Japan Tokyo, Russia Moscow, Greece Athens, Egypt Cairo, "
        "Poland Warsaw, Austria Vienna, Ireland Dublin, Cuba Havana, England London, China Beijing"
    ),
    "invented capital": _table(
        "Arland Norwick, Belmora Castra, Corvia Dunmere, Drenland Elbury, Estova Farrow, Galdia Hartsea, Istria Kelby, "
        "Lorvania Merton, Morvia Oakham, Pelland Quarry"
    ),
    "people": _table(
        "Arland Arlish, Belmora Belmoran, Corvia Corvian, Drenland Drennish, Estova Estovan, Galdia Galdian, "
        "Istria Istrian, Lorvania Lorvanian, Morvia Morvian, Pelland Pellish"
    ),
    "flag": _table(
        "Arland red, Belmora blue, Corvia green, Drenland yellow, Estova white, Galdia black, Istria brown, "
        "Lorvania grey, Morvia red, Pelland blue"
    ),
    "sound": _table(
        "dog barks, cat purrs, horse neighs, cow moos, bird sings, duck quacks, goat bleats, fox yelps, bear growls, "
        "mouse squeaks"
    ),
    "opposite": _table(
        "old new, new old, big small, small big, happy sad, sad happy, good bad, bad good, hot cold, cold hot, long short, "
        "short long, clean dirty, dirty clean, heavy light, light heavy, strong weak, weak strong"
    ),
    "month": dict(zip(MONTHS, MONTHS[1:] + MONTHS[:1], strict=True)),
    "day": dict(zip(DAYS, DAYS[1:] + DAYS[:1], strict=True)),
}


def draw(setting: Setting) -> Pair | None:
    """other: the corrupted prompt asks about another subject of the table, whose answer is the wrong one."""
    table = TABLES[setting.wording.kind]
    subject, other = setting.rng.sample(of_half(sorted(table), setting.half), 2)
    if table[subject] == table[other]:
        return None
    return Pair({"subject": subject}, {"subject": other}, (f" {table[subject]}",), (f" {table[other]}",), subject)


def again(setting: Setting) -> Pair | None:
    """The same, behind one that is answered."""
    made, table = draw(setting), TABLES[setting.wording.kind]
    if made is None:
        return None
    shown = setting.rng.choice([one for one in of_half(sorted(table), setting.half) if one != made.filler])
    before = {"shown": shown, "answer": table[shown]}
    if made.corrupted["subject"] == shown or table[made.filler] == shown:
        return None
    return made._replace(clean=before | dict(made.clean), corrupted=before | dict(made.corrupted))


def _task(name: str, about: str, *wordings: tuple[str, str]) -> Task:
    """wordings: each with its table."""
    made = tuple(Wording(text, kind) for text, kind in wordings)
    return Task(name, "facts", about, made, ("other",), _drawn)


def _drawn(setting: Setting) -> Pair | None:
    return again(setting) if "{shown}" in setting.wording.text else draw(setting)


TASKS = (
    _task(
        "facts",
        "the capital, people or flag of a country, the sound of an animal",
        ("The capital of {subject} is", "capital"),
        ("The capital of {subject} is", "invented capital"),
        ("The people of {subject} are", "people"),
        ("The flag of {subject} is", "flag"),
        ("The {subject}", "sound"),
    ),
    _task(
        "capitals",
        "the capital of a country",
        ("The capital of {subject} is", "capital"),
        ("The capital of {subject} is", "invented capital"),
    ),
    _task(
        "opposites",
        "the opposite of an adjective",
        ("Q: What is the opposite of {shown}?\nA: {answer}\nQ: What is the opposite of {subject}?\nA:", "opposite"),
        ("Q: What is the opposite of {subject}?\nA:", "opposite"),
        ("The opposite of {shown} is {answer}. The opposite of {subject} is", "opposite"),
    ),
    _task(
        "month after",
        "the month after a month",
        ("The month after {subject} is", "month"),
        ("The month after {shown} is {answer}. The month after {subject} is", "month"),
    ),
    _task(
        "day after",
        "the day after a day",
        ("The day after {subject} is", "day"),
        ("The day after {shown} is {answer}. The day after {subject} is", "day"),
    ),
)
