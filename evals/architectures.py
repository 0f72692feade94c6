"""What is right for which architecture on which engine, measured on tiny random models, as the tables of docs/architectures.md.

    python -m neuronaut.evals.architectures --tests tests --write docs/architectures.md

Each model has random weights, also in its norms and biases. What the target reads and edits is compared with plain transformers
and with a second reading of the weights (`tests/plain_transformers.py`), and the error that stands in the table is the largest
difference that was measured; "no" says that it is refused. Without --write the tables are printed.
"""

import argparse
import re
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from neuronaut.tools.circuits.wires import Wires
from neuronaut.tools.errors import UserError
from neuronaut.tools.features.dictionary import Dictionary, Layout
from neuronaut.tools.features.places import place_of
from neuronaut.tools.look.margins import margins
from neuronaut.tools.look.readout import Readout
from neuronaut.tools.targets.base import Edit, Site, TargetModel
from neuronaut.tools.targets.load import MLX_COMMAND, Backend, has_mlx, load_target
from neuronaut.tools.targets.sites import all_neuron_sites, neuron_sites

TOLERANCE = 1e-4  # above it a cell says "no" and the error
COLUMNS = ("logits", "neurons", "heads", "attribution", "edits", "gradients", "edges", "features", "experts")
BACKENDS: tuple[Backend, ...] = get_args(Backend)
END = "<!-- end -->"


@dataclass(frozen=True)
class Opened:
    """One model through the seam, as a second reading of its weights, and in plain transformers. target: None where the engine
    refuses the architecture."""

    target: Any
    plain: Any
    theirs: Any

    @property
    def ids(self) -> Tensor:
        """(3, 11) random tokens, more than the sliding windows of the tiny models see."""
        made = torch.Generator().manual_seed(0)
        return torch.randint(0, self.target.spec.d_vocab, (3, 11), generator=made)


def opened_models(tests: Path, backend: Backend) -> Iterator[tuple[str, Opened]]:
    """Each family by name, made in a temporary folder. tests: where tiny_models.py and plain_transformers.py lie."""
    import transformers

    made = runpy.run_path(str(tests / "tiny_models.py"))
    plain = runpy.run_path(str(tests / "plain_transformers.py"))["PlainModel"]
    with tempfile.TemporaryDirectory() as place:
        for family in made["CONFIGS"]:
            folder = made["make_model"](family, Path(place) / family)
            theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
            yield family, Opened(_loaded(folder, backend), plain(folder, theirs.config.to_dict()), theirs)


def _loaded(folder: Path, backend: Backend) -> TargetModel | None:
    if backend == "mlx" and not has_mlx():
        raise UserError(f"the table of mlx needs mlx and mlx-lm: {MLX_COMMAND}")
    try:
        return load_target(folder, backend=backend)
    except UserError:
        return None


@torch.no_grad()
def errors_of(one: Opened) -> dict[str, float | None]:
    """The largest error of each column, None where the target refuses or the architecture has no such thing."""
    return {column: None if one.target is None else _measured(_CHECKS[column], one) for column in COLUMNS}


def _measured(check: Callable[[Opened], float | None], one: Opened) -> float | None:
    try:
        return check(one)
    except UserError:
        return None


def _apart(found: Tensor | None, expected: Tensor) -> float:
    assert found is not None
    return float((found - expected).abs().max())


def _logits(one: Opened) -> float:
    return _apart(one.target.run(one.ids, logits=True).logits, one.theirs(one.ids).logits)


def _read(one: Opened, sites: list[Site]) -> float:
    found = one.target.run(one.ids, read=sites).read
    one.plain.run(one.ids)
    return max(_apart(found[site], one.plain.seen[_key(site)]) for site in sites)


def _key(site: Site) -> tuple[str, int]:
    return ("" if site.expert is None else f"e{site.expert}.") + site.name, site.layer


def _neurons(one: Opened) -> float:
    return _read(one, all_neuron_sites(one.target.spec))


def _heads(one: Opened) -> float:
    layers = range(one.target.spec.n_layers)
    return _read(one, [Site("heads", at) for at in layers] + [Site("pattern", at) for at in layers])


def _attribution(one: Opened) -> float:
    """What all components say for a token, against its logit before a cap."""
    ids, token, position = one.ids[:1], 5, 7
    said = margins(one.target, Readout.of(one.target), ids, torch.tensor(token))[:, position]
    logit = one.plain.run(ids)[0, position, token]
    cap = one.plain.config.get("final_logit_softcapping")
    return abs(said.sum() - float(cap * torch.atanh(logit / cap) if cap else logit))


def _edits(one: Opened) -> float:
    """Every kind of activation in the middle layer, one index of it put to 1.5."""
    layer = one.target.spec.n_layers // 2
    sites = [Site(name, layer) for name in ("resid_pre", "attn_out", "mlp_out", "resid_post", "heads")]
    sites += neuron_sites(one.target.spec, layer)[:2]
    sites += [Site("router", layer)] if one.target.spec.n_experts else []
    worst = 0.0
    for site in sites:

        def hand(name: str, at: int, value: Tensor, site: Site = site) -> Tensor:
            if (name, at) != _key(site):
                return value
            value = value.clone()
            value[:, :, 1] = 1.5
            return value

        found = one.target.run(one.ids, edits=[Edit(site, "set", 1.5, index=1)], logits=True).logits
        worst = max(worst, _apart(found, one.plain.run(one.ids, hand)))
    return worst


