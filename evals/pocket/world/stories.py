"""Prose: stories with a state that follows from what happened, gifts, talk, letters, diaries, agreement, verse."""

from __future__ import annotations

from random import Random

from . import words as w
from .document import Draft, Word
from .words import article, day, month, name


def story(rng: Random, draft: Draft) -> None:
    """Two people move things between places; the end can be worked out from the beginning."""
    first, second = rng.sample(w.NAMES, 2)
    colour, thing = rng.choice(w.COLOURS), rng.choice(w.THINGS)
    home, away, third = rng.sample(w.PLACES, 3)
    draft.write("Once there was {j} {p} named {A}. ", j=w.article(job := rng.choice(w.PEOPLE)), p=job, A=name(first))
    draft.write("{P} had {a} {c} {t}. ", P=w.PRONOUN[first].capitalize(), a=article(colour), c=colour, t=thing)
    draft.write(
        "One day {A} went to the {x} with {q} friend {B}. ",
        A=name(first),
        x=home,
        q=w.POSSESSIVE[first],
        B=name(second),
    )
    holder, where = first, home
    for _ in range(rng.randint(1, 3)):
        event = rng.randrange(3)
        if event == 0:
            other = second if holder == first else first
            draft.write(
                "{A} gave the {c} {t} to {B}. ", A=name(holder, "giver"), c=colour, t=thing, B=name(other, "receiver")
            )
            holder = other
        elif event == 1:
            where = rng.choice([place for place in (away, third) if place != where])
            draft.write("Then they walked to the {x}. ", x=where)
        else:
            draft.write(
                "{A} was {e} because {p} {v} the {t}. ",
                A=name(holder),
                e=rng.choice(["happy", "sad"]),
                p=w.PRONOUN[holder],
                v=rng.choice(["liked", "loved"]),
                t=thing,
            )
    draft.write("In the end {A} put the {c} {t} in the {x}. ", A=name(holder), c=colour, t=thing, x=where)
    draft.write("So the {t} was in the {x}, and {A} went home.", t=thing, x=where, A=name(rng.choice([first, second])))


def giving(rng: Random, draft: Draft) -> None:
    """Who gave what to whom: the receiver is the one of the two who did not give."""
    openings = (
        "When {A} and {B} went to the {x}, ",
        "Then {A} and {B} had a long day at the {x}, and ",
        "After {A} and {B} met at the {x}, ",
        "While {A} and {B} were at the {x}, ",
    )
    verbs = ("gave", "handed", "showed", "sent")
    pair = rng.sample(w.NAMES, 2)
    for _ in range(rng.randint(1, 3)):
        giver, receiver = rng.sample(pair, 2)
        thing = rng.choice(w.THINGS)
        shown = rng.sample(pair, 2)
        draft.write(rng.choice(openings), A=name(shown[0]), B=name(shown[1]), x=rng.choice(w.PLACES))
        draft.write(
            "{G} {v} {a} {t} to {R}. ",
            G=name(giver, "giver"),
            v=rng.choice(verbs),
            a=article(thing),
            t=thing,
            R=name(receiver, "receiver", "answer"),
        )
        if rng.random() < 0.5:
            draft.write("{R} thanked {G}. ", R=name(receiver), G=name(giver))
        if rng.random() < 0.4:
            pair = rng.sample(w.NAMES, 2)
    draft.write("That was all.")


def dialogue(rng: Random, draft: Draft) -> None:
    """Two speakers in turn; answers repeat what the question asked about."""
    first, second = rng.sample(w.NAMES, 2)
    asked, answered = rng.sample([first, second], 2)
    for _ in range(rng.randint(2, 4)):
        thing, place, food = rng.choice(w.THINGS + w.ANIMALS), rng.choice(w.PLACES), rng.choice(w.FOODS)
        draft.write("{A}: ", "speaker", A=name(asked))
        talk = rng.randrange(3)
        if talk == 0:
            draft.write('"Where is the {t}?"\n', "quotation", t=thing)
            reply = f'"The {thing} is in the {place}."\n'
        elif talk == 1:
            draft.write('"Do you have any {f}?"\n', "quotation", f=food)
            reply = rng.choice((f'"Yes, I have {food}."\n', f'"No, I do not have any {food}."\n'))
        else:
            draft.write('"Who has my {t}, {B}?"\n', "quotation", t=thing, B=name(answered))
            reply = f'"I do not know who has your {thing}."\n'
        draft.write("{B}: ", "speaker", B=name(answered))
        draft.write(reply, "quotation")


