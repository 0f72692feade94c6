"""The seed of each suite: the development seeds of the project, or the user's own file of the same form."""

import json
from collections.abc import Sequence
from pathlib import Path

from neuronaut.evals.registry import SUITES
from neuronaut.tools.errors import UserError

DEVELOPMENT = Path(__file__).with_name("seeds.json")
LARGEST = 2**32 - 1
EXAMPLE = '{"planted": 7}'


def seeds_of(suites: Sequence[str], file: Path | None) -> dict[str, int]:
    """The seed of each suite by a file, None for the development seeds. Refuses a file that names none for one of them."""
    path = DEVELOPMENT if file is None else file
    seeds = read_seeds(path)
    for suite in suites:
        if suite not in seeds:
            raise UserError(f"the seed file {str(path)!r} names no seed for {suite!r}: add one, or give --seed")
    return {suite: seeds[suite] for suite in suites}


def read_seeds(path: Path) -> dict[str, int]:
    """Suite to seed. Refuses a file that is not a JSON object of known suites, each with a whole number from 0 to 2^32 - 1."""
    try:
        seeds = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except OSError as error:
        raise UserError(f"the seed file {str(path)!r} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"the seed file {str(path)!r} is damaged ({error or 'no JSON'}): write a JSON object of suites and seeds, like {EXAMPLE}"
        ) from None
    if not isinstance(seeds, dict) or not seeds:
        raise UserError(f"the seed file {str(path)!r} must be a JSON object of suites and seeds, like {EXAMPLE}")
    for suite, seed in seeds.items():
        if path != DEVELOPMENT and suite not in SUITES:
            raise UserError(
                f"the seed file {str(path)!r} names {suite!r}, which is no suite: choose from {', '.join(SUITES)}"
            )
        if type(seed) is not int or not 0 <= seed <= LARGEST:
            raise UserError(
                f"the seed of {suite!r} in {str(path)!r} is {json.dumps(seed)}: give a whole number from 0 to {LARGEST}"
            )
    return seeds


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    seeds = dict(pairs)
    if len(seeds) < len(pairs):
        raise ValueError("a suite stands in it twice")
    return seeds
