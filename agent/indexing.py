"""`neuronaut index`: what is read once for a model and a corpus, and what of it is there."""

from dataclasses import asdict, dataclass

from neuronaut.agent.config import RunConfig
from neuronaut.agent.runs import open_inputs
from neuronaut.agent.view import print_json, shown_progress, steps_on_stderr, visible
from neuronaut.tools.corpus import Corpus
from neuronaut.tools.files import cache_folder
from neuronaut.tools.index import build_index, find_index
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.stored import StoredActivations, store_activations
from neuronaut.tools.targets.base import TargetModel


@dataclass(frozen=True)
class Kept:
    """What the cache holds for one model and corpus: the statistics, and layers with their activations."""

    model: str
    corpus: str
    folder: str
    statistics: bool
    tokens: int | None
    activations: tuple[int, ...]
    layers: int
    mebibytes: float


def build(model: str, corpus: str | None, *, as_json: bool) -> None:
    """Read what is not kept yet, and print what is."""
    target, text = _open(model, corpus)
    with shown_progress("statistics of all neurons") as progress:
        notes = build_index(target, text, progress=progress).notes
    stored = StoredActivations.of(target, text, EXPLORE_TOKENS)
    with shown_progress("activations on the explore sample") as progress:
        sample = ToolContext(target, text).sample("explore", EXPLORE_TOKENS)
        left_out = store_activations(target, sample, stored, progress=progress)
    say = steps_on_stderr()
    for note in notes:
        say("index", note)
    if left_out:
        say("index", f"activations of layers {', '.join(map(str, left_out))} take too much room, and are not kept")
    _print(_kept(target, text), as_json=as_json)


def status(model: str, corpus: str | None, *, as_json: bool) -> None:
    """Print what is kept."""
    _print(_kept(*_open(model, corpus)), as_json=as_json)


def _open(model: str, corpus: str | None) -> tuple[TargetModel, Corpus]:
    return open_inputs(RunConfig(question="index", model=model, corpus=corpus), steps_on_stderr())


def _kept(target: TargetModel, corpus: Corpus) -> Kept:
    index, stored = find_index(target, corpus), StoredActivations.of(target, corpus, EXPLORE_TOKENS)
    n_layers = target.spec.n_layers
    return Kept(
        model=target.spec.name,
        corpus=corpus.name,
        folder=str(cache_folder()),
        statistics=index is not None,
        tokens=None if index is None else index.n_tokens,
        activations=stored.layers(n_layers),
        layers=n_layers,
        mebibytes=round(stored.size / 2**20, 1),
    )


def _print(kept: Kept, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(kept))
        return
    print(f"model        {visible(kept.model)}")
    print(f"corpus       {visible(kept.corpus)}")
    print(f"statistics   {f'of all neurons on {kept.tokens:,} tokens' if kept.statistics else 'none'}")
    print(f"activations  of {len(kept.activations)} of {kept.layers} layers on explore text ({kept.mebibytes:.0f} MiB)")
    print(f"folder       {visible(kept.folder)}")
