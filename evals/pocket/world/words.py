"""The closed vocabulary of the world: every word has one class, so that a label is a fact and not a guess."""

from __future__ import annotations

from .document import Word


def _words(text: str) -> list[str]:
    return text.split()


GIRLS = _words("Mary Anna Lucy Sarah Emma Alice Clara Ruth Helen Nora Jane Kate Julia Eva Rosa Amy")
BOYS = _words("John Tom Peter David Paul Jack Simon Henry Mark Oliver George Adam Frank Hugo Leo Max")
NAMES = GIRLS + BOYS
PRONOUN = dict.fromkeys(GIRLS, "she") | dict.fromkeys(BOYS, "he")
POSSESSIVE = dict.fromkeys(GIRLS, "her") | dict.fromkeys(BOYS, "his")

MONTHS = _words("January February March April May June July August September October November December")
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
NUMBER_WORDS = _words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
ORDINALS = _words("First Second Third Fourth Fifth Sixth")
LETTERS = _words("A B C D E F G H I J K L M N O P Q R S T U V W X Y Z")

COLOURS = _words("red blue green yellow white black brown grey")
ANIMALS = _words("dog cat horse cow bird duck goat fox bear mouse")
THINGS = _words("book lamp key cup box hat ball ring coat letter map drum kite rope clock basket")
FOODS = _words("bread milk cheese butter sugar salt flour rice soup honey water cream")
FRUIT = _words("apple pear plum lemon orange cherry")
PLACES = _words("garden kitchen market school park river forest library station church barn tower")
PEOPLE = _words("king queen farmer teacher doctor baker sailor soldier singer painter")
NOUNS = ANIMALS + THINGS + FRUIT + PEOPLE + PLACES
IRREGULAR = {
    "mouse": "mice",
    "fox": "foxes",
    "box": "boxes",
    "cherry": "cherries",
    "library": "libraries",
    "church": "churches",
}
PLURALS = {noun: IRREGULAR.get(noun, noun + "s") for noun in NOUNS}
ADJECTIVES = _words("old new big small happy sad good bad hot cold long short clean dirty heavy light strong weak")
OPPOSITES = dict(zip(ADJECTIVES[::2], ADJECTIVES[1::2], strict=True))

VERBS = _words(
    "went walked ran took found saw gave sent showed handed put left lost sold liked loved said is are was "
    "were has have "
    "had see sings lives live leaves arrives hope add Add stir wash will be did do does met lasted began won buy clean "
    "paint feed fix waited laughed sang thanked must reply laugh listen know come keep named Mix Bake Cook "
    "Heat Serve Thank "
    "Ask Count counts barks purrs neighs moos quacks bleats yelps growls squeaks sell"
)
PRONOUNS = _words("he she they her his I you we my your me us He She It I We")
PREPOSITIONS = _words("to in on at of from with for by near under behind after before")
ARTICLES = _words("the a an The A")
CONJUNCTIONS = _words("and because then When Then So After While")


def name(text: str, *labels: str) -> Word:
    """A person's name."""
    return Word(text, ("name", *labels))


def month(text: str) -> Word:
    """A month's name."""
    return Word(text, ("month",))


def day(text: str) -> Word:
    """A day of the week."""
    return Word(text, ("day_name",))


def year(text: int) -> Word:
    """A year in digits."""
    return Word(str(text), ("year",))


def article(word: str) -> str:
    """ "a" or "an", as `word` needs it."""
    return "an" if word[0] in "aeiou" else "a"
