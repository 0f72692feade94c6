"""A unit as the scores see it: when it is active, and the windows on which explanations of it are scored."""

from dataclasses import dataclass, field

import numpy as np

from neuronaut.tools.corpus import Split
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.learn.items import PER_TENTH, Items, choose_items
from neuronaut.tools.learn.windows import Window, windows_of
from neuronaut.tools.look.activations import FIRING
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.look.reads import MIN_ACTIVE_DOCUMENTS, NO_SIDE, TOP_DOCUMENTS, FiringRule
from neuronaut.tools.predicates import nodes
from neuronaut.tools.predicates.evaluate import holds
from neuronaut.tools.predicates.nodes import Predicate
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.targets.sites import site_of, unit_at
from neuronaut.tools.trials.nulls import other_units
from neuronaut.tools.trials.reads import rule_of
from neuronaut.tools.units import Unit

SCORED: tuple[Split, ...] = ("audit", "design")  # the second where the first is too short; no explainer is shown either
NAMED = 3  # tokens of an explanation that is made of the strongest ones
MOST_TRIED = 12  # other units


@dataclass(frozen=True, eq=False)
class Subject:
    """A unit, its firing rule from explore text, and windows of text that no explainer is shown, from `splits`."""

    unit: Unit
    rule: FiringRule
    windows: tuple[Window, ...] = field(repr=False)
    splits: tuple[Split, ...]


def subject_of(context: ToolContext, unit: Unit, rule: FiringRule | None = None) -> Subject:
    """The unit with windows of audit text, and of design text too where audit text has too few.

    Refuses a head, and a unit without a firing rule.
    """
    check_neuron(unit)
    rule = rule or _rule(context, unit)
    windows: list[Window] = []
    for number, split in enumerate(SCORED, start=1):
        windows += windows_of(context.tokens(split), context.activations(unit, split), rule, split)
        if _enough(windows):
            return Subject(unit, rule, tuple(windows), SCORED[:number])
    return Subject(unit, rule, tuple(windows), SCORED)


def check_neuron(unit: Unit) -> None:
    """Refuses what is neither neuron nor feature."""
    if unit.kind not in FIRING:
        raise ToolRefused(
            f"{unit.address} is a {unit.kind}: only neurons and features have one activation a token, which scores need"
        )


def _rule(context: ToolContext, unit: Unit) -> FiringRule:
    """The firing rule. Refuses a unit that has none, and says whether its other side has one."""
    rule, other = rule_of(context, unit), unit.with_sign(-1 if unit.sign > 0 else 1)
    if isinstance(rule, FiringRule):
        return rule
    if rule == NO_SIDE:
        beyond = "above" if unit.sign > 0 else "below"
        why = f"its activation is hardly ever {beyond} 0 (in the median of the {TOP_DOCUMENTS} documents where it goes furthest, it is not)"
    else:
        why = f"it is active in fewer than {MIN_ACTIVE_DOCUMENTS} documents, too few for a score"
    both = isinstance(rule_of(context, other), FiringRule)
    instead = f"name its other side, {other.address}, or another neuron" if both else "name another neuron"
    raise ToolRefused(f"{unit.address} cannot be scored: on explore text {why}; {instead}")


def _enough(windows: list[Window]) -> bool:
    try:
        return len(choose_items(windows, 0).tenths[0]) == PER_TENTH
    except ToolRefused:
        return False


def items_of(subject: Subject, seed: int) -> Items:
    """The windows of each tenth and those without activation. Refuses a unit that is too rare or too dense here."""
    try:
        return choose_items(subject.windows, seed)
    except ToolRefused as error:
        raise ToolRefused(f"{subject.unit.address}: {error}") from None


def other_subject(context: ToolContext, unit: Unit, seed: int) -> Subject:
    """Another neuron of the layer, or feature of the dictionary, drawn at random from those that have the windows that scores need.

    Refuses a layer in which none of 12 has.
    """
    others, site = other_units(context, unit), site_of(context.target, unit)
    place = f"layer {unit.layer}" if unit.kind == "neuron" else unit.name
    order = np.random.default_rng(seed).permutation(len(others.indices))
    for at in order[:MOST_TRIED].tolist():
        rule = others.rules[at]
        if rule is not None:
            found = subject_of(context, unit_at(site, int(others.indices[at]), unit.sign), rule)
            if _enough(list(found.windows)):
                return found
    raise ToolRefused(
        f"no other {unit.kind} of {place} is active in enough windows to compare {unit.address} with: give a longer corpus"
    )


def shown_windows(context: ToolContext, subject: Subject) -> list[Window]:
    """Windows of the explore text from which explainers are shown examples."""
    activations = context.activations(subject.unit, "explore", n_tokens=EXPLORE_TOKENS)
    return windows_of(context.sample("explore", EXPLORE_TOKENS), activations, subject.rule, "explore")


def strongest_tokens(context: ToolContext, subject: Subject) -> Predicate:
    """The 3 tokens that account for most of the unit's firing on explore text, as a predicate."""
    tokens = context.sample("explore", EXPLORE_TOKENS)
    activations = context.activations(subject.unit, "explore", n_tokens=EXPLORE_TOKENS)
    fires = tokens.scored & (activations > subject.rule.threshold)
    mass = np.bincount(tokens.ids[fires], weights=activations[fires] - subject.rule.median)
    best = [int(token) for token in np.argsort(-mass, kind="stable")[:NAMED] if mass[token] > 0]
    return nodes.Token(any_of=tuple(tokens.vocabulary.pieces[token] for token in best))


def held_in(context: ToolContext, predicate: Predicate, windows: list[Window]) -> list[np.ndarray]:
    """(n,) bool of each window: where a predicate holds, with all that stands before the window in view."""
    masks = {split: holds(predicate, context.tokens(split)) for split in {window.split for window in windows}}
    found = []
    for window in windows:
        tokens = context.tokens(window.split)
        places = np.flatnonzero(tokens.scored[window.row])
        at = int(np.searchsorted(places, window.start))
        found.append(masks[window.split][window.row, places[at : at + len(window.ids)]])
    return found
