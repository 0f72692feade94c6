"""Who received: two people, one of whom gives (indirect object), in both orders.

Source: Wang et al. 2022, arXiv:2211.00593.
"""

from neuronaut.tools.tasks.base import Setting, Task, of_half
from neuronaut.tools.tasks.wordings import Pair, Wording, words

NAMES = words(
    "Mary Anna Lucy Sarah Emma Alice Clara Ruth Helen Nora Jane Kate Julia Eva Rosa Amy "
    "John Tom Peter David Paul Jack Simon Henry Mark Oliver George Adam Frank Hugo Leo Max"
)
THINGS = words("book lamp key cup box hat ball ring coat letter map drum kite rope clock basket")
PLACES = words("garden kitchen market school park river forest library station church barn tower")
OPENINGS = (
    "When {A} and {B} went to the {place}, ",
    "After {A} and {B} met at the {place}, ",
    "While {A} and {B} were at the {place}, ",
    "Then {A} and {B} had a long day at the {place}, and ",
)
VERBS = ("gave", "handed", "showed")


def draw(setting: Setting) -> Pair:
    """The giver is the first or the second of the two.

    swap: the other one gives, so that the answer is the other name; third: somebody else gives, so that nothing decides;
    random: all three names are others, none of them twice.
    """
    rng, half = setting.rng, setting.half
    first, second, *others = rng.sample(of_half(NAMES, half), 5)
    giver, receiver = rng.sample((first, second), 2)
    same = {"place": rng.choice(of_half(PLACES, half)), "thing": rng.choice(of_half(THINGS, half))}
    clean = same | {"A": first, "B": second, "giver": giver}
    match setting.corruption:
        case "swap":
            other = {"giver": receiver}
        case "third":
            other = {"giver": others[0]}
        case _:
            other = dict(zip(("A", "B", "giver"), others, strict=True))
    names = " ".join(sorted((first, second)))
    return Pair(clean, clean | other, (f" {receiver}",), (f" {giver}",), names)


TASKS = (
    Task(
        "indirect object",
        "names",
        "who received, of the two who met",
        tuple(
            Wording(f"{opening}{{giver}} {verb} a {{thing}} to")
            for opening, verb in zip(OPENINGS, (*VERBS, VERBS[0]), strict=True)
        ),
        ("swap", "third", "random"),
        draw,
        forms=True,
    ),
)
