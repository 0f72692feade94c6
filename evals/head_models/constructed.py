"""Heads put into a model by hand: compiled, in a turned basis, in random order, among idle ones."""

import numpy as np

from neuronaut.evals.compiler.program import Label, Map, Program, Pull, Selector, Tokens
from neuronaut.evals.compiler.programs.words import POSITION, at, earlier, previous
from neuronaut.evals.compiler.weights import Compiled, compile_program
from neuronaut.evals.head_models.measure import KINDS, Kind

ALPHABET = "abcdefgh"
MIN_LETTERS = 5
MAX_SPARE = 2


def draw(seed: int) -> tuple[Program, dict[str, Kind]]:
    """A program that needs two to four kinds of heads, and which variable is carried by which kind.

    It adds up the numbers of the letters that the heads carry, so that each of them decides what is said.
    """
    rng = np.random.default_rng(seed)
    letters = ALPHABET[: int(rng.integers(MIN_LETTERS, len(ALPHABET) + 1))]
    token = Tokens(tuple(letters))
    prev = Pull("previous", previous, token)
    heads: dict[Kind, Pull] = {
        "previous": prev,
        "induction": Pull("induction", Selector(((prev, token, lambda key, query: key == query),), "last"), token),
        "duplicate": Pull(
            "duplicate", Selector((*earlier.terms, (token, token, lambda key, query: key == query)), "last"), token
        ),
        "successor": Pull(
            "successor",
            Selector(((POSITION, POSITION, lambda key, query: key == query),)),
            token,
            lambda label: None if label is None else letters[(letters.index(label) + 1) % len(letters)],
        ),
        "positional": Pull("positional", at(0), token),
    }
    chosen = [KINDS[i] for i in rng.permutation(len(KINDS))[: int(rng.integers(2, 4))]]

    def add(one: Label, other: Label) -> Label:
        numbers = (len(letters) if label is None else letters.index(str(label)) for label in (one, other))
        total = sum(numbers) % (len(letters) + 1)
        return None if total == len(letters) else letters[total]

    output: Pull | Map = heads[chosen[0]]
    for kind in chosen[1:]:
        output = Map(f"with_{kind}", add, (output, heads[kind]))
    if "induction" in chosen and "previous" not in chosen:
        chosen.append("previous")
    task = "the sum of what these heads carry: " + ", ".join(chosen)
    return Program(f"heads-{seed}", "constructed", task, token, output), {heads[kind].name: kind for kind in chosen}


def construct(seed: int) -> tuple[Compiled, dict[tuple[int, int], Kind]]:
    """The model, and the kind of each (layer, head) that has one."""
    program, kinds = draw(seed)
    spare = int(np.random.default_rng(seed).integers(1, MAX_SPARE + 1))
    compiled = compile_program(program, seed, spare_heads=spare, turn=True)
    heads = [part for part in compiled.components if part.kind == "head" and part.role != "none"]
    return compiled, {(part.layer, part.indices[0]): kinds[part.writes] for part in heads}
