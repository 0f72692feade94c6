"""What is written for Neuronpedia keeps to its limits, and the validator finds each way of breaking one."""

import gzip
import json
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from neuronaut.agent.exporting.forms import layer_of, set_of
from neuronaut.agent.exporting.neuronpedia import Dataset, Names, slug, write_dataset
from neuronaut.agent.exporting.validate import faults
from neuronaut.memory.export import flat_rows
from neuronaut.tools.errors import UserError

Book = runpy.run_path(str(Path(__file__).with_name("filled_notebook.py")))["Book"]
N = 1030  # more than the 1,024 of a batch file
PIECES = ["<s>", " a", "", "\x00", "x"]
VALUES = [0.0, 2.5, -1.0, 0.25, 0.0]
Row = dict[str, Any]
Lines = list[Row]


class Target:
    """As much of a model as an export asks for."""

    spec = SimpleNamespace(n_layers=8, d_mlp=4096, d_model=4)

    def fingerprint(self) -> Any:
        return SimpleNamespace(weights_sha256="w" * 64)

    def write_vector(self, unit: Any) -> torch.Tensor:
        return torch.tensor([0.5, -0.25, 0.0, float(unit.index)])


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    found = Book(tmp_path_factory.mktemp("np") / "notebook.db")
    run = found.run()
    long = "=fires on <b>\u202e" + "x" * 600
    with found.notebook.together():
        found.claim(run, "6.457", long)
        found.looked(run, "6.457", PIECES, VALUES)
        found.claim(run, "6.7", "of a unit without examples")
        found.claim(run, "6.457-", "of the low side")
        found.claim(run, "L1H3", "of a head", side="attends")
        found.claim(run, "6.8", "only partly", status="PARTIAL")
    again = found.run(seed=1)
    found.claim(again, "6.457", "another sentence")
    yield found
    found.notebook.close()


@pytest.fixture(scope="module")
def written(book: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    out = tmp_path_factory.mktemp("out") / "np"
    dataset = Dataset(out, book.notebook, Target(), Names("m"), vectors=True)  # type: ignore[arg-type]
    return out, write_dataset(out, flat_rows(book.notebook, "labels"), dataset)


def lines_of(file: Path) -> Lines:
    return [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]


def put(file: Path, lines: Lines) -> None:
    file.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))


def test_the_dataset_holds_the_supported_claims_and_passes_the_check(written: tuple[Path, Dataset], book: Any) -> None:
    out, dataset = written
    assert faults(out) == []
    source = out / "v1" / "m" / "6"
    said = lines_of(source / "explanations" / "batch-0.jsonl.gz")
    truth = {row["claim"] for row in flat_rows(book.notebook, "labels") if row["address"] in ("6.457", "6.7")}
    assert {row["description"] for row in said} == truth  # whole, whatever their length
    assert [row["index"] for row in lines_of(source / "features" / "batch-0.jsonl.gz")] == ["457", "7"]
    (shown,) = lines_of(source / "activations" / "batch-0.jsonl.gz")
    assert shown["tokens"] == ["<s>", " a", "\ufffd", "\ufffd", "x"]
    assert (shown["values"], shown["maxValue"], shown["minValue"], shown["maxValueTokenIndex"]) == (
        VALUES,
        2.5,
        -1.0,
        1,
    )
    assert sorted(dataset.left_out.values()) == [1, 1, 1, 1, 1]  # low side, head, PARTIAL, no examples, no dose
    assert dataset.n_shortened == 1


def test_the_upload_holds_features_with_examples_and_texts_that_fit(written: tuple[Path, Dataset]) -> None:
    out, _ = written
    body = json.loads((out / "upload" / "features" / "m" / "6" / "batch-0.json").read_text())
    assert [feature["index"] for feature in body["features"]] == [457]
    texts = [one["text"] for one in body["features"][0]["explanations"]]
    assert [len(text) for text in texts] == [512, len("another sentence")]
    assert texts[0].endswith("…")
    assert "density" not in body["features"][0]
    assert not (out / "upload" / "vectors").exists()  # no firing rule is known, and so no dose


def test_a_write_vector_is_read_before_the_next_layer(tmp_path: Path) -> None:
    book = Book(tmp_path / "n.db")
    run = book.run()
    for address in ("2.9", "7.9"):
        book.claim(run, address, "fires")
        book.looked(run, address, PIECES, VALUES)
        begun = book.begin(run, "firing", {"unit": address})
        rule = {"threshold": 1.0, "median": 0.5, "top": 400.0, "spread": 0.1, "dense": False}
        book.notebook.end_experiment(begun.id, {"payload": {"unit": address, "rule": rule}, "measurements": []})
    dataset = Dataset(tmp_path, book.notebook, Target(), Names("m", "my-set"), vectors=True)  # type: ignore[arg-type]
    write_dataset(tmp_path / "out", flat_rows(book.notebook, "labels"), dataset)
    (file,) = (tmp_path / "out" / "upload" / "vectors").rglob("*.json")
    body = json.loads(file.read_text())
    assert (body["layerNumber"], body["hookType"], body["vector"]) == (3, "hook_resid_pre", [0.5, -0.25, 0.0, 9.0])
    assert body["vectorDefaultSteerStrength"] == 300  # the largest that is taken; its own dose is 399.5
    assert (tmp_path / "out" / "v1" / "m" / "2-my-set").is_dir()
    assert faults(tmp_path / "out") == []
    book.notebook.close()


