"""Forms that must agree: a verb with its subject, a closing bracket with the opening one."""

from collections.abc import Sequence

from neuronaut.tools.tasks.base import Half, Setting, Task, of_half
from neuronaut.tools.tasks.wordings import Pair, Wording, words

NOUNS = words(
    "dog cat horse cow bird duck goat bear book lamp key cup hat ball ring coat letter map drum kite rope clock basket "
    "king queen farmer teacher doctor baker sailor soldier singer painter"
)
BETWEEN = ("near", "behind", "under", "with")
SINGULAR, PLURAL = (" is", " was"), (" are", " were")
PAIRS = (("(", ")"), ("[", "]"), ("{", "}"))
LETTERS = ("x", "y", "z")


def agreement(setting: Setting) -> Pair:
    """number: the subject in the other number, so that the answer is the other form; other: another subject in the other
    number."""
    rng = setting.rng
    head, near, instead = rng.sample(of_half(NOUNS, setting.half), 3)
    many = rng.random() < 0.5
    clean = {
        "subject": head + "s" * many,
        "between": rng.choice(BETWEEN),
        "near": near + "s" * (rng.random() < 0.5),
    }
    swapped = (instead if setting.corruption == "other" else head) + "s" * (not many)
    right, wrong = (PLURAL, SINGULAR) if many else (SINGULAR, PLURAL)
    return Pair(clean, clean | {"subject": swapped}, right, wrong, f"{head} {near}")


def brackets(setting: Setting) -> Pair | None:
    """kind: the innermost open bracket is of another kind; random: all brackets and letters are drawn again. The half goes by
    the outer bracket and the letters, so that a twin belongs to the half of its prompt."""
    rng = setting.rng
    outer, inner, other = rng.sample(PAIRS, 3)
    letters = [rng.choice(LETTERS) for _ in range(4)]
    if _half_of(outer[0], letters) != setting.half:
        return None
    clean = {"outer": outer[0], "inner": inner[0]} | {f"letter{at}": letter for at, letter in enumerate(letters)}
    twin = clean | {"inner": other[0]}
    if setting.corruption == "random":
        again = [rng.choice(LETTERS) for _ in letters]
        twin = {f"letter{at}": letter for at, letter in enumerate(again)} | {"outer": inner[0], "inner": other[0]}
        if _half_of(inner[0], again) != setting.half:
            return None
    wrong = tuple(f" {closing}" for _, closing in (other, outer))
    return Pair(clean, twin, (f" {inner[1]}",), wrong, " ".join((outer[0], inner[0], *letters)))


def _half_of(outer: str, letters: Sequence[str]) -> Half:
    """Which half prompts of an outer bracket and letters belong to."""
    code = [opening for opening, _ in PAIRS].index(outer) + sum(LETTERS.index(one) for one in letters)
    return "search" if code % 2 == 0 else "test"


TASKS = (
    Task(
        "agreement",
        "grammar",
        "the verb has the number of its subject",
        (
            Wording("The {subject} {between} the {near}"),
            Wording("It is said that the {subject} {between} the {near}"),
            Wording("The cup is old. The {subject} {between} the {near}"),
        ),
        ("number", "other"),
        agreement,
        forms=True,
    ),
    Task(
        "brackets",
        "grammar",
        "the innermost bracket is closed first",
        (
            Wording("{letter0} {outer} {letter1} {inner} {letter2} {letter3}"),
            Wording("{outer} {letter0} {letter1} {inner} {letter2} {letter3}"),
            Wording("{letter0} {letter1} {outer} {inner} {letter2} {letter3}"),
        ),
        ("kind", "random"),
        brackets,
        forms=True,
    ),
)
