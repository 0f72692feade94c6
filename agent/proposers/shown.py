"""What a language model is shown of a unit: explore text only, escaped so that it cannot leave its place in the prompt."""

import re
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuronaut.agent.proposers.base import Explored
from neuronaut.agent.view import visible
from neuronaut.tools.look.examples import TopExamplesArgs, choose_places
from neuronaut.tools.predicates.tree import predicate_from_json

N_TOP, N_QUANTILES, N_SILENT, N_RANDOM = 15, 10, 10, 5
N_AS_TOKENS, N_TABLE, N_PROMOTED, N_FINDINGS = 5, 20, 12, 20
BEFORE, AFTER = 24, 4  # tokens of context
SILENT = 0.25  # of the way from the median to the largest activation
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
        "threshold": _strength(explored, explored.rule.threshold),
        **{band: _lines(explored, places) for band, places in _places(explored, fires).items()},
        "as_tokens": [_as_tokens(explored, *place) for place in _band(explored, "top", N_AS_TOKENS)],
        "token_table": _table(explored, fires, back=0),
        "word_table": _words(explored, fires),
        "before_table": _table(explored, fires, back=1),
        "promoted": [_quoted(piece) for piece in explored.promoted[:N_PROMOTED]],
        "refuted": [escaped(str(predicate_from_json(text))) for text in explored.refuted[:N_FINDINGS]],
        "recalled": [escaped(text) for text in explored.recalled[:N_FINDINGS]],
    }


def escaped(text: str) -> str:
    """The text in one line, its control characters made visible, unable to open or close a part of the prompt."""
    return _FENCE.sub("‹", visible(text))


def _places(explored: Explored, fires: NDArray[np.bool_]) -> dict[str, list[tuple[int, int]]]:
    return {
        "top": _band(explored, "top", N_TOP),
        "quantiles": _band(explored, "quantiles", N_QUANTILES + 1)[1:],  # the first is the strongest of all
        "silent": near_misses(explored, fires),
        "random": _band(explored, "random", N_RANDOM),
    }


def _band(explored: Explored, band: str, k: int) -> list[tuple[int, int]]:
    args = TopExamplesArgs.model_validate({"unit": explored.unit.address, "k": k, "band": band})
    return choose_places(explored.tokens, explored.activations, args)


def near_misses(explored: Explored, fires: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Places with a token on which the unit often fires, where it is silent: the quietest, one a document, tokens in turn."""
    tokens = explored.tokens
    n_fired = np.bincount(tokens.ids[fires], minlength=len(tokens.vocabulary.pieces))
    quiet = tokens.scored & (explored.activations < _activation(explored, SILENT))
    by_token: list[list[tuple[int, int]]] = []
    for token in np.argsort(-n_fired, kind="stable")[:N_SILENT]:
        if n_fired[token] == 0:
            break
        where = np.argwhere(quiet & (tokens.ids == token))
        order = np.argsort(explored.activations[where[:, 0], where[:, 1]], kind="stable")
        by_token.append([(int(window), int(pos)) for window, pos in where[order][: 2 * N_SILENT]])
    found: list[tuple[int, int]] = []
    seen: set[int] = set()
    for turn in range(2 * N_SILENT):
        for places in by_token:
            if turn < len(places) and (document := int(tokens.documents[places[turn][0]])) not in seen:
                seen.add(document)
                found.append(places[turn])
    return found[:N_SILENT]


def _activation(explored: Explored, strength: float) -> float:
    top = float(explored.activations[explored.tokens.scored].max(initial=explored.rule.median))
    return explored.rule.median + strength * (top - explored.rule.median)


def _strength(explored: Explored, activation: float) -> float:
    """0 at the median, 1 at the largest activation."""
    span = _activation(explored, 1.0) - explored.rule.median
    return (activation - explored.rule.median) / span if span > 0 else 0.0


def _lines(explored: Explored, places: list[tuple[int, int]]) -> list[str]:
    return [_marked(explored, window, pos) for window, pos in places]


def _marked(explored: Explored, window: int, pos: int) -> str:
    low, high = max(0, pos - BEFORE), min(int(explored.tokens.lengths[window]), pos + AFTER)
    pieces = {at: _piece(explored, window, at) for at in range(low, high)}
    before = "".join(pieces[at] for at in range(low, pos))
    after = "".join(pieces[at] for at in range(pos + 1, high))
    strength = _strength(explored, float(explored.activations[window, pos]))
    return f"{strength:5.2f}  {escaped(f'{before}⟦{pieces[pos]}⟧{after}')}"


def _as_tokens(explored: Explored, window: int, pos: int) -> str:
    pieces = [_piece(explored, window, at) for at in range(max(0, pos - 8), pos + 1)]
    return " ".join(_quoted(piece) for piece in pieces if piece)


def _piece(explored: Explored, window: int, pos: int) -> str:
    """The text of a token, "" for a special one."""
    tokens = explored.tokens
    return tokens.vocabulary.pieces[tokens.ids[window, pos]] if tokens.scored[window, pos] else ""


def _quoted(piece: str) -> str:
    """The piece as a string of the predicate language."""
    body = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in piece.replace("\\", "\\\\"))
    return _FENCE.sub("‹", '"{}"'.format(body.replace('"', '\\"')))


def _table(explored: Explored, fires: NDArray[np.bool_], *, back: int) -> list[dict[str, Any]]:
    """The tokens `back` before the firing ones, by how many firings they account for."""
    tokens = explored.tokens
    here = tokens.scored[:, back:] & tokens.scored[:, : tokens.ids.shape[1] - back]
    ids = tokens.ids[:, : tokens.ids.shape[1] - back][here]
    n = np.bincount(ids, minlength=len(tokens.vocabulary.pieces))
    fired = np.bincount(ids, weights=fires[:, back:][here], minlength=len(n))
    best = [int(i) for i in np.argsort(-fired, kind="stable")[:N_TABLE] if fired[i] > 0]
    return [{"piece": _quoted(tokens.vocabulary.pieces[i]), "rate": fired[i] / n[i], "n": int(n[i])} for i in best]


def _words(explored: Explored, fires: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """The words at whose tokens the unit fires; empty where every one of them is a single token."""
    tokens = explored.tokens
    fired = Counter(word for word in tokens.words[fires] if word)
    n = Counter(tokens.words[tokens.scored])
    whole = {piece.strip() for piece in tokens.vocabulary.pieces}
    best = [word for word, _ in fired.most_common(N_TABLE)]
    if all(word in whole for word in best):
        return []
    return [{"piece": _quoted(word), "rate": fired[word] / n[word], "n": n[word]} for word in best]
