"""The commands `models` and `models inspect`: what can be studied, and what is known of a model before it is loaded."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuronaut.agent.options import Json
from neuronaut.agent.view import print_json, visible

if TYPE_CHECKING:
    from neuronaut.tools.targets.inspected import Inspected
    from neuronaut.tools.targets.shapes import Shape

models_app = typer.Typer(help="What can be studied here, and how to name it.", invoke_without_command=True)
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8",
    "U32": "packed",
}


@models_app.callback()
def models(context: typer.Context, as_json: Json = False) -> None:
    """What can be studied here, and how to name it; `models inspect` says what is known of one."""
    if context.invoked_subcommand is None:
        _list_models(as_json=as_json)


@models_app.command("inspect")
def models_inspect(
    model: Annotated[str, typer.Argument(metavar="FOLDER|NAME", help="As for --model.")],
    batch: Annotated[int, typer.Option("--batch", min=1, max=100_000, help="Of the pass: texts.")] = 16,
    length: Annotated[
        int, typer.Option("--length", min=1, max=10_000_000, help="Of the pass: tokens of a text.")
    ] = 128,
    as_json: Json = False,
) -> None:
    """Say what is known of a model without loading it: shape, tokenizer, what can run it, and the memory that it needs.

    Example: neuronaut models inspect FOLDER --batch 16 --length 512
    """
    from neuronaut.tools.targets.inspected import inspect

    found = inspect(model, batch=batch, length=length)
    if as_json:
        print_json(_plain(found, batch, length))
        return
    for label, line in (*_described(found), *_needed(found, batch, length)):
        print(f"{label:<13} {visible(line)}".rstrip())


def _list_models(*, as_json: bool) -> None:
    """Print what can be studied, and by which engines."""
    from neuronaut.tools.targets.load import MLX_COMMAND, POCKET, has_mlx, open_folder
    from neuronaut.tools.targets.mlx.families import FAMILIES

    engines = ["torch", *(["mlx"] if has_mlx() else [])]

    rows = [
        {"name": "pocket", "what": "embedded model with its corpus", "present": (POCKET / "model.safetensors").exists()}
    ]
    if rows[0]["present"]:
        rows[0]["weights_sha256"] = open_folder("pocket").weights_sha256
        rows[0]["backends"] = engines
    if as_json:
        print_json(rows)
        return
    print(f"pocket         the embedded model and its corpus ({'present' if rows[0]['present'] else 'MISSING'})")
    print("FOLDER         a Hugging Face folder with config.json, *.safetensors and tokenizer.json; needs --corpus")
    print("OWNER/NAME     a model of the Hugging Face hub, where it can be reached; needs --corpus")
    mlx = "" if has_mlx() else f"; not installed here: {MLX_COMMAND}"
    print(f"--backend mlx  runs {', '.join(FAMILIES)}{mlx}")


def _plain(found: "Inspected", batch: int, length: int) -> dict[str, Any]:
    """As JSON; what was not said is null."""
    rows = {
        dtype: {
            "load": one.to_load,
            "stream": one.to_stream,
            "pass": found.pass_bytes[dtype],
            "fits": one.to_load + (found.pass_bytes[dtype] or 0) <= found.available,
        }
        for dtype, one in found.estimates.items()
    }
    parameters = next(iter(found.estimates.values())).parameters
    return {
        "name": found.name,
        "architecture": found.architecture,
        "checked": found.checked,
        "nearest": found.nearest,
        "backends": {name: {"takes it": fault is None, "why": fault} for name, fault in found.backends.items()},
        "shape": asdict(found.shape),
        "tokenizer": {**asdict(found.tokenizer), "offsets": found.tokenizer.kind is not None},
        "parameters": parameters,
        "bytes": found.n_bytes,
        "dtypes": found.dtypes,
        "pass": {"batch": batch, "length": length},
        "memory": rows,
        "available": found.available,
    }


def _described(found: "Inspected") -> list[tuple[str, str]]:
    from neuronaut.tools.targets.memory import gigabytes

    kinds = ", ".join(_DTYPES.get(dtype, dtype) for dtype in sorted(found.dtypes))
    parameters = next(iter(found.estimates.values())).parameters
    known = "checked by the tests" if found.checked else f"not checked; {found.nearest}"
    rows = [
        ("model", found.name),
        ("architecture", f"{found.architecture}: {known}"),
    ]
    takes = (
        "takes it" if found.checked else "tries it when it is loaded, and refuses layers that it does not understand"
    )
    rows += [(f"  {name}", takes if fault is None else fault) for name, fault in found.backends.items()]
    return [
        *rows,
        ("shape", _shape(found.shape)),
        ("tokenizer", _tokenizer(found)),
        ("parameters", f"{parameters:,} · {gigabytes(found.n_bytes)} on disk, {kinds}"),
    ]


def _shape(shape: "Shape") -> str:
    def said(number: int | None) -> str:
        return "not said" if number is None else f"{number:,}"

    keys = "" if shape.n_kv_heads == shape.n_heads else f" ({said(shape.n_kv_heads)} of keys and values)"
    experts = f"{shape.n_experts} experts of {said(shape.d_mlp)} neurons, {shape.n_chosen} at a token"
    return " · ".join(
        [
            f"{said(shape.n_layers)} layers",
            f"d_model {said(shape.d_model)}",
            f"{said(shape.n_heads)} heads{keys}",
            experts if shape.n_experts else f"{said(shape.d_mlp)} neurons a layer, no experts",
            f"vocabulary {said(shape.d_vocab)}",
            f"context {said(shape.n_ctx)}",
        ]
    )


def _tokenizer(found: "Inspected") -> str:
    one, d_vocab = found.tokenizer, found.shape.d_vocab
    if one.kind is None or one.size is None:
        return f"none that can be used: {one.fault}"
    rows = d_vocab - one.size if d_vocab is not None else 0
    beside = "the model's vocabulary is not said" if d_vocab is None else "as many as the model"
    if rows > 0:
        beside = f"{rows:,} fewer than the model, whose other rows carry no text"
    if rows < 0:
        beside = f"{-rows:,} more than the model"
    begins = "no token before a text" if one.bos is None else f"token {one.bos} before each text"
    chat = "with a chat template" if one.chat_template else "no chat template"
    said = f"{one.kind}, says offsets · {one.size:,} tokens, {beside} · {begins} · {chat}"
    return f"{said} · CANNOT BE USED: {one.fault}" if one.fault else said


def _needed(found: "Inspected", batch: int, length: int) -> list[tuple[str, str]]:
    """The table of memory, and what to do where it is not enough."""
    from neuronaut.tools.targets.memory import gigabytes, what_to_do

    rows = [("memory", f"{'to load':>9}  {f'a pass of {batch} × {length}':>20}  {'one layer at a time':>19}")]
    for dtype, one in found.estimates.items():
        more = found.pass_bytes[dtype]
        passed = "not said" if more is None else f"+ {gigabytes(more)}"
        rows.append((f"  {dtype}", f"{gigabytes(one.to_load):>9}  {passed:>20}  {gigabytes(one.to_stream):>19}"))
    whole = found.estimates["float32"].to_load + (found.pass_bytes["float32"] or 0)
    fits = whole <= found.available
    ways = (
        "it fits in float32"
        if fits
        else f"it does not fit in float32: {what_to_do(found.estimates, 'float32', found.available)}"
    )
    if all(found.backends.values()):
        ways = "it would fit in float32, and no engine takes it" if fits else ways
    return [*rows, ("available", f"{gigabytes(found.available)} on this machine: {ways}")]
