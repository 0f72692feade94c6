"""Which architectures are checked in the tests, and what is said of others."""

import difflib
from collections.abc import Mapping
from typing import Any

CHECKED = (
    "gemma2", "gemma3_text", "gpt2", "gpt_neox", "gpt_oss", "llama", "mistral", "mixtral", "olmo2", "phi3", "qwen3", "qwen3_moe",
)  # fmt: skip


def nearest_to(architecture: str) -> str:
    """The checked architecture whose name is most like another one, all of them where none is like it."""
    near = difflib.get_close_matches(architecture, CHECKED, n=1, cutoff=0.5)
    return f"the nearest that is checked is {near[0]!r}" if near else f"checked are {', '.join(CHECKED)}"


def refused_code(config: Mapping[str, Any], known: bool) -> str | None:
    """Why a configuration that names code of its own is refused; None where it names none or the architecture needs none.

    known: whether transformers has the architecture.
    """
    named = config.get("auto_map")
    if known or not named:
        return None
    first = next((str(value) for value in named.values()), "?") if isinstance(named, Mapping) else str(named)
    return (
        f"config.json names code of its own ({first[:80]!r}), which would be run when the model is loaded and never is here: give "
        "the model converted to an architecture that transformers has (`neuronaut convert` does so with checkpoints of nanoGPT and "
        f"TransformerLens); {nearest_to(str(config.get('model_type')))}"
    )