def test_batches_hold_as_many_as_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {"top_examples": {"examples": [{"pieces": ["a"], "activations": [1.0], "document": 0}]}}
    monkeypatch.setattr("neuronaut.agent.exporting.neuronpedia.looked", lambda *_: seen)
    base = dict.fromkeys(("dictionary", "verdict", "f1_low", "f1_high", "null_kind"))
    base |= {"kind": "neuron", "layer": 3, "sign": 1, "side": "reads", "status": "SUPPORTED", "model": "m", "f1": 0.9, "run": "r",
             "model_sha256": "w" * 64, "corpus": "c", "corpus_sha256": "c", "ledger_head": "h", "code_version": "1"}  # fmt: skip
    rows = [base | {"index": i, "address": f"3.{i}", "claim": f"claim {i}", "hypothesis": f"h{i}"} for i in range(N)]
    out = tmp_path / "out"
    write_dataset(out, rows, Dataset(out, None, Target(), Names("m")))  # type: ignore[arg-type]
    assert faults(out) == []
    source = out / "v1" / "m" / "3"
    assert [len(lines_of(source / kind / f"batch-{n}.jsonl.gz")) for kind in ("features", "explanations") for n in (0, 1)] == [
        1024, 6, 1024, 6,
    ]  # fmt: skip
    bodies = [json.loads(file.read_text()) for file in (out / "upload" / "features" / "m" / "3").iterdir()]
    assert sorted(len(body["features"]) for body in bodies) == [6, *[128] * 8]
    assert len({feature["index"] for body in bodies for feature in body["features"]}) == N


# One planted fault for each rule


def change(name: str, value: Any) -> Callable[[Row], None]:
    return lambda row: row.__setitem__(name, value)


def within(*path: Any, value: Any) -> Callable[[Row], None]:
    def edit(row: Any) -> None:
        for step in path[:-1]:
            row = row[step]
        row[path[-1]] = value

    return edit


ROWS: tuple[tuple[str, Callable[[Row], Any], str], ...] = (
    ("features", change("modelId", "M"), "is no model id"),
    ("features", change("modelId", "other"), "in the folder of 'm'"),
    ("features", change("layer", "7"), "in the folder of '6'"),
    ("features", change("index", 457), "valid string"),
    ("features", change("index", "-1"), "is no index"),
    ("features", change("frac_nonzero", 1.5), "less than or equal to 1"),
    ("features", change("maxActApprox", "2.5"), "valid number"),
    ("features", change("surprise", 1), "Extra inputs"),
    ("features", lambda row: row.pop("frac_nonzero"), "Field required"),
    ("explanations", change("description", ""), "is empty"),
    ("explanations", change("description", "a\x00b"), "NUL"),
    ("explanations", change("description", None), "valid string"),
    ("explanations", change("authorId", None), "valid string"),
    ("explanations", change("index", "99"), "of which features/ has no line"),
    ("explanations", change("embedding", [0.5] * 255), "instead of 256"),
    ("activations", change("values", [0.0]), "5 tokens have 1 values"),
    ("activations", change("maxValue", 9.0), "are not those of the values"),
    ("activations", change("maxValueTokenIndex", 0), "is not the place of the largest"),
    ("activations", change("tokens", ["a", 1, "b", "c", "d"]), "valid string"),
    ("activations", change("creatorId", None), "valid string"),
)
UPLOADS: tuple[tuple[Callable[[Row], Any], str], ...] = (
    (change("modelId", "Up"), "is no model id"),
    (change("source", "Res"), "is no source id"),
    (change("features", []), "at least 1 item"),
    (
        lambda body: body["features"].extend({**body["features"][0], "index": i} for i in range(128)),
        "at most 128 items",
    ),
    (lambda body: body["features"].append(body["features"][0]), "occurs twice"),
    (within("features", 0, "index", value=10_000_001), "less than or equal to 10000000"),
    (within("features", 0, "index", value="457"), "valid integer"),
    (within("features", 0, "density", value=None), "valid number"),
    (within("features", 0, "density", value=1.01), "less than or equal to 1"),
    (within("features", 0, "activations", value=[]), "at least 1 item"),
    (within("features", 0, "explanations", 0, "text", value="x" * 513), "has 513 characters"),
    (within("features", 0, "explanations", 0, "text", value="🦊" * 257), "has 514 characters"),  # as JavaScript counts
    (within("features", 0, "explanations", 0, "text", value=""), "is empty"),
    (within("features", 0, "activations", 0, "tokens", 0, value=""), "is empty"),
    (within("features", 0, "activations", 0, "values", value=[1.0]), "5 tokens have 1 values"),
    (
        within("features", 0, "activations", 0, value={"tokens": ["a"] * 1025, "values": [0.0] * 1025}),
        "at most 1024 items",
    ),
    (within("features", 0, "activations", 0, "quantileFraction", value=1.5), "less than or equal to 1"),
    (within("features", 0, "activations", 0, "quantileMax", value=1e9), "less than or equal to 99999999"),
)
VECTOR = {"modelId": "m", "layerNumber": 3, "hookType": "hook_resid_pre", "vector": [0.5], "vectorDefaultSteerStrength": 10.0,
          "vectorLabel": "x"}  # fmt: skip
