"""How the time and memory of each command grow with images, classes and runs.

Each point is a command in processes of its own. CPU seconds are those of all its processes, also of servers they are
forked from; the memory is the largest sum over them that was seen, pages that several share counted once.

- *images*: tiny grey PNG files (8 x 8 noise, seven classes) are prepared, counted, drawn, checked, trained on and
  reported;
- *classes*: the same with 10,000 images in ever more classes, and the report of six made-up records;
- *runs*: a ledger of made-up records (203 test images, seven classes) is listed, reported, and mirrored into a new
  SQLite database of MLflow, once from nothing and once with nothing to do.

What a training takes outside its epochs is twice what a training of one epoch takes, less what one of two takes.

A curve ends before the first point that would take more than `--most` seconds if it went on in proportion to its size.
Each sweep writes ``NAME.csv``, its points, and ``NAME.png``, its curves, into the folder `--out`, and prints the table
of docs/performance.md. Linux only.

    python benchmarks/growth.py images|classes|runs [--sizes 1000,3000] [--curves "data check"] [--out docs/performance]
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import itertools
import math
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from PIL import Image
from report_speed import write_run  # beside this file
from watching import watched  # beside this file

from fer_bench.base.files import write_text
from fer_bench.record.ledger import Ledger
from fer_bench.reports.render.figure_files import save
from fer_bench.reports.sections.figures import legend, looks_of, new_figure, styled

SIDE = 8  # pixels
EVERY = 0.05  # seconds between two looks at the memory
REAP_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER of Linux's prctl
BENCH = (sys.executable, "-P", "-m", "fer_bench")
TRAINING = (
    *("--recipe", "brief", "--backbone", "resnet10_tiny", "--set", "image_size=16", "--precision", "fp32"),
    *("--batch-size", "256", "--device", "cpu", "--threads", "1", "--seeds", "1", "--no-second-reference"),
    *("--no-track", "--quiet"),
)


@dataclass(frozen=True)
class Point:
    """What a curve is at one size: CPU seconds, seconds of the clock, and MiB of memory (0: not a process)."""

    curve: str
    size: int
    cpu: float
    seconds: float
    memory: float


@dataclass(frozen=True)
class Sweep:
    """What grows, at which sizes, and the function that measures all curves at one of them, in an empty folder."""

    unit: str
    sizes: tuple[int, ...]
    measure: Callable[[Path, int, Meter], None]


# -- measuring -------------------------------------------------------------------------------------------------------


class Meter:
    """Runs commands, keeps their points, and ends the curves that take too long."""

    def __init__(self, most: float, only: Sequence[str] | None = None):
        self.most, self.only, self.points = most, only, list[Point]()
        if ctypes.CDLL(None).prctl(REAP_ORPHANS, 1, 0, 0, 0):
            raise SystemExit("this system does not hand over processes whose parent has ended; Linux does")

    def __call__(self, curve: str, size: int, *command: object) -> Point | None:
        """Measure a point; None where it would take too long, or was not asked for."""
        if self.only is not None and curve not in self.only:
            return None
        before = [p for p in self.points if p.curve == curve]
        if before and before[-1].seconds * size / before[-1].size > self.most:
            print(f"{curve}, {size:,}: left out, it would take over {self.most:g} s", flush=True)
            return None
        began = children_seconds()
        taken = watched([*BENCH, *command], lambda line, at: None, every=EVERY)
        return self.add(Point(curve, size, children_seconds() - began, taken.seconds, taken.memory / 2**20))

    def add(self, point: Point) -> Point:
        """Keep a point and print it."""
        self.points.append(point)
        print(
            f"{point.curve}, {point.size:,}: {point.cpu:.2f} CPU s, {point.seconds:.2f} s, {point.memory:.0f} MiB",
            flush=True,
        )
        return point


def children_seconds() -> float:
    """CPU seconds of all processes that this one has started, and that those have: orphans are waited for first."""
    with suppress(ChildProcessError):
        while True:
            os.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def training(folder: Path, size: int, meter: Meter) -> None:
    """Trainings of one and of two epochs on ``folder:growth``, and from them what lies outside the epochs."""
    found = []
    for epochs in (1, 2):
        name = f"training of {epochs} epoch{'s' * (epochs > 1)}"
        run = ["run", "baseline_resnet", "--dataset", "folder:growth", *TRAINING, "--epochs", epochs]
        found.append(meter(name, size, *run, "--name", f"epochs{epochs}", "--home", folder))
    one, two = found
    if one and two:
        meter.add(Point("training outside its epochs", size, 2 * one.cpu - two.cpu, 2 * one.seconds - two.seconds, 0))


def write_images(folder: Path, images: int, classes: int) -> None:
    """Class folders of noise: three fifths for training, a fifth for validation and for the test."""
    rng = np.random.default_rng(0)
    parts = ("train", "train", "train", "val", "test")
    for part, label in itertools.product(set(parts), range(classes)):
        (folder / part / f"class{label:04d}").mkdir(parents=True)
    for k in range(images):
        file = folder / parts[k // classes % len(parts)] / f"class{k % classes:04d}" / f"{k}.png"
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)).save(file)


# -- sweeps ----------------------------------------------------------------------------------------------------------


def measure_images(folder: Path, size: int, meter: Meter) -> None:
    """Every command that reads a data set."""
    write_images(folder / "images", size, 7)
    at, name = ("--home", folder), "folder:growth"
    source = ("--from", folder / "images")
    if not meter("data prepare", size, "data", "prepare", name, *source, *at):
        return
    meter("data prepare, nothing to do", size, "data", "prepare", name, *source, *at)
    meter("data stats", size, "data", "stats", name, *at)
    meter("data show", size, "data", "show", name, "--out", folder / "sheet.png", *at)
    meter("data check", size, "data", "check", name, *at)  # finds the copies that each training would look for
    training(folder, size, meter)
    if (folder / "ledger").exists():
        meter("report", size, "report", "epochs1", *at)


def measure_classes(folder: Path, size: int, meter: Meter, images: int = 10_000) -> None:
    """Training and reports, with as many images whatever the number of classes."""
    images = max(images, 10 * size)
    write_images(folder / "images", images, size)
    at, name = ("--home", folder), "folder:growth"
    meter("data prepare", size, "data", "prepare", name, "--from", folder / "images", *at)
    meter("data check", size, "data", "check", name, *at)
    training(folder, size, meter)
    made = folder / "made"
    write_study(made, 2, 3, [f"class{k:04d}" for k in range(size)], max(1, images // 5 // size))
    meter("list runs", size, "list", "runs", "--home", made)
    meter("report", size, "report", "growth", "--home", made)


def measure_runs(folder: Path, size: int, meter: Meter) -> None:
    """Every command that reads a whole ledger."""
    at, methods = ("--home", folder), min(20, max(2, size // 10))
    write_study(folder, methods, size // methods, [f"class{k}" for k in range(7)], 29)
    meter("list runs", size, "list", "runs", *at)
    meter("list studies", size, "list", "studies", *at)
    meter("report", size, "report", "growth", *at)
    mirror = ("track", "sync", "growth", *at, "--tracking-uri", f"sqlite:///{folder}/mlflow.db")
    if meter("track sync, new", size, *mirror):
        meter("track sync, nothing to do", size, *mirror)


def write_study(home: Path, methods: int, seeds: int, classes: Sequence[str], images: int) -> None:
    """A study of made-up records called ``growth``, with `images` test images a class; not synced to the disk."""
    ledger, labels = Ledger(home / "ledger"), [f"method_{m:02d}" for m in range(methods)]
    train, test = [3 * images] * len(classes), [images] * len(classes)
    with patch("os.fsync"):
        runs = [
            write_run(ledger, label, seed, 1.5 + 0.02 * m, classes, train, test)
            for m, label in enumerate(labels)
            for seed in range(seeds)
        ]
    study = {"name": "growth", "command": "none: drawn", "dataset": "synthetic", "protocol": "synthetic/official"}
    ledger.put_study("growth", study | {"kind": "run", "reference": labels[0], "runs": runs, "methods": labels})


SWEEPS: Mapping[str, Sweep] = {
    "images": Sweep("images", (1_000, 3_000, 10_000, 30_000, 100_000, 300_000), measure_images),
    "classes": Sweep("classes", (2, 7, 30, 100, 300, 1_000), measure_classes),
    "runs": Sweep("runs", (10, 30, 100, 300, 1_000, 3_000, 10_000), measure_runs),
}


# -- what is written -------------------------------------------------------------------------------------------------


def exponent(sizes: Sequence[float], values: Sequence[float]) -> tuple[float, int]:
    """Slope of the least-squares line through the upper half of the points in log-log, and the number of those points.

    The upper half of five points is three, and never fewer than two.
    """
    number = max(2, math.ceil(len(sizes) / 2))
    x, y = (np.log(np.asarray(v, float)[-number:]) for v in (sizes, values))
    return float(np.polyfit(x, y, 1)[0]), number


def curves(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The points of each curve, by size; curves in the order of their first points."""
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.curve, []).append(point)
    return {name: sorted(curve, key=lambda p: p.size) for name, curve in found.items()}


