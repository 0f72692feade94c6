"""Workers of a Ray cluster: the same labels and the same index as one process, whoever dies meanwhile."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from neuronaut.agent import inputs, remote
from neuronaut.agent.config import EngineOptions, RunConfig
from neuronaut.agent.engine_ray import cluster
from neuronaut.agent.inputs import Elsewhere, opened_inputs
from neuronaut.agent.label.batch import FAILED
from neuronaut.agent.label.remote import RemoteContext
from neuronaut.evals.fake_provider.script import says
from neuronaut.evals.fake_provider.server import Loopback
from neuronaut.evals.kill import findings
from neuronaut.memory import queries
from neuronaut.memory.items import TRIES
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import File, Place
from neuronaut.memory.verify import verify
from neuronaut.tools.corpus import pocket_corpus
from neuronaut.tools.errors import UserError
from neuronaut.tools.index import Index, build_index
from neuronaut.tools.index_plan import KindName, plan_index
from neuronaut.tools.kinds.base import IndexSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
BATCH = ("--fast", "--limit", "6", "--nulls", "0.3", "--seed", "3")
ON_RAY = ("--engine", "ray", "--jobs", "2")
Neuronaut = Callable[..., Any]


def silent(_label: str, _line: str) -> None:
    pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two processors, which this process has joined; commands in it take it as it is."""
    with cluster("local", 2, 1) as joined:
        yield joined.ray.get_runtime_context().gcs_address


