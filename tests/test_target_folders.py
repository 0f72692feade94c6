"""Model folders: what changes a fingerprint, and what is refused rather than read wrongly."""

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.targets.layers import PROBED, check_alike, fault_of
from neuronaut.tools.targets.load import load_target

_made = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))
make_model: Callable[[str, Path], Path] = _made["make_model"]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[TargetModel, Path]:
    folder = make_model("llama", tmp_path_factory.mktemp("original") / "llama")
    return load_target(folder), folder


@pytest.fixture
def copy(original: tuple[TargetModel, Path], tmp_path: Path) -> Path:
    shutil.copytree(original[1], tmp_path / "llama")
    return tmp_path / "llama"


@pytest.fixture
def target(original: tuple[TargetModel, Path]) -> TargetModel:
    return original[0]


def test_a_copy_has_the_fingerprint_of_its_original(target: TargetModel, copy: Path) -> None:
    assert load_target(copy).fingerprint() == target.fingerprint()


def test_one_bit_of_the_weights_changes_the_fingerprint(target: TargetModel, copy: Path) -> None:
    raw = bytearray((copy / "model.safetensors").read_bytes())
    raw[-9] ^= 1
    (copy / "model.safetensors").write_bytes(raw)
    found, before = load_target(copy).fingerprint(), target.fingerprint()
    assert found.weights_sha256 != before.weights_sha256
    assert found.tokenizer_sha256 == before.tokenizer_sha256


def test_another_tokenizer_changes_the_fingerprint(target: TargetModel, copy: Path) -> None:
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    tokenizer["normalizer"] = None
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    found, before = load_target(copy).fingerprint(), target.fingerprint()
    assert found.tokenizer_sha256 != before.tokenizer_sha256
    assert found.weights_sha256 == before.weights_sha256


@pytest.mark.parametrize("bos", [None, "</s>"])
def test_another_token_before_each_text_changes_the_fingerprint(
    target: TargetModel, copy: Path, bos: str | None
) -> None:
    (copy / "tokenizer_config.json").write_text(json.dumps({"bos_token": bos}))
    assert load_target(copy).fingerprint().processing != target.fingerprint().processing


def test_the_number_format_is_part_of_the_fingerprint(target: TargetModel, copy: Path) -> None:
    rounded = load_target(copy, dtype=torch.bfloat16)
    assert rounded.fingerprint().dtype == "bfloat16"
    assert rounded.fingerprint() != target.fingerprint()
    ids = torch.arange(9)[None]
    expected, found = (one.run(ids, logits=True).logits for one in (target, rounded))
    assert expected is not None
    assert found is not None
    assert 1e-4 < float((found.float() - expected).abs().max()) < 0.5


def test_a_folder_that_cannot_be_trusted_is_refused(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(UserError, match="is a pickle"):
        load_target(tmp_path / "model.pt")
    with pytest.raises(UserError, match="no model folder"):
        load_target(tmp_path / "missing")
    with pytest.raises(UserError, match="no local folder"):
        load_target("nobody/nothing")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(UserError, match="convert it to safetensors"):
        load_target(copy)


def test_weights_that_would_be_made_up_are_refused(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lack 'model\.layers\.1\.mlp\.down_proj\.weight'"):
        load_target(copy)


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("opt", r"\(8, 40\) and not \(batch, pos, 40\)"),
        ("bloom", "do not add up"),
        ("granite", "do not add up"),
        ("qwen2_moe", "shared expert, whose neurons have no address"),
        ("mixed_moe", "not every layer has plain attention and an MLP of neurons or of experts"),
    ],
)
def test_an_architecture_whose_sites_mean_something_else_is_refused(family: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason):
        load_target(make_model(family, tmp_path / family))


def _config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model_type": "lama"},
            r"architecture 'lama', which is no language model .* nearest that is checked is 'llama'",
        ),
        ({"model_type": "qwen99_moe"}, "nearest that is checked is 'qwen3_moe'"),
        ({"model_type": "xyz"}, "known here: checked are gemma2, .*gpt_oss"),
        (
            {"quantization_config": {"quant_method": "mxfp4"}},
            r"quantised \('mxfp4'\), .* give them in bfloat16 or float32",
        ),
        ({"model_type": "bert"}, r"cannot be loaded: .*'bert' is not an architecture that is checked; checked are"),
        (
            {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "modeling_mine.Mine"}},
            r"code of its own \('modeling_mine\.Mine'\), which would be run .* converted to an architecture",
        ),
    ],
)
def test_an_architecture_that_is_not_known_is_named_with_the_nearest(
    copy: Path, changes: dict[str, object], said: str
) -> None:
    _config(copy, **changes)
    with pytest.raises(UserError, match=said):
        load_target(copy)


