"""The batch-invariance probe: the same images predicted again, by fresh processes, in other batches and orders.

A prediction that moves depends on the other images of its batch, or on what was predicted before: the method is
transductive. Each process of the probe builds the method anew, so what it caches or counts in one process can't make
its predictions in the other agree. Within a process the images come twice, in different orders, so that a method which
treats an image differently once it has seen it is flagged too.

This module imports no torch: the driver judges what the processes wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_bench.rng import numpy_generator

IMAGES = 256  # of validation and test together
PROCESSES = (
    (("in order, batches of 512", 512), ("shuffled, batches of 64", 64)),
    (("shuffled, one at a time", 1), ("sorted by predicted class, batches of 7", 7)),
)


def chosen_rows(rows: np.ndarray, share: int) -> np.ndarray:
    """At most `share` of a role's rows, evenly spaced."""
    return rows[np.linspace(0, len(rows) - 1, min(share, len(rows))).astype(np.int64)]


def order_of(name: str, n: int, seed: int, first: np.ndarray | None) -> np.ndarray:
    """The order in which a pass predicts `n` images; `first` holds the logits of the process's first pass."""
    if name.startswith("sorted") and first is not None:
        return np.argsort(first.argmax(1), kind="stable")
    return np.arange(n) if name.startswith("in order") else numpy_generator(seed, "probe", name).permutation(n)


def judge(outputs: Sequence[Sequence[np.ndarray | str]]) -> dict[str, Any]:
    """Compare all passes with the first process's first one.

    Parameters
    ----------
    outputs : by process and pass
        Logits float [n, K], or the error that a pass ended with: a method that can't predict in some batch at all
        depends on it.

    Returns
    -------
    dict
        ``transductive`` (bool), ``images``, ``tolerance`` and, in ``checks``, for each pass the largest difference of a
        logit and the number of predicted classes that changed. Predictions are made in float32 without TF32, where
        rounding moves logits by about 1e-5 of their spread; the tolerance is 1e-3 of it.
    """
    names = [[name for name, _ in passes] for passes in PROCESSES]
    base = outputs[0][0]
    if isinstance(base, str):
        failed = {"name": names[0][0], "max_difference": None, "flipped": None, "error": base}
        return {"transductive": True, "images": 0, "tolerance": 0.0, "checks": [failed]}
    tolerance = 1e-3 * max(float(base.std(dtype=np.float64)), 1e-3)
    pairs = [(n, o) for ns, os in zip(names, outputs, strict=True) for n, o in zip(ns, os, strict=True)][1:]
    checks: list[dict[str, Any]] = [_compare(name, base, output) for name, output in pairs]
    moved = any(c["max_difference"] is None or c["max_difference"] > tolerance for c in checks)
    return {"transductive": moved, "images": len(base), "tolerance": tolerance, "checks": checks}


def _compare(name: str, base: np.ndarray, output: np.ndarray | str) -> dict[str, Any]:
    if isinstance(output, str):
        return {"name": name, "max_difference": None, "flipped": None, "error": output}
    difference = np.abs(output.astype(np.float64) - base)
    flipped = int((output.argmax(1) != base.argmax(1)).sum())
    return {"name": name, "max_difference": float(difference.max()), "flipped": flipped}
