"""`neuronaut index`: what is read once for a model and a corpus, and what of it is there."""

import contextlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from neuronaut.agent.config import EngineOptions, RunConfig
from neuronaut.agent.dictionaries import dictionaries_named
from neuronaut.agent.inputs import Elsewhere, Here, Streamed, opened_inputs
from neuronaut.agent.label.selection import layers_named
from neuronaut.agent.progress import progress_on_stderr
from neuronaut.agent.session import Say
from neuronaut.agent.view import print_json, steps_on_stderr, visible
from neuronaut.tools.corpus import Corpus
from neuronaut.tools.errors import UserError
from neuronaut.tools.index_plan import KINDS, KindName, Plan
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.stored import StoredActivations, store_activations
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import Backend
from neuronaut.tools.targets.placement import DeviceName, DtypeName

_SHARE = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True)
class KeptKind:
    """What the cache holds of one kind: of its parts (layers, dictionaries) those that are complete, and all their shards."""

    kind: KindName
    parts: int
    complete: tuple[str, ...]
    done: int
    missing: int
    damaged: int
    mebibytes: float


@dataclass(frozen=True)
class Kept:
    """What the cache holds for one model and corpus: the statistics, and layers with their activations.

    statistics: whether those of all neurons are complete. mebibytes: of the activations.
    """

    model: str
    corpus: str
    folder: str
    statistics: bool
    documents: int
    kinds: tuple[KeptKind, ...]
    activations: tuple[int, ...]
    layers: int
    mebibytes: float


@dataclass(frozen=True)
class Inputs:
    """Model, corpus and dictionaries as they were given. stream: no more than one layer of the model is in memory."""

    model: str
    corpus: str | None
    dictionaries: Sequence[str] = ()
    backend: Backend = "torch"
    dtype: DtypeName = "float32"
    device: DeviceName = "cpu"
    stream: bool = False


def build(inputs: Inputs, kinds: str, layers: str, shard: str | None, *, engine: EngineOptions, as_json: bool) -> None:
    """Read what is not kept yet, and print what is."""
    chosen = kinds_named(kinds)
    part = None if shard is None else share_named(shard)
    say = steps_on_stderr()
    with _opened(inputs, engine, say) as opened:
        plan = opened.plan(chosen, layers_named(layers, opened.target.spec.n_layers))
        numbers = None if part is None else range(part[0] - 1, plan.n_shards, part[1])
        with progress_on_stderr("index", f"statistics of {' and '.join(chosen)}") as progress:
            opened.build(plan, numbers, progress=progress)
        plan.store.note_origin(_whole(inputs.model), None if inputs.corpus is None else _whole(inputs.corpus))
        for note in plan.store.notes:
            say("index", note)
        if "neurons" in chosen and part is None:
            if inputs.stream:
                say("index", "activations on the explore sample are kept of models that are in memory alone")
            elif opened.target.spec.n_experts:
                say("index", "activations on the explore sample are kept of models without experts alone")
            elif isinstance(opened, Here):
                _keep_activations(opened.target, opened.corpus)
            else:
                say("index", "activations on the explore sample are kept by --engine local alone")
        kept = _kept(opened)
    _print(kept, as_json=as_json)


def status(inputs: Inputs, *, as_json: bool) -> None:
    """Print what is kept."""
    with _opened(inputs, EngineOptions(), steps_on_stderr()) as opened:
        _print(_kept(opened), as_json=as_json)


