"""Numbers drawn by the text: the same wherever the tokens are the same, and without any relation to what they say."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Keys = NDArray[np.uint64]

LAST = 8  # tokens that a null unit sees
SMOOTH = 10  # tokens over which a smoothed null unit is averaged


def dealt(values: NDArray[np.float32], ids: NDArray[np.integer], seed: int, *, smooth: int = 1) -> NDArray[np.float32]:
    """(n_windows, n_pos) a null unit: `values`, in rising order, dealt out by a hash of the last tokens.

    smooth: tokens over which the hash is averaged, so that the unit moves slowly.
    """
    return picked(values, shares(recent_keys(ids, LAST), seed, smooth=smooth))


def shares(keys: Keys, seed: int, *, smooth: int = 1) -> NDArray[np.float64]:
    """(n_windows, n_pos) how far along its values a null unit is at each place, in [0, 1]. keys: of the last tokens."""
    share = uniform(keys, seed)
    if smooth > 1:
        total = np.cumsum(ndtri(share), axis=1)
        total[:, smooth:] -= total[:, :-smooth].copy()
        share = np.asarray(ndtr(total / np.sqrt(np.minimum(np.arange(total.shape[1]) + 1, smooth))))
    return share


def picked(values: NDArray[np.float32], share: NDArray[np.float64]) -> NDArray[np.float32]:
    """Of values in rising order those at some shares of the way, of any shape."""
    return np.asarray(values[np.minimum((share * len(values)).astype(np.int64), len(values) - 1)])


def prefix_keys(ids: NDArray[np.integer]) -> Keys:
    """(n_windows, n_pos) a hash of all tokens up to each position."""
    keys = np.empty(ids.shape, dtype=np.uint64)
    state = np.zeros(len(ids), dtype=np.uint64)
    for at in range(ids.shape[1]):
        state = _mixed(state + (ids[:, at] + 2).astype(np.uint64))
        keys[:, at] = state
    return keys


def recent_keys(ids: NDArray[np.integer], n: int) -> Keys:
    """(n_windows, n_pos) a hash of the last `n` tokens, the current one among them; of fewer where the window begins."""
    keys = np.zeros(ids.shape, dtype=np.uint64)
    for back in range(n):
        moved = np.zeros(ids.shape, dtype=np.uint64)
        moved[:, back:] = (ids[:, : max(0, ids.shape[1] - back)] + 2).astype(np.uint64)
        keys = _mixed(keys + moved)
    return keys


def uniform(keys: Keys, seed: int) -> NDArray[np.float64]:
    """A number in (0, 1) for each key, other numbers for another seed."""
    mixed = _mixed(keys ^ _mixed(np.full(1, seed, dtype=np.uint64)))
    return ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def _mixed(values: Keys) -> Keys:
    """Source: Steele et al. 2014, splitmix64."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
