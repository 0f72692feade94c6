"""Short passages in French and in German, with gender and number as the languages have them."""

from __future__ import annotations

from random import Random

from .document import Draft
from .words import NAMES, name

FRENCH_NOUNS = (
    ("le", "chat"),
    ("le", "chien"),
    ("le", "livre"),
    ("le", "pain"),
    ("la", "maison"),
    ("la", "table"),
    ("la", "fleur"),
    ("la", "clef"),
)
FRENCH_ADJECTIVES = (("petit", "petite"), ("grand", "grande"), ("noir", "noire"), ("vert", "verte"))
FRENCH_PLACES = ("dans le jardin", "dans la cuisine", "sur la chaise", "pres de la porte")
GERMAN_NOUNS = (
    ("der", "Hund"),
    ("der", "Tisch"),
    ("der", "Baum"),
    ("die", "Katze"),
    ("die", "Blume"),
    ("die", "Uhr"),
    ("das", "Buch"),
    ("das", "Brot"),
)
GERMAN_ADJECTIVES = ("klein", "alt", "neu", "schwarz")
GERMAN_PLACES = ("im Garten", "im Haus", "auf dem Stuhl", "neben dem Fenster")
EIN = {"der": "ein", "die": "eine", "das": "ein"}
ER = {"der": "Er", "die": "Sie", "das": "Es"}


def french(rng: Random, draft: Draft) -> None:
    """French sentences; article, adjective and pronoun agree with the noun."""
    for _ in range(rng.randint(3, 6)):
        article, noun = rng.choice(FRENCH_NOUNS)
        he, she = rng.choice(FRENCH_ADJECTIVES)
        female = article == "la"
        draft.write(
            "{L} {n} est {a}. {P} est {x}. ",
            "french",
            L=article.capitalize(),
            n=noun,
            a=she if female else he,
            P="Elle" if female else "Il",
            x=rng.choice(FRENCH_PLACES),
        )
        if rng.random() < 0.5:
            draft.write("{A} a {u} {n}. ", "french", A=name(rng.choice(NAMES)), u="une" if female else "un", n=noun)


def german(rng: Random, draft: Draft) -> None:
    """German sentences; article and pronoun agree with the noun."""
    for _ in range(rng.randint(3, 6)):
        article, noun = rng.choice(GERMAN_NOUNS)
        draft.write(
            "{L} {n} ist {a}. {P} ist {x}. ",
            "german",
            L=article.capitalize(),
            n=noun,
            P=ER[article],
            a=rng.choice(GERMAN_ADJECTIVES),
            x=rng.choice(GERMAN_PLACES),
        )
        if rng.random() < 0.5:
            draft.write(
                "Das ist {e} {n}. {A} sieht das nicht. ", "german", e=EIN[article], n=noun, A=name(rng.choice(NAMES))
            )
