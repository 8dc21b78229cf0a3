"""Studies of several data sets, in which every recall is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest

# Every data set has 50 angry, 20 disgust, 100 happy test images, and 300, 40, 900 in training: disgust is the tail.
LOW, MIDDLE, HIGH = (40, 8, 90), (40, 12, 90), (40, 18, 90)  # disgust: 40 %, 60 %, 90 %
THREE = {"toy": (HIGH, MIDDLE, LOW), "faces": (HIGH, MIDDLE, LOW), "masks": (MIDDLE, HIGH, LOW)}  # of `a`, `b`, `base`


@pytest.fixture
def add(bench) -> Callable[..., dict]:
    """``add(dataset, {label: hits of each seed})`` writes a study of a data set of its own and returns its record."""

    def write(dataset, hits, *, reference="base", name="", protocol=None, transductive=(), data=None, spec=None):
        named = bench.data()["protocol"] | {"name": f"{dataset}/official"} | (protocol or {})
        facts = {"dataset": dataset, "fingerprint": f"print-of-{dataset}", "protocol": named} | (data or {})
        runs = [
            bench.run(
                label,
                seed,
                of,
                data=facts,
                spec={"dataset": dataset} | (spec or {}),
                transductive=label in transductive,
            )
            for label, by_seed in hits.items()
            for seed, of in enumerate(by_seed)
        ]
        command = f"fer-bench run {' '.join(hits)} --dataset {dataset}"
        more = {"name": name or f"on-{dataset}", "dataset": dataset, "command": command}
        return bench.study(runs, list(hits), reference, **more)

    return write


@pytest.fixture
def three(add) -> list[dict]:
    """Three methods on three data sets, one seed each: two agree, and the third has the two best swapped."""
    return [add(name, {"a": [a], "b": [b], "base": [base]}) for name, (a, b, base) in THREE.items()]
