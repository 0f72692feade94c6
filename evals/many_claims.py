"""A notebook with as many claims as asked: made-up texts and numbers, real rows with their ledger lines, written in bulk.

Each run asks about one unit and makes ten claims: three are judged (SUPPORTED, REFUTED and UNRESOLVED by the rule of this version), one
is withdrawn, six stay proposed. Nine of ten runs are items of one batch. The database checks every row as it always does; only the waiting
for the disk is left out, and the search index is made at the end.
"""

import hashlib
import random
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from neuronaut.memory import ledger, schema
from neuronaut.memory.judge import RULE_VERSION, Decision, ReadsCase, decide
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import File, Place, Server
from neuronaut.memory.store import new_id, now, primary_key

CLAIMS_A_RUN = 10
LAYERS, PER_LAYER = 12, 4096
WORDS = 20_000  # of the made-up language; word k is 1/k as frequent as the first
RUNS_AT_ONCE = 1_000
Row = dict[str, Any]
Write = Callable[[str, tuple[str, ...], list[tuple[Any, ...]]], None]
_COLUMNS = {table.name: tuple(column.name for column in table.columns) for table in schema.metadata.sorted_tables}
_KEYS = {table.name: primary_key(table) for table in schema.metadata.sorted_tables}


class Maker:
    """Rows of runs, each recorded in the ledger, until they are written."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.words = [self._word() for _ in range(WORDS)]
        self.weights = [1 / (rank + 1) for rank in range(WORDS)]
        self.seq, self.last = 0, ledger.GENESIS
        self.units: dict[str, str] = {}
        self.blocks: dict[str, int] = defaultdict(int)
        self.rows: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        self.cases = [
            _judged(case) for case in (_case(0.9, (1.0,) * 20), _case(0.2, (-1.0,) * 20), _case(0.5, (1.0, -1.0)))
        ]

    def _word(self) -> str:
        parts = self.random.choices(
            ["ba", "ke", "li", "mo", "nu", "ra", "se", "ti", "vo", "xy", "dra", "ste", "plo", "qui"],
            k=self.random.randint(2, 5),
        )
        return "".join(parts)

    def add(self, table: str, row: Mapping[str, Any], *, recorded: bool = True) -> str:
        """Keep a row, with its ledger line. Returns its key."""
        full = {name: row.get(name) for name in _COLUMNS[table]}
        self.rows[table].append(tuple(full.values()))
        key = ledger.row_key(full, _KEYS[table])
        if recorded:
            digest, self.seq = ledger.row_hash(full), self.seq + 1
            line = ledger.line_hash(self.seq, table, key, digest, self.last)
            self.rows["ledger"].append((self.seq, table, key, digest, self.last, line))
            self.last = line
        return key

    def common(self) -> None:
        """What all runs share: the model, the text and the batch."""
        names = {"name": "made-up", "weights_sha256": "w" * 64, "tokenizer_sha256": "t" * 64, "dtype": "float32"}
        self.target = self.add(
            "target_model", {"id": new_id(), **names, "backend": "none", "backend_version": "0", "processing": "{}"}
        )
        self.corpus = self.add("corpus", {"id": new_id(), "name": "made-up", "sha256": "c" * 64, "n_characters": 1000})
        self.batch = self._run("label all neurons")
        self.add("batch", {"run": self.batch, "wanted": "go"}, recorded=False)

    def _run(self, question: str) -> str:
        row = {
            "question": question,
            "target": self.target,
            "corpus": self.corpus,
            "code_version": "0",
            "packages": "{}",
        }
        config = ledger.canonical({"question": question, "seed": 0})
        return self.add("run", {"id": new_id(), **row, "config": config, "seed": 0, "started": now()})

    def ask(self, number: int) -> str:
        """A run about the unit of a number, answered. Returns its id."""
        layer, index = number // PER_LAYER % LAYERS, number % PER_LAYER
        head = number % 50 == 49
        address = f"L{layer}H{index}" if head else f"{layer}.{index}"
        run = self._run(f"what does {'head' if head else 'neuron'} {address} do")
        if address not in self.units:
            row = {"kind": "head" if head else "neuron", "layer": layer, "index": index, "sign": 1, "address": address}
            self.units[address] = self.add("unit", {"id": new_id(), "target": self.target, **row})
        claims = self.random.choices(self.words, self.weights, k=4 * CLAIMS_A_RUN)
        for at in range(CLAIMS_A_RUN):
            self._claim(run, address, at, claims[4 * at : 4 * at + 4])
        look = {"id": new_id(), "run": run, "tool": "top_examples", "args": ledger.canonical({"unit": address, "k": 5})}
        self._experiment(look, {"payload": {"unit": address, "examples": []}, "measurements": []})
        self._call(run)
        cost = ledger.canonical({"seconds": 3.0, "forwards": 12.0})
        self.add(
            "run_end", {"id": new_id(), "run": run, "outcome": "answered", "reason": "", "cost": cost, "ended": now()}
        )
        if number % 10:
            item = {
                "run": self.batch,
                "rank": number,
                "address": address,
                "beside": "1",
                "state": "done",
                "attempt": 1,
                "steps": 1,
            }
            self.add("item", {"id": new_id(), **item, "asked": run}, recorded=False)
        self.asked = address
        return run

    def _claim(self, run: str, address: str, at: int, words: list[str]) -> None:
        side = "writes" if at > 6 else "reads"
        sentence = f'fires on "{words[0]}" and "{words[1]}" after {words[2]} {words[3]}'
        claim = sentence if side == "reads" else f'raises "{words[0]}" and "{words[1]}" {at}'
        predicate = ledger.canonical({"kind": "token", "any_of": [*words, str(at)]})
        row = {
            "run": run,
            "unit": self.units[address],
            "side": side,
            "claim": claim,
            "predicate": predicate,
            "complexity": 2,
        }
        hypothesis = self.add("hypothesis", {"id": new_id(), **row, "author": "grammar"})
        self._status(hypothesis, 0, None, "proposed")
        if at < len(self.cases):
            self._judge(run, address, hypothesis, at)
        elif at == len(self.cases):
            self._status(hypothesis, 1, "proposed", "withdrawn", reason="said by another claim")

    def _status(self, hypothesis: str, seq: int, before: str | None, to: str, **more: Any) -> None:
        row = {
            "hypothesis": hypothesis,
            "seq": seq,
            "prev_seq": seq - 1 if seq else None,
            "from_state": before,
            "to_state": to,
        }
        self.add("hypothesis_status", {**row, "reason": "", **more})

    def _judge(self, run: str, address: str, hypothesis: str, at: int) -> None:
        case, decision = self.cases[at]
        row = {"unit": self.units[address], "side": "reads", "corpus": self.corpus, "block": self.blocks[address]}
        self.add("block_opened", {"id": new_id(), "run": run, **row})
        block, self.blocks[address] = self.blocks[address], self.blocks[address] + 1
        bet = {"metric": "f1", "comparator": ">", "threshold": 0.0, "baseline": "rivals", "split": f"confirm/{block}"}
        prediction = self.add(
            "prediction",
            {"id": new_id(), "hypothesis": hypothesis, **bet, "payload": "{}", "sha256": ledger.sha256(hypothesis)},
        )
        self._status(hypothesis, 1, "proposed", "registered")
        args = ledger.canonical({"unit": address, "block": block, "claim": hypothesis})
        spec = {"id": new_id(), "run": run, "prediction": prediction, "tool": "test_reads", "args": args}
        payload = {"places": case.places, "ap_null": case.ap_null, "pairs": {"bets": list(case.bets)}, "of": hypothesis}
        experiment = self._experiment(spec, {"payload": payload, "measurements": []})
        measured = {"f1": case.f1, "precision": case.precision, "coverage": case.coverage}
        evidence = [self._evidence(experiment, name, value) for name, value in measured.items()]
        said = {"outcome": decision.status, "rule_version": RULE_VERSION, "reason": decision.reason, "e": decision.e}
        text = ledger.canonical(case.model_dump(mode="json"))
        verdict = self.add("verdict", {"id": new_id(), "prediction": prediction, **said, "case": text})
        for one in evidence:
            self.add("verdict_evidence", {"verdict": verdict, "evidence": one})
        self._status(hypothesis, 2, "registered", "testing")
        self._status(hypothesis, 3, "testing", decision.status.lower(), verdict=verdict, reason=decision.reason)

    def _experiment(self, spec: Row, result: Row) -> str:
        key = ledger.sha256(spec["id"])
        more = {"tool_sha256": "s" * 64, "corpus": self.corpus, "seed": 0, "key": key, "started": now()}
        self.add("experiment", {**spec, **more})
        content = ledger.canonical(result | {"measurements": [key]}).encode()
        kept = {
            "id": f"sha256:{hashlib.sha256(content).hexdigest()}",
            "media_type": "application/json",
            "n_bytes": len(content),
        }
        artifact = self.add("artifact", {**kept, "content": content})
        end = {"experiment": spec["id"], "outcome": "ok", "result": artifact, "seconds": 0.5, "forwards": 40.0}
        self.add("experiment_end", {"id": new_id(), **end})
        return str(spec["id"])

    def _evidence(self, experiment: str, metric: str, value: float) -> str:
        row = {"subject": "claim", "metric": metric, "value": value, "unit_of_measure": "share", "n": 40}
        interval = {"ci_low": value - 0.1, "ci_high": value + 0.05, "null_value": 0.1, "null_percentile": 99.0}
        return self.add("evidence", {"id": new_id(), "experiment": experiment, **row, **interval})

    def _call(self, run: str) -> None:
        request = {
            "purpose": "propose",
            "provider": "scripted",
            "model": "m",
            "request": "{}",
            "request_sha256": ledger.sha256(run),
        }
        call = self.add("llm_call", {"id": new_id(), "run": run, **request})
        said = {
            "answered_by": "m",
            "response": "{}",
            "stop_reason": "stop",
            "tokens_in": 900,
            "tokens_out": 90,
            "usd_micro": 5,
        }
        self.add("llm_call_end", {"id": new_id(), "call": call, **said, "seconds": 1.0})


def make(place: Place, claims: int, *, seed: int = 0) -> tuple[str, str]:
    """Fill an empty notebook, and make its search index. Returns the id of a run in its middle and the address of its unit."""
    Notebook(place).close()
    maker, middle = Maker(seed), ("", "")
    runs = max(1, claims // CLAIMS_A_RUN)
    with _writer(place) as write:
        maker.common()
        for number in range(runs):
            run = maker.ask(number)
            if number == runs // 2:
                middle = run, maker.asked
            if number % RUNS_AT_ONCE == RUNS_AT_ONCE - 1 or number == runs - 1:
                for table in schema.metadata.sorted_tables:
                    if rows := maker.rows.pop(table.name, None):
                        write(table.name, _COLUMNS[table.name], rows)
    with Notebook(place) as notebook:
        notebook.rebuild_index()
    return middle


@contextmanager
def _writer(place: Place) -> Iterator[Write]:
    match place:
        case File(path):
            connection = sqlite3.connect(path, isolation_level=None)
            for pragma in ("foreign_keys=ON", "recursive_triggers=ON", "synchronous=OFF", "cache_size=-200000"):
                connection.execute(f"PRAGMA {pragma}")
            try:
                yield lambda *rows: _into_sqlite(connection, *rows)
            finally:
                connection.close()
        case Server(url):
            import psycopg

            with psycopg.connect(url) as server:
                yield lambda *rows: _into_postgresql(server, *rows)
                server.execute("ANALYZE")
        case _:
            raise TypeError(f"{place!r} is no place for a notebook")


def _into_sqlite(
    connection: sqlite3.Connection, table: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]
) -> None:
    connection.execute("BEGIN")
    connection.executemany(f"INSERT INTO {table} ({_listed(columns)}) VALUES ({', '.join('?' * len(columns))})", rows)
    connection.execute("COMMIT")


def _into_postgresql(server: Any, table: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    with server.cursor() as cursor, cursor.copy(f"COPY {table} ({_listed(columns)}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)
    server.commit()


def _listed(columns: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _case(f1: float, bets: tuple[float, ...]) -> ReadsCase:
    return ReadsCase(
        complexity=2, n_claims=1, places=80, precision=0.9, precision_low=0.8, coverage=0.9, coverage_low=0.8, f1=f1, base_rate=0.01,
        ap=0.9, ap_null=0.1, r_low=0.5, dense=False, graded=False, bets=bets,
    )  # fmt: skip


def _judged(case: ReadsCase) -> tuple[ReadsCase, Decision]:
    return case, decide(case)
