"""How often a program says what the model says, on texts that it was not learnt from, beside programs that know nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.programs.program import Program, Table
from neuronaut.tools.programs.texts import Text, Words, random_texts
from neuronaut.tools.targets.base import TargetModel


@dataclass(frozen=True)
class Agreement:
    """Of `n` texts, the share reproduced at every place, and the share of places. commonest: texts reproduced by the commonest
    output of each place; shuffled: by the program with the values of its tables exchanged."""

    n: int
    reproduced: int
    places: float
    commonest: float
    shuffled: float


def held_out(words: Words, n: int, seed: int) -> list[Text]:
    """`n` different random texts of full length, to be kept apart. Refuses where that is more than half of all there are."""
    if 2 * n > len(words.ids) ** words.longest:
        raise ToolRefused(
            f"there are only {len(words.ids) ** words.longest} texts of {words.longest} of the words, of which {n} cannot be "
            "kept apart: give a larger length, or a smaller held_out"
        )
    rng, found = np.random.default_rng([seed, 1]), dict[Text, None]()
    while len(found) < n:
        found |= dict.fromkeys(random_texts(words, n, rng, uneven=False))
    return list(found)[:n]


def agreement(target: TargetModel, words: Words, program: Program, texts: Sequence[Text], seed: int) -> Agreement:
    """The program against the model, and against the nulls, on texts of full length."""
    said = said_by(target, words, texts)
    own = np.array([program.says(text) for text in texts])
    values, inverse = np.unique(said, return_inverse=True)
    numbers = inverse.reshape(said.shape)
    commonest = values[[np.bincount(column).argmax() for column in numbers.T]]
    mixed = shuffled_program(program, seed)
    shuffled = np.array([mixed.says(text) for text in texts])
    return Agreement(
        len(texts),
        int((own == said).all(1).sum()),
        float((own == said).mean()),
        float((commonest == said).all(1).mean()),
        float((shuffled == said).all(1).mean()),
    )


def said_by(target: TargetModel, words: Words, texts: Sequence[Text]) -> np.ndarray[tuple[int, int], np.dtype[np.str_]]:
    """(texts, words) the piece that the model says at each word."""
    logits = target.run(words.tensor(texts), logits=True).logits
    assert logits is not None
    pieces = np.array(target.vocabulary.pieces)
    found: np.ndarray[tuple[int, int], np.dtype[np.str_]] = pieces[logits[:, words.lead :].argmax(-1).numpy()]
    return found


def shuffled_program(program: Program, seed: int) -> Program:
    """The program with the values of each of its tables dealt out anew."""
    rng = np.random.default_rng(seed)

    def mixed(table: Table) -> Table:
        values = list(table.entries.values())
        order = rng.permutation(len(values))
        return replace(table, entries={key: values[i] for key, i in zip(table.entries, order, strict=True)})

    lines = tuple(replace(line, table=mixed(line.table)) for line in program.lines)
    return replace(program, lines=lines, output=mixed(program.output))
