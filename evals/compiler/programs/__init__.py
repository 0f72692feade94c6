"""The programs of the benchmark, each a task of a few lines."""

from neuronaut.evals.compiler.program import Labels, Program, Tokens, variables
from neuronaut.evals.compiler.programs.carrying import moving, pointing
from neuronaut.evals.compiler.programs.comparing import comparing, nesting
from neuronaut.evals.compiler.programs.counting import averaging, counting
from neuronaut.evals.compiler.programs.words import LETTERS

FAMILIES = (moving, pointing, counting, averaging, comparing, nesting)


def _tokens(output: Labels) -> Tokens:
    """The tokens that a task reads; letters where it reads none."""
    read = variables(Program("", "", "", LETTERS, output))
    return next((one for one in read if isinstance(one, Tokens)), LETTERS)


PROGRAMS: tuple[Program, ...] = tuple(
    Program(name, family.__name__, task, _tokens(output), output)
    for family in FAMILIES
    for name, task, output in family()
)
