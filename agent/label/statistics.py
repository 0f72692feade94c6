"""The statistics of units that conditions are about, from the index."""

from typing import Any

from numpy.typing import NDArray

from neuronaut.agent.label.selection import LabelKind
from neuronaut.tools.corpus import Corpus
from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.base import TargetModel


def statistics(kind: LabelKind, target: TargetModel, corpus: Corpus) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """(n_units,) columns by name, and the address of each row; the index is made first where it is not there."""
    raise UserError("--where is not ready")
