"""What the harness costs: images per second of a bare loop and of the whole harness, side by side in one run.

Both train the same network on the same number of images, with the same optimiser, precision and threads, and both
predict the same validation images after every epoch:

- *bare*: normalised batches prepared in advance; forward, backward, step; then forward over such validation batches.
- *harness*: ``fer_bench.training.fit.fit`` itself: gather from the uint8 store, augmentation, metrics, smoothing,
  snapshot and checkpoint after every epoch.

They alternate epoch by epoch, so that a machine whose speed drifts slows both equally. The ratio compares CPU seconds
on a CPU (so other processes do not count) and wall-clock seconds on a GPU.

    python benchmarks/loop.py [--backbone resnet18] [--images 4096] [--rounds 5] [--device auto]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from fer_bench import Context, Method, TrainView
from fer_bench.contract.backbones import Classifier, build_trunk
from fer_bench.training.dataplane import prepare
from fer_bench.training.evaluate import EVAL_BATCH, autocast
from fer_bench.training.fit import fit
from fer_bench.training.job import Fold, Job, Listener, Runtime
from fer_bench.training.recipe import PRESETS, Recipe

CLASSES = 7


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--images", type=int, default=4096, help="training images an epoch")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each, after one that is not counted")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    return parser.parse_args()


def data(n: int, device: torch.device, side: int = 48) -> tuple[torch.Tensor, np.ndarray]:
    """Random faces' worth of bytes: speed does not depend on what is on them."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (n, 1, side, side), dtype=np.uint8)).to(device)
    return images, np.arange(n) % CLASSES


class Clock:
    """CPU seconds of this process on a CPU, synchronised wall-clock seconds on a GPU."""

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"

    def __call__(self) -> float:
        if self.cuda:
            torch.cuda.synchronize()
            return time.perf_counter()
        return time.process_time()


def bare(
    backbone: str, recipe: Recipe, device: torch.device, n: int, clock: Callable[[], float], n_val: int = 0
) -> Iterator[float]:
    """Seconds of one bare epoch after another, with `n_val` validation images: an eighth of the others if 0."""
    model = Classifier(build_trunk(backbone, in_chans=1, image_size=48), CLASSES)
    model = model.to(device=device, memory_format=torch.channels_last)
    if device.type == "cuda":
        model.trunk.compile_features()
    images, labels = data(n, device)
    val, _ = data(n_val or n // 8, device)
    target = torch.as_tensor(labels, device=device)
    size = recipe.batch_size
    ready = [(prepare(images[k : k + size], 0), target[k : k + size]) for k in range(0, n - size + 1, size)]
    ready_val = [prepare(part, 0) for part in val.split(EVAL_BATCH)]
    fused = device.type == "cuda"
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=fused)
    while True:
        start = clock()
        model.train()
        for x, y in ready:
            with autocast(recipe, device):
                loss = F.cross_entropy(model(x).logits, y, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.inference_mode(), autocast(recipe, device):
            for x in ready_val:
                model(x).logits.argmax(1).cpu()
        yield clock() - start


class Turns(Listener):
    """Lets a training in a thread of its own run one epoch at a time."""

    def __init__(self) -> None:
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)

    def start(self, epochs: int, steps: int, done: int) -> None:
        """Wait for the first turn; what came before is set-up."""
        self.done.release()
        self.go.acquire()

    def epoch(self, entry: Mapping[str, Any]) -> None:
        """An epoch is over, its checkpoint written: wait for the next turn."""
        self.done.release()
        self.go.acquire()


def harness(backbone: str, recipe: Recipe, device: torch.device, n: int, clock: Clock, folder: Path) -> Iterator[float]:
    """Seconds of one harness epoch after another, all inside one call of ``fit``, measured between epoch ends."""
    images, labels = data(n, device)
    val, val_labels = data(n // 8, device)
    counts = np.bincount(labels, minlength=CLASSES)
    method = Method()
    method.ctx = Context(
        classes=tuple(map(str, range(CLASSES))), counts=counts, image_shape=(1, 48, 48), seed=0, epochs=recipe.epochs,
        batch_size=recipe.batch_size, device=device, recipe=recipe.to_dict(),
    )  # fmt: skip
    model = method.build_model(lambda: build_trunk(backbone, in_chans=1, image_size=48))
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if device.type == "cuda":
        model.trunk.compile_features()  # type: ignore[union-attr]
    turns = Turns()
    job = Job(
        method=method, model=model, ctx=method.ctx, recipe=recipe, runtime=Runtime(checkpoint_seconds=0.0),
        view=TrainView(images=images, labels=labels, num_classes=CLASSES), val=Fold(images=val, labels=val_labels),
        work=folder, listener=turns,
    )  # fmt: skip
    threading.Thread(target=fit, args=(job,), daemon=True).start()
    turns.done.acquire()
    while True:
        start = clock()
        turns.go.release()
        turns.done.acquire()
        yield clock() - start


def main() -> None:
    """Measure and print."""
    options = arguments()
    device = Runtime(device=options.device).resolve()
    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = Recipe.build(PRESETS["quick"].recipe, {"epochs": options.rounds + 2})
    clock = Clock(device)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plain = bare(options.backbone, recipe, device, options.images, clock)
        whole = harness(options.backbone, recipe, device, options.images, clock, folder)
        pairs = [(next(plain), next(whole)) for _ in range(options.rounds + 1)][1:]
    for name, k in (("bare loop", 0), ("whole harness", 1)):
        speed = options.images / statistics.median(p[k] for p in pairs)
        print(f"{name:14} {speed:9.0f} training images per {'second' if clock.cuda else 'CPU second'}")
    ratios = [a / b for a, b in pairs]
    where = (
        torch.cuda.get_device_name(device)
        if clock.cuda
        else f"CPU, {torch.get_num_threads()} threads of {os.cpu_count()}"
    )
    print(f"harness / bare: {statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f}); {where}")


if __name__ == "__main__":
    main()
