"""Attention patterns of mlx-lm, which makes none that it hands out."""

import contextlib
import importlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import mlx.core as mx

from neuronaut.tools.targets.mlx.parts import Parts
from neuronaut.tools.targets.mlx.visits import before


@contextlib.contextmanager
def patterns_kept(
    module: str, layers: Sequence[Parts], wanted: Collection[int], keep: Callable[[int, mx.array], None]
) -> Iterator[None]:
    """While it lasts, `keep` is told the pattern (batch, n_heads, query, key) of each wanted layer that runs.

    module: of mlx_lm.models; what attends there is replaced by what also hands out its pattern.
    """
    theirs = importlib.import_module(f"mlx_lm.models.{module}")
    here: list[int] = []

    def arrived(layer: int) -> Callable[[mx.array], mx.array]:
        def visit(x: mx.array) -> mx.array:
            here[:] = [layer]
            return x

        return visit

    def tell(pattern: mx.array) -> bool:
        seen = here and here[0] in wanted
        if seen:
            keep(here[0], pattern)
        return bool(seen)

    name = "scaled_dot_product_attention" if hasattr(theirs, "scaled_dot_product_attention") else "mx"
    plain = getattr(theirs, name)
    with contextlib.ExitStack() as stack:
        for number, parts in enumerate(layers):
            stack.callback(before(parts.attention, arrived(number)).remove)
        setattr(theirs, name, _Told(plain, tell) if name == "mx" else _attending(plain, here, wanted, tell))
        stack.callback(setattr, theirs, name, plain)
        yield


def _attending(plain: Any, here: Sequence[int], wanted: Collection[int], tell: Callable[[mx.array], bool]) -> Any:
    def attention(
        queries: mx.array, keys: mx.array, values: mx.array, cache: Any, scale: float, mask: Any, sinks: Any = None
    ) -> mx.array:
        if not here or here[0] not in wanted:
            return plain(queries, keys, values, cache=cache, scale=scale, mask=mask, **_given(sinks))
        pattern = pattern_of(queries, keys, scale, mask, sinks)
        tell(pattern)
        return pattern @ _of_queries(values, queries.shape[1])

    return attention


def _given(sinks: mx.array | None) -> Mapping[str, mx.array]:
    return {} if sinks is None else {"sinks": sinks}


def pattern_of(queries: mx.array, keys: mx.array, scale: float, mask: Any, sinks: mx.array | None) -> mx.array:
    """(batch, n_heads, query, key) shares of attention; what goes to a sink is left out."""
    n_heads, n_queries, n_keys = queries.shape[1], queries.shape[2], keys.shape[2]
    scores = (queries * scale) @ _of_queries(keys, n_heads).swapaxes(-1, -2)
    if isinstance(mask, str):
        mask = mx.arange(n_keys - n_queries, n_keys)[:, None] >= mx.arange(n_keys)
    if mask is not None:
        least = mx.array(mx.finfo(scores.dtype).min, scores.dtype)
        scores = mx.where(mask, scores, least) if mask.dtype == mx.bool_ else scores + mask
    if sinks is None:
        return mx.softmax(scores, axis=-1, precise=True)
    sink = mx.broadcast_to(sinks.astype(scores.dtype)[:, None, None], (*scores.shape[:-1], 1))
    return mx.softmax(mx.concatenate([scores, sink], axis=-1), axis=-1, precise=True)[..., :-1]


def _of_queries(grouped: mx.array, n_heads: int) -> mx.array:
    """(batch, n_heads, pos, d_head) the keys or values that each query head uses."""
    times = n_heads // grouped.shape[1]
    return grouped if times == 1 else mx.repeat(grouped, times, axis=1)


class _Told:
    """mlx.core in a module that makes its own shares of attention, by the only softmax in it."""

    def __init__(self, plain: Any, tell: Callable[[mx.array], bool]) -> None:
        self._plain, self._tell = plain, tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def softmax(self, scores: mx.array, **options: Any) -> mx.array:
        """As in mlx; the shares of each group of heads are told as those of its heads."""
        pattern = self._plain.softmax(scores, **options)
        batch, *_, n_queries, n_keys = pattern.shape
        self._tell(pattern.reshape(batch, -1, n_queries, n_keys))
        return pattern