def letter(rng: Random, draft: Draft) -> None:
    """A letter: date, greeting, thanks, a plan and the name of the sender at the end."""
    sender, to = rng.sample(w.NAMES, 2)
    thing, place = rng.choice(w.THINGS), rng.choice(w.PLACES)
    draft.write(
        "{n} {m} {y}\n\n",
        "heading",
        n=rng.randint(1, 28),
        m=month(rng.choice(w.MONTHS)),
        y=w.year(rng.randint(1732, 1799)),
    )
    draft.write("Dear {B},\n", B=name(to))
    draft.write("Thank you for the {c} {t} that you sent me. ", c=rng.choice(w.ADJECTIVES), t=thing)
    draft.write("I keep the {t} in the {x}. ", t=thing, x=place)
    if rng.random() < 0.6:
        when = rng.choice(w.DAYS)
        draft.write("I will come to see you on {d}. Will you be at home on {d}? ", d=day(when))
    else:
        draft.write(
            "We had {a} weather in {m}. ", a=rng.choice(["cold", "hot", "good", "bad"]), m=month(rng.choice(w.MONTHS))
        )
    draft.write(
        "I hope that you and {C} are well.\n", C=name(rng.choice([n for n in w.NAMES if n not in (sender, to)]))
    )
    draft.write("{close},\n{A}", close=rng.choice(("Yours", "With love", "Your friend")), A=name(sender))


def diary(rng: Random, draft: Draft) -> None:
    """Entries of following days."""
    start = rng.randrange(7)
    for step in range(rng.randint(2, 4)):
        person = rng.choice(w.NAMES)
        draft.write("{d}. ", "heading", d=day(w.DAYS[(start + step) % 7]))
        draft.write(
            "I met {A} at the {x}. {P} was {e}. ",
            A=name(person),
            x=rng.choice(w.PLACES),
            P=w.PRONOUN[person].capitalize(),
            e=rng.choice(w.ADJECTIVES),
        )
        draft.write(
            "We {v} and then I {u} home.\n",
            v=rng.choice(("laughed", "sang", "waited")),
            u=rng.choice(("went", "walked", "ran")),
        )


def agreement(rng: Random, draft: Draft) -> None:
    """Sentences whose verb agrees with a subject some words earlier."""
    for _ in range(rng.randint(3, 6)):
        head, other = rng.sample(w.ANIMALS + w.THINGS + w.PEOPLE, 2)
        many, others = rng.random() < 0.5, rng.random() < 0.5
        draft.write(
            "The {h} {p} the {o} {v} {a}. ",
            h=w.PLURALS[head] if many else head,
            p=rng.choice(("near", "behind", "under", "with")),
            o=w.PLURALS[other] if others else other,
            v=Word(rng.choice(("are", "were")) if many else rng.choice(("is", "was")), ("agreeing_verb",)),
            a=rng.choice(w.ADJECTIVES),
        )


def verse(rng: Random, draft: Draft) -> None:
    """Verses with a refrain that comes back word for word."""
    animal, place = rng.choice(w.ANIMALS), rng.choice(w.PLACES)
    refrain = f"O {rng.choice(w.ADJECTIVES)} {animal} of the {place},\nsing to me, sing to me!\n"
    for colour in rng.sample(w.COLOURS, rng.randint(2, 3)):
        draft.write(
            "The {c} {t} is {a},\nthe {m} is {b}.\n",
            c=colour,
            t=rng.choice(w.THINGS),
            a=rng.choice(w.ADJECTIVES),
            m=rng.choice(("moon", "sun", "sea")),
            b=rng.choice(w.ADJECTIVES),
        )
        draft.write(refrain, "refrain")
