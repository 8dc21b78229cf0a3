"""What a step of a method costs beside one of plain cross-entropy, as it was measured.

A tree of plug-ins may hold a file ``_costs.json`` in its top folder::

    {"measured": "how, in words", "costs": {"NAME": {"time": 1.3, "kept": 1.0, "weights": 1.0, "state": 0}}}

`benchmarks/costs.py` writes that of the built-in methods.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fer_bench.contract.cards import MethodCard
from fer_bench.contract.plugins import Plugin
from fer_bench.errors import PluginError

FILE = "_costs.json"


@dataclass(frozen=True)
class Cost:
    """What a method takes beside plain cross-entropy, with the same network, images and recipe: 1 is as much.

    Attributes
    ----------
    time : float
        CPU seconds of all its training steps.
    kept : float
        Bytes that its largest training step keeps for the backward pass.
    weights : float
        Numbers in its parameters and buffers.
    state : int
        Bytes of its ``state_dict()``, of which plain cross-entropy has none.
    """

    time: float
    kept: float
    weights: float = 1.0
    state: int = 0


def cost_of(plugin: Plugin[MethodCard]) -> Cost | None:
    """The cost of a method, or None if it was not measured.

    Raises
    ------
    PluginError
        The file with the costs can't be read.
    """
    return _read(plugin.tree.root / FILE)[1].get(plugin.card.name)


def how_measured(plugin: Plugin[MethodCard]) -> str:
    """How the costs of a plug-in's tree were measured, in words; empty if they were not."""
    return _read(plugin.tree.root / FILE)[0]


@lru_cache(maxsize=8)
def _read(file: Path) -> tuple[str, dict[str, Cost]]:
    if not file.is_file():
        return "", {}
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
        return str(content["measured"]), {name: _cost(numbers) for name, numbers in content["costs"].items()}
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise PluginError(f"the costs of methods can't be read: {error}", where=str(file)) from error


def _cost(numbers: dict[str, Any]) -> Cost:
    return Cost(
        time=float(numbers["time"]),
        kept=float(numbers["kept"]),
        weights=float(numbers.get("weights", 1)),
        state=int(numbers.get("state", 0)),
    )
