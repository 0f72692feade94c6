"""Runs of mlx in which single edges carry another run: what targets.edges does, over the modules of mlx."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import mlx.core as mx
import torch
from torch import Tensor

from neuronaut.tools.circuits.wires import PARTS
from neuronaut.tools.targets.base import EdgeGradients, Edit, Site
from neuronaut.tools.targets.edges import EdgeRuns, Insides
from neuronaut.tools.targets.hooks import Visit
from neuronaut.tools.targets.mlx.arrays import to_mlx, to_torch
from neuronaut.tools.targets.mlx.runs import Tap, tapped, visiting
from neuronaut.tools.targets.mlx.stand_ins import layer_place, norm_place
from neuronaut.tools.targets.mlx.visits import ArrayVisit, Held, before, after, in_torch
from neuronaut.tools.targets.notes import edits_at, filling, keeping

if TYPE_CHECKING:
    from neuronaut.tools.targets.mlx.target import MlxTarget
