"""What waiting threads cost: an epoch of training alone, and beside other work, with threads that spin or that sleep.

The threads of one operation wait for each other at its end. GNU's OpenMP has them spin for 3 ms before they sleep; if
another program needs the core, they keep it from the very thread they wait for. ``fer-bench`` lets them spin for
10 microseconds and then sleep (`fer_bench/base/process.py`), unless OMP_WAIT_POLICY, GOMP_SPINCOUNT or KMP_BLOCKTIME is
set.

Every epoch runs in a process of its own, on all cores; the settings alternate. It is measured alone, and beside one and
two programs that do nothing but compute.

    python benchmarks/busy.py [--images 1024] [--rounds 5] [--backbone resnet10_tiny] [--neighbours 0 1 2]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from fer_bench.base.process import WAITING, cores

SETTINGS = {
    "spin": {"GOMP_SPINCOUNT": "300000"},  # what libgomp does by itself
    "fer-bench": WAITING,
    "sleep": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024, help="training images an epoch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backbone", default="resnet10_tiny")
    parser.add_argument(
        "--neighbours", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="busy programs beside"
    )
    parser.add_argument("--epoch", action="store_true", help=argparse.SUPPRESS)  # the process that is measured
    return parser.parse_args()


def epoch(backbone: str, n: int) -> float:
    """Seconds of the second epoch of a training by the demo's recipe."""
    import numpy as np
    import torch

    from fer_bench import Context, Method, TrainView
    from fer_bench.contract.backbones import build_trunk
    from fer_bench.training.fit import fit
    from fer_bench.training.job import Fold, Job, Runtime
    from fer_bench.training.recipe import PRESETS, Recipe

    recipe = Recipe.build(PRESETS["demo"].recipe, {"epochs": 2, "precision": "fp32"})
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, 1, 48, 48), dtype=np.uint8))
    labels = np.arange(n) % 7
    method = Method()
    method.ctx = Context(
        classes=tuple("abcdefg"), counts=np.bincount(labels), image_shape=(1, 48, 48), seed=0, epochs=2,
        batch_size=recipe.batch_size, device=torch.device("cpu"), recipe=recipe.to_dict(),
    )  # fmt: skip
    model = method.build_model(lambda: build_trunk(backbone, in_chans=1, image_size=48))
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    view = TrainView(images=images, labels=labels, num_classes=7)
    val = Fold(images=images[: n // 8], labels=labels[: n // 8])
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            method=method, model=model, ctx=method.ctx, recipe=recipe, runtime=Runtime(checkpoint_seconds=1e9),
            view=view, val=val, work=Path(folder),
        )  # fmt: skip
        return fit(job).seconds[1]


def measured(options: argparse.Namespace, setting: dict[str, str]) -> float:
    """The same in a process of its own, whose threads wait as `setting` says."""
    unset = {"OMP_NUM_THREADS", *(name for values in SETTINGS.values() for name in values)}
    environment = {name: value for name, value in os.environ.items() if name not in unset} | setting
    command = [sys.executable, __file__, "--epoch", "--images", str(options.images), "--backbone", options.backbone]
    return float(subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout)


def main() -> None:
    """Measure and print."""
    options = arguments()
    if options.epoch:
        print(epoch(options.backbone, options.images))
        return
    seconds: dict[tuple[str, int], list[float]] = {}
    for _ in range(options.rounds):
        for busy in options.neighbours:
            loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
            try:
                for name, setting in SETTINGS.items():
                    seconds.setdefault((name, busy), []).append(measured(options, setting))
            finally:
                for loop in loops:
                    loop.kill()
                    loop.wait()
    print(f"{options.backbone}, {options.images} images, {cores()} cores; seconds an epoch: median (least to most)\n")
    heads = ["threads", *(f"beside {n}" if n else "alone" for n in options.neighbours)]
    rows = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for name in SETTINGS:
        taken = [seconds[name, busy] for busy in options.neighbours]
        rows.append([name, *(f"{statistics.median(s):.2f} ({min(s):.2f} to {max(s):.2f})" for s in taken)])
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))


if __name__ == "__main__":
    main()
