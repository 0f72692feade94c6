"""What an index with streamed layers costs: the memory for a model of 1.5 billion parameters, and the time beside a model in memory.

    python -m neuronaut.evals.streamed --documents 110 --rounds 3

The models are random Llamas in bfloat16, written tensor by tensor, and removed afterwards. Each measurement is a process of its own,
whose largest resident memory is that of its whole life, the libraries included. Shares compare parts that took turns in one process.
"""

import argparse
import json
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Shape = dict[str, int]
LARGE: Shape = {
    "hidden": 2048,
    "mlp": 8192,
    "layers": 16,
    "heads": 32,
    "kv": 8,
    "vocab": 128_256,
}  # Llama 3.2 1B, untied
FITS: Shape = {"hidden": 1024, "mlp": 4096, "layers": 12, "heads": 16, "kv": 4, "vocab": 2048}
CHARACTERS = 100  # of each document; each is a token
GOAL_GIB, GOAL_SHARE = 4.0, 1.3
ROWS_AT_ONCE = 1 << 22  # numbers drawn at once


def shapes_of(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor of a Llama."""
    d, mlp, kv = shape["hidden"], shape["mlp"], shape["hidden"] // shape["heads"] * shape["kv"]
    layer = {
        "input_layernorm": (d,), "self_attn.q_proj": (d, d), "self_attn.k_proj": (kv, d), "self_attn.v_proj": (kv, d),
        "self_attn.o_proj": (d, d), "post_attention_layernorm": (d,), "mlp.gate_proj": (mlp, d), "mlp.up_proj": (mlp, d),
        "mlp.down_proj": (d, mlp),
    }  # fmt: skip
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape["vocab"], d)}
    for number in range(shape["layers"]):
        found |= {f"model.layers.{number}.{name}.weight": size for name, size in layer.items()}
    return found | {"model.norm.weight": (d,), "lm_head.weight": (shape["vocab"], d)}


def write_llama(folder: Path, shape: Shape) -> Path:
    """The folder of a random Llama in bfloat16, with the bytes as tokens; no more than some rows of it are in memory."""
    import torch

    folder.mkdir(parents=True)
    tensors, at, header = shapes_of(shape), 0, {}
    for name, size in tensors.items():
        n_bytes = 2 * torch.Size(size).numel()
        header[name] = {"dtype": "BF16", "shape": size, "data_offsets": [at, at + n_bytes]}
        at += n_bytes
    raw = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    drawn = torch.Generator().manual_seed(0)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for size in tensors.values():
            left, spread = torch.Size(size).numel(), 1.0 if len(size) == 1 else size[-1] ** -0.5
            while left:
                n = min(left, ROWS_AT_ONCE)
                values = torch.randn(n, generator=drawn) * spread if len(size) > 1 else torch.ones(n)
                file.write(values.to(torch.bfloat16).view(torch.uint8).numpy().data)
                left -= n
    (folder / "config.json").write_text(json.dumps(_config(shape)))
    _write_tokenizer(folder)
    return folder


def _config(shape: Shape) -> dict[str, Any]:
    return {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "dtype": "bfloat16", "hidden_size": shape["hidden"],
        "intermediate_size": shape["mlp"], "num_hidden_layers": shape["layers"], "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv"], "vocab_size": shape["vocab"], "max_position_embeddings": 2048,
        "tie_word_embeddings": False, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({one: number for number, one in enumerate(bytes_)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))


def _plan(folder: Path, cache: Path, documents: int, dtype: Any, *, streamed: bool) -> Any:
    from neuronaut.tools.corpus import corpus_from_texts, pocket_corpus
    from neuronaut.tools.index_plan import plan_index
    from neuronaut.tools.targets.load import load_target, open_folder
    from neuronaut.tools.targets.placement import dtype_of
    from neuronaut.tools.targets.streamed import StreamedTarget

    opened = open_folder(folder)
    if streamed:
        target: Any = StreamedTarget(opened, dtype=dtype_of(dtype, opened.config))
    else:
        target = load_target(folder, dtype=dtype)
    texts = [one.text[:CHARACTERS] for one in pocket_corpus().documents[:documents]]
    corpus = corpus_from_texts("some of pocket", texts)
    return plan_index(target, corpus, kinds=("neurons", "heads"), cache=cache)


def peak(folder: Path, cache: Path, documents: int, dtype: str, *, streamed: bool) -> dict[str, float]:
    """GiB of the largest resident memory of this process, before and with an index; its tokens, seconds, and GiB of weights."""
    from neuronaut.tools.index import Index
    from neuronaut.tools.index_plan import build_shards
    from neuronaut.tools.streaming import stream_shards

    plan = _plan(folder, cache, documents, dtype, streamed=streamed)
    before, began = peak_gib(), time.perf_counter()
    (stream_shards if streamed else build_shards)(plan)
    seconds, found = time.perf_counter() - began, peak_gib()
    weights = (folder / "model.safetensors").stat().st_size / 2**30
    tokens = Index(plan.target, plan.corpus, plan.sweep.kinds, plan.store).n_tokens
    return {"weights": weights, "before": before, "peak": found, "tokens": tokens, "seconds": seconds}


def peak_gib() -> float:
    """The largest resident memory of this process so far. On Linux that of the kernel's own count: getrusage begins with what the
    process was started by."""
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 2**20
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 2**30 if sys.platform == "darwin" else size / 2**20


def cost(folder: Path, cache: Path, documents: int, dtype: str, rounds: int) -> dict[str, Any]:
    """Seconds on the wall and of the processor of an index of a model in memory, of one with streamed layers, and of reading
    all its tensors once, taking turns; medians, and the share: streamed without reading, over resident."""
    from neuronaut.tools.index_plan import build_shards
    from neuronaut.tools.streaming import stream_shards

    plans = {
        name: _plan(folder, cache / name, documents, dtype, streamed=name == "streamed")
        for name in ("resident", "streamed")
    }
    files, own = plans["streamed"].target._files, plans["streamed"].target.dtype
    work: dict[str, Callable[[], object]] = {
        "resident": lambda: build_shards(plans["resident"]),
        "streamed": lambda: stream_shards(plans["streamed"]),
        "reading": lambda: [files.read(name, own).shape for name in files.places],
    }
    took: dict[str, dict[str, list[float]]] = {
        "wall": {name: [] for name in work},
        "processor": {name: [] for name in work},
    }
    for number in range(rounds + 1):
        for name, one in work.items():
            shutil.rmtree(cache / name, ignore_errors=True)
            began, used = time.perf_counter(), time.process_time()
            one()
            if number:  # the first round warms up
                took["wall"][name].append(time.perf_counter() - began)
                took["processor"][name].append(time.process_time() - used)
    found: dict[str, Any] = {"rounds": rounds}
    for clock, times in took.items():
        each = zip(times["streamed"], times["reading"], times["resident"], strict=True)
        shares = sorted((a - b) / c for a, b, c in each)
        found[clock] = {name: statistics.median(seconds) for name, seconds in times.items()} | {
            "share": statistics.median(shares), "shares": shares, "with reading": statistics.median(
                a / c for a, c in zip(times["streamed"], times["resident"], strict=True)
            ),
        }  # fmt: skip
    return found


@contextmanager
def _made(place: Path, shape: Shape) -> Iterator[Path]:
    """The folder of a model, made in a process of its own, while it is there."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        _alone("make", Path(folder) / "model", shape=json.dumps(shape))
        yield Path(folder)


def _alone(what: str, folder: Path, **options: object) -> dict[str, Any]:
    """What a process of its own finds; this one is small, so that none begins with its memory."""
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, what, str(folder), *given]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print the measurements as JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("what", nargs="?", choices=["all", "make", "streamed", "resident", "cost"], default="all")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--documents", type=int, default=110)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--shape", default="{}")
    asked = parser.parse_args()
    model, cache = asked.folder / "model", asked.folder / "cache"
    match asked.what:
        case "make":
            write_llama(asked.folder, json.loads(asked.shape))
            found: dict[str, Any] = {}
        case "streamed" | "resident":
            found = dict(peak(model, cache, asked.documents, asked.dtype, streamed=asked.what == "streamed"))
        case "cost":
            found = cost(model, cache, asked.documents, asked.dtype, asked.rounds)
        case _:
            more = {"documents": asked.documents, "dtype": asked.dtype}
            with _made(asked.folder, LARGE) as large:
                found = {"goal GiB": GOAL_GIB, "memory": _alone("streamed", large, **more)}
            print(json.dumps(found, indent=1), flush=True)
            with _made(asked.folder, FITS) as small:
                found = {"goal share": GOAL_SHARE, "time": _alone("cost", small, rounds=asked.rounds, **more)}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
