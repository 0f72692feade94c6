"""Trained dictionaries find planted directions, say how good they are, and are the same however often they were stopped."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from neuronaut.tools.corpus import Corpus, Document, Split, pocket_corpus
from neuronaut.tools.errors import UserError
from neuronaut.tools.features.dictionary import Dictionary, Layout
from neuronaut.tools.features.places import Place
from neuronaut.tools.features.saelens import read_dictionary
from neuronaut.tools.features.training.learner import Learner, geometric_median, jump, step
from neuronaut.tools.features.training.make import REPORT, UNFINISHED, measured_text
from neuronaut.tools.features.training.measure import measure
from neuronaut.tools.features.training.settings import Activation, Settings
from neuronaut.tools.features.training.stream import ExploreStream, Part, Spot, site_activations
from neuronaut.tools.features.training.train import Checkpoint, dictionary_of, train
from neuronaut.tools.targets.base import Site, TargetModel
from neuronaut.tools.targets.load import POCKET, load_target
from neuronaut.tools.tokens import Tokens

SHIPPED = POCKET / "dictionaries" / "resid6"
SITE = Site("resid_post", 6)
D, PLANTED, WIDTH, K = 32, 48, 96, 3
SHARE = 0.05  # of the places at which a planted direction is there: 2.4 at a place


@dataclass
class Given:
    """Activations that are there already, cut into two parts."""

    values: Tensor

    def part(self, spot: Spot) -> Part:
        half = len(self.values) // 2
        generator = torch.Generator().manual_seed(2 * spot.epoch + spot.document)
        following = Spot(spot.epoch, 1) if spot.document == 0 else Spot(spot.epoch + 1, 0)
        return Part(self.values, torch.randperm(half, generator=generator) + half * spot.document, following)


@pytest.fixture(scope="module")
def directions() -> Tensor:
    """Drawn from another seed than those from which trainings begin."""
    found = torch.randn(PLANTED, D, generator=torch.Generator().manual_seed(101))
    return found / found.norm(dim=1, keepdim=True)


@pytest.fixture(scope="module")
def planted(directions: Tensor) -> Tensor:
    """(12000, D) sums of a few of more directions than there are dimensions, at strengths from 1 to 2, around a point."""
    generator = torch.Generator().manual_seed(102)
    there = torch.rand(12_000, PLANTED, generator=generator) < SHARE
    return 7 * ((there * (1 + torch.rand(12_000, PLANTED, generator=generator))) @ directions) + 3.0


@pytest.fixture(scope="module")
def target() -> TargetModel:
    return load_target("pocket")


@pytest.fixture(scope="module")
def text(target: TargetModel) -> Tokens:
    return measured_text(target, pocket_corpus(), 600)


def settings(activation: Activation, **other: Any) -> Settings:
    return replace(Settings(SITE, WIDTH, K, 150_000, activation, batch=256, rate=0.01), **other)


def nearest(found: Tensor, wanted: Tensor) -> Tensor:
    """Of each wanted direction the cosine of the nearest found one."""
    return (wanted @ (found / found.norm(dim=1, keepdim=True)).T).max(dim=1).values


@pytest.mark.parametrize(("activation", "k"), [("topk", 4), ("jumprelu", 3)])
def test_planted_directions_are_found(planted: Tensor, directions: Tensor, activation: Activation, k: int) -> None:
    learner = train(Given(planted), settings(activation, k=k))
    found = nearest(learner.weights["W_dec"].detach(), directions)
    assert float((found >= 0.95).float().mean()) >= 0.95
    random = nearest(torch.randn(WIDTH, D, generator=torch.Generator().manual_seed(103)), directions)
    assert float((random >= 0.95).float().mean()) == 0
    dictionary = dictionary_of(learner, "planted", model_name="m", weights_sha256="")
    features = dictionary.encode(planted)
    left = (dictionary.decode(features) - planted).square().sum() / (planted - planted.mean(dim=0)).square().sum()
    assert float(left) < 0.1
    l0 = float((features > 0).sum(dim=1).float().mean())
    assert 2.4 < l0 <= 4 if activation == "topk" else l0 == pytest.approx(k, rel=0.1)
    assert torch.allclose(learner.weights["W_dec"].norm(dim=1), torch.ones(WIDTH), atol=1e-5)


def test_the_gradients_of_jumprelu_are_those_of_the_paper() -> None:
    """Rajamanoharan et al. 2024, equations 11 and 12, written out for each place."""
    z = np.array([[0.9, 2.0, -1.0], [1.1, 0.6, 0.45]])
    theta, width, upstream = np.array([1.0, 0.5, 0.4]), 0.4, np.array([[1.0, 2.0, 3.0], [5.0, 7.0, 11.0]])
    kernel = [[float(abs(z[i, j] - theta[j]) < width / 2) for j in range(3)] for i in range(2)]
    jumps = [-sum(theta[j] / width * kernel[i][j] * upstream[i, j] for i in range(2)) for j in range(3)]
    steps = [-sum(1 / width * kernel[i][j] * upstream[i, j] for i in range(2)) for j in range(3)]
    assert jumps == pytest.approx([-15.0, -8.75, -11.0])  # by hand: -(1/.4)(1 + 5), -(.5/.4) 7, -(.4/.4) 11
    for function, expected, through in ((jump, jumps, upstream * (z > theta)), (step, steps, None)):
        at, limits = torch.tensor(z, requires_grad=True), torch.tensor(theta, requires_grad=True)
        out = function(at, limits, width)
        torch.autograd.backward((out * torch.tensor(upstream)).sum())
        assert out.detach().numpy() == pytest.approx((z if function is jump else 1.0) * (z > theta))
        assert limits.grad is not None
        assert limits.grad.numpy() == pytest.approx(expected)
        assert (at.grad is None) == (through is None)
        if through is not None and at.grad is not None:
            assert at.grad.numpy() == pytest.approx(through)


def test_topk_has_k_active_features_and_fewer_only_where_fewer_are_above_zero(planted: Tensor) -> None:
    learner = Learner.start(planted[:1000], settings("topk", k=5))
    passed = learner.run(planted[:200] * learner.scale)
    dictionary = dictionary_of(learner, "d", model_name="m", weights_sha256="")
    active = (dictionary.encode(planted[:200]) > 0).sum(dim=1)
    assert torch.equal(active, (passed.drive > 0).sum(dim=1).clamp(max=5))
    assert float((active == 5).float().mean()) > 0.9


@pytest.mark.parametrize("activation", ["topk", "jumprelu"])
def test_dead_features_are_trained_on_what_the_others_leave(planted: Tensor, activation: Activation) -> None:
    learner = Learner.start(planted[:1000], settings(activation))
    x = planted[:64] * learner.scale
    dead = torch.arange(4)
    learner.weights["b_enc"].data[dead] = -50.0

    def gradient() -> Tensor:
        loss, _ = learner.loss(x, ramp=0.0)
        return torch.autograd.grad(loss, learner.weights["W_dec"])[0][dead]

    assert not gradient().any()
    learner.weights["b_enc"].data[dead] = 0.0
    with torch.no_grad():  # dead by the count alone: only the auxiliary loss tells these from the others
        learner.weights["W_enc"].data[:, dead] *= 1e-3
    before = gradient()
    learner.quiet[dead] = learner.settings.quiet_tokens
    assert not torch.equal(gradient(), before)


def test_the_geometric_median_has_the_least_summed_distance() -> None:
    points = torch.randn(300, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([5.0, 0.0, 0.0])
    points[:30] += 1000.0  # a tenth far away moves the mean, and the median hardly
    found = geometric_median(points)
    away = [
        float((points - found - shift).norm(dim=1).sum()) for shift in torch.cat([torch.eye(3), -torch.eye(3)]) / 50
    ]
    assert float((points - found).norm(dim=1).sum()) < min(away)
    assert float((found - torch.tensor([5.0, 0.0, 0.0])).norm()) < 1


class Killed(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("activation", ["topk", "jumprelu"])
def test_a_training_that_was_killed_ends_with_the_same_weights(
    planted: Tensor, tmp_path: Path, activation: Activation
) -> None:
    wanted = settings(activation, n_tokens=80 * 256)
    whole = train(Given(planted), wanted)
    kept = Checkpoint(tmp_path / "state.safetensors", "this", every=0)
    for stop in (7, 30, 61):

        def kill(done: int, total: int, stop: int = stop) -> None:
            if done == stop * 256:
                raise Killed

        with pytest.raises(Killed):
            train(Given(planted), wanted, checkpoint=kept, progress=kill)
    resumed = train(Given(planted), wanted, checkpoint=kept)
    assert resumed.weights.keys() == whole.weights.keys()
    assert all(torch.equal(resumed.weights[name], whole.weights[name]) for name in whole.weights)
    assert torch.equal(resumed.quiet, whole.quiet)
    other = train(Given(planted), replace(wanted, seed=1))
    assert not torch.equal(other.weights["W_dec"], whole.weights["W_dec"])


def test_a_kept_state_of_another_training_is_refused(planted: Tensor, tmp_path: Path) -> None:
    wanted = settings("topk", n_tokens=2560)
    file = tmp_path / "state.safetensors"
    train(Given(planted), wanted, checkpoint=Checkpoint(file, "one"))
    with pytest.raises(UserError, match="unfinished training of other settings"):
        train(Given(planted), wanted, checkpoint=Checkpoint(file, "another"))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged"):
        train(Given(planted), wanted, checkpoint=Checkpoint(file, "one"))


@pytest.mark.parametrize("activation", ["topk", "jumprelu"])
def test_the_scale_of_inputs_is_folded_into_the_weights(planted: Tensor, activation: Activation) -> None:
    learner = train(Given(planted), settings(activation, n_tokens=5120))
    w = {name: tensor.detach() for name, tensor in learner.weights.items()}
    threshold = {"threshold": w.pop("log_threshold").exp()} if activation == "jumprelu" else {}
    folded = dictionary_of(learner, "d", model_name="m", weights_sha256="")
    unfolded = replace(folded, weights=w | threshold)
    x = planted[:300]
    close = {"rtol": 1e-4, "atol": 1e-4}
    assert torch.allclose(folded.encode(x), unfolded.encode(x * learner.scale) / learner.scale, **close)
    learner.scale = 0.25  # a power of two divides without rounding: then nothing may differ at all
    folded = dictionary_of(learner, "d", model_name="m", weights_sha256="")
    features = unfolded.encode(x * 0.25)
    assert torch.equal(folded.encode(x), features / 0.25)
    assert torch.equal(folded.decode(folded.encode(x)), unfolded.decode(features) / 0.25)
    passed = learner.run(x * 0.25)
    assert torch.allclose(folded.decode(folded.encode(x)), passed.out.detach() / 0.25, rtol=1e-3, atol=1e-3)


def plain(W_enc: Tensor, W_dec: Tensor, b_dec: Tensor) -> Dictionary:
    """A ReLU dictionary of resid_post 6."""
    place, d = Place(SITE.name, SITE.layer), len(b_dec)  # type: ignore[arg-type]
    weights = {"W_enc": W_enc, "W_dec": W_dec, "b_enc": torch.zeros(len(W_dec)), "b_dec": b_dec}
    return Dictionary("plain", "", Layout("standard", place, place, d, d, len(W_dec)), weights)


def test_the_metrics_are_one_for_the_identity_and_zero_for_what_says_nothing(target: TargetModel, text: Tokens) -> None:
    eye, zero = torch.eye(128), torch.zeros(128)
    identity = measure(target, plain(torch.cat([eye, -eye], dim=1), torch.cat([eye, -eye]), zero), text)
    for name in ("variance_explained", "cosine", "recovered_of_zero", "recovered_of_mean"):
        assert identity.metrics[name] == pytest.approx((1.0, 1.0, 1.0), abs=1e-4)
    assert identity.metrics["normalised_mse"] == pytest.approx((0.0, 0.0, 0.0), abs=1e-6)
    assert identity.metrics["loss"] == pytest.approx(identity.metrics["loss_reconstructed"], abs=1e-4)
    assert identity.metrics["l0"] == pytest.approx((128.0, 128.0, 128.0), abs=0.5)
    silent = measure(target, plain(torch.zeros(128, 4), torch.zeros(4, 128), zero), text)
    assert silent.metrics["normalised_mse"] == pytest.approx((1.0, 1.0, 1.0), abs=1e-6)
    assert silent.metrics["recovered_of_zero"] == pytest.approx((0.0, 0.0, 0.0), abs=1e-4)
    assert (silent.metrics["l0"], silent.dead) == ((0.0, 0.0, 0.0), 1.0)
    mean = site_activations(target, SITE, text).double().mean(dim=0).float()
    average = measure(target, plain(torch.zeros(128, 4), torch.zeros(4, 128), mean), text)
    assert average.metrics["variance_explained"] == pytest.approx((0.0, 0.0, 0.0), abs=1e-5)
    assert average.metrics["recovered_of_mean"] == pytest.approx((0.0, 0.0, 0.0), abs=1e-4)


def test_the_metrics_are_those_of_a_plain_computation(target: TargetModel, text: Tokens) -> None:
    """Window by window, without batches or padding."""
    dictionary = read_dictionary(SHIPPED)
    from neuronaut.tools.targets.base import Edit

    found, xs, outs, fired, clean, replaced = measure(target, dictionary, text), [], [], [], [], []
    for window, length in enumerate(text.lengths.tolist()):
        ids = torch.from_numpy(text.ids[window : window + 1, :length]).long()
        run = target.run(ids, read=[SITE], logits=True)
        features = dictionary.encode(run.read[SITE])
        out = dictionary.decode(features)
        out[:, 0] = run.read[SITE][:, 0]  # the start token stays as it is
        again = target.run(ids, edits=[Edit(SITE, "set", out)], logits=True)
        for logits, losses in ((run.logits, clean), (again.logits, replaced)):
            assert logits is not None
            told = logits[0, 1:-1].log_softmax(dim=-1).gather(1, ids[0, 2:, None])
            losses.append(-told.double())
        xs.append(run.read[SITE][0, 1:])
        outs.append(out[0, 1:])
        fired.append(features[0, 1:] > 0)
    x, y = torch.cat(xs), torch.cat(outs)
    expected = {
        "variance_explained": 1 - (x - y).square().sum() / (x - x.mean(dim=0)).square().sum(),
        "normalised_mse": (x - y).square().sum() / x.square().sum(),
        "cosine": torch.cosine_similarity(x, y).mean(),
        "l0": torch.cat(fired).sum(dim=1).float().mean(),
        "loss": torch.cat(clean).mean(),
        "loss_reconstructed": torch.cat(replaced).mean(),
    }
    for name, value in expected.items():
        measured = found.metrics[name]
        assert measured is not None
        assert measured[0] == pytest.approx(float(value), abs=2e-4), name
        assert measured[1] <= measured[0] <= measured[2]
    density = torch.cat(fired).float().mean(dim=0)
    assert found.dead == pytest.approx(float((density == 0).float().mean()))
    assert sum(n for _, _, n in found.density) == int((density > 0).sum())
    assert found.density[-1][2] == int((density >= 0.1).sum())


class ExploreOnly(Corpus):
    """A corpus whose other splits may not be opened."""

    def of(self, split: Split, block: int | None = None) -> tuple[Document, ...]:
        assert split == "explore"
        return super().of(split, block)


def test_training_reads_explore_text_alone_and_each_document_once_a_time(target: TargetModel) -> None:
    whole = pocket_corpus()
    documents = tuple(one for one in whole.documents if one.split != "explore") + whole.of("explore")[:300]
    corpus = ExploreOnly("part", "", documents)
    wanted = Settings(Site("resid_pre", 1), 16, 2, 160, buffer_bytes=4 * 128 * 4000, batch=16)
    stream, spot, read = ExploreStream(target, corpus, wanted), Spot(0, 0), []
    while spot.epoch == 0:
        part = stream.part(spot)
        assert len(part.values) * 4 * 128 < 2.5 * wanted.buffer_bytes
        assert torch.equal(stream.part(spot).values[stream.part(spot).order], part.values[part.order])
        read.append(part.values)
        spot = part.following
    assert len(read) > 1
    everything = site_activations(target, wanted.site, target.tokenize([one.text for one in corpus.of("explore")]))
    found, expected = (np.sort(v.double().sum(dim=1).numpy()) for v in (torch.cat(read), everything))
    assert found == pytest.approx(expected, abs=1e-3)


def run(neuronaut: Callable[..., Any], tiny: tuple[str, ...], out: Path, **other: object) -> Any:
    options = {"site": "heads", "layer": 1, "width": 16, "k": 2, "tokens": 3000, "out": out} | other
    return neuronaut("train-sae", *tiny, *(part for name, value in options.items() for part in (f"--{name}", value)))


def test_the_command_writes_a_dictionary_and_its_report(
    neuronaut: Callable[..., Any], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    said = run(neuronaut, tiny, tmp_path / "one", twins="both")
    assert said.code == 0, said.err
    assert "random-init" in said.out
    assert "row-shuffled" in said.out
    report = json.loads((tmp_path / "one" / REPORT).read_text())
    assert report["quality"]["model"]["metrics"]["variance_explained"]["value"] > 0.05
    dictionary = read_dictionary(tmp_path / "one")
    assert (dictionary.layout.reads, dictionary.width, dictionary.layout.k) == (Place("heads", 1), 16, 2)
    assert dictionary.layout.weights_sha256 == report["weights_sha256"]
    assert not (tmp_path / f"one{UNFINISHED}").exists()
    again = neuronaut("train-sae", *tiny, "--json", "--site", "heads", "--layer", 1, "--width", 16, "--k", 2, "--tokens", 3000,
                      "--out", tmp_path / "two", "--twins", "both")  # fmt: skip
    assert json.loads(again.out)["quality"] == report["quality"]
    files = [
        [(tmp_path / folder / name).read_bytes() for name in ("cfg.json", "sae_weights.safetensors", REPORT)]
        for folder in ("one", "two")
    ]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"site": "pattern"}, "no site 'pattern'"),
        ({"layer": 3}, "layer 3 does not exist"),
        ({"width": 1}, "cannot have 1 features"),
        ({"k": 17}, "17 of 16 features cannot be active"),
        ({"tokens": 100}, "100 tokens are too few for 16 features"),
        ({"tokens": "nan"}, "Invalid value for '--tokens'"),
        ({"activation": "gelu"}, "no activation 'gelu'"),
        ({"width": 1000, "k": 2, "tokens": 1e5}, "too short for a dictionary of 1000 features"),
        ({"twins": "triplets"}, "'triplets' is not one of"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_sentence(
    neuronaut: Callable[..., Any], tiny: tuple[str, ...], tmp_path: Path, other: dict[str, object], sentence: str
) -> None:
    said = run(neuronaut, tiny, tmp_path / "out", **other)
    assert said.code == 2
    assert sentence in said.err
    assert "Traceback" not in said.err
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over_a_folder_that_is_there(
    neuronaut: Callable[..., Any], tiny: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    said = run(neuronaut, tiny, tmp_path / "out")
    assert said.code == 2
    assert "is there already" in said.err


def test_a_place_that_cannot_be_written_is_refused_before_the_training(neuronaut: Callable[..., Any]) -> None:
    said = run(neuronaut, ("--model", "no model is looked for"), Path("/proc/nowhere/out"))
    assert said.code == 2
    assert "'/proc' no folder can be made" in said.err


def test_the_shipped_dictionary_is_as_good_as_its_report_says(target: TargetModel) -> None:
    report = json.loads((SHIPPED / REPORT).read_text())
    dictionary = target.dictionaries["resid6"]
    assert dictionary.layout.weights_sha256 == report["weights_sha256"] == target.fingerprint().weights_sha256
    assert report["corpus_sha256"] == pocket_corpus().sha256
    assert (SHIPPED / "sae_weights.safetensors").stat().st_size < 1_500_000
    told = report["quality"]["model"]
    found = measure(target, dictionary, measured_text(target, pocket_corpus(), 4000))
    for name, room in (("variance_explained", 0.02), ("cosine", 0.01), ("l0", 0.1), ("recovered_of_zero", 0.02)):
        measured = found.metrics[name]
        assert measured is not None
        assert measured[0] == pytest.approx(told["metrics"][name]["value"], abs=room)
    assert told["metrics"]["recovered_of_zero"]["value"] > 0.9
    assert told["dead"] < 0.1
