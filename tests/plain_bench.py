"""A model beside a second reading of its weights, for tests of interventions."""

import json
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from neuronaut.tools.corpus import pocket_corpus
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.registry import ToolContext, ToolResult, find_tool
from neuronaut.tools.targets.load import POCKET, load_target

make_model = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))["make_model"]
PlainModel = runpy.run_path(str(Path(__file__).with_name("plain_transformers.py")))["PlainModel"]
PROMPTS = (
    "the cat",
    "the dog ran to",
    "and the men",
    "on the old",
    "the rain fell",
    "to the cat",
    "the town",
    "sat on",
)
SAME_LENGTH = tuple(
    f"After {name} and Mary" for name in ("Lucy", "Alice", "Nora", "David", "Peter", "Leo", "Kate", "Eva")
)
Change = Callable[[str, int, Tensor], Tensor]


@dataclass(frozen=True)
class Bench:
    """A target with its second reading, and tools called by name."""

    context: ToolContext
    plain: Any
    folder: Path

    @property
    def n_layers(self) -> int:
        return self.context.target.spec.n_layers

    @property
    def bos(self) -> int:
        return int(self.context.target.spec.bos is not None)

    def run(self, name: str, **args: Any) -> ToolResult:
        tool = find_tool(name)
        return tool.run(self.context, tool.parse(json.dumps(args)))

    def ids(self, text: str, more: tuple[int, ...] = ()) -> Tensor:
        ids = torch.from_numpy(self.context.target.tokenize([text]).ids).long()
        return torch.cat([ids, torch.tensor([more], dtype=torch.long)], dim=1)

    def log_probs(self, ids: Tensor, change: Change | None = None) -> Tensor:
        """(pos, d_vocab) by hand, nothing padded."""
        with torch.no_grad():
            found: Tensor = self.plain.run(ids, change)[0].double().log_softmax(-1)
        return found

    def directly(self, ids: Tensor, out: tuple[str, int], change: Change) -> Tensor:
        """(pos, d_vocab) where what a layer writes changes, and all else of the residual stays what it was."""
        with torch.no_grad():
            self.plain.run(ids)
            before, residual = self.plain.seen[out], self.plain.seen["resid_post", self.n_layers - 1]
            self.plain.run(ids, change)
            residual = residual + self.plain.seen[out] - before
            found: Tensor = self.plain.run(ids, layers=range(0), x=residual)[0].double().log_softmax(-1)
        return found

    def seen(self, text: str, name: str, layer: int) -> Tensor:
        """(pos, …) an activation by hand."""
        self.log_probs(self.ids(text))
        found: Tensor = self.plain.seen[name, layer][0]
        return found

    def piece(self, at: int = 300) -> str:
        """A token that is found by its text."""
        pieces = self.context.target.vocabulary.pieces
        assert pieces.index(pieces[at]) == at
        return pieces[at]


def measured(result: ToolResult, metric: str) -> Measurement:
    """The one measurement of that name."""
    [found] = [one for one in result.measurements if one.metric == metric]
    return found


def changed(site: tuple[str, int], index: int | None, at: list[int], new: Callable[[Tensor], Any]) -> Change:
    """Puts new(old) into a site at some positions."""

    def change(name: str, layer: int, x: Tensor) -> Tensor:
        if (name, layer) == site:
            x = x.clone()
            for pos in at:
                if index is None:
                    x[:, pos] = new(x[:, pos])
                else:
                    x[:, pos, index] = new(x[:, pos, index])
        return x

    return change


def open_model(name: str, folder: Path) -> Bench:
    """`pocket`, a folder with a model, or a random model of a family made in `folder`."""
    path = POCKET if name == "pocket" else folder if folder.exists() else make_model(name, folder)
    defaults = transformers.AutoConfig.from_pretrained(path).to_dict()
    return Bench(ToolContext(load_target(path), pocket_corpus()), PlainModel(path, defaults), path)
