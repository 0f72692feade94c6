"""Where a neuron is active and where a head looks: contexts from explore text; activations on given texts."""

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, StringConstraints

from neuronaut.tools.chat.messages import Chat
from neuronaut.tools.chat.reading import render_for, tokens_of_chats
from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.look.activations import activations_of
from neuronaut.tools.registry import Array, ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.tokens import Tokens, joined
from neuronaut.tools.units import Unit

EXPLORE_TOKENS = 50_000  # enough for about 500 firing places of a neuron that fires on 1 % of tokens
LIST_TOKENS = 200_000  # of explore text, from which long lists of words are drawn up
Text = Annotated[str, StringConstraints(min_length=1, max_length=100_000)]
Prompt = Text | Chat  # plain text, or messages that are put through the model's chat template


class TopExamplesArgs(ToolArgs):
    """Which neuron or head, how many contexts a band, how many tokens to each side."""

    example: ClassVar = {"unit": "8.481", "k": 5}
    unit: str
    k: int = Field(default=10, ge=1, le=1000)
    context: int = Field(default=12, ge=1, le=200)
    band: Literal["top", "quantiles", "random"] = "top"
    seed: int = 0


class ActivationsOnArgs(ToolArgs):
    """Which neuron, on which texts."""

    example: ClassVar = {"unit": "8.481", "texts": ["After Mary and Lucy met at the river, Lucy gave a ring to Mary."]}
    unit: str
    texts: tuple[Prompt, ...] = Field(min_length=1, max_length=10_000)


def example(tokens: Tokens, activations: Array, window: int, pos: int, context: int) -> dict[str, Any]:
    """One context as data: pieces, activations, and which of them is the centre."""
    lo, hi = max(0, pos - context), min(int(tokens.lengths[window]), pos + context + 1)
    return {
        "document": int(tokens.documents[window]),
        "pieces": [tokens.vocabulary.pieces[i] for i in tokens.ids[window, lo:hi]],
        "activations": [round(float(a), 4) for a in activations[window, lo:hi]],
        "centre": pos - lo,
        "activation": float(activations[window, pos]),
    }


def choose_places(tokens: Tokens, activations: Array, args: TopExamplesArgs) -> list[tuple[int, int]]:
    """At most one place a document: the document maxima in falling order, one per equal-count band, or at random."""
    masked = np.where(tokens.scored, activations, -np.inf)
    pos = masked.argmax(axis=1)
    value = masked[np.arange(len(tokens)), pos]
    order = [int(w) for w in np.argsort(-value, kind="stable") if np.isfinite(value[w])]
    seen: set[int] = set()
    best = [w for w in order if not (int(tokens.documents[w]) in seen or seen.add(int(tokens.documents[w])))]  # type: ignore[func-returns-value]
    rng = np.random.default_rng(args.seed)
    match args.band:
        case "top":
            return [(w, int(pos[w])) for w in best[: args.k]]
        case "quantiles":
            bands = np.array_split(np.array(best), min(args.k, len(best)))
            return [(int(band[0]), int(pos[band[0]])) for band in bands]
        case "random":
            chosen = rng.permutation(best)[: args.k]
            return [(int(w), int(rng.choice(np.flatnonzero(tokens.scored[w])))) for w in chosen]


@tool("top_examples")
def top_examples(context: ToolContext, args: TopExamplesArgs) -> ToolResult:
    """Contexts from explore text in which the neuron is most active (top), one of each equal-count band of document
    maxima (quantiles), or random places (random). A trailing `-` on the unit asks for its lowest activations.

    At most one context a document, from the first 50,000 explore tokens; special tokens are left out. Of a head: pairs of
    query and key, by the share of the query's attention that the key gets; the first position, where heads rest, is no key.
    """
    unit = Unit.parse(args.unit)
    if unit.kind == "head":
        return _pairs(context, unit, args)
    tokens = context.sample("explore", EXPLORE_TOKENS)
    activations = context.activations(unit, "explore", n_tokens=EXPLORE_TOKENS)
    places = choose_places(tokens, activations, args)
    sign = unit.sign
    return ToolResult(
        payload={
            "unit": unit.address,
            "rule": f"band {args.band}, one place a document, {tokens.n_scored} explore tokens, seed {args.seed}",
            "examples": [example(tokens, sign * activations, w, p, args.context) for w, p in places],
        }
    )


