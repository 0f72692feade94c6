"""A view of each kind of record: what it says first, then what it rests on; text from models and corpora only made visible."""

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

from neuronaut.agent.call_views import call_view, cut
from neuronaut.agent.layout import (
    beside,
    fields,
    heading,
    measured,
    number,
    shown_text,
    status_text,
    table,
    title,
)
from neuronaut.agent.result_views import payload_parts, predicate_text, result_parts
from neuronaut.memory import related
from neuronaut.memory.lookup import Found
from neuronaut.memory.notebook import Notebook

if TYPE_CHECKING:
    from rich.console import RenderableType

    Parts = Iterator[RenderableType]


def view_of(notebook: Notebook, found: Found) -> "Parts | None":
    """The parts of the view of a record; None for one whose columns say it all."""
    see = _VIEWS.get(found.table)
    return None if see is None else see(notebook, found)


def _hypothesis(notebook: Notebook, found: Found) -> "Parts":
    claim = related.claim(notebook, found.row["id"])
    yield heading("claim", claim["id"], claim["status"])
    yield shown_text(f"{claim['address']} {claim['claim']}")
    yield ""
    yield fields([
        ("unit", f"{claim['target']}/{claim['address']} ({claim['kind']}), {claim['side']}"),
        ("question", f"{claim['question']} (run {claim['run']})"),
        ("author", claim["author"]),
        ("words", claim["words"]),
        ("predicate", predicate_text(claim["predicate"])),
        ("items", str(claim["complexity"])),
        ("made of", claim["parent"]),
    ])  # fmt: skip
    for verdict in claim["verdicts"]:
        yield ""
        yield heading("verdict", verdict["id"], verdict["outcome"])
        yield fields(
            [
                ("reason", verdict["reason"]),
                ("e-value", _e_value(verdict)),
                ("computed by", f"rule {verdict['rule_version']}"),
            ]
        )
        yield _evidence_table(verdict["evidence"], "evidence that it cites")
    yield ""
    yield _predictions(claim["predictions"])
    yield ""
    yield _experiments(claim["experiments"])
    yield ""
    rows = [(str(m["seq"]), status_text(m["to_state"]), m["reason"] or "", m["verdict"] or "") for m in claim["moves"]]
    yield table("status, from the first on", ("", "to", "reason", "verdict"), rows)
    yield from _reviews(claim["reviews"])


def _experiment(notebook: Notebook, found: Found) -> "Parts":
    one = related.experiment(notebook, found.row["id"])
    end = one["end"]
    yield heading(f"experiment {(one['tool'])}", one["id"], end["outcome"] if end else "unfinished")
    if end and end["error"]:
        yield shown_text(end["error"])
    claim = one["claim"]
    spent = None if end is None else f"{end['seconds']:.1f} s, {end['forwards']:.0f} forward passes"
    yield fields([
        ("tested", None if claim is None else f"{claim['claim']} (claim {claim['id']})"),
        ("prediction", one["prediction"]),
        ("run", one["run"]),
        ("on", f"{one['target']}, text {one['corpus_name']}, seed {one['seed']}"),
        ("spent", spent),
        ("began", one["started"]),
        ("repeats", one["repeat_of"]),
        ("repeated by", ", ".join(one["repeats"]) or None),
        ("key", one["key"]),
    ])  # fmt: skip
    yield ""
    yield title("arguments" if one["args"] else "no arguments")
    yield from payload_parts(one["args"])
    if one["evidence"]:
        yield ""
        yield _evidence_table(one["evidence"], "evidence")
    if isinstance(one["result"], Mapping):
        yield ""
        yield from result_parts(one["result"])
    yield from _reviews(one["reviews"])
    yield ""
    yield shown_text(f"measure it again: neuronaut rerun {one['id']}")


def _evidence(notebook: Notebook, found: Found) -> "Parts":
    one = related.evidence(notebook, found.row["id"])
    test = one["experiment"]
    yield heading(f"evidence {(one['metric'])}", one["id"])
    yield fields([
        ("value", measured(one)),
        ("n", f"{one['n']:,}"),
        ("null", beside(one)),
        ("of", one["subject"]),
        ("experiment", f"{test['tool']} {test['id']}"),
        ("run", test["run"]),
    ])  # fmt: skip
    yield ""
    rows = [(verdict["id"], status_text(verdict["outcome"]), verdict["reason"]) for verdict in one["verdicts"]]
    yield table("verdicts that cite it", ("id", "outcome", "reason"), rows) if rows else "no verdict cites it"


def _verdict(notebook: Notebook, found: Found) -> "Parts":
    one = related.verdict(notebook, found.row["id"])
    claim, bet = one["claim"], one["prediction"]
    yield heading("verdict", one["id"], one["outcome"])
    yield shown_text(f"{claim['address']} {claim['claim']}")
    yield ""
    yield fields([
        ("reason", one["reason"]),
        ("e-value", _e_value(one)),
        ("computed by", f"rule {one['rule_version']}, from the evidence below"),
        ("claim", claim["id"]),
        ("prediction", f"{bet['id']}: {_bet(bet)}"),
        ("run", claim["run"]),
    ])  # fmt: skip
    yield ""
    yield _evidence_table(one["evidence"], "evidence that it cites")
    numbers = {name: value for name, value in one["case"].items() if isinstance(value, (int, float, str))}
    yield ""
    yield title("case")
    yield from payload_parts(numbers)
    rivals = [
        (rival.get("claim", ""), number(rival.get("f1", rival.get("share"))), str(rival.get("complexity", "")))
        for rival in one["case"].get("rivals", [])
    ]
    if rivals:
        yield ""
        yield table("rivals", ("claim", "score", "items"), rivals, right=("score", "items"))