@pytest.fixture(scope="module")
def here(tiny: tuple[str, ...], neuronaut: Neuronaut, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The notebook of a batch that this process alone has worked on."""
    path = tmp_path_factory.mktemp("here") / "n.db"
    said = neuronaut("label", *tiny, *BATCH, "--notebook", path, "--json")
    assert said.code == 0, said.err
    return File(path)


def summary(out: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def processes(name: str) -> list[int]:
    """Processes of this cluster that work on something of that name."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            ours = os.environ["RAY_AUTH_TOKEN"].encode() in (folder / "environ").read_bytes()
            if ours and (folder / "cmdline").read_bytes().startswith(f"ray::{name}".encode()):
                found.append(int(folder.name))
    return found


def test_a_batch_finds_the_same_on_ray_and_here_in_postgresql(
    tiny: tuple[str, ...], here: Place, server: Any, address: str, neuronaut: Neuronaut
) -> None:
    with server.place() as place:
        said = neuronaut("label", *tiny, *BATCH, *ON_RAY, "--notebook", place.url, "--json")
        assert said.code == 0, said.err
        assert findings(place) == findings(here)
        with Notebook(place, read_only=True) as notebook:
            assert verify(notebook) == []
            items = notebook.items(summary(said.out)["run"])
        assert len(items) == 8
        assert {item.state for item in items} <= {"done", "skipped"}
        assert {(item.attempt, item.owner) for item in items} == {(1, None)}
    with server.place() as place:
        assert neuronaut("label", *tiny, *BATCH, "--notebook", place.url, "--json").code == 0
        assert findings(place) == findings(here)


def test_conditions_and_a_language_model_are_seen_to_by_the_process_that_writes(
    tiny: tuple[str, ...], address: str, neuronaut: Neuronaut, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index that a condition needs is made by tasks, before workers take the processors."""
    monkeypatch.setenv("NEURONAUT_LLM_KEY", "sk-canary")
    reply = json.dumps({"hypotheses": [{"claim": "it fires there", "predicate": 'token(" the")'}]})
    found = []
    for name, engine in (("here", ()), ("ray", ("--engine", "ray"))):
        monkeypatch.setenv("NEURONAUT_CACHE", str(tmp_path / name))
        path = tmp_path / f"{name}.db"
        with Loopback(says(reply, tokens=(1000, 0, 100)), key="sk-canary") as server:
            llm = ("--llm", "compatible:m", "--base-url", server.url + "/v1", "--budget-calls", "90")
            chosen = ("--where", "density > 0.2 and layer == 1", "--limit", "3", "--nulls", "0", "--fast")
            said = neuronaut("label", *tiny, *chosen, *llm, *engine, "--notebook", path, "--json")
            assert said.code == 0, said.err
            assert server.requests
        found.append(findings(File(path)))
        assert any("compatible:m" in row for row in found[-1]["hypotheses"])
    assert found[0] == found[1]


class Killer:
    """Kills a worker, with SIGKILL, just before it looks at a unit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, unit: str) -> None:
        original, self.killed = RemoteContext.taken, 0

        def taken(context: RemoteContext, method: str, *args: Any) -> Any:
            if f"'{unit}'" in str(args) and "firing" in str(args):
                self.killed += 1
                os.kill(int(context.described.host.partition("/")[2]), signal.SIGKILL)
            return original(context, method, *args)

        monkeypatch.setattr(RemoteContext, "taken", taken)


def test_workers_that_are_killed_lose_nothing_and_the_unit_over_which_they_die_fails_alone(
    tiny: tuple[str, ...], here: Place, address: str, neuronaut: Neuronaut, tmp_path: Path, monkeypatch: Any
) -> None:
    path, bad = tmp_path / "n.db", first_unit(here)
    killer = Killer(monkeypatch, bad)
    said = neuronaut("label", *tiny, *BATCH, *ON_RAY, "--notebook", path, "--json")
    monkeypatch.undo()
    assert said.code == FAILED, said.err
    assert killer.killed == TRIES
    assert said.err.count("a worker died") == TRIES
    with Notebook(path, read_only=True) as notebook:
        items = notebook.items(summary(said.out)["run"])
    assert Counter(item.state == "failed" for item in items) == {True: 1, False: 7}
    (failed,) = (item for item in items if item.state == "failed")
    assert (failed.address, failed.reason) == (bad, f"given up: {TRIES} workers in a row died over it")
    assert max(item.attempt for item in items if item is not failed) <= 2
    retried = neuronaut("label", "retry", failed.run, "--notebook", path, "--json")
    assert retried.code == 0, retried.err
    assert found_of_units(File(path)) == found_of_units(here)
    with Notebook(path, read_only=True) as notebook:
        assert verify(notebook) == []


def first_unit(place: Place) -> str:
    """A unit that was tested, of which no null unit has the values."""
    with Notebook(place, read_only=True) as notebook:
        (run,) = {item.run for item in all_items(notebook)}
        nulls = {item.address for item in notebook.items(run) if item.null_kind}
        return next(i.address for i in notebook.items(run) if i.state == "done" and i.address not in nulls)


def all_items(notebook: Notebook) -> list[Any]:
    newest = queries.newest_batch(notebook)
    assert newest is not None
    return notebook.items(newest)


def found_of_units(place: Place) -> dict[str, list[str]]:
    found = findings(place)
    return {name: found[name] for name in ("hypotheses", "verdicts", "evidence", "outcomes") if name in found}


def test_a_killed_driver_leaves_no_workers_and_its_batch_goes_on_elsewhere(
    tiny: tuple[str, ...], here: Place, address: str, neuronaut: Neuronaut, tmp_path: Path
) -> None:
    path = tmp_path / "n.db"
    argv = [
        "-m",
        "neuronaut",
        "label",
        *tiny,
        *BATCH,
        "--engine",
        "ray",
        "--ray-address",
        address,
        "--notebook",
        str(path),
    ]
    with subprocess.Popen([sys.executable, *argv, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as driver:
        assert driver.stdout is not None
        for line in driver.stdout:
            if json.loads(line)["event"] == "item":
                break
        assert processes("Seat")
        driver.kill()
    until = time.monotonic() + 60
    while processes("Seat") and time.monotonic() < until:
        time.sleep(0.2)
    assert processes("Seat") == []
    with Notebook(path, read_only=True) as notebook:
        (run,) = {item.run for item in all_items(notebook)}
    resumed = neuronaut("label", "resume", run, "--notebook", path, "--json")
    assert resumed.code == 0, resumed.err
    assert found_of_units(File(path)) == found_of_units(here)


# What is refused


def refused(neuronaut: Neuronaut, *argv: object) -> str:
    said = neuronaut(*argv)
    assert said.code == 2, said.err
    assert "Traceback" not in said.err
    return str(said.err.strip().splitlines()[-1])


def test_other_code_on_the_cluster_is_refused(
    tiny: tuple[str, ...], address: str, neuronaut: Neuronaut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the label command too: its workers are asked in the same way."""
    own = remote.own_code()
    for other, said in ((own._replace(version="0.0.1"), "0.0.1"), (own._replace(sha256="0" * 64), "0" * 12)):
        monkeypatch.setattr(remote, "own_code", lambda other=other: other)
        sentence = refused(neuronaut, "index", "build", *tiny, "--engine", "ray")
        assert "another version of the code" in sentence
        assert said in sentence
        assert own.version in sentence
    sentence = refused(neuronaut, "label", *BATCH, *tiny, "--engine", "ray")
    assert "another version of the code" in sentence


def test_what_workers_cannot_open_is_refused(
    tiny: tuple[str, ...], address: str, neuronaut: Neuronaut, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = refused(neuronaut, "index", "build", "--model", tmp_path / "nowhere", *tiny[2:], *ON_RAY)
    assert "nowhere" in said
    assert "storage that all machines of the cluster share" in said
    monkeypatch.setattr(inputs, "open_corpus", lambda _config, _say: pocket_corpus())
    assert "holds other text" in refused(neuronaut, "index", "build", *tiny, *ON_RAY)


@pytest.mark.parametrize("given", ["127.0.0.1:1", "ray://127.0.0.1:1", "http://127.0.0.1:1", "nonsense", "[", "auto"])
def test_an_address_at_which_no_cluster_is_refused(
    given: str, address: str, tiny: tuple[str, ...], neuronaut: Neuronaut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    monkeypatch.setattr("ray.init", no_cluster)
    began = time.monotonic()
    said = refused(neuronaut, "label", *tiny, *BATCH, *ON_RAY, "--ray-address", given)
    assert repr(given) in said
    assert "ray start --head" in said
    assert time.monotonic() - began < 30


def no_cluster(**_: Any) -> None:
    raise ConnectionError("Could not find any running Ray instance.")


def test_ray_that_is_not_installed_is_named_with_its_extra(
    tiny: tuple[str, ...], neuronaut: Neuronaut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'neuronaut[ray]'" in refused(neuronaut, "label", *tiny, *BATCH, *ON_RAY)


@pytest.mark.parametrize(
    "argv", [("--engine", "ray", "--jobs", "0"), ("--jobs", "2"), ("--engine", "moon"), ("--ray-address", "auto")]
)
def test_options_that_mean_nothing_are_refused(
    argv: tuple[str, ...], tiny: tuple[str, ...], neuronaut: Neuronaut
) -> None:
    said = neuronaut("label", *tiny, *BATCH, *argv)
    assert said.code == 2
    assert argv[-2] in said.err


# The index


def config_of(tiny: tuple[str, ...]) -> RunConfig:
    return RunConfig(question="index", model=tiny[1], corpus=tiny[3])


@pytest.fixture
def elsewhere(tiny: tuple[str, ...], address: str) -> Iterator[Elsewhere]:
    with opened_inputs(config_of(tiny), EngineOptions("ray", jobs=2), silent) as opened:
        assert isinstance(opened, Elsewhere)
        yield opened


def bits(index: Index) -> dict[str, dict[str, tuple[str, tuple[int, ...], bytes]]]:
    """Everything that an index knows, to the last bit."""
    return {
        kind.name: {
            name: (str(array.dtype), array.shape, array.tobytes())
            for name, array in index.summary(kind).arrays().items()
        }
        for kind in index.kinds
    }


def test_shards_made_by_tasks_merge_to_the_bits_of_one_pass(
    tiny: tuple[str, ...], elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many shards beside a single one; a worker that is killed costs the shard in its hands, and no other one."""
    with opened_inputs(config_of(tiny), EngineOptions(), silent) as own:
        kept = {"top_k": 5, "chunk": 8, "binned_tokens": 800, "sample_tokens": 16}
        both: tuple[KindName, ...] = ("neurons", "heads")
        several, one = IndexSettings(shard=16, **kept), IndexSettings(shard=1024, **kept)
        whole = build_index(own.target, own.corpus, cache=tmp_path / "here", settings=one, kinds=both)
        plan = plan_index(own.target, own.corpus, cache=tmp_path / "there", settings=several, kinds=both)
    assert whole.store.n_shards == 1
    assert plan.n_shards == 8
    begun, make, done = tmp_path / "begun", inputs.made_shard, []

    def dying(order: Any, planned: Any, number: int) -> Any:  # inside, so that workers get it whole and not by name
        with begun.open("a") as file:
            file.write(f"{number}\n")
        if number == 3 and begun.read_text().count("3\n") == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return make(order, planned, number)

    monkeypatch.setattr(inputs, "made_shard", dying)
    elsewhere.build(plan, progress=lambda at, total: done.append((at, total)))
    assert sorted(map(int, begun.read_text().split())) == [0, 1, 2, 3, 3, 4, 5, 6, 7]
    n_documents = own.corpus.n_groups("explore")
    assert [total for _, total in done] == [n_documents] * 8
    assert done[-1][0] == n_documents
    merged = Index(own.target, own.corpus, plan.sweep.kinds, plan.store)
    assert bits(merged) == bits(whole)
    elsewhere.build(plan)
    assert len(begun.read_text().split()) == 9  # nothing is made again


def test_the_plan_of_a_worker_is_that_of_this_process(tiny: tuple[str, ...], elsewhere: Elsewhere) -> None:
    with opened_inputs(config_of(tiny), EngineOptions(), silent) as own:
        pass
    mine, theirs = own.plan(("neurons", "heads")), elsewhere.plan(("neurons", "heads"))
    assert theirs.sweep == mine.sweep
    assert theirs.store == mine.store
    assert elsewhere.target.fingerprint() == own.target.fingerprint()
    assert elsewhere.target.spec == own.target.spec
    with pytest.raises(UserError, match="features"):
        elsewhere.plan(("features",))


def test_index_build_on_ray_is_a_whole_index(
    tiny: tuple[str, ...], address: str, neuronaut: Neuronaut, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NEURONAUT_CACHE", str(tmp_path))
    said = neuronaut("index", "build", *tiny, "--kinds", "neurons,heads", *ON_RAY, "--json")
    assert said.code == 0, said.err
    kinds = {kind["kind"]: kind for kind in json.loads(said.out)["kinds"]}
    assert [(kind["missing"], kind["damaged"]) for kind in kinds.values()] == [(0, 0), (0, 0)]
    status = neuronaut("index", "status", *tiny, "--json")
    assert json.loads(status.out) == json.loads(said.out)
