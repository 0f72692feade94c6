"""Number formats and devices: kept with a run, told apart in the fingerprint, and the same numbers on each."""

import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import typer
from torch import Tensor

from neuronaut.agent.cli import app
from neuronaut.agent.config import RunConfig
from neuronaut.agent.remote import Order
from neuronaut.tools.errors import ToolRefused, UserError
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.targets.drift import Drift, kept_drift, measured_drift
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.targets.placement import Elsewhere
from neuronaut.tools.targets.transformer_lens import TransformerLensTarget

_made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
make_model, make_corpus = _made["make_model"], _made["make_corpus"]
QUESTION = "test 0.3: token(' cat')"


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    place, known = tmp_path_factory.mktemp("models"), dict[str, Path]()

    def made(family: str) -> Path:
        if family not in known:
            known[family] = make_model(family, place / family)
        return known[family]

    return made


def ids() -> Tensor:
    return torch.randint(3, 300, (2, 12), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("said", "dtype"), [("bfloat16", "bfloat16"), ("float16", "float16"), (None, "float32")])
def test_auto_is_the_number_format_that_the_model_names(
    said: str | None, dtype: str, folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    for file in folder_of("llama").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"dtype": said}))
    assert load_target(tmp_path, dtype="auto").fingerprint().dtype == dtype


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(device: str, folder_of: Callable[[str], Path]) -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(UserError, match=f"--device {device} cannot be used"):
        load_target(folder_of("llama"), device=device)  # type: ignore[arg-type]
    assert load_target(folder_of("llama"), device="auto").fingerprint() == load_target(folder_of("llama")).fingerprint()


def test_mlx_takes_no_device(folder_of: Callable[[str], Path]) -> None:
    with pytest.raises(UserError, match="--device cuda is for --backend torch"):
        load_target(folder_of("llama"), backend="mlx", device="cuda")


def test_workers_open_the_same_number_format() -> None:
    config = RunConfig(question="q", dtype="bfloat16", device="auto")
    assert {"dtype": "bfloat16", "device": "auto"}.items() <= json.loads(Order.of(config).inputs).items()


def _run(*words: str) -> int:
    try:
        code: int | None = app(list(words), standalone_mode=False)
    except typer.Exit as stopped:
        code = stopped.exit_code
    return code or 0


