"""Supported claims in Neuronpedia's two forms: its public dataset of gzipped JSONL, and the bodies of its uploads."""

import gzip
import hashlib
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from neuronaut.agent.exporting.forms import (
    LONGEST_TEXT,
    MOST_FEATURES,
    MOST_LINES,
    MOST_STRENGTH,
    MOST_TOKENS,
    ActivationRow,
    ExplanationRow,
    FeatureRow,
    FeatureUpload,
    ModelRow,
    ReleaseRow,
    SourceRow,
    SourceSetRow,
    VectorUpload,
    length,
    row_of,
    set_of,
)
from neuronaut.memory.export import looked
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.secrets import find_secrets
from neuronaut.memory.tables import storable
from neuronaut.tools.errors import UserError
from neuronaut.tools.targets.base import TargetModel
from neuronaut.tools.units import Unit

CREATOR = "clkht01d40000jv08hvalcvly"  # the user who owns imported data in Neuronpedia's own conversion scripts
RELEASE = "neuronaut"
UNKNOWN = -1.0  # the density of a feature of which none was given, as Neuronpedia stores it
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Names:
    """How things are called there. source_set: None puts neurons into the source of their layer number, and features into a
    set of their dictionary's name. method, explainer: registered names, or None."""

    model: str
    source_set: str | None = None
    creator: str = CREATOR
    method: str | None = None
    explainer: str | None = None

    def source_of(self, row: Row) -> str:
        """The source id of the unit of a row: `6`, or `6-res-jb`."""
        if self.source_set is None and row["kind"] == "neuron":
            return str(row["layer"])
        return f"{row['layer']}-{slug(self.source_set or row['dictionary'])}"