def _pairs(context: ToolContext, unit: Unit, args: TopExamplesArgs) -> ToolResult:
    """The strongest pair of each query stands for it; then as for neurons. A head has one sign."""
    from neuronaut.tools.look.attention import pattern_of, some_windows
    from neuronaut.tools.predicates.attends import FIRST_QUERY

    if unit.sign < 0:
        raise ToolRefused(f"{unit.address} has no other side: attention is never below 0, so leave out the sign")
    tokens = some_windows(context.tokens("explore"), args.seed)
    pattern = pattern_of(context.target, unit, tokens)
    keys = tokens.scored & (np.arange(tokens.ids.shape[1]) > 0)
    shares = np.where(keys[:, None, :], pattern, 0.0)
    best = shares.max(axis=-1)
    best[:, :FIRST_QUERY] = -np.inf
    rows = []
    for window, query in choose_places(tokens, best, args):
        key = int(shares[window, query].argmax())
        centre, shown = (query + key) // 2, (query - key) // 2 + args.context
        row = example(tokens, shares[:, query], window, centre, shown) | {"activation": float(best[window, query])}
        pieces = (tokens.vocabulary.pieces[tokens.ids[window, at]] for at in (query, key))
        rows.append(row | dict(zip(("query", "key"), pieces, strict=True)) | {"centre": query - max(0, centre - shown)})
    n = f"{tokens.n_scored} explore tokens"
    rule = f"band {args.band}, the strongest key of a query, one query a document, {n}, seed {args.seed}"
    return ToolResult(payload={"unit": unit.address, "rule": rule, "examples": rows})


def read_texts(target: TargetModel, texts: Sequence[Prompt]) -> Tokens:
    """The texts as tokens, chats as their template writes them, with the part of it that each token belongs to.

    Refuses a text longer than the context, since nothing is cut silently, one without tokens, and chats for a model without a
    template.
    """
    chats = [text for text in texts if not isinstance(text, str)]
    if not chats:
        return _read_plain(target, [text for text in texts if isinstance(text, str)], list(range(1, len(texts) + 1)))
    read = tokens_of_chats(target, render_for(target, chats))
    _check_written(target, read, ["".join(message.content for message in chat) for chat in chats], "chat")
    plain = [(number, text) for number, text in enumerate(texts, start=1) if isinstance(text, str)]
    if plain:
        read = joined([read, _read_plain(target, [text for _, text in plain], [number for number, _ in plain])])
    behind = iter(range(len(chats), len(texts)))
    before = iter(range(len(chats)))
    rows = [next(behind if isinstance(text, str) else before) for text in texts]
    found = read.select(rows)
    return replace(found, documents=np.arange(len(texts)), whole=None)


def _read_plain(target: TargetModel, texts: Sequence[str], numbers: Sequence[int]) -> Tokens:
    tokens = target.tokenize(texts)
    if len(tokens) != len(texts):
        too_long = next(i for i, n in enumerate(np.bincount(tokens.documents, minlength=len(texts))) if n > 1)
        raise ToolRefused(
            f"text {numbers[too_long]} is longer than the context of {target.spec.name} ({target.spec.n_ctx} tokens): shorten it"
        )
    if not tokens.scored.any(axis=1).all():
        empty = int(np.flatnonzero(~tokens.scored.any(axis=1))[0])
        raise ToolRefused(f"text {numbers[empty]}, {texts[empty]!r}, holds no token that {target.spec.name} knows")
    _check_written(target, tokens, texts, "text", numbers)
    return tokens


def _check_written(
    target: TargetModel, tokens: Tokens, texts: Sequence[str], kind: str, numbers: Sequence[int] | None = None
) -> None:
    """Refuses a text of which the tokens lack characters; the text of special tokens, which decoding leaves out, is there."""
    pieces, special = target.vocabulary.pieces, target.vocabulary.special
    for at, (text, row) in enumerate(zip(texts, tokens.ids, strict=True)):
        ids = [int(i) for i in row if i >= 0]
        written = _characters(target.decode(ids) + "".join(pieces[i] for i in ids if i in special))
        if missing := [character for character in text if not _characters(character) <= written]:
            raise ToolRefused(
                f"{kind} {numbers[at] if numbers else at + 1} cannot be written in the tokens of {target.spec.name}, which lack "
                f"{missing[0]!r}: change the text"
            )


def _characters(text: str) -> set[str]:
    """The characters that a text needs; those that tokenizers commonly make alike count as one."""
    return {one for one in unicodedata.normalize("NFKD", text).casefold() if not one.isspace() and one.isprintable()}


@tool("activations_on")
def activations_on(context: ToolContext, args: ActivationsOnArgs) -> ToolResult:
    """The neuron's activation at each token of the given texts, in the model's own units; of chats, messages with a role and a
    content, with the part of the model's chat template that each token belongs to."""
    unit = Unit.parse(args.unit)
    tokens = read_texts(context.target, args.texts)
    activations = unit.sign * activations_of(context.target, unit, tokens)
    rows = [
        {
            "pieces": [tokens.vocabulary.pieces[i] for i in tokens.ids[w, :n]],
            "activations": [round(float(a), 5) for a in activations[w, :n]],
        }
        | ({"parts": [str(part) for part in tokens.parts[w]]} if tokens.part(w, 0) else {})
        for w, n in enumerate(tokens.lengths)
    ]
    return ToolResult(payload={"unit": unit.address, "texts": rows})
