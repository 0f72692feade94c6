"""Does the rarer half of what a claim names hold by itself? A few common words can carry a long list."""

import re

import numpy as np

from neuronaut.tools.look.reads import FiringRule, count
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.predicates.tree import complexity
from neuronaut.tools.registry import Array
from neuronaut.tools.tokens import Tokens

SMALL_CLAIM = 5  # items; a claim of more must hold for the rarer half of its alternatives
_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)


def rarer_half_precision(claim: Predicate, activations: Array, tokens: Tokens, rule: FiringRule) -> float | None:
    """Share of the places of the claim's rarer alternatives at which the unit fires; None for at most 5 items, or where
    fewer than two alternatives occur in the text.

    Alternatives (tokens, words, branches of expressions, parts of any_of) are ranked by the places at which the claim
    holds because of each alone; those that never occur say nothing and are left out.
    """
    if complexity(claim) <= SMALL_CLAIM:
        return None
    held = [mask for one in alternatives(claim) if (mask := holds(one, tokens)).any()]
    if len(held) < 2:
        return None
    rarer = sorted(held, key=lambda mask: int(mask.sum()))[: len(held) // 2]
    half = count(np.logical_or.reduce(rarer), activations, tokens, rule)
    return float(half.both.sum() / half.held.sum())


def alternatives(predicate: Predicate) -> list[Predicate]:
    """Predicates of which at least one holds exactly where this one does; the predicate alone where it offers no choice.

    Of a conjunction the part with most alternatives is split.
    """
    match predicate:
        case nodes.Token() | nodes.Word() | nodes.WordSoFar():
            return [predicate.model_copy(update={"any_of": (one,)}) for one in predicate.any_of]
        case nodes.TokenMatches() | nodes.WordMatches() | nodes.PrecededBy():
            return [predicate.model_copy(update={"regex": one}) for one in branches(predicate.regex)]
        case nodes.AnyOf() | nodes.Modes() | nodes.Graded():
            return [one for part in predicate.children() for one in alternatives(part)]
        case nodes.At() | nodes.Within() | nodes.Since():
            return [predicate.model_copy(update={"inner": one}) for one in alternatives(predicate.inner)]
        case nodes.AllOf():
            split = [alternatives(part) for part in predicate.of]
            at = max(range(len(split)), key=lambda i: len(split[i]))
            return [
                predicate.model_copy(update={"of": (*predicate.of[:at], one, *predicate.of[at + 1 :])})
                for one in split[at]
            ]
        case _:
            return [predicate]


def branches(pattern: str) -> list[str]:
    """The top-level alternatives of a regular expression; the pattern alone where flags or a quotation would be cut."""
    if re.search(r"\(\?[a-zA-Z-]+\)|\\Q", pattern):
        return [pattern]
    found, depth = [""], 0
    for part in _TOKEN.findall(pattern):
        depth += (part == "(") - (part == ")")
        if part == "|" and depth == 0:
            found.append("")
        else:
            found[-1] += part
    return found if all(found) else [pattern]