def slug(text: str) -> str:
    """The text as an id: lower case, of a-z, 0-9, - and _."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-")[:128] or "unnamed"


@dataclass
class _Source:
    """What waits to be written of one source, and what was written."""

    folder: Path
    uploads: Path
    waiting: dict[str, dict[str, Any]] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    batches: Counter[str] = field(default_factory=Counter)


@dataclass
class Dataset:
    """A folder that is being filled. left_out: why rows are not in it, counted. vectors: whether write vectors are uploaded."""

    place: Path
    notebook: Notebook
    target: TargetModel
    names: Names
    vectors: bool = False
    n_explanations: int = 0
    n_shortened: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    _sources: dict[str, _Source] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """One label of `flat_rows`; what has no place there is counted under `left_out`."""
        if reason := self._unfit(row):
            self.left_out[reason] += 1
            return
        source_id = self.names.source_of(row)
        source = self._sources.get(source_id) or self._begun(source_id, row)
        index, text = str(row["index"]), storable(row["claim"]).replace("\x00", "\ufffd")
        entry = source.waiting.setdefault(index, {"row": row, "explanations": {}, "looked": None})
        if text in entry["explanations"]:
            return
        entry["explanations"][text] = row
        entry["looked"] = entry["looked"] or looked(self.notebook, row["run"], row["address"])
        self.n_explanations += 1
        if sum(len(one["explanations"]) for one in source.waiting.values()) == MOST_LINES:
            self._written(source_id)

    def close(self) -> None:
        """Write what waits."""
        for source_id in self._sources:
            self._written(source_id)

    def _unfit(self, row: Row) -> str:
        if row["null_kind"] is not None:
            return "null units"
        if row["kind"] not in ("neuron", "feature"):
            return f"of a {row['kind'] or 'unit'}, for which there is no place"
        if Unit.parse(row["address"]).expert is not None:
            return "of an expert's neuron, for which there is no place"
        if row["status"] != "SUPPORTED" or row["side"] != "reads":
            return "not a SUPPORTED claim of when a unit fires"
        if row["sign"] < 0:
            return "of the low side of a unit, for which there is no place"
        return (
            "" if row["model_sha256"] == self.target.fingerprint().weights_sha256 else "of another model than --model"
        )

    def _begun(self, source_id: str, row: Row) -> _Source:
        model, creator = self.names.model, {"creatorId": self.names.creator}
        source = _Source(self.place / "v1" / model / source_id, self.place / "upload" / "features" / model / source_id)
        source.folder.mkdir(parents=True)
        spec, by = self.target.spec, {**creator, "creatorName": RELEASE, "visibility": "PRIVATE"}
        said = f"Claims about {row['model']} that survived a registered test, by neuronaut"
        lines = {
            "model.jsonl": row_of(ModelRow, id=model, layers=spec.n_layers, neuronsPerLayer=spec.d_mlp, dimension=spec.d_model,
                                  owner=RELEASE, displayName=model, displayNameShort=model, visibility="PRIVATE", **creator),
            "release.jsonl": row_of(ReleaseRow, name=RELEASE, description=said, urls=[], **by),
            "sourceset.jsonl": row_of(SourceSetRow, modelId=model, name=set_of(source_id), description=said, releaseName=RELEASE,
                                      urls=[], **by),
            "source.jsonl": row_of(SourceRow, id=source_id, modelId=model, setName=set_of(source_id), dataset=row["corpus"],
                                   notes=f"corpus sha256 {row['corpus_sha256']}, ledger head {row['ledger_head']}",
                                   visibility="PRIVATE", **creator),
        }  # fmt: skip
        for name, line in lines.items():
            (source.folder / name).write_text(_line(line), encoding="utf-8")
        self._sources[source_id] = source
        return source

    def _written(self, source_id: str) -> None:
        source = self._sources[source_id]
        entries, source.waiting = source.waiting, {}
        about = {"modelId": self.names.model, "layer": source_id}
        rows: dict[str, list[dict[str, Any]]] = {"features": [], "explanations": [], "activations": []}
        for index, entry in entries.items():
            here = {**about, "index": index}
            if index not in source.known:
                source.known.add(index)
                rows["features"].append(self._feature(here, entry))
                rows["activations"] += [self._activation(here, one) for one in _examples(entry)]
            rows["explanations"] += [self._explanation(here, text, row) for text, row in entry["explanations"].items()]
        for kind, lines in rows.items():
            if lines:
                _gzipped(source.folder / kind / f"batch-{source.batches[kind]}.jsonl.gz", lines)
                source.batches[kind] += 1
        self._uploads(source_id, source, entries)

    # Rows of the dataset

    def _feature(self, here: dict[str, str], entry: Row) -> dict[str, Any]:
        top = max((max(one["activations"]) for one in _examples(entry)), default=None)
        return row_of(
            FeatureRow, **here, sourceSetName=set_of(here["layer"]), creatorId=self.names.creator, maxActApprox=top,
            frac_nonzero=UNKNOWN,
        )  # fmt: skip

    def _explanation(self, here: dict[str, str], text: str, row: Row) -> dict[str, Any]:
        interval = "" if row["f1_low"] is None else f" [{row['f1_low']:.3f}, {row['f1_high']:.3f}]"
        told = (
            f"{row['status']} by neuronaut {row['code_version']}: F1 {row['f1']:.3f}{interval}, "
            f"verdict {row['verdict']}, ledger head {row['ledger_head']}"
        )
        return row_of(
            ExplanationRow, id=_id("explanation", row["hypothesis"]), **here, authorId=self.names.creator, description=text,
            typeName=self.names.method, explanationModelName=self.names.explainer, notes=told,
        )  # fmt: skip

    def _activation(self, here: dict[str, str], example: Row) -> dict[str, Any]:
        values, tokens = list(map(float, example["activations"])), _tokens(example)
        return row_of(
            ActivationRow, id=_id("activation", json.dumps([*here.values(), tokens, values])), **here, creatorId=self.names.creator,
            tokens=tokens, values=values, maxValue=max(values), minValue=min(values), maxValueTokenIndex=values.index(max(values)),
            dataSource=RELEASE, dataIndex=str(example["document"]),
        )  # fmt: skip

    # Bodies of uploads

    def _uploads(self, source_id: str, source: _Source, entries: Mapping[str, Row]) -> None:
        features = []
        for index, entry in entries.items():
            if not _examples(entry):
                self.left_out["of a unit without an example, which an upload needs (they are in v1/)"] += len(
                    entry["explanations"]
                )
                continue
            texts = [self._short(text) for text in entry["explanations"]]
            said = {"methodName": self.names.method, "modelName": self.names.explainer}
            shown = [
                {"tokens": _tokens(one)[:MOST_TOKENS], "values": one["activations"][:MOST_TOKENS]}
                for one in _examples(entry)
            ]
            features.append(
                {"index": int(index), "explanations": [{"text": t, **said} for t in texts], "activations": shown}
            )
            if self.vectors:
                self._vector(source_id, entry)
        for at in range(0, len(features), MOST_FEATURES):
            body = row_of(
                FeatureUpload, modelId=self.names.model, source=source_id, features=features[at : at + MOST_FEATURES]
            )
            _put(source.uploads / f"batch-{source.batches['uploads']}.json", body)
            source.batches["uploads"] += 1

    def _short(self, text: str) -> str:
        if length(text) <= LONGEST_TEXT:
            return text
        self.n_shortened += 1
        while length(text) > LONGEST_TEXT - 1:
            text = text[: min(len(text) - 1, LONGEST_TEXT)]
        return text + "…"

    def _vector(self, source_id: str, entry: Row) -> None:
        """What the unit writes is read by the layer after it; its dose is its own largest activations above the median."""
        row, rule = entry["row"], (entry["looked"].get("firing") or {}).get("rule")
        unit = Unit.parse(row["address"])
        if rule is None or row["layer"] + 1 >= self.target.spec.n_layers:
            self.left_out["vectors of the last layer, which no layer reads, or of a unit without a firing rule"] += 1
            return
        dose = min(MOST_STRENGTH, max(-MOST_STRENGTH, rule["top"] - rule["median"]))
        body = row_of(
            VectorUpload, modelId=self.names.model, layerNumber=row["layer"] + 1, hookType="hook_resid_pre",
            vector=[float(x) for x in self.target.write_vector(unit)], vectorDefaultSteerStrength=float(dose),
            vectorLabel=f"{row['address']}: {next(iter(entry['explanations']))}"[:LONGEST_TEXT],
        )  # fmt: skip
        _put(self.place / "upload" / "vectors" / self.names.model / source_id / f"{row['index']}.json", body)


def write_dataset(out: Path, rows: Iterable[Row], dataset: Dataset) -> Dataset:
    """Fills a new folder with the rows; it appears when it is whole. Refuses a folder that holds something."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{str(out)!r} is there already: give another --out, or remove it first")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".part"))
    except OSError as error:
        raise UserError(f"{str(out)!r} cannot be written ({error.strerror}): give another --out") from None
    try:
        dataset.place = place
        for row in rows:
            dataset.add(row)
        dataset.close()
        place.chmod(0o755)
        if out.exists():
            out.rmdir()
        place.rename(out)
    except OSError as error:
        raise UserError(f"{str(out)!r} could not be written ({error.strerror}): nothing was kept there") from None
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return dataset


def _examples(entry: Row) -> list[Row]:
    return list((entry["looked"].get("top_examples") or {}).get("examples", ()))


def _tokens(example: Row) -> list[str]:
    """The pieces; one that is empty, as a part of a character may be, is U+FFFD, since an empty token is refused there."""
    return [storable(piece).replace("\x00", "\ufffd") or "\ufffd" for piece in example["pieces"]]


def _id(kind: str, about: str) -> str:
    """The same for the same thing, so that an import twice adds nothing."""
    return "nn" + hashlib.sha256(f"{kind} {about}".encode()).hexdigest()[:23]


def _line(row: Row) -> str:
    text = json.dumps(row, ensure_ascii=True, allow_nan=False) + "\n"
    if found := find_secrets(text):
        about = " ".join(str(row[name]) for name in ("layer", "index") if name in row)
        raise UserError(
            f"nothing was written: a row{about and f' of {about}'} would hold {found[0].what}: name another --run"
        )
    return text


def _gzipped(file: Path, lines: Iterable[Row]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress("".join(map(_line, lines)).encode(), mtime=0))


def _put(file: Path, body: Row) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(_line(body), encoding="utf-8")
