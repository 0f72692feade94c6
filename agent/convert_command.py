"""The command `convert`. Everything heavy is imported when it is needed."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from neuronaut.agent.options import Json
from neuronaut.agent.view import print_json, visible


def convert(
    source: Annotated[
        Path, typer.Argument(help="A .safetensors with its configuration beside it, a .pt, or their folder.")
    ],
    out: Annotated[Path, typer.Option("--out", help="New folder for the model; nothing is written over.")],
    tokenizer: Annotated[
        Path | None,
        typer.Option("--tokenizer", metavar="FOLDER", help="That holds tokenizer.json; else beside the source."),
    ] = None,
    unsafe_pickle: Annotated[
        bool, typer.Option("--unsafe-pickle", help="Open a pickle, which can run code: only of someone you trust.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a Hugging Face folder of a nanoGPT checkpoint or a TransformerLens state dict; its logits must stay the same.

    Example: neuronaut convert ckpt.pt --out model --tokenizer FOLDER --unsafe-pickle
    """
    from neuronaut.tools.targets.checkpoints.convert import convert as convert_checkpoint

    done = convert_checkpoint(
        source.expanduser(),
        out.expanduser(),
        tokenizer=None if tokenizer is None else tokenizer.expanduser(),
        unsafe_pickle=unsafe_pickle,
        say=lambda line: print(f"neuronaut: {visible(line)}", file=sys.stderr),
    )
    if as_json:
        print_json({**asdict(done), "out": str(done.out)})
        return
    print(f"{visible(str(done.out))}: {done.architecture} of {done.parameters:,} parameters, from {done.form}")
    print(
        f"its logits differ by at most {done.difference:.1e} from those of the checkpoint's own weights ({done.n_logits:,} compared)"
    )
    for note in done.notes:
        print(f"note: {visible(note)}")
    print(f"next: neuronaut ask … --model {visible(str(done.out))} --corpus FILE")
