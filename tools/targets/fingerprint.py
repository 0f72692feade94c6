"""What tells one target from another. Knows no engine, so that a notebook can be read without one."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fingerprint:
    """Everything about a target that changes numbers; equal fingerprints give equal activations within dtype noise."""

    name: str
    weights_sha256: str
    tokenizer_sha256: str
    dtype: str
    backend: str
    backend_version: str
    processing: str  # norm folding, centring, whether a BOS is prepended
