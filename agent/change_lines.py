"""What changed between two checkpoints, in lines that people read: from the stored result alone."""

from collections.abc import Iterator

from neuronaut.agent.lines import Payload

LISTED, TENSORS = 8, 4


def change_numbers(claim: Payload) -> str:
    """The numbers of a change in one line."""
    found, pairs = claim["numbers"], claim["pairs"]
    return (
        f"{found['times']:.1f} times noise (at least {found['times_low']:.1f}) · above {found['percentile']:.0f} % of the units that "
        f"{found['twins']} twins of noise move most · in place {found['place']} of {found['units']} here · e {pairs['e']:.2g} from "
        f"{pairs['documents']} documents"
    )


def diff_models(payload: Payload, metrics: Payload) -> Iterator[str]:
    """The units that changed most beside noise, the drift of the residual stream, the output and the tensors."""
    beyond, other, n = payload["beyond"], payload["other"], payload["n_units"]
    moved = f"{beyond['any']} of {n} heads and neurons changed more than noise of the same size"
    kinds = f" (vectors {beyond['vectors']}, activations {beyond['activations']}, what they write {beyond['writes']})"
    none = f"none of {n} heads and neurons changed more than noise of the same size"
    yield f"from {payload['target']} to {other}: " + (moved + kinds if beyond["any"] else none)
    rows = payload["units"][:LISTED]
    rows += [row for row in payload["units"][LISTED:] if row["unit"] == payload["unit"]]
    yield "by what they write on the same inputs; shares of what was there, KL by that unit's change alone:"
    for row in rows:
        yield _unit(row)
    most = max(row["noise_kl"] for row in rows)
    yield f"null: {payload['twins']} checkpoints of noise of the norm of each tensor's change; the largest KL of a unit there {most:.2g}"
    yield from _drift(payload, metrics)
    changed = [row for row in payload["tensors"] if row["change"]]
    first = sorted(changed, key=lambda row: -(row["relative"] or 0))[:TENSORS]
    named = ", ".join(f"{row['tensor']} {_share(row['relative'])}" for row in first)
    yield f"{len(changed)} of {len(payload['tensors'])} tensors changed, most of all {named}"
    if payload["unlike"]:
        yield f"only in one of both, or of another shape, and left out: {', '.join(payload['unlike'][:TENSORS])}"


def _unit(row: Payload) -> str:
    cells = [f"vectors {_share(row['vector'])}"]
    if row["activation"] is not None:
        together = "" if row["correlation"] is None else f" (r {row['correlation']:.2f})"
        cells.append(f"activation {_share(row['activation'])}{together}")
    cells.append(f"writes {_share(row['write'])}, {row['times']:.1f} times noise")
    cells.append(f"KL {row['kl']:.2g}, loss {row['loss']:+.2g}")
    return f"{row['unit']:<7} {' · '.join(cells)}" + (
        f" · beyond noise: {', '.join(row['beyond'])}" if row["beyond"] else ""
    )


def _drift(payload: Payload, metrics: Payload) -> Iterator[str]:
    steps = payload["drift"]
    shown = [steps[0], *steps[1 :: max(1, (len(steps) - 1) // 4)]]
    shown += [] if steps[-1] in shown else [steps[-1]]
    told = ", ".join(f"{row['after']} {row['share']:.1%} ({row['noise']:.1%})" for row in shown)
    yield f"drift of the residual stream, and what noise gives: {told}"
    kl, loss = metrics["kl"], metrics["loss_rise"]
    low, high = kl["ci"] or (kl["value"], kl["value"])
    yield (
        f"output: KL {kl['value']:.3g} [{low:.3g}, {high:.3g}] nats a token (noise {kl['null_value']:.3g}), loss {loss['value']:+.3g} "
        f"(noise {loss['null_value']:+.3g}), on {kl['n']} texts"
    )


def _share(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1%}"


OF_TOOLS = (diff_models,)
