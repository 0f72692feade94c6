"""Explanations and label scores as the files that EleutherAI's delphi writes, so that its own readers can read them."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuronaut.memory.export import labelled_windows
from neuronaut.memory.secrets import find_secrets
from neuronaut.memory.store import Store
from neuronaut.memory.tables import storable
from neuronaut.tools.errors import UserError
from neuronaut.tools.learn.items import TENTHS
from neuronaut.tools.units import Unit

SCORERS = {"score_detection": "detection", "score_fuzz": "fuzz"}
NOT_NEAR = -1.0  # the distance of a window without activation that was not chosen beside another latent


@dataclass
class Written:
    """What was written: latents by scorer, and why some scores were left out."""

    latents: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    modules: set[str] = field(default_factory=set)


def write_scores(out: Path, notebook: Store, run: str | None = None) -> Written:
    """Fills a new folder with explanations/ and scores/SCORER/, one file a latent; of several scores of one latent the newest.

    Refuses a folder that holds something, scores of several models, and a notebook without such scores.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{str(out)!r} is there already: give another --out, or remove it first")
    written, files, models = Written(), dict[tuple[str, str], str](), dict[str, str]()
    for tool, about, payload in labelled_windows(notebook, tuple(SCORERS), run):
        unit = Unit.parse(payload["unit"])
        if unit.sign < 0:
            written.left_out["of the low side of a unit, which has no latent"] += 1
            continue
        models[about["model_sha256"]] = about["model"]
        latent = f"{module_of(unit)}_latent{unit.index}"
        written.modules.add(module_of(unit))
        files["scores/" + SCORERS[tool], latent] = _json([_sample(one) for one in payload["items"]])
        files["explanations", latent] = _json(storable(payload["explanation"]))
    if len(models) > 1:
        raise UserError(
            f"the notebook has scores of {len(models)} models ({', '.join(models.values())}): name one --run"
        )
    if not files:
        raise UserError(
            "the notebook has no detection or fuzz score that keeps its windows: run `neuronaut score UNIT --llm …` first"
        )
    for (folder, latent), text in files.items():
        if found := find_secrets(text):
            raise UserError(
                f"nothing was written: {folder}/{latent}.txt would hold {found[0].what}: name another --run"
            )
    for (folder, latent), text in sorted(files.items()):
        written.latents[folder] += 1
        _put(out / folder / f"{latent}.txt", text)
    return written


def module_of(unit: Unit) -> str:
    """The name of the hook point in which the unit is a latent. No name is part of another one, as delphi's reader needs."""
    if unit.kind == "neuron":
        expert = "" if unit.expert is None else f".experts.{unit.expert}"
        return f"blocks.{unit.layer}.mlp{expert}.hook_post"
    return f"sae.{unit.name}.latents" if unit.name else f"blocks.{unit.layer}.attn.hook_z"


def _sample(item: dict[str, Any]) -> dict[str, Any]:
    """One window. distance: the tenth of an active one, 0 the strongest."""
    active, said = item["active"], item["said"]
    return {
        "str_tokens": [storable(piece) for piece in item["pieces"]], "activations": item["activations"],
        "distance": TENTHS - 1 - item["tenth"] if active else NOT_NEAR, "activating": active, "prediction": said,
        "probability": None, "correct": None if said is None else said == active,
    }  # fmt: skip


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _put(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{str(file)!r} cannot be written ({error.strerror}): give another --out") from None