def table(points: Sequence[Point], unit: str) -> str:
    """The Markdown table of a sweep.

    CPU seconds by size, the exponents of the upper half and of the last two points, what each further thousand takes
    between those two, and the most memory.
    """
    sizes = sorted({p.size for p in points})
    head = [
        "CPU seconds",
        *(f"{s:,}" for s in sizes),
        "exponent (points)",
        "last two",
        f"a further 1,000 {unit}",
        "MiB at most",
    ]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name, curve in curves(points).items():
        at = {p.size: f"{p.cpu:.2f}" if p.cpu < 10 else f"{p.cpu:.0f}" for p in curve}
        memory = max(p.memory for p in curve)
        rows.append([name, *(at.get(s, "") for s in sizes), *_growth(curve), f"{memory:,.0f}" if memory else ""])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _growth(curve: Sequence[Point]) -> tuple[str, str, str]:
    """Both exponents of CPU seconds, and what each further thousand takes between the last two points."""
    if len(curve) < 2 or min(p.cpu for p in curve) <= 0:
        return "", "", ""
    slope, number = exponent([p.size for p in curve], [p.cpu for p in curve])
    last, end = curve[-2:]
    steep, _ = exponent([last.size, end.size], [last.cpu, end.cpu])
    return f"{slope:.2f} ({number})", f"{steep:.2f}", f"{1000 * (end.cpu - last.cpu) / (end.size - last.size):.3g}"


