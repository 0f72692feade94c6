"""Items of a batch: leased, extended, taken back from the dead, tried three times, ended once."""

import runpy
from pathlib import Path

import pytest

from neuronaut.agent.label.local import near
from neuronaut.memory.experiments import ExperimentSpec
from neuronaut.memory.items import TRIES, Item, LeaseLost
from neuronaut.memory.notebook import Notebook
from neuronaut.memory.place import Place

made = runpy.run_path(str(Path(__file__).parent / "data" / "make_notebook.py"))
ITEMS = [("0.1", None, "neuron 0"), ("1.1", None, "neuron 1"), ("0.2", None, "neuron 0"), ("1.1", "hash", "null 0")]


def begun(notebook: Notebook) -> str:
    run = made["start"](notebook)
    notebook.add_items(run, ITEMS)
    return str(run)


def leased(
    notebook: Notebook, run: str, owner: str = "a", *, now: float = 0.0, limit: int = 9, dead: str = ""
) -> list[Item]:
    return notebook.lease(run, owner, now=now, until=now + 10, limit=limit, alive=lambda one: one != dead)


def test_items_are_read_in_parts_of_few_layers(place: Place) -> None:
    """Each item in one part, those of a layer in the same one and in their order."""
    addresses = [f"{layer}.{index}" for index in range(3) for layer in (4, 0, 7, 2, 9)] + ["sae:a/5", "sae:b/5"]
    with Notebook(place) as notebook:
        run = made["start"](notebook)
        notebook.add_items(run, [(address, "hash", "null 0") for address in addresses])
        items = leased(notebook, run, limit=99)
    parts = [[item.address for item in part] for part in near(items)]
    assert parts[0] == ["0.0", "0.1", "0.2", "sae:a/5", "sae:b/5"]
    assert [sorted({address.partition(".")[0] for address in part}) for part in parts[1:]] == [["2", "4", "7"], ["9"]]
    assert sorted(address for part in parts for address in part) == sorted(addresses)


def states(notebook: Notebook, run: str) -> list[str]:
    return [item.state for item in notebook.items(run)]


def test_items_that_are_read_together_are_leased_together(place: Place) -> None:
    with Notebook(place) as notebook:
        run = begun(notebook)
        assert [item.address for item in leased(notebook, run)] == ["0.1", "0.2"]
        assert [item.address for item in leased(notebook, run, "b", limit=1)] == ["1.1"]
        (null,) = leased(notebook, run, "b")
        assert (null.address, null.null_kind, null.rank) == ("1.1", "hash", 3)
        assert leased(notebook, run, "c") == []
        assert notebook.item_counts(run) == {("leased", False): 3, ("leased", True): 1}


def test_no_item_is_leased_by_two(place: Place) -> None:
    with Notebook(place) as first, Notebook(place) as second:
        run = begun(first)
        found = [
            item.id
            for turn in range(4)
            for item in leased((first, second)[turn % 2], run, f"owner {turn % 2}", limit=1)
        ]
        assert len(set(found)) == len(found) == len(ITEMS)


def test_what_ran_out_or_whose_owner_died_is_leased_again(place: Place) -> None:
    with Notebook(place) as notebook:
        run = begun(notebook)
        mine = leased(notebook, run, "a")
        assert {one.id for one in leased(notebook, run, "b", now=5)}.isdisjoint({one.id for one in mine})
        notebook.extend(run, "a", until=30)
        assert [one.address for one in leased(notebook, run, "c", now=20)] == ["1.1"]  # b's ran out, a's did not
        assert [one.address for one in leased(notebook, run, "d", now=20, dead="a")] == ["0.1", "0.2"]
        with pytest.raises(LeaseLost):
            notebook.end_item(mine[0], "failed", "late")
        with pytest.raises(LeaseLost):
            notebook.begin_item(mine[0], run)
        assert states(notebook, run) == ["leased", "leased", "leased", "waiting"]


def test_a_worker_that_ends_gives_its_items_back(place: Place) -> None:
    with Notebook(place) as notebook:
        run = begun(notebook)
        leased(notebook, run, "a")
        leased(notebook, run, "b")
        notebook.release(run, "a")
        assert states(notebook, run) == ["waiting", "leased", "waiting", "waiting"]


def test_a_paused_batch_leases_nothing(place: Place) -> None:
    with Notebook(place) as notebook:
        run = begun(notebook)
        notebook.want(run, "pause")
        assert leased(notebook, run) == []
        notebook.want(run, "go")
        assert len(leased(notebook, run)) == 2
        assert notebook.wanted(made["start"](notebook)) is None


def finish_experiment(notebook: Notebook, run: str, number: int) -> None:
    spec = ExperimentSpec("firing", "s" * 64, {"unit": "0.1", "number": number})
    notebook.end_experiment(notebook.begin_experiment(run, spec).id, {"payload": {}, "measurements": []})


def test_tries_count_only_where_nothing_is_finished_between_them(place: Place) -> None:
    with Notebook(place) as notebook:
        run = begun(notebook)
        asked = made["start"](notebook)
        seen = []
        for turn in range(6):
            (item,) = leased(notebook, run, f"owner {turn}", limit=1)
            seen.append(notebook.begin_item(item, asked))
            if turn == 1:
                finish_experiment(notebook, asked, turn)
            notebook.end_item(item, "waiting")
        assert seen == [1, 2, 1, 2, TRIES, TRIES + 1]
        (row, *_) = notebook.items(run)
        assert (row.asked, row.attempt, row.steps) == (asked, 4, 1)


def test_failed_items_wait_again_with_all_their_tries(place: Place) -> None:
    with Notebook(place) as notebook:
        run = begun(notebook)
        first, second = leased(notebook, run)
        notebook.begin_item(first, made["start"](notebook))
        notebook.end_item(first, "failed", "no luck")
        notebook.end_item(second, "skipped", "too rare here")
        assert notebook.retry(run) == 1
        rows = notebook.items(run)
        assert [(one.state, one.attempt, one.reason) for one in rows[:1]] == [("waiting", 0, None)]
        assert rows[2].state == "skipped"
