"""What freed arrays leave in the heap of the C library, given back to the system."""

import ctypes
from functools import cache
from typing import Any


def trim() -> None:
    """Gives back what is free, in about 20 ms; nothing where the C library is not glibc.

    Arrays of some megabytes come from the heap once a few of them were freed, and fill its gaps badly: reading one text after
    another held twice the memory of the arrays that were kept.
    """
    if (malloc_trim := _malloc_trim()) is not None:
        malloc_trim(0)


@cache
def _malloc_trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)
