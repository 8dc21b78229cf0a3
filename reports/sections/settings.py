"""Settings of a run as a reader wants them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PER_RUN = (
    "method",
    "params",
    "seed",
    "subset",
    "fold",
    "dataset",
    "protocol",
    "test",
)  # listed elsewhere, or different by design


def flatten(value: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dots between the keys."""
    out: dict[str, Any] = {}
    for key in value:
        name = f"{before}{key}"
        if isinstance(value[key], Mapping):
            out |= flatten(value[key], f"{name}.")
        else:
            out[name] = value[key]
    return out


def in_words(value: Any) -> str:
    """A setting as a reader wants it."""
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(in_words, value))
    return str(value)
