"""Form before meaning: brackets, quotations, code, tags, records, random strings that come back, capitals."""

from __future__ import annotations

from random import Random

from . import words as w
from .document import Draft, Word
from .words import name

PAIRS = (("(", ")"), ("[", "]"), ("{", "}"))


def brackets(rng: Random, draft: Draft) -> None:
    """Nested brackets of three kinds, each closed by its own mark, with letters between."""
    for _ in range(rng.randint(2, 4)):
        stack: list[str] = []
        pieces: list[str] = []
        for _ in range(rng.randint(6, 16)):
            act = rng.random()
            if act < 0.4 and len(stack) < 4:
                opening, closing = rng.choice(PAIRS)
                stack.append(closing)
                pieces.append(opening)
            elif act < 0.7 and stack:
                pieces.append(stack.pop())
            else:
                pieces.append(rng.choice(("x", "y", "z")))
        pieces.extend(reversed(stack))
        draft.write("{s}\n", s=" ".join(pieces))


def asides(rng: Random, draft: Draft) -> None:
    """Sentences with an aside in brackets."""
    for _ in range(rng.randint(2, 4)):
        first, second = rng.sample(w.NAMES, 2)
        draft.write(
            "{A} (the {a} {p} from the {x}) {v} the {t}",
            A=name(first),
            a=rng.choice(w.ADJECTIVES),
            p=rng.choice(w.PEOPLE),
            x=rng.choice(w.PLACES),
            v=rng.choice(("saw", "found", "took", "lost")),
            t=rng.choice(w.THINGS),
        )
        draft.write(rng.choice((". ", " [see page {n}]. ", " (with {B}). ")), n=rng.randint(1, 99), B=name(second))


def sayings(rng: Random, draft: Draft) -> None:
    """Speech inside a sentence, some of it quoting other speech."""
    for _ in range(rng.randint(2, 4)):
        first, second = rng.sample(w.NAMES, 2)
        said = rng.choice(
            (
                f"I {rng.choice(('lost', 'found', 'sold'))} my {rng.choice(w.THINGS)}",
                f"The {rng.choice(w.ANIMALS)} is {rng.choice(w.ADJECTIVES)}",
                f"We will go to the {rng.choice(w.PLACES)}",
            )
        )
        if rng.random() < 0.5:
            draft.write("{A} said, ", A=name(first))
            draft.write('"{s}."', "quotation", s=said)
        else:
            draft.write('"{s},"', "quotation", s=said)
            draft.write(" said {A}", A=name(first))
            draft.write(".")
        draft.write(" {B} did not {v}. ", B=name(second), v=rng.choice(("reply", "laugh", "listen")))


def code(rng: Random, draft: Draft) -> None:
    """Short programs of a Python-like language; every name used was defined."""
    for _ in range(rng.randint(1, 3)):
        kind = rng.randrange(4)
        function = Word(rng.choice(("add", "total", "check", "find", "swap", "make")), ("identifier",))
        a, b = (Word(text, ("identifier",)) for text in rng.sample(("x", "y", "n", "size", "item", "left"), 2))
        number, sign = rng.randint(0, 20), rng.choice("+-*")
        if kind == 0:
            draft.write("def {f}({a}, {b}):\n    return {a} {s} {b}\n\n", f=function, a=a, b=b, s=sign)
        elif kind == 1:
            draft.write("for {a} in range({n}):\n    print({a})\n\n", a=a, n=number)
        elif kind == 2:
            draft.write(
                "{a} = {n}\nif {a} > {m}:\n    {a} = {a} {s} {k}\nelse:\n    print({a})\n\n",
                a=a,
                n=number,
                m=rng.randint(0, 20),
                s=sign,
                k=rng.randint(0, 9),
            )
        else:
            draft.write(
                '{a} = [{n}, {m}]\n{b} = {f}({a})\nprint("{t}", {b})\n\n',
                a=a,
                b=b,
                f=function,
                n=number,
                m=rng.randint(0, 20),
                t=rng.choice(w.THINGS),
            )


def tags(rng: Random, draft: Draft) -> None:
    """Marked-up text: every tag is closed by its own name."""
    draft.write("<page>\n")
    for _ in range(rng.randint(2, 4)):
        tag = rng.choice(("title", "item", "note", "bold"))
        draft.write(
            "<{g}>The {a} {t}</{g}>\n",
            g=Word(tag, ("tag_name",)),
            a=rng.choice(w.ADJECTIVES),
            t=rng.choice(w.THINGS + w.ANIMALS),
        )
    draft.write("</page>")


def records(rng: Random, draft: Draft) -> None:
    """Records with the same keys in the same order."""
    for _ in range(rng.randint(1, 3)):
        person = rng.choice(w.NAMES)
        draft.write(
            '{open}"name": "{A}", "age": {n}, "colour": "{c}", "pets": ["{x}", "{y}"]{close}\n',
            open="{",
            close="}",
            A=name(person),
            n=rng.randint(5, 90),
            c=rng.choice(w.COLOURS),
            x=rng.choice(w.ANIMALS),
            y=rng.choice(w.ANIMALS),
        )


def random_words(rng: Random, draft: Draft) -> None:
    """Random words, then the same words again."""
    pool = w.NOUNS + w.ADJECTIVES + w.COLOURS + w.FOODS + w.NUMBER_WORDS + w.MONTHS + w.NAMES
    block = " ".join(rng.sample(pool, rng.randint(8, 24)))
    _twice(rng, draft, block, " ")


def random_letters(rng: Random, draft: Draft) -> None:
    """Random strings of letters and digits, then the same strings again."""
    block = " ".join(
        "".join(rng.choice("abcdefghkmnpqrstuvwxyz23456789") for _ in range(rng.randint(2, 4)))
        for _ in range(rng.randint(4, 10))
    )
    _twice(rng, draft, block, "\n")


def _twice(rng: Random, draft: Draft, block: str, separator: str) -> None:
    draft.write("{b}", "random", b=block)
    for _ in range(rng.randint(1, 2)):
        draft.write("{s}", s=separator)
        draft.write("{b}", "copy", b=block)


def notices(rng: Random, draft: Draft) -> None:
    """Signs in capitals, addresses and telephone numbers."""
    for _ in range(rng.randint(2, 4)):
        draft.write(
            "{s} THE {t}! ",
            "capitals",
            s=rng.choice(("DO NOT TOUCH", "KEEP OFF", "MIND", "CLOSE")),
            t=rng.choice(("DOOR", "GATE", "GRASS", "DOG", "STEP", "LAMP")),
        )
        draft.write(
            "Ask {A} at {n} {s} Street, telephone {x}-{y}{z}.\n",
            A=name(rng.choice(w.NAMES)),
            n=rng.randint(1, 99),
            s=rng.choice(("Mill", "Church", "Bridge", "Hill")),
            x=rng.randint(10, 99),
            y=rng.randint(10, 99),
            z=rng.randint(10, 99),
        )
