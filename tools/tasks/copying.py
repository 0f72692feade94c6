"""What stood in the text before: random tokens repeated, names of a program's parameters."""

from functools import lru_cache

from neuronaut.tools.tasks.base import Setting, Task, of_half
from neuronaut.tools.tasks.names import NAMES
from neuronaut.tools.tasks.sequences import MONTHS, NUMBER_WORDS
from neuronaut.tools.tasks.wordings import Pair, Wording, words
from neuronaut.tools.tokens import Vocabulary

N_WORDS = 12  # of the text that is repeated
SHOWN = 4  # of them, the second time
SHORT = ("x", "y", "n", "size", "item", "left")
PARAMETERS = (*SHORT, "name", "file", "line", "key", "value", "index")
WORDS = words(
    "book lamp key cup box hat ball ring coat letter map drum kite rope clock basket garden kitchen market school park river "
    "forest library station church barn tower dog cat horse cow bird duck goat bear red blue green yellow white black brown "
    "old new big small happy sad good bad hot cold long short king queen farmer teacher doctor bread milk butter sugar"
)
FUNCTIONS = ("add", "total", "check", "find", "swap", "make")
SIGNS = ("+", "-", "*")


@lru_cache(maxsize=8)
def words_of(vocabulary: Vocabulary) -> tuple[str, ...]:
    """Tokens that are a space and at least three letters."""
    pieces = {piece[1:] for piece in vocabulary.pieces if piece[:1] == " " and len(piece) > 3}
    return tuple(sorted(piece for piece in pieces if piece.isascii() and piece.isalpha()))


def repeated(setting: Setting) -> Pair | None:
    """Random tokens, the beginning of them again: the next is the one that followed the first time (induction).

    query: the last token is another one of the text, so that another one follows; random: the first occurrence is other
    tokens, so that nothing is repeated.
    """
    rng = setting.rng
    pool = of_half(
        WORDS + NAMES + NUMBER_WORDS + MONTHS if setting.wording.kind == "words" else words_of(setting.vocabulary),
        setting.half,
    )
    if len(pool) < 2 * N_WORDS:
        return None
    drawn = rng.sample(pool, 2 * N_WORDS)
    shown, other = drawn[:N_WORDS], drawn[N_WORDS:]
    places = {f"first{at}": word for at, word in enumerate(shown)}
    again = {f"again{at}": word for at, word in enumerate(shown[:SHOWN])}
    at = rng.choice([at for at in range(N_WORDS - 1) if at != SHOWN - 1])
    twin, wrong = {f"again{SHOWN - 1}": shown[at]}, shown[at + 1]
    if setting.corruption == "random":
        twin, wrong = {f"first{at}": word for at, word in enumerate(other)}, other[SHOWN]
    clean = places | again
    return Pair(clean, clean | twin, (f" {shown[SHOWN]}",), (f" {wrong}",), " ".join(shown))


def docstring(setting: Setting) -> Pair | None:
    """The second parameter. name: it has another name in the head of the program, and so the answer."""
    rng = setting.rng
    first, second, other = rng.sample(
        of_half(SHORT if setting.wording.kind == "short" else PARAMETERS, setting.half), 3
    )
    clean = {"function": rng.choice(FUNCTIONS), "sign": rng.choice(SIGNS), "first": first, "again": first}
    return Pair(
        clean | {"second": second},
        clean | {"second": other},
        (f" {second}",),
        (f" {other}",),
        f"{first} {second}",
    )


_ONCE = " ".join(f"{{first{at}}}" for at in range(N_WORDS))
_AGAIN = " ".join(f"{{again{at}}}" for at in range(SHOWN))
TASKS = (
    Task(
        "repeated tokens",
        "copying",
        "what followed a random token the first time",
        (
            Wording(f"{_ONCE} {_AGAIN}", "words"),
            Wording(f"{_ONCE} {_ONCE} {_AGAIN}", "words"),
            Wording(f"{_ONCE} {_AGAIN}", "any"),
        ),
        ("query", "random"),
        repeated,
    ),
    Task(
        "docstring",
        "copying",
        "the next parameter of a program",
        (
            Wording("def {function}({first}, {second}):\n    return {again} {sign}", "short"),
            Wording(
                'def {function}(self, {first}, {second}):\n    """A program.\n\n    :param {again}: one\n    :param'
            ),
        ),
        ("name",),
        docstring,
    ),
)