def test_code_that_is_not_needed_is_not_run(copy: Path, target: TargetModel) -> None:
    """A llama with code of its own beside it is loaded by the code of transformers."""
    (copy / "modeling_mine.py").write_text("raise SystemExit('was run')\n")
    _config(copy, auto_map={"AutoConfig": "modeling_mine.Mine", "AutoModelForCausalLM": "modeling_mine.Mine"})
    assert load_target(copy).spec.d_model == target.spec.d_model


def _cut(raw: bytes) -> bytes:
    return raw[:-100]


def _longer(raw: bytes) -> bytes:
    return raw + b"x" * 7


def _huge_header(raw: bytes) -> bytes:
    return (2**60).to_bytes(8, "little") + raw[8:]


def _long_header(raw: bytes) -> bytes:
    return (90_000_000).to_bytes(8, "little") + raw[8:]


def _no_header(raw: bytes) -> bytes:
    return (16).to_bytes(8, "little") + b"x" * 16 + raw


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_cut, r"its header speaks of [\d,]+ bytes, and the file has [\d,]+; download"),
        (_longer, r"its header speaks of [\d,]+ bytes"),
        (_huge_header, r"would be 1,152,921,504,606,846,976 bytes long, where 100,000,000 are the most"),
        (_long_header, r"would be 90,000,000 bytes long, and the file has"),
        (_no_header, "not that of a safetensors file"),
        (lambda raw: raw[:5], "it has 5 bytes, too few for a header"),
        (lambda raw: b"", "it has 0 bytes"),
    ],
)
def test_weights_that_are_cut_or_have_an_absurd_header_are_refused(
    copy: Path, change: Callable[[bytes], bytes], said: str
) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(UserError, match=said):
        load_target(copy)


def test_a_tokenizer_with_text_beyond_the_embedding_is_refused(copy: Path) -> None:
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {f"\u2581word{number}": 340 + number for number in range(50)}
    missing = sorted(set(range(390)) - set(tokenizer["model"]["vocab"].values()))
    tokenizer["model"]["vocab"] |= {f"\u2581more{number}": number for number in missing}
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match=r"knows 390 tokens and the model 384, so that ' word44' has no embedding"):
        load_target(copy)


def test_a_tokenizer_that_knows_no_offsets_is_refused(copy: Path) -> None:
    (copy / "tokenizer.json").rename(copy / "tokenizer.model")
    with pytest.raises(UserError, match="does not say which characters a token stands for; save a fast one"):
        load_target(copy)


def test_a_model_whose_layers_are_not_alike_is_refused(target: TargetModel) -> None:
    alike = [SimpleNamespace(experts=SimpleNamespace(n_experts=4, width=width)) for width in (12, 12, 10)]
    check_alike(alike[:2], target.spec)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="layer 0 has 4 experts of 12 neurons and layer 2 has 4 experts of 10 neurons"):
        check_alike(alike, target.spec)  # type: ignore[arg-type]


@pytest.mark.parametrize("post_norm", [False, True])
def test_an_mlp_that_is_not_what_its_neurons_write_is_found(post_norm: bool) -> None:
    made = torch.Generator().manual_seed(0)
    write, neurons = torch.randn(5, 4, generator=made), torch.randn(1, 6, 5, generator=made)
    scale = torch.rand(1, 6, 1, generator=made) + 0.5 if post_norm else torch.ones(1, 6, 1)
    mlp = neurons @ write * scale + (0.0 if post_norm else torch.randn(4, generator=made))
    zero = torch.zeros_like(mlp)

    def fault(written: torch.Tensor) -> str | None:
        return fault_of(
            dict(zip(PROBED, (zero, zero, mlp, mlp), strict=True)),
            neurons @ written,
            post_norm=post_norm,
            tolerance=1e-3,
        )

    assert fault(write) is None
    assert fault(write.roll(1, dims=0)) == "the output of the MLP is not what its neurons write"
