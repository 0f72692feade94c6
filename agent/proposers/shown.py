"""What a language model is shown of a unit: explore text only, escaped so that it cannot leave its place in the prompt."""

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuronaut.agent.proposers.base import Explored, Synthetic
from neuronaut.agent.view import visible
from neuronaut.tools.look.beside import SILENT, look_alikes
from neuronaut.tools.look.examples import TopExamplesArgs, choose_places
from neuronaut.tools.look.mistakes import token_rates
from neuronaut.tools.predicates.tree import predicate_from_json

N_TOP, N_WEAKER, N_SILENT, N_RANDOM = 7, 5, 5, 2
N_AS_TOKENS, N_TABLE, N_PROMOTED, N_FINDINGS, N_SYNTHETIC = 2, 10, 8, 6, 5
MOST_PLACES = 1000  # documents that are looked at for weaker contexts
BEFORE, AFTER = 16, 2  # tokens of context
LONGEST = 160  # characters of a context before its token, and of anything else that is quoted
WEAK = 0.1  # of the way from the median to the largest activation
_FENCE = re.compile(r"<(?=\s*/?\s*(?:corpus|findings|language|example)\b)", re.IGNORECASE)


def prompt_variables(explored: Explored) -> dict[str, Any]:
    """The variables of the prompt `propose`: contexts in four bands, tables of tokens, earlier findings."""
    tokens, scored = explored.tokens, explored.tokens.scored
    fires = scored & (explored.activations > explored.rule.threshold)
    return {
        "unit": explored.unit.address.rstrip("-"),
        "sign": explored.unit.sign,
        "rate": float(fires.sum()) / max(1, tokens.n_scored),
        "n_tokens": tokens.n_scored,
        "threshold": strength_of(explored, explored.rule.threshold),
        **{band: [_marked(explored, *place) for place in at] for band, at in _places(explored, fires).items()},
        "as_tokens": [_as_tokens(explored, *place) for place in _band(explored, "top", N_AS_TOKENS)],
        "token_table": table(token_rates(tokens, fires, back=0, k=N_TABLE)),
        "word_table": table(_words(explored, fires)),
        "before_table": table(token_rates(tokens, fires, back=1, k=N_TABLE)),
        "synthetic": [_synthetic(explored, one) for one in explored.synthetic[:N_SYNTHETIC]],
        "promoted": [quoted(piece) for piece in explored.promoted[:N_PROMOTED]],
        "refuted": [escaped(str(predicate_from_json(text)), LONGEST) for text in explored.refuted[:N_FINDINGS]],
        "recalled": [escaped(text, LONGEST) for text in explored.recalled[:N_FINDINGS]],
    }


def escaped(text: str, limit: int | None = None) -> str:
    """The text in one line, its control characters made visible, unable to open or close a part of the prompt."""
    cut = text if limit is None or len(text) <= limit else f"{text[: limit - 1]}…"
    return _FENCE.sub("‹", visible(cut))


def quoted(piece: str) -> str:
    """The piece as a string of the predicate language."""
    body = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in piece.replace("\\", "\\\\"))
    return _FENCE.sub("‹", '"{}"'.format(body.replace('"', '\\"')))


def _synthetic(explored: Explored, one: Synthetic) -> str:
    return f"{strength_of(explored, one.activation):.2f} {escaped(one.text, LONGEST)}"


def table(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Rows of piece, rate and n as text: `" May" 0.67 of 3`."""
    return [f"{quoted(row['piece'][:LONGEST])} {row['rate']:.2f} of {row['n']}" for row in rows]


def strength_of(explored: Explored, activation: float) -> float:
    """0 at the median, 1 at the largest activation."""
    span = _activation(explored, 1.0) - explored.rule.median
    return (activation - explored.rule.median) / span if span > 0 else 0.0


def marked(explored: Explored, activation: float, pieces: list[str], at: int, cut: bool) -> str:
    """A context with its strength, the piece at `at` marked; of the pieces after it only some, and … where its start is cut."""
    before, after = "".join(pieces[:at]), "".join(pieces[at + 1 : at + 1 + AFTER])
    cut, before = cut or len(before) > LONGEST, before[-LONGEST:]
    parts = [escaped(part).replace("[[", "[ [").replace("]]", "] ]") for part in (before, pieces[at][:LONGEST], after)]
    return f"{strength_of(explored, activation):.2f} {'…' * cut}{parts[0]}[[{parts[1]}]]{parts[2][:LONGEST]}"


def _places(explored: Explored, fires: NDArray[np.bool_]) -> dict[str, list[tuple[int, int]]]:
    top = _band(explored, "top", N_TOP)
    return {
        "top": top,
        "weaker": _weaker(explored, top),
        "silent": look_alikes(explored.tokens, explored.activations, fires, _activation(explored, SILENT), N_SILENT),
        "random": _band(explored, "random", N_RANDOM),
    }


def _weaker(explored: Explored, top: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The first place of equally large groups of the other documents in which the unit is active, strong ones first."""
    least = _activation(explored, WEAK)
    active = [place for place in _band(explored, "top", MOST_PLACES) if explored.activations[place] > least]
    rest = [place for place in active if place not in top]
    return [group[0] for group in (rest[part] for part in _parts(len(rest), N_WEAKER))]


def _parts(n: int, k: int) -> list[slice]:
    """At most k slices of equal length that cover n."""
    edges = np.linspace(0, n, min(n, k) + 1).astype(int) if n else np.zeros(1, dtype=int)
    return [slice(low, high) for low, high in pairwise(edges.tolist())]


def _band(explored: Explored, band: str, k: int) -> list[tuple[int, int]]:
    args = TopExamplesArgs.model_validate({"unit": explored.unit.address, "k": k, "band": band})
    return choose_places(explored.tokens, explored.activations, args)


def _activation(explored: Explored, strength: float) -> float:
    top = float(explored.activations[explored.tokens.scored].max(initial=explored.rule.median))
    return explored.rule.median + strength * (top - explored.rule.median)


def _marked(explored: Explored, window: int, pos: int) -> str:
    low, high = max(0, pos - BEFORE), min(int(explored.tokens.lengths[window]), pos + 1 + AFTER)
    pieces = [_piece(explored, window, at) for at in range(low, high)]
    cut = any(_piece(explored, window, at) for at in range(low))
    return marked(explored, float(explored.activations[window, pos]), pieces, pos - low, cut)


def _as_tokens(explored: Explored, window: int, pos: int) -> str:
    pieces = [_piece(explored, window, at) for at in range(max(0, pos - 8), pos + 1)]
    return " ".join(quoted(piece) for piece in pieces if piece)


def _piece(explored: Explored, window: int, pos: int) -> str:
    """The text of a token, "" for a special one."""
    tokens = explored.tokens
    return tokens.vocabulary.pieces[tokens.ids[window, pos]] if tokens.scored[window, pos] else ""


def _words(explored: Explored, fires: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """The words at whose tokens the unit fires; empty where every one of them is a single token."""
    tokens = explored.tokens
    fired = Counter(word for word in tokens.words[fires] if word)
    n = Counter(tokens.words[tokens.scored])
    whole = {piece.strip() for piece in tokens.vocabulary.pieces}
    best = [word for word, _ in fired.most_common(N_TABLE)]
    if all(word in whole for word in best):
        return []
    return [{"piece": word, "rate": fired[word] / n[word], "n": n[word]} for word in best]
