"""The chain of hashes over all rows: each line binds one row and the line before."""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

GENESIS = "0" * 64


def canonical(value: Any) -> str:
    """The one JSON text of a value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_bytes)


def _bytes(value: object) -> str:
    if isinstance(value, (bytes, memoryview)):
        return base64.b64encode(bytes(value)).decode()
    raise TypeError(f"{type(value).__name__} cannot be recorded")


def sha256(text: str) -> str:
    """Hex digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def row_key(row: Mapping[str, Any], primary_key: tuple[str, ...]) -> str:
    """The primary key of a row as text."""
    return "/".join(str(row[name]) for name in primary_key)


def row_hash(row: Mapping[str, Any]) -> str:
    """Hash of a row's values; floats as their exact representation."""
    return sha256(canonical({key: value for key, value in row.items() if value is not None}))


def line_hash(seq: int, table: str, row_id: str, row_sha256: str, prev: str) -> str:
    """Hash of one ledger line."""
    return sha256(canonical([seq, table, row_id, row_sha256, prev]))
