"""A dictionary from nothing to its folder: trained, measured beside the same on untrained twins of the model, written."""

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from neuronaut.tools.corpus import Corpus, tokens_of
from neuronaut.tools.errors import UserError
from neuronaut.tools.features.dictionary import Dictionary
from neuronaut.tools.features.saelens import save_dictionary
from neuronaut.tools.features.training.measure import Quality, measure
from neuronaut.tools.features.training.settings import Settings
from neuronaut.tools.features.training.stream import ExploreStream
from neuronaut.tools.features.training.train import Checkpoint, Progress, about, dictionary_of, train
from neuronaut.tools.files import write_whole
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.load import load_target, open_folder
from neuronaut.tools.targets.twins import Twin, twin_folder
from neuronaut.tools.tokens import Tokens

REPORT = "report.json"
UNFINISHED = ".unfinished"
MODEL = "model"  # whose column of the report is that of no twin
MEASURED_TOKENS = 32_768  # of design text, about
Watch = Callable[[str], AbstractContextManager[Progress | None]]


def check_free(out: Path) -> None:
    """Refuses a folder that is there already or cannot be made, before a long training and not after it."""
    if out.exists():
        raise UserError(
            f"{str(out)!r} is there already, and a dictionary is never written over another: name a new folder"
        )
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise UserError(f"{str(parent)!r} is a file, so that no folder can be made in it: name another place")
    try:
        with tempfile.TemporaryDirectory(dir=parent):
            pass
    except OSError as error:
        raise UserError(f"in {str(parent)!r} no folder can be made ({error.strerror}): name another place") from None


def measured_text(target: TargetModel, corpus: Corpus, n_tokens: int = MEASURED_TOKENS) -> Tokens:
    """The first documents of design text that hold about so many tokens. Refuses a corpus without any."""
    documents, found, end = corpus.of("design"), 0, 0
    while end < len(documents) and found < n_tokens:
        found += tokens_of(target, documents[end : end + 8]).n_scored
        end += 8
    if not found:
        raise UserError(
            f"{corpus.name!r} has no design text to measure a dictionary on: give a corpus with more documents"
        )
    return tokens_of(target, documents[:end])


def make(
    target: TargetModel,
    corpus: Corpus,
    settings: Settings,
    out: Path,
    *,
    model: str,
    twins: Sequence[Twin],
    watch: Watch,
) -> dict[str, Any]:
    """Trains a dictionary and the same on twins of the model, writes the first with the report of all, and returns the report.

    model: what `target` was loaded from. A killed call goes on where it was, from a folder beside `out`. Everything is trained
    on explore text, and measured on design text.
    """
    check_free(out)
    working = out.with_name(out.name + UNFINISHED)
    found: dict[str, Quality] = {}
    dictionary: Dictionary | None = None
    for kind in (None, *twins):
        one = target if kind is None else load_target(twin_folder(open_folder(model), kind, settings.seed).path)
        with watch("the dictionary" if kind is None else f"one of a {kind} twin") as progress:
            trained = _trained(one, corpus, settings, working / f"{kind or MODEL}.safetensors", progress)
        dictionary = dictionary or trained
        found[kind or MODEL] = measure(one, trained, measured_text(one, corpus))
    assert dictionary is not None
    report = _report(target, corpus, settings, found)
    _write(dictionary, corpus, settings, report, working / "whole", out)
    shutil.rmtree(working)
    return report


def _trained(
    target: TargetModel, corpus: Corpus, settings: Settings, file: Path, progress: Progress | None
) -> Dictionary:
    weights = target.fingerprint().weights_sha256
    kept = Checkpoint(file, about(settings, weights, corpus.sha256))
    learner = train(ExploreStream(target, corpus, settings), settings, checkpoint=kept, progress=progress)
    return dictionary_of(learner, "trained", model_name=target.spec.name, weights_sha256=weights)


def _report(target: TargetModel, corpus: Corpus, settings: Settings, found: dict[str, Quality]) -> dict[str, Any]:
    fingerprint = target.fingerprint()
    return {
        "model": target.spec.name,
        "weights_sha256": fingerprint.weights_sha256,
        "corpus": corpus.name,
        "corpus_sha256": corpus.sha256,
        "trained_on": "explore",
        "measured_on": "design",
        "settings": _said(settings),
        "quality": {kind: quality.as_json() for kind, quality in found.items()},
    }


def _said(settings: Settings) -> dict[str, Any]:
    """The settings as JSON, what follows from others worked out."""
    known = replace(settings, dead_after=settings.quiet_tokens)
    site = {"site": settings.site.name, "layer": settings.site.layer}
    return site | {name: value for name, value in asdict(known).items() if name != "site"}


def _write(
    dictionary: Dictionary, corpus: Corpus, settings: Settings, report: dict[str, Any], made: Path, out: Path
) -> None:
    """All files at once: they are written elsewhere, and the whole folder is moved."""
    shutil.rmtree(made, ignore_errors=True)
    more = {"corpus": corpus.name, "corpus_sha256": corpus.sha256, "trained_on": "explore", "training": _said(settings)}
    save_dictionary(dictionary, made, more=more)
    write_whole(made / REPORT, (json.dumps(report, indent=1) + "\n").encode())
    made.rename(out)
