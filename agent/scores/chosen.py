"""Which scores are asked for, and whether there is a judge for each."""

from collections.abc import Callable
from typing import get_args

from neuronaut.agent.llm.gateway import Gateway
from neuronaut.agent.scores.asked import Detection, Fuzz, Intruders, Saebench, SimulationReplies
from neuronaut.agent.scores.base import Name, Score
from neuronaut.agent.scores.local import N2G, Embedding, Intervention, Simulation, Surprisal, Transluce
from neuronaut.tools.errors import UserError
from neuronaut.tools.learn.judge import Judge

NAMES: tuple[Name, ...] = get_args(Name)
ASKED: dict[Name, Callable[[Gateway], Score]] = {
    "detection": Detection,
    "fuzz": Fuzz,
    "simulation": SimulationReplies,
    "intruder": Intruders,
    "saebench_autointerp": Saebench,
}
LOCAL: dict[Name, Callable[[Judge], Score]] = {
    "simulation": Simulation,
    "simulation_transluce": Transluce,
    "embedding": Embedding,
    "surprisal": Surprisal,
    "intervention": Intervention,
}


def chosen_names(text: str | None, *, llm: bool, simulator: bool, predicate: bool) -> tuple[Name, ...]:
    """The names in `text`, or all for which there is a judge. Refuses an unknown name, one without a judge, and n2g_f1 without a
    predicate."""
    judged = [
        name
        for name in NAMES
        if (name in ASKED and llm) or (name in LOCAL and simulator) or (name == "n2g_f1" and predicate)
    ]
    if text is None:
        if not judged:
            raise UserError(
                "no score can be computed without a judge: name a language model (--llm) or a local one (--simulator target)"
            )
        return tuple(judged)
    named = [name.strip() for name in text.split(",")]
    if unknown := [name for name in named if name not in NAMES]:
        raise UserError(f"{unknown[0]!r} is no score: choose from {', '.join(NAMES)}")
    for name in NAMES:
        if name in named and name not in judged and name != "n2g_f1":
            needs = " or ".join(way for way, having in (("--llm", ASKED), ("--simulator", LOCAL)) if name in having)
            raise UserError(f"{name} needs a judge: name one with {needs}")
    if "n2g_f1" in named and not predicate:
        raise UserError(
            "n2g_f1 is computed from a predicate, and --explanation is none: write it in the predicate language, for example "
            "token(' and'), or leave n2g_f1 out"
        )
    return tuple(name for name in NAMES if name in named)


def scores_of(names: tuple[Name, ...], gateway: Gateway | None, judge: Judge | None) -> list[Score]:
    """Each score with each of its judges that there is, in the order of the names."""
    found: list[Score] = []
    for name in names:
        if name == "n2g_f1":
            found.append(N2G())
        if judge is not None and name in LOCAL:
            found.append(LOCAL[name](judge))
        if gateway is not None and name in ASKED:
            found.append(ASKED[name](gateway))
    return found