def test_a_number_format_is_kept_with_the_run_and_opened_again(
    folder_of: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NEURONAUT_CACHE", str(tmp_path / "cache"))
    book = ["--notebook", str(tmp_path / "n.db")]
    given = [
        "--model",
        str(folder_of("llama")),
        "--corpus",
        str(make_corpus(tmp_path / "c.jsonl", documents=125)),
        *book,
        "--json",
    ]

    def asked(*more: str) -> str:
        assert _run("ask", QUESTION, *given, "--fast", *more) == 0
        return str(json.loads(capsys.readouterr().out)["run"])

    run = asked("--dtype", "bfloat16")
    assert asked("--dtype", "bfloat16") == run
    assert asked() != run, "an answer in another number format is not this answer"
    assert _run("show", run, *book, "--raw", "--json") == 0
    row = json.loads(capsys.readouterr().out)
    config = row["config"] if isinstance(row["config"], dict) else json.loads(row["config"])
    assert config["dtype"] == "bfloat16"
    assert 0 < config["drift"]["neurons_mean"] < 0.1
    assert _run("rerun", run, *book, "--json") == 0
    assert "dtype" not in json.loads(capsys.readouterr().out)["changed_inputs"]


def test_drift_is_what_rounding_does_measured_once(
    folder_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURONAUT_CACHE", str(tmp_path))
    exact, rounded = (load_target(folder_of("qwen3"), dtype=name) for name in ("float32", "bfloat16"))  # type: ignore[arg-type]
    assert measured_drift(exact, folder_of("qwen3")) is None
    assert Drift.between(exact, exact) == Drift(0, 0, 0, 0)
    assert kept_drift(rounded.fingerprint()) is None
    found = measured_drift(rounded, folder_of("qwen3"))
    assert found is not None
    for share in (found.neurons_mean, found.logits_mean, found.neurons_largest, found.logits_largest):
        assert 1e-4 < share < 0.1  # bfloat16 has 8 bits
    assert kept_drift(rounded.fingerprint()) == found
    monkeypatch.setattr("neuronaut.tools.targets.drift.free_memory", lambda: 1000)
    assert measured_drift(rounded, folder_of("qwen3")) == found
    halved = load_target(folder_of("qwen3"), dtype="float16")
    assert measured_drift(halved, folder_of("qwen3")) is None, "float32 does not fit into a thousand bytes"


@pytest.fixture
def nowhere(folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[TransformerLensTarget]:
    """A model on a device that holds no values, where an operation on it and on a tensor of the caller's fails all the same."""
    target = load_target(folder_of("llama"))
    assert isinstance(target, TransformerLensTarget)
    target._there = Elsewhere(torch.device("meta"))
    target._model.to("meta")
    brought, truth = Tensor.cpu, Tensor.__bool__
    monkeypatch.setattr(Tensor, "cpu", lambda x: torch.zeros(x.shape, device="cpu") if x.is_meta else brought(x))
    monkeypatch.setattr(Tensor, "__bool__", lambda x: False if x.is_meta else truth(x))
    return target


def test_what_is_run_elsewhere_comes_back_and_meets_nothing_of_the_caller(
    nowhere: TransformerLensTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, here = ids(), torch.zeros(2, 12, dtype=torch.bool)
    edits = [
        Edit(Site("neurons", 1), "set", 0.5, index=3, positions=here),
        Edit(Site("neurons", 1), "add", torch.ones(2, 12), index=4),
        Edit(Site("heads", 1), "scale", torch.ones(2, 12, 12), index=1, positions=here),
    ]
    with monkeypatch.context() as patched:
        patched.setattr(Elsewhere, "brought", lambda self, edits: edits)
        with pytest.raises(ToolRefused, match="does not fit"):
            nowhere.run(text, edits=edits, logits=True)
    sites = [Site("neurons", 1), Site("pattern", 1), Site("resid_post", 2)]
    found = nowhere.run(text, read=sites, edits=edits, logits=True)
    assert found.logits is not None
    assert {one.device.type for one in (*found.read.values(), found.logits)} == {"cpu"}
    nowhere.run(text, read=[Site("resid_post", 2)], start=(2, torch.zeros(2, 12, 32)), stop=3)
    one = Edit(Site("neurons", 1), "set", torch.zeros(1, 12), index=3)
    assert nowhere.branches(text[:1], [one]).device.type == "cpu"
    assert nowhere.final_norm(torch.zeros(3, 32)).device.type == nowhere.embed.device.type == "cpu"
    assert nowhere.fingerprint().backend_version.endswith("on meta")
    with pytest.raises(ToolRefused, match="on the CPU alone"):
        nowhere.senders(text)


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


@pytest.fixture(params=["llama", "gpt2", "gemma2", "gpt_oss"])
def both(request: pytest.FixtureRequest, folder_of: Callable[[str], Path]) -> tuple[TargetModel, TargetModel]:
    """A model on the CPU, and on a GPU."""
    return load_target(folder_of(request.param)), load_target(folder_of(request.param), device="cuda")


def near(found: Tensor | None, expected: Tensor | None) -> None:
    assert found is not None
    assert expected is not None
    assert found.device.type == "cpu"
    assert float((found - expected).abs().max()) < 1e-4


@pytest.mark.gpu
@gpu
def test_a_gpu_reads_edits_and_differentiates_as_the_cpu_does(both: tuple[TargetModel, TargetModel]) -> None:
    here, there = both
    text = ids()
    neurons = Site("neurons", 1, expert=0 if here.spec.n_experts else None)
    sites = [
        neurons,
        *(Site(name, 1) for name in ("resid_pre", "attn_out", "mlp_out", "resid_post", "heads", "pattern")),
    ]
    edit = Edit(neurons, "set", torch.ones(2, 12), index=3)
    expected, found = (one.run(text, read=sites, edits=[edit], logits=True) for one in (here, there))
    near(found.logits, expected.logits)
    for site in sites:
        near(found.read[site], expected.read[site])
    start = (1, expected.read[Site("resid_pre", 1)])
    near(there.run(text, start=start, logits=True).logits, here.run(text, start=start, logits=True).logits)
    one = Edit(Site("heads", 1), "set", 0.0, index=1)
    near(there.branches(text[:1], [one]), here.branches(text[:1], [one]))
    last = Site("resid_post", 1)
    gradients = [
        one.gradients(text, [last], lambda logits: logits[torch.arange(2), -1, 5])[last] for one in (here, there)
    ]
    for exact, on_gpu in zip(*gradients, strict=True):
        near(on_gpu, exact)


@pytest.mark.gpu
@gpu
def test_weights_on_a_gpu_are_those_on_the_cpu(both: tuple[TargetModel, TargetModel]) -> None:
    here, there = both
    expert = 0 if here.spec.n_experts else None
    near(there.read_vectors(1, expert), here.read_vectors(1, expert))
    near(there.write_vectors(1, expert), here.write_vectors(1, expert))
    for found, expected in zip(there.attention_weights(1), here.attention_weights(1), strict=True):
        near(found, expected)
    near(there.embed, here.embed)
    near(there.unembed, here.unembed)
    assert there.fingerprint().backend_version.endswith("on cuda")