def _prediction(notebook: Notebook, found: Found) -> "Parts":
    row = found.row
    claim = related.claim(notebook, row["hypothesis"])
    yield heading("prediction", row["id"])
    yield fields([
        ("registered", _bet(row)),
        ("claim", f"{claim['claim']} ({row['hypothesis']})"),
        ("sha256", row["sha256"]),
    ])  # fmt: skip
    yield ""
    payload = _parsed(row["payload"])
    yield title("payload")
    yield from payload_parts(payload if isinstance(payload, Mapping) else {"payload": payload})
    yield ""
    yield _experiments([test for test in claim["experiments"] if test["prediction"] == row["id"]])
    yield ""
    rows = [
        (v["id"], status_text(v["outcome"]), v["reason"]) for v in claim["verdicts"] if v["prediction"] == row["id"]
    ]
    yield table("verdict", ("id", "outcome", "reason"), rows) if rows else "no verdict yet"


def _unit(notebook: Notebook, found: Found) -> "Parts":
    rows = [found.row, *found.more]
    one = related.unit(notebook, [row["id"] for row in rows])
    targets = ", ".join(dict.fromkeys(str(row.get("target_name", row["target"])) for row in rows))
    yield heading(f"{found.row['kind']}", found.row["address"])
    yield fields([("of", targets), ("layer", None if found.row["kind"] == "task" else str(found.row["layer"]))])
    sides = sorted(one["claims"], key=lambda claim: claim["side"])  # stable: the newest stay first
    for side, claims in groupby(sides, key=lambda claim: claim["side"]):
        yield ""
        listed = [(status_text(claim["status"]), f"{claim['claim']}\n{claim['id']}") for claim in claims]
        yield table(f"{side}, the newest first", ("status", "claim"), listed)
    if one["outcomes"]:
        yield ""
        without = [(status_text(o["status"]), o["side"], o["reason"], o["run"]) for o in one["outcomes"]]
        yield table("without a claim", ("status", "side", "reason", "run"), without)
    if not one["claims"] and not one["outcomes"]:
        yield "no claims yet"


def _review(notebook: Notebook, found: Found) -> "Parts":
    row = found.row
    yield heading("review", row["id"])
    yield fields(
        [(row["verb"], row["reason"]), ("by", row["author"]), ("of", f"{row['target_table']} {row['target_id']}")]
    )


def _artifact(notebook: Notebook, found: Found) -> "Parts":
    row = found.row
    yield heading("artifact", row["id"])
    made = related.holders(notebook, row["id"])
    yield fields(
        [("type", row["media_type"]), ("bytes", f"{row['n_bytes']:,}"), ("result of", ", ".join(made) or None)]
    )
    content = bytes(row["content"])
    value = _parsed(content) if row["media_type"] == "application/json" else None
    yield ""
    if isinstance(value, Mapping) and "payload" in value:
        yield from result_parts(value)
    elif row["media_type"].startswith("text/") or "json" in row["media_type"] or "svg" in row["media_type"]:
        yield shown_text(cut(content.decode("utf-8", errors="replace")))
    else:
        yield "its content is no text: --raw prints it as far as it is one"


def _item(notebook: Notebook, found: Found) -> "Parts":
    row = found.row
    yield heading("item of a batch", row["id"], row["state"])
    planted = None if row["null_kind"] is None else f"a planted null unit ({row['null_kind']})"
    yield fields([("unit", row["address"]), ("null", planted), ("reason", row["reason"]), ("answered in", row["asked"]),
                  ("batch", row["run"]), ("tries", str(row["attempt"]))])  # fmt: skip


def _e_value(verdict: Mapping[str, Any]) -> str:
    return number(verdict["e"]) if verdict["e"] else "counts as 0, since the claim did not hold"


def _evidence_table(rows: list[dict[str, Any]], title: str) -> "RenderableType":
    listed = [(row["id"], row["metric"], measured(row), f"{row['n']:,}", beside(row)) for row in rows]
    return table(title, ("id", "metric", "value", "n", "null"), listed, right=("n",))


def _predictions(rows: list[dict[str, Any]]) -> "RenderableType":
    return (
        table("predictions as registered", ("id", "bet"), [(row["id"], _bet(row)) for row in rows])
        if rows
        else "nothing is registered"
    )


def _experiments(rows: list[dict[str, Any]]) -> "RenderableType":
    listed = [
        (row["id"], row["tool"], status_text(row["end"]["outcome"] if row["end"] else "unfinished")) for row in rows
    ]
    return table("experiments that tested it", ("id", "tool", "outcome"), listed) if rows else "no experiment tested it"


def _reviews(rows: list[dict[str, Any]]) -> "Parts":
    if rows:
        yield ""
        yield table("reviews", ("by", "says", "because"), [(row["author"], row["verb"], row["reason"]) for row in rows])


def _bet(row: Mapping[str, Any]) -> str:
    return f"{row['metric']} {row['comparator']} {row['threshold']:g} beside {row['baseline'] or 'nothing'}, on {row['split']}"


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text if isinstance(text, str) else text.decode("utf-8", errors="replace")


_VIEWS: "dict[str, Callable[[Notebook, Found], Parts]]" = {
    "hypothesis": _hypothesis,
    "experiment": _experiment,
    "evidence": _evidence,
    "verdict": _verdict,
    "prediction": _prediction,
    "unit": _unit,
    "llm_call": call_view,
    "review": _review,
    "artifact": _artifact,
    "item": _item,
}
