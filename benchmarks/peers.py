"""Side by side on the same images: the whole harness, a bare loop, a plain PyTorch script, and timm's training script.

Each contender trains the same network on the same grey 48-pixel images for the same number of epochs, predicts the same
validation images after every epoch, and is a process of its own:

- *harness*: ``fer-bench run baseline_resnet``, with all that belongs to a run: checks, augmentation, a snapshot of
  every epoch, selection, scoring of a test set as large as the validation fold, the probe, the report;
- *bare loop*: forward, backward and step on batches prepared in advance (``loop.py``);
- *plain script*: ImageFolder, DataLoader, torchvision's augmentation, as public FER2013 code bases train
  (``peers_plain.py``);
- *timm*: the training script of pytorch-image-models, where its path is given; the package does not contain it.

They take turns, so that a machine whose speed drifts slows all alike. Printed as Markdown, median (least to most):
images a second in training and validation together, of the median epoch; what the process takes outside its epochs
(imports, start-up and all that follows); and the largest memory of its processes, shared pages counted once.

    python benchmarks/peers.py [--timm PATH/train.py] [--device cuda] [--backbone resnet18] [--images 4096] [--val 1024]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import timm
from PIL import Image
from watching import Taken, watched  # beside this file

from fer_bench.base.process import cores

HERE = Path(__file__).parent
CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise")
BATCH = 128
EPOCH = re.compile(rb"epoch ([\d.]+)\s*$")
TIMM_EPOCH = re.compile(rb"Test[^:]*: \[\s*(\d+)/\1\]")  # the last batch of a validation


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timm", type=Path, metavar="FILE", help="train.py of pytorch-image-models")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="default: bf16 on a GPU, fp32 on a CPU")
    parser.add_argument("--backbone", default="resnet18", help="a model of timm's; all contenders must know it")
    parser.add_argument("--images", type=int, default=4096, help="training images")
    parser.add_argument("--val", type=int, default=1024, help="validation images, and as many test images")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender")
    parser.add_argument("--workers", type=int, default=min(8, cores()), help="processes that load images for scripts")
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)  # the process of the bare loop
    options = parser.parse_args()
    if options.timm and not options.timm.is_file():
        parser.error(f"--timm: there is no file {options.timm}; it is train.py of a copy of pytorch-image-models")
    if options.epochs < 2:
        parser.error("--epochs: at least 2, because the first epoch of timm's script can't be told from its start")
    if not options.bare and not timm.is_model(options.backbone):
        parser.error(f"--backbone: timm has no '{options.backbone}', and the scripts need it; take resnet18")
    options.precision = options.precision or ("bf16" if options.device == "cuda" else "fp32")
    return options


def write_images(folder: Path, parts: dict[str, int]) -> None:
    """Class folders of grey PNG files: blurred noise, which is stored in about as many bytes as a face."""
    rng = np.random.default_rng(0)
    for part, number in parts.items():
        for k in range(number):
            place = folder / part / CLASSES[k % len(CLASSES)]
            place.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (12, 12), dtype=np.uint8))
            coarse.resize((48, 48), Image.Resampling.BICUBIC).save(place / f"{k}.png")


# -- contenders ------------------------------------------------------------------------------------------------------


def harness(options: argparse.Namespace, folder: Path) -> Callable[[], Taken]:
    """``fer-bench run`` on a store that is prepared here, once."""
    home, command = folder / "home", [sys.executable, "-P", "-m", "fer_bench"]
    prepare = [*command, "data", "prepare", "folder:peers", "--from", folder / "images", "--home", home]
    subprocess.run(prepare, check=True, stdout=subprocess.DEVNULL)
    run = [*command, "run", "baseline_resnet", "--dataset", "folder:peers", "--recipe", "quick", "--seeds", "1"]
    run += ["--backbone", options.backbone, "--epochs", str(options.epochs), "--batch-size", str(BATCH)]
    run += ["--precision", options.precision, "--device", options.device, "--no-second-reference", "--no-track"]
    run += ["--quiet", "--home", home]

    def turn() -> Taken:
        for left in ("ledger", "results"):
            shutil.rmtree(home / left, ignore_errors=True)
        taken = watched(run, lambda line, at: None)
        (file,) = home.glob("ledger/*/timing.json")
        return Taken(taken.seconds, json.loads(file.read_bytes())["epoch_seconds"], taken.memory, taken.gpu_memory)

    return turn


def bare(options: argparse.Namespace, folder: Path) -> Callable[[], Taken]:
    """This file again, which then runs the bare loop."""
    command = [sys.executable, __file__, "--bare", "--device", options.device, "--backbone", options.backbone]
    command += ["--precision", options.precision, "--epochs", options.epochs]
    command += ["--images", options.images, "--val", options.val]
    return lambda: watched(command, printed)


def plain(options: argparse.Namespace, folder: Path) -> Callable[[], Taken]:
    """The plain script."""
    command = [sys.executable, HERE / "peers_plain.py", folder / "images", "--backbone", options.backbone]
    command += ["--device", options.device, "--precision", options.precision, "--epochs", options.epochs]
    command += ["--batch-size", BATCH, "--workers", options.workers]
    return lambda: watched(command, printed)


def timm_script(options: argparse.Namespace, folder: Path) -> Callable[[], Taken]:
    """timm's script; an epoch lasts from the end of one validation to that of the next."""
    command = [sys.executable, options.timm, "--data-dir", folder / "images", "--model", options.backbone]
    command += ["--num-classes", len(CLASSES), "--in-chans", 1, "--img-size", 48, "--mean", 0.5, "--std", 0.25]
    command += ["--batch-size", BATCH, "--epochs", options.epochs, "--workers", options.workers, "--opt", "sgd"]
    command += ["--lr", 0.05, "--sched", "cosine", "--warmup-epochs", 0, "--cooldown-epochs", 0, "--smoothing", 0.1]
    command += ["--color-jitter", 0, "--crop-pct", 1.0, "--device", options.device, "--output", folder / "timm"]
    command += ["--checkpoint-hist", 1, "--log-interval", 100_000]
    command += ["--amp", "--amp-dtype", "bfloat16"] if options.precision == "bf16" else []

    def turn() -> Taken:
        ends: list[float] = []

        def note(line: bytes, at: float) -> None:
            if TIMM_EPOCH.search(line):
                ends.append(at)

        taken = watched(command, note)
        epochs = [after - before for before, after in itertools.pairwise(ends)]
        return Taken(taken.seconds, epochs, taken.memory, taken.gpu_memory)

    return turn


