"""A data set of ten times the memory limit trains under it, and what streaming costs beside images in memory.

Generated images (noise, 224 x 224, three channels) are prepared as a store of `--times` the limit. Then

- ``fer-bench run`` trains on it under that limit, once with ``--images memory``, which must fail, and once with
  ``--images auto``. The limit is RLIMIT_DATA (``ulimit -d``): all private memory of a process that can be written, such
  as tensors, stacks and the data of libraries, but not the cache of files. It holds for each process of the run;
- without a limit, epochs over a small part of the store take turns in one process: images in memory, streamed from
  files in the system's cache, and streamed from files that were dropped from it.

Speeds are of wall-clock time; let nothing else run on the machine. Where that can't be had, the ratios of CPU seconds,
in which the program that reads counts, say what streaming costs, but not what waiting for a disk does.

    python benchmarks/larger_than_memory.py [--limit 1700] [--times 10] [--rounds 5] [--folder DIR]
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from fer_bench.base.memory import free_memory
from fer_bench.base.quantities import human_size
from fer_bench.contract.backbones import Classifier, build_trunk
from fer_bench.contract.batch import StreamSpec, TrainView
from fer_bench.contract.plugins import plugins
from fer_bench.contract.streamed import Images
from fer_bench.data.prepare import prepare
from fer_bench.data.store import Store
from fer_bench.record.home import Home
from fer_bench.record.ledger import RunRecord
from fer_bench.runs.images import Choice, load, stream
from fer_bench.training.dataplane import DataPlane
from fer_bench.training.recipe import PRESETS, Recipe

SIDE, CHANNELS = 224, 3
IMAGE = SIDE * SIDE * CHANNELS
# Little is computed for each byte: a small network, small pictures, no augmentation. Streaming can hide least there.
RECIPE = {"epochs": 1, "batch_size": 32, "image_size": 16, "flip": 0.0, "shift": 0.0, "precision": "fp32"}

PLUGIN = '''
"""Noise: speed does not depend on what is on the images."""
import numpy as np
from fer_bench import Chunk, Dataset, DatasetCard, Protocol, Reading

card = DatasetCard(
    name="noise", title="noise", classes=("even", "odd"), built_in=True,
    protocols=(Protocol(name="official", train=("train",), val=("val",), test=("test",)),),
)


class Noise(Dataset):
    card = card

    def read(self, source):
        return Reading(layout="noise", summary="noise", files=[], chunks=self.chunks, shape=({n}, {c}, {s}, {s}))

    def chunks(self):
        noise = np.random.default_rng(0).integers(0, 256, (256, {c}, {s}, {s}), dtype=np.uint8)
        for start in range(0, {n}, 256):
            rows = np.arange(start, min(start + 256, {n}))
            images = noise[: len(rows)] ^ np.uint8(start // 256 % 256)
            images[:, 0, 0, :4] = rows[:, None] >> np.array([0, 8, 16, 24]) & 255  # no two are alike
            split = ["test" if row % 50 == 0 else "val" if row % 50 == 1 else "train" for row in rows.tolist()]
            yield Chunk(images=images, labels=rows % 2, split=split, source=[str(row) for row in rows])
'''


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=1700, metavar="MB", help="memory limit of each process")
    parser.add_argument("--times", type=float, default=10.0, help="size of the data, as a multiple of the limit")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each kind, after one that is not counted")
    parser.add_argument("--images", type=int, default=1024, help="images of such an epoch")
    parser.add_argument("--threads", type=int, default=1, help="more than one suffer on a busy machine")
    parser.add_argument("--folder", help="where the store is written  [default: a temporary folder]")
    return parser.parse_args()


def make_store(folder: Path, size: float) -> Store:
    """A store of about `size` bytes, on disk and dropped from the cache."""
    (folder / "plugins").mkdir(exist_ok=True)
    number = round(size / IMAGE)
    (folder / "plugins" / "noise.py").write_text(PLUGIN.format(n=number, c=CHANNELS, s=SIDE))
    began = time.perf_counter()
    store = prepare(Home(folder), plugins([folder / "plugins"]).dataset("noise"), None)
    print(f"prepared in {time.perf_counter() - began:.0f} s: {human_size(len(store) * IMAGE)} of pixels", flush=True)
    drop(store)
    return store


def drop(store: Store) -> None:
    """Have the system forget the content of the images' file, so that it comes from the disk again."""
    with open(store.path / "images.npy", "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run_limited(folder: Path, images: str, limit: int, threads: int) -> tuple[int, list[str]]:
    """``fer-bench run`` under the limit; its exit code and what it said."""
    sets = [word for name, value in RECIPE.items() for word in ("--set", f"{name}={value}")]
    command = [sys.executable, "-P", "-m", "fer_bench", "run", "baseline_resnet", "--dataset", "noise", *sets,
               "--recipe", "brief", "--device", "cpu", "--seeds", "1", "--no-second-reference", "--no-track",
               "--images", images, "--threads", str(threads), "--plugins", str(folder / "plugins"),
               "--home", str(folder)]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )  # fmt: skip
    return done.returncode, (done.stdout + done.stderr).splitlines()


