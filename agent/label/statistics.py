"""The statistics of units that conditions are about, from the index."""

from typing import Any

from numpy.typing import NDArray

from neuronaut.agent.inputs import Inputs
from neuronaut.agent.label.selection import LabelKind
from neuronaut.agent.view import shown_progress
from neuronaut.tools.index import Index
from neuronaut.tools.index_plan import KindName

INDEXED: dict[LabelKind, KindName] = {"neuron": "neurons", "head": "heads", "feature": "features"}


def statistics(kind: LabelKind, inputs: Inputs) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """(n_units,) columns by name, and the address of each row; what is not indexed yet is read first."""
    with shown_progress(f"statistics of {INDEXED[kind]}") as progress:
        plan = inputs.plan((INDEXED[kind],))
        inputs.build(plan, progress=progress)
    table = Index(inputs.target, inputs.corpus, plan.sweep.kinds, plan.store).table(INDEXED[kind])
    numbers = {name: column for name, column in table.items() if column.dtype.kind in "fiub"}
    return numbers, [str(address) for address in table["address"].tolist()]
