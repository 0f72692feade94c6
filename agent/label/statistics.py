"""The statistics of units that conditions are about, from the index."""

from typing import Any

from numpy.typing import NDArray

from neuronaut.agent.label.selection import LabelKind
from neuronaut.agent.view import shown_progress
from neuronaut.tools.corpus import Corpus
from neuronaut.tools.index import KindName, build_index
from neuronaut.tools.targets.base import TargetModel

INDEXED: dict[LabelKind, KindName] = {"neuron": "neurons", "head": "heads", "feature": "features"}


def statistics(kind: LabelKind, target: TargetModel, corpus: Corpus) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """(n_units,) columns by name, and the address of each row; what is not indexed yet is read first."""
    with shown_progress(f"statistics of {INDEXED[kind]}") as progress:
        table = build_index(target, corpus, kinds=(INDEXED[kind],), progress=progress).table(INDEXED[kind])
    numbers = {name: column for name, column in table.items() if column.dtype.kind in "fiub"}
    return numbers, [str(address) for address in table["address"].tolist()]
