"""The numbers of a claim, in lines that people read."""

from typing import Any

from neuronaut.agent.change_lines import change_numbers
from neuronaut.agent.lines import interval
from neuronaut.agent.readout_lines import readout_numbers
from neuronaut.agent.view import visible
from neuronaut.tools.units import Unit


def short_number(claim: dict[str, Any]) -> str:
    """The one number of a claim that is named in passing."""
    if "relation" in claim["numbers"]:
        return f"moves it {claim['scores']['delta']['value']:.2f} sd"
    if "times_low" in claim["numbers"]:
        return f"{claim['numbers']['times']:.1f} times noise"
    name, value = {
        "reads": ("F1", score_of(claim)),
        "writes": ("nats", claim["numbers"].get("delta", 0.0)),
        "attends": ("share", claim["numbers"].get("share", 0.0)),
        "role": ("nats", claim["numbers"].get("delta", 0.0)),
        "circuit": ("keeps", claim["numbers"].get("sufficiency", 0.0)),
    }[claim["side"]]
    return f"{name} {value:.2f}"


def score_of(claim: dict[str, Any]) -> float:
    """F1 of a reads claim; 0 of any other, which has none: by it claims of equal status are ordered."""
    return float(claim["scores"].get("f1", {}).get("value", 0.0))


def short_reason(reason: str) -> str:
    """The reason, of many idle leaves the first two only."""
    parts = visible(reason).split("; ")
    idle = [part for part in parts if part.startswith("no better than without")]
    shown = [part for part in parts if part not in idle[2:]]
    return "; ".join(shown) + (f"; nor without {len(idle) - 2} more of its conditions" if len(idle) > 2 else "")


def numbers_of(claim: dict[str, Any]) -> str:
    """The numbers of a claim in one line."""
    if "relation" in claim["numbers"]:
        return readout_numbers(claim)
    if "times_low" in claim["numbers"]:
        return change_numbers(claim)
    match claim["side"]:
        case "reads":
            return _reads_numbers(claim)
        case "writes":
            scores = claim["scores"]
            return f"{_shown(scores, 'delta')} nats · other {_kind(claim)}s {scores['delta']['null'] or 0:.2f} · {_edits(claim)}"
        case "attends":
            found = claim["numbers"]
            rival = _best_rival(claim)
            return (
                f"{found['share']:.2f} of {found['queries']} queries look there · {found['off_first']:.2f} of the attention "
                f"off the first token · above {found['percentile']:.0f} % of heads · {_edits(claim)}{rival}"
            )
        case "role":
            found = claim["numbers"]
            return (
                f"{found['delta']:+.3f} nats a token more than on matched text · elsewhere {found['elsewhere']:+.3f} · "
                f"above {found['percentile']:.0f} % of others · e {claim['pairs']['e']:.2g} from "
                f"{claim['pairs']['documents']} documents"
            )
        case "circuit":
            found = claim["numbers"]
            return (
                f"keeps {found['sufficiency']:.2f} of the behaviour alone (at least {found['sufficiency_low']:.2f}), above "
                f"{found['percentile']:.0f} % of random circuits of its size · {found['necessity']:.2f} is left without it · "
                f"{found['members']} of {found['nodes']} parts · other text {found['harm']:+.3f} nats a token · "
                f"e {claim['pairs']['e']:.2g} from {claim['pairs']['documents']} groups of prompts"
            )
        case other:
            raise ValueError(f"a claim of the side {other!r} has no line")


def _shown(scores: dict[str, Any], name: str) -> str:
    value = scores[name]
    return f"{value['value']:.2f}{interval(value['ci'])}"


def _edits(claim: dict[str, Any]) -> str:
    pairs = claim["pairs"]
    if pairs["discordant"] is None:
        return f"edits e {pairs['e']:.2g} from {pairs['documents']} documents"
    told = f"e {pairs['e']:.2g}, {pairs['documents']} documents"
    return f"edits {pairs['wins']}/{pairs['discordant']} as predicted ({told})"


def _best_rival(claim: dict[str, Any]) -> str:
    best = max(claim["rivals"], key=lambda r: r["f1"], default=None)
    if best is None:
        return ""
    longer = (
        f" ({best['complexity']} items beside {claim['complexity']})"
        if best["complexity"] > claim["complexity"]
        else ""
    )
    return f" · best rival {best['f1']:.2f}{longer}: {visible(best['claim'])}"


def _kind(claim: dict[str, Any]) -> str:
    return Unit.parse(claim["unit"]).kind


def _reads_numbers(claim: dict[str, Any]) -> str:
    scores = claim["scores"]
    return (
        f"F1 {_shown(scores, 'f1')} · precision {scores['precision']['value']:.2f} · "
        f"coverage {scores['coverage']['value']:.2f} · other {_kind(claim)}s {scores['f1']['null'] or 0:.2f} · "
        f"{_edits(claim)}{_best_rival(claim)}"
    )
