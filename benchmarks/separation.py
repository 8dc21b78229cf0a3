"""What separate processes for training, scoring and probing cost: each run in three processes, then in one.

``python benchmarks/separation.py`` trains on the built-in faces; ``--dataset``, ``--home`` and ``--epochs`` choose
other prepared data. The first pair is not counted because it starts the fork server, which a study does once.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from fer_bench.contract.plugins import plugins
from fer_bench.data.prepare import ensure_store
from fer_bench.record.home import Home
from fer_bench.runs import forkserver, order, worker
from fer_bench.runs.executor import Workplace, execute
from fer_bench.runs.spec import RunSpec
from fer_bench.training.job import Runtime
from fer_bench.training.recipe import PRESETS, Recipe

Handle = forkserver.Handle


class Line:
    """A process's line to its driver, if both are this process. What is sent passes through JSON, as between two."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle

    def tell(self, kind: str, **message: Any) -> Any:
        """Give the driver a message, and return its reply."""
        return self.handle(json.loads(json.dumps({"kind": kind, **message})))

    ask = tell


@contextmanager
def one_process() -> Iterator[None]:
    """Let everything happen in this process, without the guard; tests use it to look inside a run."""

    def call(
        server: forkserver.ForkServer,
        role: str,
        given: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        handle: Handle,
    ) -> int:
        return worker.ROLES[role](json.loads(json.dumps(given)), arrays, Line(handle))

    with mock.patch.object(forkserver.ForkServer, "call", call), mock.patch.object(order, "guard"):
        yield


def seconds(spec: RunSpec, work: Workplace) -> float:
    """Wall-clock seconds of one run; its record is removed."""
    began = time.perf_counter()
    record = execute(spec, work)
    taken = time.perf_counter() - began
    shutil.rmtree(record.path)
    return taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--home", help="a home in which the data set is prepared  [default: a temporary one]")
    parser.add_argument("--method", default="baseline_resnet")
    parser.add_argument("--recipe", default="demo", choices=sorted(PRESETS))
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home, available = Home(Path(options.home or folder)), plugins()
        dataset = available.dataset(options.dataset)
        ensure_store(home, dataset)
        preset = PRESETS[options.recipe]
        given = {"epochs": options.epochs} if options.epochs else {}
        recipe = Recipe.build(preset.recipe, {**given, "precision": "fp32"})
        card = available.method(options.method).card
        spec = RunSpec(
            method=options.method, params=card.resolve({}), dataset=options.dataset, dataset_params=dataset.params,
            protocol=dataset.card.protocol(None).name, backbone=preset.backbone, recipe=recipe,
        )  # fmt: skip
        work = Workplace(home=home, plugins=available, runtime=Runtime(device="cpu", threads=options.threads))
        pairs = []
        for seed in range(options.pairs + 1):
            this = replace(spec, seed=10_000 + seed)
            apart = seconds(this, work)
            with one_process():
                pairs.append((apart, seconds(this, work)))
    first, pairs = pairs[0], pairs[1:]
    apart, together = (statistics.median(p[k] for p in pairs) for k in (0, 1))
    ratios = sorted(a / b for a, b in pairs)
    print(f"{options.method} on {options.dataset}, {preset.backbone}, {recipe.epochs} epochs, fp32, CPU")
    print(f"three processes {apart:.2f} s a run, one process {together:.2f} s, medians of {len(pairs)} pairs")
    print(f"ratio {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")
    print(
        f"difference {statistics.median(a - b for a, b in pairs):.2f} s; start of the server {first[0] - apart:.1f} s"
    )


if __name__ == "__main__":
    main()
