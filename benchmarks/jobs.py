"""What several runs at once gain: the same small study with ``--jobs 1`` and with ``--jobs 2``, in turn.

``python benchmarks/jobs.py`` times whole commands, from the start of Python to the report, each in a home of its own
whose data are prepared beforehand. The first round is not counted. One run at a time takes as many threads as torch
chooses, several share the cores. Unset ``OMP_NUM_THREADS``, and let nothing else run on the machine.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fer_bench.base.process import cores


def study(options: argparse.Namespace, jobs: int) -> list[str]:
    """The words of the command."""
    sets = [word for text in options.set for word in ("--set", text)]
    return ["run", *options.methods, *data(options), "--recipe", options.recipe, "--seeds", str(options.seeds),
            "--precision", "fp32", "--device", options.device, "--no-track", "--quiet", *sets,
            "--jobs", str(jobs)]  # fmt: skip


def data(options: argparse.Namespace) -> list[str]:
    """The words that name the data set."""
    return ["--dataset", options.dataset, *(word for text in options.dataset_set for word in ("--dataset-set", text))]


def seconds(words: list[str], prepared: Path) -> float:
    """Wall-clock seconds of a command in a fresh home with the data of `prepared`."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(prepared / "data", Path(folder, "data"))
        program = [sys.executable, "-P", "-m", "fer_bench", *words, "--home", folder]
        began = time.perf_counter()
        done = subprocess.run(program, capture_output=True, text=True)
        taken = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["baseline_resnet", "baseline_focal"])
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--dataset-set", action="append", default=[], metavar="NAME=VALUE", help="repeatable")
    parser.add_argument("--recipe", default="brief")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="recipe field; repeatable")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=2, help="compared with 1")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    counts = (1, options.jobs)
    with tempfile.TemporaryDirectory() as folder:
        prepare = ["data", "prepare", *data(options)[1:], "--home", folder]
        subprocess.run([sys.executable, "-P", "-m", "fer_bench", *prepare], check=True, capture_output=True)
        rounds = range(options.repeats + 1)
        times = [[seconds(study(options, jobs), Path(folder)) for jobs in counts] for _ in rounds][1:]
    ratios = sorted(one / several for one, several in times)
    what = f"{len(options.methods)} methods x {options.seeds} seeds on {options.dataset}, recipe {options.recipe}"
    print(f"{what}, {options.device}, {cores()} cores\n")
    print("| runs at once | whole command, median of pairs (smallest to largest) |\n| ---: | ---: |")
    for place, jobs in enumerate(counts):
        taken = sorted(pair[place] for pair in times)
        print(f"| {jobs} | {statistics.median(taken):.1f} s ({taken[0]:.1f} to {taken[-1]:.1f}) |")
    print(f"\n{counts[1]} at once: {statistics.median(ratios):.2f} times as fast ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
