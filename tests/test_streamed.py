"""An index whose layers are read from their files one at a time, beside one of the whole model in memory."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from neuronaut.agent.groups import index_app
from neuronaut.evals.streamed import write_llama
from neuronaut.tools import streaming
from neuronaut.tools.corpus import Corpus, load_corpus
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.index_plan import Plan, build_shards, plan_index
from neuronaut.tools.kinds.base import IndexSettings
from neuronaut.tools.streaming import stream_shards
from neuronaut.tools.targets.architectures import CHECKED
from neuronaut.tools.targets.base import Site
from neuronaut.tools.targets.load import load_target, open_folder
from neuronaut.tools.targets.streamed import STREAMED, StreamedTarget
from neuronaut.tools.upkeep import find_garbage

_made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
make_model, make_corpus = _made["make_model"], _made["make_corpus"]
OF_EXPERTS = ("mixtral", "qwen3_moe", "gpt_oss")
FAMILIES = [family for family in _made["CONFIGS"] if family not in OF_EXPERTS]
SMALL = IndexSettings(top_k=9, chunk=5, shard=20, binned_tokens=1_000_000, sample_tokens=20)
BOTH = ("neurons", "heads")


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    place, known = tmp_path_factory.mktemp("models"), dict[str, Path]()

    def made(family: str) -> Path:
        if family not in known:
            known[family] = make_model(family, place / family)
        return known[family]

    return made


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return load_corpus(make_corpus(tmp_path_factory.mktemp("text") / "c.jsonl", documents=125))


def plans(folder: Path, corpus: Corpus, cache: Path, dtype: torch.dtype = torch.float32) -> tuple[Plan, Plan]:
    """Of the whole model, built, and of one with streamed layers."""
    whole = plan_index(load_target(folder, dtype=dtype), corpus, kinds=BOTH, cache=cache / "whole", settings=SMALL)
    build_shards(whole)
    return whole, streamed(folder, corpus, cache / "streamed", dtype)


def streamed(folder: Path, corpus: Corpus, cache: Path, dtype: torch.dtype = torch.float32) -> Plan:
    target = StreamedTarget(open_folder(folder), dtype=dtype)
    return plan_index(target, corpus, kinds=BOTH, cache=cache, settings=SMALL)


def shards_of(plan: Plan) -> dict[tuple[str, int], bytes | None]:
    return {
        (kind.name, number): plan.store.raw(kind.name, number)
        for kind in plan.sweep.kinds
        for number in range(plan.n_shards)
    }


def all_equal(whole: Plan, found: Plan) -> bool:
    expected = shards_of(whole)
    assert len(expected) == 2 * 3 * 3  # kinds, layers, shards
    assert None not in expected.values()
    return whole.store.folder.name == found.store.folder.name and expected == shards_of(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_streamed_layers_give_the_same_index_to_the_last_bit(
    family: str, folder_of: Callable[[str], Path], corpus: Corpus, tmp_path: Path
) -> None:
    whole, found = plans(folder_of(family), corpus, tmp_path)
    stream_shards(found)
    assert all_equal(whole, found)
    assert found.target.spec == whole.target.spec
    assert [path.name for path in (tmp_path / "streamed").iterdir()] == [
        found.store.folder.name
    ]  # nothing else is left


def test_so_do_layers_in_bfloat16_in_several_passes_from_several_files(
    folder_of: Callable[[str], Path], corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    for file in folder_of("llama").iterdir():
        if file.suffix == ".json":
            (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder_of("llama") / "model.safetensors")
    halves = [{n: w.bfloat16() for at, (n, w) in enumerate(weights.items()) if at % 2 == half} for half in (0, 1)]
    for half, tensors in enumerate(halves):
        save_file(tensors, folder / f"model-0000{half + 1}-of-00002.safetensors", metadata={"format": "pt"})
    files = {n: f"model-0000{half + 1}-of-00002.safetensors" for half, tensors in enumerate(halves) for n in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    monkeypatch.setattr(streaming, "TEXT_BYTES", 1)
    whole, found = plans(folder, corpus, tmp_path, torch.bfloat16)
    stream_shards(found)
    assert all_equal(whole, found)


class Crash(Exception):
    pass


def test_a_crash_costs_the_layer_in_hand(
    folder_of: Callable[[str], Path], corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, found = plans(folder_of("gpt2"), corpus, tmp_path)
    documents = int(found.store.about["documents"])

    def crash(done: int, total: int) -> None:
        if done > 2.5 * documents:
            raise Crash

    with pytest.raises(Crash):
        stream_shards(found, progress=crash)
    kept = {part for part, raw in shards_of(found).items() if raw is not None}
    assert {(kind, number) for kind in ("neurons-000", "heads-001") for number in range(3)} < kept
    again, read, loaded = streamed(folder_of("gpt2"), corpus, tmp_path / "streamed"), [], StreamedTarget.loaded
    monkeypatch.setattr(StreamedTarget, "loaded", lambda self, layer: (read.append(layer), loaded(self, layer))[1])
    seen: list[int] = []
    stream_shards(again, progress=lambda done, _: seen.append(done))
    assert read == [2]
    assert seen[0] == 2 * documents
    assert seen[-1] == 3 * documents
    assert all_equal(whole, again)


def test_what_a_crash_left_of_another_text_is_not_gone_on_with(
    folder_of: Callable[[str], Path], corpus: Corpus, tmp_path: Path
) -> None:
    whole, found = plans(folder_of("gpt2"), corpus, tmp_path)

    def crash(done: int, total: int) -> None:
        if done > total * 0.6:
            raise Crash

    with pytest.raises(Crash):
        stream_shards(found, progress=crash)
    (tape,) = (tmp_path / "streamed").glob("streamed-*")
    (residual,) = tape.glob("residual-001")
    residual.write_bytes(residual.read_bytes()[:-1])
    stream_shards(found)
    assert all_equal(whole, found)


def test_two_processes_do_not_share_a_tape(folder_of: Callable[[str], Path], corpus: Corpus, tmp_path: Path) -> None:
    found = streamed(folder_of("gpt2"), corpus, tmp_path)

    def other(done: int, total: int) -> None:
        if done:
            with pytest.raises(UserError, match="another process streams the same layers"):
                stream_shards(streamed(folder_of("gpt2"), corpus, tmp_path))
            raise Crash

    with pytest.raises(Crash):
        stream_shards(found, progress=other)


def test_what_a_killed_process_left_is_garbage_after_an_hour(
    folder_of: Callable[[str], Path], corpus: Corpus, tmp_path: Path
) -> None:
    found = streamed(folder_of("gpt2"), corpus, tmp_path)

    def crash(done: int, total: int) -> None:
        if done > total / 2:
            raise Crash

    with pytest.raises(Crash):
        stream_shards(found, progress=crash)
    (tape,) = tmp_path.glob("streamed-*")
    assert tape not in [one.path for one in find_garbage(tmp_path, [])]
    for file in tape.iterdir():
        os.utime(file, (1, 1))
    (garbage,) = (one for one in find_garbage(tmp_path, []) if one.path == tape)
    assert garbage.n_bytes > 1000


def test_only_the_loaded_layer_can_be_run(folder_of: Callable[[str], Path]) -> None:
    target = StreamedTarget(open_folder(folder_of("llama")))
    ids = torch.arange(5)[None]
    with pytest.raises(ToolRefused, match="one at a time is in memory"):
        target.run(ids, read=[Site("neurons", 0)], stop=1)
    with target.loaded(0):
        assert target.run(ids, read=[Site("neurons", 0)], stop=1).read[Site("neurons", 0)].shape == (1, 5, 40)
        with pytest.raises(ToolRefused, match="one at a time is in memory"):
            target.run(ids, logits=True)
    with pytest.raises(ToolRefused, match="one at a time is in memory"):
        target.run(ids, read=[Site("neurons", 0)], stop=1)


@pytest.mark.parametrize("family", [*OF_EXPERTS, "opt"])
def test_what_cannot_be_streamed_is_refused(family: str, folder_of: Callable[[str], Path]) -> None:
    with pytest.raises(UserError, match="cannot be streamed: its architecture is"):
        StreamedTarget(open_folder(folder_of(family)))


def test_every_checked_architecture_without_experts_is_streamed() -> None:
    assert set(CHECKED) - set(STREAMED) == set(OF_EXPERTS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("model.layers.1.mlp.down_proj.weight"), r"lack 'model\.layers\.1\.mlp\.down_proj\.weight'"),
        (lambda w: w.update({"model.norm.weight": torch.ones(3)}), r"model\.norm\.weight has shape \[3\], not \[32\]"),
        (
            lambda w: w.update({"model.norm.weight": torch.ones(32, dtype=torch.int8)}),
            "stored as 'I8'; give them in bfloat16 or float32",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_a_layer_is_read(
    change: Callable[[dict[str, torch.Tensor]], object], said: str, tmp_path: Path
) -> None:
    folder = make_model("llama", tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=said):
        StreamedTarget(open_folder(folder))


_MEMORY = """
import json, sys
from pathlib import Path
from neuronaut.evals.streamed import peak_gib
from neuronaut.tools.corpus import corpus_from_texts
from neuronaut.tools.index_plan import plan_index
from neuronaut.tools.kinds.base import IndexSettings
from neuronaut.tools.streaming import stream_shards
from neuronaut.tools.targets.load import open_folder
from neuronaut.tools.targets.streamed import StreamedTarget

