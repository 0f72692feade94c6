"""`neuronaut index merge` and `neuronaut index gc`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from neuronaut.agent.view import print_json, visible
from neuronaut.tools.files import cache_folder
from neuronaut.tools.targets.load import load_target
from neuronaut.tools.upkeep import find_garbage, merge_folders, remove


def merge(folders: Sequence[Path], *, as_json: bool) -> None:
    """Copy whole shards into the own folder of indexes, and print how many."""
    found = merge_folders(folders, cache_folder())
    if as_json:
        print_json([asdict(one) for one in found])
        return
    for one in found:
        print(f"folder       {visible(one.folder)}")
        print(f"shards       {one.copied} copied, {one.already_there} were there")
        if one.damaged:
            print(f"damaged      {', '.join(one.damaged)}: not copied; build them again")


def tidy(models: Sequence[str], *, yes: bool, as_json: bool) -> None:
    """Print what nothing can use, and remove it if that was asked for."""
    cache = cache_folder()
    garbage = list(find_garbage(cache, [load_target(model).fingerprint() for model in models]))
    kept = [one.path for one in garbage if not remove(one)] if yes else []
    if as_json:
        rows = [{"path": str(one.path), "reason": one.reason, "bytes": one.n_bytes} for one in garbage]
        print_json({"folder": str(cache), "garbage": rows, "removed": yes, "kept": [str(path) for path in kept]})
        return
    for one in garbage:
        print(f"{one.n_bytes / 2**20:9,.1f} MiB  {visible(str(one.path.relative_to(cache)))}: {visible(one.reason)}")
    total = sum(one.n_bytes for one in garbage) / 2**20
    done = "removed" if yes else "to be removed with --yes"
    print(f"{total:9,.1f} MiB  {done if garbage else 'nothing to remove'}, in {visible(str(cache))}")
    for path in kept:
        print(f"kept         {visible(str(path))}: it holds files that are not ours")