def kinds_named(text: str) -> tuple[KindName, ...]:
    """The kinds of `neurons,heads`, in the order of KINDS. Refuses others."""
    named = [part.strip() for part in text.split(",") if part.strip()]
    if strange := [name for name in named if name not in KINDS]:
        raise UserError(f"--kinds {strange[0]!r} cannot be indexed: choose from {', '.join(KINDS)}")
    if not named:
        raise UserError(f"--kinds {text!r} names nothing: choose from {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in named)


def share_named(text: str) -> tuple[int, int]:
    """I and N of `I/N`: every Nth shard from the Ith on. Refuses what is no such share."""
    match = _SHARE.fullmatch(text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--shard {text!r} names no share of the work: write 1/4 to 4/4 for four processes or machines")
    return int(match[1]), int(match[2])


def _opened(
    inputs: Inputs, engine: EngineOptions, say: Say
) -> contextlib.AbstractContextManager[Here | Elsewhere | Streamed]:
    """The inputs. Refuses what layers cannot be streamed with."""
    if not inputs.stream:
        return opened_inputs(_config(inputs), engine, say)
    for option, given in (
        ("--engine ray", engine.name != "local"), ("--backend mlx", inputs.backend != "torch"),
        (f"--device {inputs.device}", inputs.device != "cpu"), ("--dictionary", bool(inputs.dictionaries)),
    ):  # fmt: skip
        if given:
            raise UserError(
                f"--stream reads layers into the memory of this process, for torch on the CPU: leave out {option}"
            )
    return contextlib.nullcontext(Streamed.of(_config(inputs), say))


def _config(inputs: Inputs) -> RunConfig:
    named = dictionaries_named(list(inputs.dictionaries))
    return RunConfig(
        question="index", model=inputs.model, backend=inputs.backend, dtype=inputs.dtype, device=inputs.device,
        corpus=inputs.corpus, dictionaries=named,
    )  # fmt: skip


def _whole(name: str) -> str:
    from neuronaut.agent.options import absolute_corpus

    return name if name == "pocket" else absolute_corpus(name)


def _keep_activations(target: TargetModel, text: Corpus) -> None:
    stored = StoredActivations.of(target, text, EXPLORE_TOKENS)
    with progress_on_stderr("index", "activations on the explore sample") as progress:
        sample = ToolContext(target, text).sample("explore", EXPLORE_TOKENS)
        left_out = store_activations(target, sample, stored, progress=progress)
    if left_out:
        numbers = ", ".join(map(str, left_out))
        steps_on_stderr()("index", f"activations of layers {numbers} take too much room, and are not kept")


def _kept(opened: Here | Elsewhere | Streamed) -> Kept:
    target, corpus = opened.target, opened.corpus
    plan = opened.plan([kind for kind in KINDS if kind != "features" or target.dictionaries])
    stored, n_layers = StoredActivations.of(target, corpus, EXPLORE_TOKENS), target.spec.n_layers
    found = tuple(_kept_kind(plan, kind) for kind in KINDS)
    return Kept(
        model=target.spec.name,
        corpus=corpus.name,
        folder=str(plan.store.folder),
        statistics=found[0].done == found[0].parts * plan.n_shards,
        documents=int(plan.store.about["documents"]),
        kinds=tuple(kind for kind in found if kind.parts),
        activations=stored.layers(n_layers),
        layers=n_layers,
        mebibytes=round(stored.size / 2**20, 1),
    )


def _kept_kind(plan: Plan, kind: KindName) -> KeptKind:
    names = [one.name for one in plan.sweep.kinds if one.name.startswith(kind)]
    states = {name: [plan.store.state(name, number) for number in range(plan.n_shards)] for name in names}
    each = [state for of_part in states.values() for state in of_part]
    return KeptKind(
        kind=kind,
        parts=len(names),
        complete=tuple(name for name, of_part in states.items() if set(of_part) == {"done"}),
        done=each.count("done"),
        missing=each.count("missing"),
        damaged=each.count("damaged"),
        mebibytes=round(sum(plan.store.size(name) for name in names) / 2**20, 1),
    )


def _print(kept: Kept, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(kept))
        return
    print(f"model        {visible(kept.model)}")
    print(f"corpus       {visible(kept.corpus)}, {kept.documents:,} documents to explore")
    for kind in kept.kinds:
        print(f"{kind.kind:12} {_words(kind, kept.layers)}")
    print(f"activations  of {len(kept.activations)} of {kept.layers} layers on explore text ({kept.mebibytes:.0f} MiB)")
    print(f"folder       {visible(kept.folder)}")


def _words(kind: KeptKind, n_layers: int) -> str:
    if not kind.done + kind.damaged:
        return "none"
    what = "dictionaries" if kind.kind == "features" else "layers" if kind.parts <= n_layers else "experts"
    rest = [f"{n} {word}" for n, word in ((kind.missing, "missing"), (kind.damaged, "damaged")) if n]
    shards = f"{kind.done} shards" + "".join(f", {one}" for one in rest)
    return f"of {len(kind.complete)} of {kind.parts} {what} ({shards}, {kind.mebibytes:.0f} MiB)"