def bare_loop(options: argparse.Namespace) -> None:
    """What the process of the bare loop does."""
    import torch
    from loop import bare as epochs_of  # beside this file

    from fer_bench.training.recipe import PRESETS, Recipe

    device = torch.device(options.device)
    recipe = Recipe.build(PRESETS["quick"].recipe, {"batch_size": BATCH, "precision": options.precision})

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    epochs = epochs_of(options.backbone, recipe, device, options.images, clock, options.val)
    for _ in range(options.epochs):
        print(f"epoch {next(epochs):.4f}", flush=True)


def printed(line: bytes, at: float) -> float | None:
    """The seconds of an epoch that a line tells of."""
    found = EPOCH.match(line)
    return float(found[1]) if found else None


# -- the table -------------------------------------------------------------------------------------------------------


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median (least to most)."""
    low, middle, high = (f"{f(values):,.{digits}f}" for f in (min, statistics.median, max))
    return f"{middle} ({low} to {high})"


def table(options: argparse.Namespace, taken: dict[str, list[Taken]]) -> str:
    """The measurements as Markdown."""
    gpu = options.device == "cuda"
    heads = ["contender", "images/s", "whole process, s", "outside its epochs, s", "memory, MiB"]
    heads += ["GPU memory, MiB"] if gpu else []
    rows = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for name, turns in taken.items():
        if not turns:
            continue
        row = [name, spread([(options.images + options.val) / t.epoch for t in turns], 0)]
        row += [spread([t.seconds for t in turns])]
        row += [spread([t.seconds - options.epochs * t.epoch for t in turns])]
        row += [spread([t.memory / 2**20 for t in turns], 0)]
        row += [spread([t.gpu_memory / 2**20 for t in turns], 0)] if gpu else []
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Measure and print."""
    options = arguments()
    if options.bare:
        bare_loop(options)
        return
    contenders = {"harness": harness, "bare loop": bare, "plain script": plain}
    contenders |= {"timm's script": timm_script} if options.timm else {}
    taken: dict[str, list[Taken]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images", {"train": options.images, "val": options.val, "test": options.val})
        turns = {name: make(options, folder) for name, make in contenders.items()}
        with contextlib.suppress(KeyboardInterrupt):  # what has been measured is printed all the same
            for name in [*turns] * options.rounds:
                taken[name].append(turns[name]())
                print(f"{name}: {taken[name][-1].seconds:.1f} s", file=sys.stderr, flush=True)
    most = max(map(len, taken.values()))
    if not most:
        raise SystemExit("interrupted before the first process had ended")
    print(f"{options.backbone} at 48 pixels, {options.precision}, batches of {BATCH}, {options.epochs} epochs of")
    print(f"{options.images:,} + {options.val:,} images; {options.device}, {cores()} cores; up to {most} turns each.")
    print(f"\n{table(options, taken)}")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
