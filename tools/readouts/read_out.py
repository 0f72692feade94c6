"""Does a read-out use a unit? What explore text and the weights say of it, and the tests of what is then claimed."""

from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, StringConstraints

from neuronaut.tools.errors import ToolRefused
from neuronaut.tools.figures import Axes, Figure, Series, curve
from neuronaut.tools.measurements import Measurement
from neuronaut.tools.readouts.directions import Vectors, cosines, pca_figure, spread_of, weights_figure
from neuronaut.tools.readouts.doses import doses, row_of, set_values
from neuronaut.tools.readouts.fit import fit
from neuronaut.tools.readouts.heads import Head, Output, Residual, check_head
from neuronaut.tools.readouts.moved import (
    Moved,
    Reader,
    bets,
    bets_against,
    by_inputs,
    by_unit,
    natural,
    summary,
    through,
)
from neuronaut.tools.readouts.places import Beside, Places, beside, places
from neuronaut.tools.registry import ToolArgs, ToolContext, ToolResult, tool
from neuronaut.tools.targets.base import Site
from neuronaut.tools.targets.checks import check_layer
from neuronaut.tools.targets.load import check_unit
from neuronaut.tools.units import Unit

EXPLORED = 16384  # tokens
Relation = Literal["unit", "inputs", "neither"]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]


class ReadoutArgs(ToolArgs):
    """Which neuron, and which read-out: a saved head by its name, or one that is trained here at a site and layer to predict
    the neuron: a line, ten class bins, or ten digits through the model's own unembedding."""

    example: ClassVar = {"unit": "8.481", "site": "resid_post", "layer": 9}
    unit: str
    head: Name | None = None
    site: Residual = "resid_post"
    layer: int | None = Field(default=None, ge=0)
    output: Output = "linear"
    seed: int = Field(default=0, ge=0)


class TestReadoutArgs(ReadoutArgs):
    """As of read_out; the registered relation, and the confirm block that is opened."""

    example: ClassVar = {"unit": "8.481", "site": "resid_post", "layer": 9, "relation": "unit", "block": 0}
    relation: Relation
    block: int = Field(ge=0, le=2)


class Opened(NamedTuple):
    """A read-out with its unit on explore text. r2: share of the unit's variance that it tells on n tokens of documents that it
    was not trained on; of a saved head the squared correlation, whatever it was trained to say."""

    reader: Reader
    seen: Beside
    r2: float
    n: int


def neuron_of(context: ToolContext, address: str) -> Unit:
    """The unit of a read-out. Refuses all but neurons, and a neuron that the model does not have."""
    unit = Unit.parse(address).with_sign(1)
    if unit.kind != "neuron":
        raise ToolRefused(
            f"{unit.address} is a {unit.kind}: whether a read-out uses it can be asked of neurons, such as 8.481"
        )
    check_unit(context.target.spec, unit)
    return unit


def _opened(context: ToolContext, args: ReadoutArgs) -> Opened:
    target, unit = context.target, neuron_of(context, args.unit)
    if args.head is not None:
        head = context.registered.head(args.head)
        check_head(head, target.spec, target.fingerprint())
        seen = beside(target, head.site, unit, context.sample("explore", EXPLORED))
        reader = Reader.of(target, head, unit, seen)
        return Opened(reader, seen, natural(reader, seen)["r"] ** 2, len(seen.activation))
    layer = unit.layer if args.layer is None else args.layer
    check_layer(target.spec, layer)
    site = Site(args.site, layer)
    seen = beside(target, site, unit, context.sample("explore", EXPLORED))
    fitted = fit(target, site, unit, seen, args.output)
    return Opened(Reader.of(target, fitted.head, unit, seen), seen, fitted.r2, fitted.n)


