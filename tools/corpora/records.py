"""Rows of one width in a file, written one after the other and read at any place, never all at once."""

import os
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from neuronaut.tools.duplicates import BANDS, ROWS, Hashes, bands_of

Ints = NDArray[np.int64]
_BLOCK = 4096  # rows read together where many of them are wanted
_DENSE = 16  # where at least one in so many is


class Records:
    """Rows of `width` values of a kind."""

    def __init__(self, path: Path, dtype: type[np.generic], width: int) -> None:
        self._dtype, self._width = np.dtype(dtype), width
        self._bytes = self._dtype.itemsize * width
        self._file = path.open("w+b", buffering=1 << 16)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._file.close()

    def add(self, rows: NDArray[Any]) -> None:
        """Puts (n, width) rows behind the others."""
        self._file.write(np.ascontiguousarray(rows, dtype=self._dtype).tobytes())
        self._n += len(rows)

    def rows(self, at: Ints) -> NDArray[Any]:
        """(len(at), width) the rows at some places."""
        self._file.flush()
        wanted, back = np.unique(at, return_inverse=True)
        found = np.empty((len(wanted), self._width), dtype=self._dtype)
        borders = np.flatnonzero(np.diff(wanted // _BLOCK)) + 1
        for part in np.split(np.arange(len(wanted)), borders) if len(wanted) else ():
            found[part] = self._of_block(wanted[part])
        return found[back]

    def whole(self) -> NDArray[Any]:
        """(n, width) all of them."""
        self._file.flush()
        return np.fromfile(self._file.name, dtype=self._dtype).reshape(-1, self._width)

    def _of_block(self, wanted: Ints) -> NDArray[Any]:
        first, last = int(wanted[0]), int(wanted[-1]) + 1
        if last - first <= _DENSE * len(wanted):
            raw = os.pread(self._file.fileno(), (last - first) * self._bytes, first * self._bytes)
            return np.frombuffer(raw, dtype=self._dtype).reshape(-1, self._width)[wanted - first]
        raw = b"".join(os.pread(self._file.fileno(), self._bytes, one * self._bytes) for one in wanted.tolist())
        return np.frombuffer(raw, dtype=self._dtype).reshape(-1, self._width)


class StoredSketches:
    """Sketches in files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._all = Records(folder / "sketches", np.uint64, BANDS * ROWS)
        self._bands = [Records(folder / f"band-{number:02d}", np.uint64, 1) for number in range(BANDS)]

    def __len__(self) -> int:
        return len(self._all)

    def add(self, sketches: Hashes) -> None:
        """Puts (n, 64) sketches behind the others."""
        self._all.add(sketches)
        for number, band in enumerate(self._bands):
            band.add(bands_of(sketches, number)[:, None])

    def rows(self, at: Ints) -> Hashes:
        """As Sketches wants it."""
        return self._all.rows(at)

    def band(self, number: int) -> Hashes:
        """As Sketches wants it."""
        return self._bands[number].whole().ravel()

    def close(self) -> None:
        """Closes the files."""
        for one in (self._all, *self._bands):
            one.__exit__()
