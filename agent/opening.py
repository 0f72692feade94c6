"""What a run works on: model, text, and what is registered beside them."""

from neuronaut.agent.config import RunConfig, corpus_place
from neuronaut.agent.registered import opened as opened_beside
from neuronaut.agent.session import Say
from neuronaut.tools.corpus import Corpus, load_corpus, pocket_corpus
from neuronaut.tools.look.examples import EXPLORE_TOKENS
from neuronaut.tools.registered import Registered
from neuronaut.tools.registry import ToolContext
from neuronaut.tools.stored import StoredActivations
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.drift import measured_drift
from neuronaut.tools.targets.load import chat_texts_of, load_target


def open_inputs(config: RunConfig, say: Say) -> tuple[TargetModel, Corpus]:
    """The target and the corpus that a run works on."""
    corpus = open_corpus(config, say)
    say("model", f"loading {config.model}" + ("" if config.backend == "torch" else f" by {config.backend}"))
    target = open_target(config)
    if (rounded := target.fingerprint().dtype) != "float32":
        drift = measured_drift(target, config.model, config.backend)
        say("model", f"in {rounded}: {drift or 'how far that is from float32 was not measured, which would not fit'}")
    return target, corpus


def open_target(config: RunConfig) -> TargetModel:
    """The target that a run works on, with its dictionaries."""
    folders = [f"{name}={one.folder}" for name, one in config.dictionaries.items() if one.folder is not None]
    return load_target(
        config.model, dictionaries=folders, backend=config.backend, dtype=config.dtype, device=config.device
    )


def open_corpus(config: RunConfig, say: Say) -> Corpus:
    """The corpus that a run works on."""
    place = corpus_place(config)
    if place is None:
        return pocket_corpus()
    corpus = load_corpus(place, say=lambda text: say("corpus", text), chats=lambda: chat_texts_of(config.model))
    for note in corpus.notes:
        say("corpus", note)
    return corpus


def context_of(target: TargetModel, corpus: Corpus, say: Say, config: RunConfig | None = None) -> ToolContext:
    """What the tools work on; activations that the index keeps are not read again. config: of what is registered beside them."""
    registered = Registered() if config is None else opened_beside(config)
    stored = StoredActivations.of(target, corpus, EXPLORE_TOKENS)
    if kept := stored.layers(target.spec.n_layers):
        say("index", f"activations on explore text of {len(kept)} layers are kept, and not read again")
        return ToolContext(target, corpus, stored, registered)
    return ToolContext(target, corpus, registered=registered)