@tool("read_out")
def read_out(context: ToolContext, args: ReadoutArgs) -> ToolResult:
    """Whether a read-out uses a neuron, as the weights and explore text have it: cosines of its direction with the neuron's read
    and write vectors, how its weights are spread, and how it follows the neuron when that is patched.

    told: share of the neuron's variance that it tells, on documents apart (a saved head: squared correlation). cos_read,
    cos_write: null is the median size of the cosines with the other neurons' vectors, z is against random vectors.
    patching: slope of the read-out, in its own unit, on the activation that is set, zeroed or scaled (0 to 2) at the last
    position or all of them; direct: by what the MLP adds there alone; rest: by other ways. natural: slope on unpatched text.
    effects: as `test_readout` measures them, on explore text. arrays: weight, bias, centres and the direction.
    Refuses: heads, features; a head of other weights, width or layers; a neuron that never changes.
    """
    reader, seen, r2, n = _opened(context, args)
    target, head, unit = context.target, reader.head, reader.unit
    vectors = Vectors.of(target, unit, head.direction(target, seen.residual))
    chosen = places(target, head.site, unit, context.sample("explore", EXPLORED), seed=args.seed)
    measured, angles = cosines(target, vectors)
    patched = doses(reader, chosen, set_values(seen))
    goes = natural(reader, seen)
    payload = {
        "unit": unit.address,
        "readout": head.about,
        "site": str(head.site),
        "output": head.config.output,
        "trained_here": args.head is None,
        "spread": reader.spread,
        "cosines": angles,
        "weights": spread_of(vectors, args.seed),
        "natural": goes,
        "patching": patched,
        "effects": _effects(reader, chosen, goes["slope"], args.seed),
    }
    told = Measurement("told", r2, "share of the neuron's variance", n, None, 0.0, None, "tokens")
    figures = (
        weights_figure(vectors, head.about),
        pca_figure(seen, vectors, head.about),
        *_dose_figure(reader, patched),
    )
    return ToolResult((told, *measured), payload, _arrays(head, vectors), figures)


def _effects(reader: Reader, chosen: Places, slope: float, seed: int) -> dict[str, Any]:
    """As a test measures them."""
    return {
        "by_unit": through(reader, summary(by_unit(reader, chosen, seed), seed), slope),
        "by_inputs": summary(by_inputs(reader, chosen, seed), seed),
    }


def _arrays(head: Head, vectors: Vectors) -> dict[str, Any]:
    import numpy as np

    kept = {"weight": head.weight.numpy(), "bias": head.bias.numpy(), "direction": vectors.direction.numpy()}
    return kept | ({"centres": np.array(head.config.centres)} if head.config.centres else {})


def _dose_figure(reader: Reader, patched: list[dict[str, Any]]) -> tuple[Figure, ...]:
    lines = []
    for row in patched:
        if row["how"] == "set":
            ends = [move["interval"] or [move["mean"]] * 2 for move in row["moves"]]
            x, y = [move["to"] for move in row["moves"]], [move["mean"] for move in row["moves"]]
            where = "at the last position" if row["where"] == "last" else "at all positions"
            lines.append(Series(where, x, y, [low for low, _ in ends], [high for _, high in ends]))
    unit = reader.unit.address
    axes = Axes(f"{reader.head.about}, when {unit} is set", f"activation of {unit}", "change of the read-out")
    return (curve("doses", lines, axes),)


@tool("test_readout", opens_test_text=True)
def test_readout(context: ToolContext, args: TestReadoutArgs) -> ToolResult:
    """The test of one registered relation of a read-out to a neuron, on confirm text.

    delta: standard deviations that the read-out moves when the neuron is raised by one of its own (`unit`), or when what the MLP
    reads is pushed along the neuron's read vector by as much with the neuron held (`inputs`); of `neither` the larger of both.
    null_value: median of other neurons of the layer, each by its own standard deviation; random: root mean square of random
    directions of equal length. bets: by document, against another neuron dealt to it.
    """
    reader, seen, _, _ = _opened(context, args)
    tokens = context.tokens("confirm", args.block)
    chosen = places(context.target, reader.head.site, reader.unit, tokens, seed=args.seed)
    moved: dict[str, Moved] = {}
    if args.relation != "inputs":
        moved["by_unit"] = by_unit(reader, chosen, args.seed)
    if args.relation != "unit":
        moved["by_inputs"] = by_inputs(reader, chosen, args.seed)
    told = {name: summary(one, args.seed) for name, one in moved.items()}
    if "by_unit" in told:
        fresh = beside(context.target, reader.head.site, reader.unit, tokens)
        told["by_unit"] = through(reader, told["by_unit"], natural(reader, fresh)["slope"])
    largest = max(told.values(), key=lambda one: float(one["effect"]))
    delta = Measurement(
        "delta", largest["effect"], "sd of the read-out", len(chosen), (largest["low"], largest["high"]),
        largest["others"], largest["percentile"],
    )  # fmt: skip
    every = list(moved.values())
    told_bets = bets_against(every) if args.relation == "neither" else bets(every[0], args.seed)
    return ToolResult((delta,), told | _about(reader, chosen, seen, args) | {"bets": told_bets})


def _about(reader: Reader, chosen: Places, seen: Beside, args: TestReadoutArgs) -> dict[str, Any]:
    """The rest of what is judged: the line of the read-out over what is set, where the unit is claimed to be read."""
    line = None
    if args.relation == "unit":
        line = row_of(reader, chosen, "set", "last", [("set", value) for value in set_values(seen)])["r2"]
    return {"address": reader.unit.address, "readout": reader.head.about, "relation": args.relation, "line": line}