@styled
def draw(points: Sequence[Point], unit: str) -> Figure:
    """CPU seconds and memory of every curve by size, in log-log."""
    figure, axes = new_figure(8, 4.2, 1, 2)
    found = curves(points)
    looks = looks_of(list(found))
    for axis, name in zip(axes[0], ("cpu", "memory"), strict=True):
        for curve, (colour, marker, line) in ((found[n], looks[n]) for n in found):
            shown = [(p.size, getattr(p, name)) for p in curve if getattr(p, name) > 0]
            axis.plot(*zip(*shown, strict=True) if shown else ((), ()), color=colour, marker=marker, linestyle=line,
                      markersize=4, linewidth=1.2, label=curve[0].curve)  # fmt: skip
        axis.set(xscale="log", yscale="log", xlabel=unit)
        axis.yaxis.set_major_formatter("{x:,g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.xaxis.set_major_formatter("{x:,g}")
        axis.grid()
    axes[0, 0].set_title("CPU seconds (dotted: in proportion)")
    axes[0, 1].set_title("memory of all processes, MiB")
    _guide(axes[0, 0], points)
    legend(figure, axes[0, 0])
    return figure


def _guide(axis, points: Sequence[Point]) -> None:
    """A dotted line of exponent 1, through the largest point; the limits stay those of the points."""
    limits = axis.get_ylim()
    end = max(points, key=lambda p: (p.size, p.cpu))
    first = min(p.size for p in points)
    axis.plot([first, end.size], [end.cpu * first / end.size, end.cpu], ":", color="#888888", linewidth=1, zorder=0)
    axis.set_ylim(limits)


def read_points(file: Path) -> list[Point]:
    """The points of ``NAME.csv``."""
    with open(file, encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    return [
        Point(r["curve"], int(r["size"]), float(r["cpu_seconds"]), float(r["seconds"]), float(r["mib"])) for r in rows
    ]


def write_points(file: Path, points: Sequence[Point]) -> None:
    """Write ``NAME.csv``."""
    lines = ["curve,size,cpu_seconds,seconds,mib"]
    lines += [f'"{p.curve}",{p.size},{p.cpu:.3f},{p.seconds:.3f},{p.memory:.1f}' for p in points]
    write_text(file, "\n".join(lines) + "\n")


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", choices=SWEEPS)
    parser.add_argument("--sizes", help="comma-separated, ascending  [default: those of docs/performance.md]")
    parser.add_argument("--curves", help="comma-separated; what they need must be named too  [default: all]")
    parser.add_argument(
        "--most", type=float, default=120.0, metavar="SECONDS", help="a point that takes longer is left out"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/performance"), help="folder that is written")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Measure a sweep, write its points and curves, and print its table."""
    options = arguments(given)
    sweep = SWEEPS[options.sweep]
    sizes = [int(s) for s in options.sizes.split(",")] if options.sizes else sweep.sizes
    meter = Meter(options.most, options.curves.split(",") if options.curves else None)
    options.out.mkdir(parents=True, exist_ok=True)
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            sweep.measure(Path(folder), size, meter)
        write_points(options.out / f"{options.sweep}.csv", meter.points)
    points = read_points(options.out / f"{options.sweep}.csv")
    save(draw(points, sweep.unit), options.out, options.sweep)
    (options.out / f"{options.sweep}.svg").unlink()
    print(table(points, sweep.unit))


if __name__ == "__main__":
    main()
