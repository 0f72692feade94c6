"""`neuronaut train-sae`: a dictionary of features is trained, measured and written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuronaut.agent.config import RunConfig
from neuronaut.agent.opening import open_inputs
from neuronaut.agent.progress import progress_on_stderr
from neuronaut.agent.view import print_json, steps_on_stderr, visible

if TYPE_CHECKING:
    from neuronaut.tools.targets.twins import Twin

ROWS = (
    ("variance_explained", "variance explained"),
    ("normalised_mse", "normalised MSE"),
    ("cosine", "cosine"),
    ("l0", "features active at a token"),
    ("loss", "loss of the model"),
    ("loss_reconstructed", "loss, site reconstructed"),
    ("loss_zero", "loss, site set to 0"),
    ("loss_mean", "loss, site set to its mean"),
    ("recovered_of_zero", "loss recovered, from 0"),
    ("recovered_of_mean", "loss recovered, from its mean"),
)
TWINS: dict[str, tuple["Twin", ...]] = {
    "none": (),
    "random-init": ("random-init",),
    "row-shuffled": ("row-shuffled",),
    "both": ("random-init", "row-shuffled"),
}


@dataclass(frozen=True)
class Wanted:
    """What the command was asked for; see `tools.features.training.settings.Settings`."""

    model: str
    corpus: str | None
    site: str
    layer: int
    width: int
    k: int
    tokens: float
    out: Path
    activation: str
    twins: str
    seed: int


def train_sae(wanted: Wanted, *, as_json: bool) -> None:
    """Train, measure, write, and print the report. Cheap checks come before the model is loaded."""
    from neuronaut.tools.features.training.make import check_free, make
    from neuronaut.tools.features.training.settings import Settings, check_settings, find_site, site_width, usual_rate
    from neuronaut.tools.features.training.stream import check_length

    n_tokens = int(wanted.tokens)
    activation = check_settings(wanted.site, wanted.width, wanted.k, n_tokens, wanted.activation)
    check_free(wanted.out)
    say = steps_on_stderr()
    target, corpus = open_inputs(RunConfig(question="train-sae", model=wanted.model, corpus=wanted.corpus), say)
    site = find_site(target.spec, wanted.site, wanted.layer)
    check_length(target, corpus, wanted.width)
    rate = usual_rate(site_width(target.spec, site))
    settings = Settings(site, wanted.width, wanted.k, n_tokens, activation, wanted.seed, rate=rate)
    report = make(
        target,
        corpus,
        settings,
        wanted.out,
        model=wanted.model,
        twins=TWINS[wanted.twins],
        watch=lambda label: progress_on_stderr("train", label),
    )
    if as_json:
        print_json({"folder": str(wanted.out), **report})
        return
    print("\n".join(table(report, str(wanted.out))))


def table(report: dict[str, Any], folder: str) -> Sequence[str]:
    """The report as lines: one column for the model and one for each of its twins."""
    asked, quality = report["settings"], report["quality"]
    kinds = list(quality)
    sparse = f"topk {asked['k']}" if asked["activation"] == "topk" else f"jumprelu, L0 {asked['k']} wanted"
    first = quality[kinds[0]]
    lines = [
        f"{visible(report['model'])} {asked['site']} {asked['layer']}  ·  {asked['width']:,} features, {sparse}",
        f"trained on {asked['n_tokens']:,} tokens of explore text, measured on {first['tokens']:,} of design text "
        f"({first['documents']:,} documents)",
        "",
        " " * 32 + "".join(f"{kind:<26}" for kind in kinds).rstrip(),
    ]
    for name, label in ROWS:
        lines.append(
            f" {label:<31}" + "".join(f"{_cell(quality[kind]['metrics'][name]):<26}" for kind in kinds).rstrip()
        )
    dead = [f"{quality[kind]['dead']:.3f} of {asked['width']:,}" for kind in kinds]
    lines.append(f" {'features that never fire':<31}" + "".join(f"{cell:<26}" for cell in dead).rstrip())
    for at, row in enumerate(first["density"]):
        cells = [str(quality[kind]["density"][at]["features"]) for kind in kinds]
        label = f"fire at {row['from']:g} to {row['to']:g}"
        lines.append(f" {label:<31}" + "".join(f"{cell:<26}" for cell in cells).rstrip())
    return [*lines, f" written to {visible(folder)}"]


def _cell(found: dict[str, float] | None) -> str:
    return "not defined" if found is None else f"{found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
