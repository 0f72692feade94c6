"""A checkpoint made into a Hugging Face folder, which is there whole and right or not at all."""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.checkpoints.converted import Converted
from neuronaut.tools.targets.checkpoints.lens import from_transformer_lens
from neuronaut.tools.targets.checkpoints.lens_forward import transformer_lens_logits
from neuronaut.tools.targets.checkpoints.lens_names import is_transformer_lens
from neuronaut.tools.targets.checkpoints.nanogpt import from_nanogpt, is_nanogpt, nanogpt_logits
from neuronaut.tools.targets.checkpoints.source import FORMS, Source, read_source
from neuronaut.tools.targets.folder import ModelFolder
from neuronaut.tools.targets.memory import check_fits

OF_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
TOLERANCE = 1e-4  # between logits, of the largest one where that is above 1


@dataclass(frozen=True)
class Conversion:
    """What was written. difference: the largest between logits of the folder and of the checkpoint, over `n_logits` of them."""

    out: Path
    form: str
    architecture: str
    parameters: int
    difference: float
    n_logits: int
    notes: list[str]


def convert(
    place: Path, out: Path, *, tokenizer: Path | None, unsafe_pickle: bool, say: Callable[[str], None]
) -> Conversion:
    """Writes the model in `place` to the new folder `out`. tokenizer: a folder with tokenizer.json; None takes that beside it.

    say: is told what else happened. Refuses a folder that is there, what cannot be represented, a tokenizer of another model,
    and a conversion whose logits are not those of the checkpoint.
    """
    if out.exists():
        raise UserError(f"{str(out)!r} is there already, and nothing is written over it: name a new folder with --out")
    words = _tokenizer_folder(place, tokenizer)
    source = read_source(place, unsafe_pickle=unsafe_pickle, say=say)
    form, made, logits = _converted(source)
    with _whole_or_not_at_all(out) as part:
        _write(made, words, part)
        with _named_by_what_was_given(part, place, words):
            found, expected = _both_logits(ModelFolder(part, out.name), lambda ids: logits(source, ids))
        difference = float((found - expected).abs().max())
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise UserError(
                f"{source.name!r} was not converted: the logits of the converted model differ by {difference:.1e} from those that "
                "the checkpoint's own weights give, so that it would be another model; its configuration may not be its own"
            )
    parameters = sum(value.numel() for value in made.weights.values())
    return Conversion(out, form, str(made.config["model_type"]), parameters, difference, found.numel(), made.notes)


def _converted(source: Source) -> tuple[str, Converted, Callable[[Source, Tensor], Tensor]]:
    if is_nanogpt(source):
        return "nanoGPT", from_nanogpt(source), nanogpt_logits
    if is_transformer_lens(source):
        return "TransformerLens", from_transformer_lens(source), transformer_lens_logits
    some = ", ".join(sorted(source.tensors)[:2]) or "no tensors"
    raise UserError(
        f"{source.name!r} holds {some[:120]} …: {FORMS} is converted, and a Hugging Face folder needs no conversion"
    )


def _tokenizer_folder(place: Path, named: Path | None) -> Path:
    folder = named or (place if place.is_dir() else place.parent)
    folder = folder.parent if folder.name == "tokenizer.json" else folder
    if not (folder / "tokenizer.json").is_file():
        raise UserError(
            f"there is no tokenizer.json in {str(folder)!r}, and without it text cannot be turned into tokens: name the folder that "
            "holds the model's with --tokenizer"
        )
    return folder


@contextmanager
def _whole_or_not_at_all(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when all went well, and is gone when not."""
    part = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        part.mkdir(parents=True)
        yield part
        if out.exists():
            raise UserError(
                f"{str(out)!r} was made by someone else meanwhile: nothing is written over it; name a new folder"
            )
        os.rename(part, out)
    except OSError as error:
        raise UserError(
            f"the model cannot be written to {str(out)!r} ({error.strerror}): name another folder"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def _named_by_what_was_given(part: Path, place: Path, words: Path) -> Iterator[None]:
    """What is refused of the folder that is being made is said of the checkpoint and of the tokenizer that it is made of."""
    try:
        yield
    except UserError as error:
        said, made = str(error), repr(str(part))
        for name in OF_TOKENIZER:
            said = said.replace(f"{name} in {made}", f"{name} in {str(words)!r}")
            said = said.replace(f"{name} of {made}", f"{name} of {str(words)!r}")
        raise UserError(said.replace(made, repr(str(place)))) from error


def _write(made: Converted, words: Path, part: Path) -> None:
    config = made.config | {"bos_token_id": None, "eos_token_id": None, "dtype": "float32"}
    (part / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    weights = {name: value.detach().float().contiguous().clone() for name, value in made.weights.items()}
    save_file(weights, part / "model.safetensors", metadata={"format": "pt"})
    for name in OF_TOKENIZER:
        if (words / name).is_file():
            shutil.copyfile(words / name, part / name)


@torch.no_grad()
def _both_logits(folder: ModelFolder, expected: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Of random tokens, by the folder as it will be read and by the checkpoint's own weights."""
    from neuronaut.tools.targets.transformer_lens import TransformerLensTarget

    check_fits(folder, "float32")
    target = TransformerLensTarget(folder)
    made = torch.Generator().manual_seed(0)
    ids = torch.randint(0, target.spec.d_vocab, (2, min(64, target.spec.n_ctx)), generator=made)
    found = target.run(ids, logits=True).logits
    assert found is not None
    return found, expected(ids)