VECTORS: tuple[tuple[Row, str], ...] = (
    ({"hookType": "hook_mlp_out"}, "hook_resid_pre"),
    ({"vector": [0.0] * 24_577}, "at most 24576 items"),
    ({"vector": []}, "at least 1 item"),
    ({"vectorDefaultSteerStrength": 301.0}, "less than or equal to 300"),
    ({"vectorLabel": ""}, "is empty"),
    ({"layerNumber": -1}, "greater than or equal to 0"),
)


@pytest.fixture
def copy(written: tuple[Path, Dataset], tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(written[0], tmp_path / "copy"))


@pytest.mark.parametrize(("kind", "edit", "told"), ROWS)
def test_a_row_that_breaks_a_rule_is_named(copy: Path, kind: str, edit: Callable[[Row], Any], told: str) -> None:
    file = copy / "v1" / "m" / "6" / kind / "batch-0.jsonl.gz"
    lines = lines_of(file)
    edit(lines[0])
    put(file, lines)
    found = faults(copy)
    assert any(told in fault and f"{kind}/batch-0.jsonl.gz:1" in fault for fault in found), found


@pytest.mark.parametrize(("edit", "told"), UPLOADS)
def test_an_upload_that_breaks_a_rule_is_named(copy: Path, edit: Callable[[Row], Any], told: str) -> None:
    file = copy / "upload" / "features" / "m" / "6" / "batch-0.json"
    body = json.loads(file.read_text())
    edit(body)
    file.write_text(json.dumps(body))
    assert [fault for fault in faults(copy) if told in fault], faults(copy)


@pytest.mark.parametrize(("change", "told"), VECTORS)
def test_a_vector_that_breaks_a_rule_is_named(copy: Path, change: Row, told: str) -> None:
    file = copy / "upload" / "vectors" / "m" / "6" / "1.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(VECTOR))
    assert faults(copy) == []
    file.write_text(json.dumps(VECTOR | change))
    assert [fault for fault in faults(copy) if told in fault], faults(copy)


def test_files_that_break_the_layout_are_named(copy: Path) -> None:
    source = copy / "v1" / "m" / "6"
    explanations = source / "explanations" / "batch-0.jsonl.gz"
    lines = lines_of(explanations)
    for break_it, told in (
        (lambda: put(explanations, [lines[0], lines[0]]), "occurs twice"),
        (lambda: put(explanations, [lines[0], {k: v for k, v in lines[1].items() if k != "notes"}]), "other columns"),
        (lambda: put(explanations, [{**lines[0], "id": str(i)} for i in range(1025)]), "at most 1024"),
        (lambda: explanations.write_bytes(gzip.compress(b"{not json}\n")), "is no JSON"),
        (lambda: explanations.write_bytes(gzip.compress(b'{"id": NaN}\n')), "NaN"),
        (lambda: explanations.write_bytes(b"plain"), "no whole gzip"),
        (lambda: explanations.write_bytes(gzip.compress(b"x" * 1000)[:20]), "no whole gzip"),
        (lambda: explanations.write_bytes(gzip.compress(b"")), "is empty"),
        (lambda: (source / "explanations" / "part.jsonl").write_text("{}"), "is no batch-N.jsonl.gz"),
        (lambda: (source / "model.jsonl").unlink(), "has no model.jsonl"),
        (lambda: (source / "source.jsonl").write_text('{"id": "6", "modelId": "m", "setName": "x", "creatorId": "c"}\n'), "'neurons'"),
        (lambda: (copy / "upload" / "notes.txt").write_text("x"), "is no upload"),
    ):  # fmt: skip
        break_it()
        assert [fault for fault in faults(copy) if told in fault], (told, faults(copy))
    assert faults(copy / "upload")[0].endswith("holds neither v1/MODEL/SOURCE nor upload/")


def test_source_ids_are_read_as_the_site_reads_them() -> None:
    ids = ("6", "6-res-jb", "12-gemmascope-res-16k__l0-71")
    assert [(layer_of(one), set_of(one)) for one in ids] == [(6, "neurons"), (6, "res-jb"), (12, "gemmascope-res-16k")]
    assert slug("Meta/Llama 3.1 – 8B") == "meta-llama-3-1-8b"


def test_a_folder_that_holds_something_is_kept(written: tuple[Path, Dataset], book: Any) -> None:
    with pytest.raises(UserError, match="is there already"):
        write_dataset(written[0], [], Dataset(written[0], book.notebook, Target(), Names("m")))  # type: ignore[arg-type]