def _gradients(one: Opened) -> float:
    """Of a score of the last logits at every kind of activation in the middle layer, as a share of the largest one there."""
    spec, layer = one.target.spec, one.target.spec.n_layers // 2
    weights = torch.randn(spec.d_vocab, generator=torch.Generator().manual_seed(1))
    sites = [Site("resid_pre", layer), Site("heads", layer), neuron_sites(spec, layer)[0]]
    sites += [Site("router", layer)] if spec.n_experts else []
    found, worst = one.target.gradients(one.ids, sites, lambda logits: logits[:, -1] @ weights), 0.0
    for site in sites:
        passed: list[Tensor] = []

        def leaf(name: str, at: int, value: Tensor, site: Site = site, passed: list[Tensor] = passed) -> Tensor:
            if (name, at) != _key(site):
                return value
            passed.append(value.detach().requires_grad_())
            return passed[0]

        with torch.enable_grad():
            score = (one.plain.run(one.ids, leaf)[:, -1] @ weights).sum()
            (expected,) = torch.autograd.grad(score, passed[0])
        worst = max(worst, _apart(found[site][1], expected) / float(expected.abs().max()))
    return worst


def _edges(one: Opened) -> float:
    """With every edge cut a run is the other run."""
    other = one.ids.flip(0)
    cut = Wires.of(one.target.spec).possible[None]
    found = one.target.run_edges(one.ids, one.target.senders(other), cut)
    return _apart(found, one.plain.run(other)[:, -1:])


def _features(one: Opened) -> float:
    """A dictionary of what the MLP writes: a feature taken out moves the residual by its decoder row."""
    layer, width = one.target.spec.n_layers // 2, 16
    place, d_model, made = place_of(f"blocks.{layer}.hook_mlp_out"), one.target.spec.d_model, torch.Generator()
    shapes = {"W_enc": (d_model, width), "b_enc": (width,), "W_dec": (width, d_model), "b_dec": (d_model,)}
    weights = {name: torch.randn(shape, generator=made.manual_seed(len(name))) for name, shape in shapes.items()}
    layout = Layout("standard", place, place, d_model, d_model, width)
    if "drawn" not in one.target.dictionaries:
        one.target.add_dictionary(Dictionary("drawn", "0" * 64, layout, weights))
    edit = Edit(Site("features", layer, "drawn"), "set", 0.0, index=2)
    found = one.target.run(one.ids, edits=[edit], logits=True).logits

    def hand(name: str, at: int, value: Tensor) -> Tensor:
        if (name, at) != ("mlp_out", layer):
            return value
        active = torch.relu((value - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"])[..., 2, None]
        return value - active * weights["W_dec"][2]

    return _apart(found, one.plain.run(one.ids, hand))


def _experts(one: Opened) -> float | None:
    """What the neurons of all experts write, and the experts' biases by their shares, against what the MLP writes."""
    target: TargetModel = one.target
    if not target.spec.n_experts:
        return None
    worst = 0.0
    for layer in range(target.spec.n_layers):
        sites, router, out = neuron_sites(target.spec, layer), Site("router", layer), Site("mlp_out", layer)
        read = target.run(one.ids, read=[*sites, router]).read
        one.plain.run(one.ids)
        whole = sum(read[site] @ target.write_vectors(layer, site.expert) for site in sites)
        for expert in range(target.spec.n_experts):
            whole = whole + read[router][..., expert, None] * one.plain._expert(layer, expert)[3][2]
        assert isinstance(whole, Tensor)
        worst = max(worst, _apart(whole, one.plain.seen[_key(out)]), _read(one, [router]))
    return worst


_CHECKS: dict[str, Callable[[Opened], float | None]] = {
    "logits": _logits,
    "neurons": _neurons,
    "heads": _heads,
    "attribution": _attribution,
    "edits": _edits,
    "gradients": _gradients,
    "edges": _edges,
    "features": _features,
    "experts": _experts,
}


def table_of(rows: dict[str, dict[str, float | None]]) -> str:
    """The table in Markdown: yes and the error, rounded up to a power of ten; no; a dash where there is nothing to check."""
    lines = ["| family | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for family, errors in rows.items():
        lines.append(f"| {family} | " + " | ".join(_cell(column, errors[column]) for column in COLUMNS) + " |")
    return "\n".join(lines)


def _cell(column: str, error: float | None) -> str:
    if error is None:
        return "–" if column == "experts" else "no"
    if error > TOLERANCE:
        return f"no: {error:.1e}"
    return f"yes, {error:.0e}" if error else "yes, 0"


def begin(backend: Backend) -> str:
    """What stands in a document before the table of an engine; END stands behind it."""
    return f"<!-- begin: neuronaut.evals.architectures {backend} -->"


def verdicts_in(text: str, backend: Backend) -> dict[str, tuple[str, ...]]:
    """Family to what a document says of it in each column, on one engine, without the errors."""
    inside = text.partition(begin(backend))[2].partition(END)[0]
    found = {}
    for line in inside.strip().splitlines()[2:]:
        if cells := [cell.strip() for cell in line.strip("|").split("|") if line.startswith("| ")]:
            found[cells[0]] = tuple(re.split(r"[,:]", cell)[0] for cell in cells[1:])
    return found


def main(argv: list[str] | None = None) -> None:
    """Prints the tables, or puts them into a document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=Path, default=Path("tests"), help="the folder of tiny_models.py")
    parser.add_argument("--write", type=Path, help="the document whose tables are replaced")
    args = parser.parse_args(argv)
    for backend in BACKENDS:
        table = table_of({family: errors_of(one) for family, one in opened_models(args.tests, backend)})
        if args.write is None:
            sys.stdout.write(f"{backend}\n{table}\n")
            continue
        before, start, rest = args.write.read_text(encoding="utf-8").partition(begin(backend))
        args.write.write_text(f"{before}{start}\n{table}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