target = StreamedTarget(open_folder(sys.argv[1]))
corpus = corpus_from_texts("numbers", [f"{number} is not {2 * number}" for number in range(150)])
plan = plan_index(target, corpus, cache=Path(sys.argv[2]), settings=IndexSettings(chunk=8, shard=8))
before = peak_gib()
stream_shards(plan, [0, 1])
print(json.dumps([before, peak_gib()]))
"""


def test_streaming_takes_less_memory_than_the_weights(tmp_path: Path) -> None:
    shape = {"hidden": 768, "mlp": 3072, "layers": 11, "heads": 12, "kv": 6, "vocab": 4096}
    folder = write_llama(tmp_path / "model", shape)
    weights = (folder / "model.safetensors").stat().st_size / 2**30
    assert weights > 0.18  # half of what they would take as float32, in which they are run
    command = [sys.executable, "-c", _MEMORY, str(folder), str(tmp_path / "cache")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    before, peak = json.loads(done.stdout)
    assert 0.01 < peak - before < 0.9 * weights


def test_the_command_line_streams_and_says_what_it_holds(
    folder_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    monkeypatch.setenv("NEURONAUT_CACHE", str(tmp_path))
    text = make_corpus(tmp_path / "c.jsonl", documents=125)
    given = ["--model", str(folder_of("llama")), "--corpus", str(text), "--stream", "--json"]
    built = CliRunner().invoke(index_app, ["build", *given, "--kinds", "neurons,heads"])
    assert built.exit_code == 0
    assert json.loads(built.stdout)["statistics"]
    shown = CliRunner().invoke(index_app, ["status", *given])
    assert json.loads(shown.stdout) == json.loads(built.stdout)
    for more, said in (
        (["--device", "cuda"], "leave out --device cuda"),
        (["--backend", "mlx"], "leave out --backend mlx"),
        (["--kinds", "features"], "no features to index"),
    ):
        refused = CliRunner().invoke(index_app, ["build", *given, *more])
        assert isinstance(refused.exception, UserError)
        assert said in str(refused.exception)
