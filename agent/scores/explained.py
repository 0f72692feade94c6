"""Explanations to be scored: one that is given, the best claim that the notebook supports, or one made of the strongest tokens."""

from neuronaut.agent.scores.base import Explanation
from neuronaut.memory import queries
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.search import search
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.learn.subject import Subject, strongest_tokens
from neuronaut.tools.predicates.text import parse_text
from neuronaut.tools.predicates.tree import predicate_from_json
from neuronaut.tools.predicates.words import claim_text
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.units import Unit

LONGEST = 2_000  # characters


def given(text: str, unit: Unit) -> Explanation:
    """The explanation of the command line, put into words where it is a predicate. Refuses an empty or a very long one."""
    if not text.strip():
        raise UserError("--explanation is empty: say in a sentence what the unit responds to")
    if len(text) > LONGEST:
        raise UserError(f"--explanation has {len(text):,} characters, and at most {LONGEST:,} are scored: shorten it")
    try:
        predicate = parse_text(text)
    except ToolRefused:
        return Explanation(text.strip(), "as given")
    return Explanation(claim_text(predicate, sign=unit.sign), "the predicate as given", predicate)


def best_claim(notebook: Notebook, weights_sha256: str, unit: Unit) -> Explanation | None:
    """The SUPPORTED claim about when the unit fires with the highest F1, of any run on the same weights; None without one."""
    found: list[tuple[float, Explanation]] = []
    for row in search(notebook, f"status:supported side:reads unit:{unit.address}"):
        if queries.find_run(notebook, row["run"])["target"]["weights_sha256"] != weights_sha256:
            continue
        (hypothesis,) = (one for one in queries.hypotheses(notebook, row["run"]) if one["id"] == row["id"])
        evidence = {one["metric"]: one["value"] for one in hypothesis["verdicts"][-1]["evidence"]}
        source = f"SUPPORTED in run {row['run']}"
        claim = Explanation(row["claim"], source, predicate_from_json(row["predicate"]))
        found.append((evidence.get("f1", 0.0), claim))
    return max(found, key=lambda one: one[0])[1] if found else None


def of_other(notebook: Notebook, context: ToolContext, other: Subject) -> Explanation:
    """The best claim about another unit, or one made of the tokens that it fires on most, which needs no language model."""
    claim = best_claim(notebook, context.target.fingerprint().weights_sha256, other.unit)
    if claim is not None:
        return claim
    predicate = strongest_tokens(context, other)
    return Explanation(claim_text(predicate, sign=other.unit.sign), "its 3 strongest tokens", predicate)
