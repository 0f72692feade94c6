"""Read-outs in lines that people read: how they lie to a unit's vectors, what patching does, where training moved the residual."""

from collections.abc import Iterator, Mapping
from typing import Any

from neuronaut.agent.lines import Payload, interval

PATCHES = {"set": "set to five values", "zero": "set to 0", "scale": "scaled by 0 to 2"}


def readout_numbers(claim: Mapping[str, Any]) -> str:
    """The numbers of a relation in one line."""
    found, pairs = claim["numbers"], claim["pairs"]
    named = (("the unit", found["by_unit"]), ("what it reads", found["by_inputs"]))
    told = [_moved(name, one) for name, one in named if one is not None]
    line = "" if found["line"] is None else f" · on a line r2 {found['line']:.2f}"
    return " · ".join(told) + line + f" · e {pairs['e']:.2g} from {pairs['documents']} documents"


def _moved(name: str, one: Payload) -> str:
    share = "" if one["share"] is None else f", {one['share']:.0%} of how it goes with it"
    return (
        f"{name} moves it {one['effect']:.3f}{interval((one['low'], one['high']), '.3f')} sd a sd{share} (random directions "
        f"{one['random']:.3f}, z {one['z']:.1f}; above {one['percentile']:.0f} % of other units)"
    )


def read_out(payload: Payload, metrics: Payload) -> Iterator[str]:
    """What `read_out` found."""
    unit, told = payload["unit"], metrics["told"]
    kind = "it tells" if payload["trained_here"] else "it goes with"
    yield f"{payload['readout']} and {unit}, on explore text: {kind} {told['value']:.0%} of the variance of {unit} ({told['n']} tokens)"
    for name in ("write", "read"):
        one = payload["cosines"][name]
        near = ", ".join(f"{row['unit']} {row['cosine']:+.2f}" for row in one["nearest"][:3])
        yield (
            f"cosine with the {name} vector {one['cosine']:+.3f} (z {one['z']:+.1f} against random vectors; other units "
            f"{one['others']:.3f}, above {one['percentile']:.0f} %) · nearest: {near}"
        )
    weights = payload["weights"]
    shares = ", ".join(f"{name} {weights[name]['top_share']:.2f}" for name in ("read-out", "read", "write"))
    random, bar = weights["random"]["top_share"], weights["random_95"]["top_share"]
    yield f"share of its squared length in the largest twentieth of its weights: {shares} (random {random:.2f}, 95 % below {bar:.2f})"
    natural = payload["natural"]
    yield f"unpatched, it goes with {unit} by {natural['slope']:+.3g} a unit of activation (r {natural['r']:+.2f}); patched:"
    for row in payload["patching"]:
        yield _patched(row)


def _patched(row: Payload) -> str:
    where = "the last position" if row["where"] == "last" else "all positions"
    if row["slope"] is None:
        return f"{PATCHES[row['how']]:<19} at {where}: no input had an activation to change"
    ends = interval(row["interval"] or (row["slope"], row["slope"]), ".3g")
    r2 = "not moved" if row["r2"] is None else f"r2 {row['r2']:.2f}"
    return (
        f"{PATCHES[row['how']]:<19} at {where}: slope {row['slope']:+.3g}{ends}, {r2}, {row['n']} inputs; "
        f"direct {row['direct']:+.3g}, by other ways {row['rest']:+.3g}"
    )


def readout_shift(payload: Payload, metrics: Payload) -> Iterator[str]:
    """What `readout_shift` found."""
    yield (
        f"what training since {payload['before']!r} moved at {payload['site']}: {payload['shift']:.3g}, beside a residual of "
        f"{payload['residual']:.3g}; share of it along each direction"
    )
    for name, said in (("head", f"{payload['readout']}"), ("write", "the write vector"), ("read", "the read vector")):
        one, metric = payload["along"][name], metrics[f"share_{name}"]
        yield (
            f"{said}: {one['share']:.3f}{interval(metric['ci'], '.3f')} (random directions {payload['random']:.3f}, 95 % below "
            f"{payload['random_95']:.3f}; z {one['z']:+.1f}) · r {one['with_unit']:+.2f} with {payload['unit']}"
        )
    turned = payload["changed"]
    yield "its own vectors turned by " + ", ".join(
        f"{name} {one['turned']:.2g} (more than {one['percentile']:.0f} % of its layer)" for name, one in turned.items()
    )


OF_TOOLS = (read_out, readout_shift)