def train_under_limit(folder: Path, store: Store, limit: int, threads: int) -> None:
    """Show that images in memory are refused, and that streamed ones train."""
    print(f"\nunder a limit of {human_size(limit)} (ulimit -d), {len(store) * IMAGE / limit:.1f} times as much data:")
    code, said = run_limited(folder, "memory", limit, threads)
    if not code:
        raise SystemExit("--images memory was to fail, but it did not")
    print("--images memory:", *(f"  {line.strip()}" for line in said if "do not fit" in line), sep="\n")
    drop(store)
    began = time.perf_counter()
    code, said = run_limited(folder, "auto", limit, threads)
    if code:
        raise SystemExit("\n".join(said))
    print("--images auto:", *(f"  {line.strip()}" for line in said if "streamed from disk" in line), sep="\n")
    records = [RunRecord(path.parent) for path in (folder / "ledger").glob("*/timing.json")]
    (timing,) = (record.json("timing") for record in records)
    rate, whole = timing["images_per_second"][0], time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(
        f"  trained an epoch at {rate:.0f} images/s from cold files, validation, test and probe included {whole:.0f} s"
    )
    print(f"  the largest process held {human_size(peak)}, code of libraries and shared pages included")


class Trainer:
    """A network and its training on some images; a call trains an epoch, and says how many images each second took.

    That is a pair: of wall-clock time, and of CPU time of this process and its children.
    """

    def __init__(self, images: Images, before: Callable[[], None] = lambda: None):
        torch.manual_seed(0)
        self.model = Classifier(build_trunk("resnet10_tiny", in_chans=CHANNELS, image_size=RECIPE["image_size"]), 2)
        self.model = self.model.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        view = TrainView(images=images, labels=np.arange(len(images)) % 2, num_classes=2)
        self.plane = DataPlane(view, Recipe.build(PRESETS["brief"].recipe, RECIPE), seed=0)
        self.before, self.epoch = before, 0

    def __call__(self) -> tuple[float, float]:
        self.before()
        began, worked, seen = time.perf_counter(), cpu_seconds(), 0
        for batch in self.plane.epoch({"main": StreamSpec()}, "main", self.epoch)[1]:
            loss = F.cross_entropy(self.model(batch.x).logits, batch.y)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            seen += len(batch.y)
        self.epoch += 1
        return seen / (time.perf_counter() - began), seen / (cpu_seconds() - worked)


def cpu_seconds() -> float:
    """CPU time of this process and of its children, which are the program that reads."""
    children = [
        int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()
    ]
    ticks = sum(sum(map(int, Path(f"/proc/{pid}/stat").read_text().split()[13:15])) for pid in children)
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def compare(store: Store, number: int, rounds: int) -> None:
    """Time epochs over images in memory and streamed ones, in turn."""
    rows, cpu = np.flatnonzero(store.columns("split")["split"] == "train")[:number], torch.device("cpu")
    with ExitStack() as open_:
        in_memory = load(store, rows, cpu, Choice(False, len(rows) * IMAGE, free_memory()))
        streamed = stream(store, {"train": rows}, cpu, open_)["train"]
        trainers = Trainer(in_memory), Trainer(streamed), Trainer(streamed, before=lambda: drop(store))
        found = [[trainer() for trainer in trainers] for _ in range(rounds + 1)][1:]
        same = all(
            torch.equal(a, b)
            for other in trainers[1:]
            for a, b in zip(trainers[0].model.parameters(), other.model.parameters(), strict=True)
        )
    print(f"\nwithout a limit, {rounds} epochs of {len(rows):,} images of each kind in turn:")
    for name, speeds in zip(("in memory", "streamed, cached", "streamed, cold"), zip(*found, strict=True), strict=True):
        for k, clock in enumerate(("second", "CPU second")):
            ratios = [speed[k] / round_[0][k] for speed, round_ in zip(speeds, found, strict=True)]
            spread = f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
            print(f"  {name:17} {statistics.median(s[k] for s in speeds):5.0f} images a {clock:10}  ratio {spread}")
    print(f"  weights after {rounds + 1} epochs are bitwise {'the same' if same else 'DIFFERENT'}")


def main() -> None:
    """Measure and print."""
    options = arguments()
    limit = options.limit * 10**6
    torch.set_num_threads(options.threads)
    with ExitStack() as stack:
        folder = Path(options.folder or stack.enter_context(tempfile.TemporaryDirectory())).resolve()
        folder.mkdir(exist_ok=True)
        store = make_store(folder, options.times * limit)
        compare(store, options.images, options.rounds)
        train_under_limit(folder, store, limit, options.threads)


if __name__ == "__main__":
    main()
