"""Kill every kind of command with -9 at random moments, let it finish, and compare with a home that was left alone.

``python benchmarks/kills.py --kills 30`` prepares data, trains a study with MLflow, tunes, and reports, in two homes.
In one of them each command is killed several times. Chance picks the victim: the command itself, its fork server, the
process that trains or scores, or the process that writes to MLflow (for `tune`, always the command). The script fails
if anything was lost, was trained twice, or differs.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from fer_bench.base.files import read_json
from fer_bench.record.ledger import UNHASHED, Ledger

STUDY = ["--dataset", "folder:x", "--recipe", "demo", "--epochs", "3", "--set", "precision=fp32", "--deterministic",
         "--threads", "1", "--quiet"]  # fmt: skip
COMMANDS = {
    "prepare": ["data", "prepare", "folder:x", "--from", "../faces"],
    "run": ["run", "baseline_resnet", "baseline_oversample", *STUDY, "--seeds", "2", "--name", "s"],
    "tune": ["tune", "baseline_focal", *STUDY, "--trials", "3"],
    "report": ["report", "s"],
    "sync": ["track", "sync", "--all"],
}


def draw_faces(folder: Path) -> None:
    """Bars at three angles, in class folders."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:24, :24]
    for split, count in (("train", 400), ("val", 60), ("test", 60)):
        for k, name in enumerate(("happy", "sad", "fear")):
            place = folder / split / name
            place.mkdir(parents=True)
            for n in range(count):
                wave = np.sin((x * np.cos(k * 0.5) + y * np.sin(k * 0.5)) * 0.9 + draw.uniform(0, 6))
                pixels = 128 + 60 * wave + draw.normal(0, 25, (24, 24))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{n}.png")


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return [pid]
    return [pid, *(p for child in children for p in family(int(child)))]


def role_of(pid: int, top: int) -> str:
    """What a process of a command is, in a word."""
    if pid == top:
        return "command"
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().decode().replace("\0", " ")
        parent = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return "gone"
    if "forkserver" in line:
        return "fork server" if parent == top else "training or scoring"
    return "MLflow" if "track" in line else "other"


def start(command: list[str], home: Path) -> subprocess.Popen:
    """Start a command in its home."""
    program = [sys.executable, "-P", "-c", "from fer_bench.cli import main; main()", *command]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "FER_BENCH_HOME": "."}
    return subprocess.Popen(program, cwd=home, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(command: list[str], home: Path) -> float:
    """Run a command to its end; returns its seconds."""
    began = time.monotonic()
    process = start(command, home)
    output = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{output}")
    return time.monotonic() - began


def kill_once(command: list[str], home: Path, seconds: float, draw: random.Random) -> str | None:
    """Start a command and kill one of its processes after a while; says which, or None if it ended before."""
    process = start(command, home)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        # A trial whose process dies has failed, and the search goes on without it: here the search itself is killed.
        victim = process.pid if command[0] == "tune" else draw.choice(family(process.pid))
        role = role_of(victim, process.pid)
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            role = "gone"
        process.communicate()
        return role
    process.communicate()
    return None


def begin_again(name: str, home: Path) -> None:
    """Forget what a command has finished, so that there is something to kill again."""
    if name == "prepare":
        shutil.rmtree(home / "data", ignore_errors=True)
    elif name in ("run", "tune"):
        for file in (home / "ledger" / "studies").glob("*.json"):
            study = read_json(file)
            for run in study["runs"] if study["kind"] == name else ():
                shutil.rmtree(home / "ledger" / run, ignore_errors=True)
            if study["kind"] == name == "tune":  # it holds the trials, from which the journal would be rebuilt
                file.unlink()
    if name == "tune":
        shutil.rmtree(home / "tuning", ignore_errors=True)
    for file in home.glob("mlflow.db*") if name in ("run", "sync") else ():
        file.unlink()


def finished(home: Path) -> dict[str, dict[str, bytes]]:
    """Every finished run's files, without those that differ between equal runs."""
    runs = [r for r in Ledger(home / "ledger").runs() if r.status in ("finished", "pruned")]
    for run in runs:
        run.verify()
    kept = set(UNHASHED) - {"done.json"}
    return {
        r.id: {p.name: p.read_bytes() for p in r.path.iterdir() if p.is_file() and p.name not in kept} for r in runs
    }


def differences(one: dict[str, dict[str, bytes]], other: dict[str, dict[str, bytes]]) -> list[str]:
    """What differs between the records of two homes, a line each."""

    def excerpt(files: dict[str, bytes], name: str) -> str:
        return repr(files.get(name, b"missing")[:200])

    pairs = [(run, one.get(run, {}), other.get(run, {})) for run in sorted({*one, *other})]
    return [
        f"{run} {name}: {excerpt(mine, name)} and {excerpt(theirs, name)}"
        for run, mine, theirs in pairs
        for name in sorted({*mine, *theirs})
        if mine.get(name) != theirs.get(name)
    ]


def written(home: Path) -> dict[str, int]:
    """When each finished run was finished."""
    return {p.parent.name: p.stat().st_mtime_ns for p in (home / "ledger").glob("*/done.json")}


def mirrored(home: Path) -> Counter:
    """How many MLflow runs there are by name and status."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home}/mlflow.db")
    ids = [e.experiment_id for e in client.search_experiments()]
    return Counter((r.info.run_name, r.info.status) for r in client.search_runs(ids, max_results=1000))


def main() -> None:
    """Do it, and print what was killed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="runs of `run` at once")
    options = parser.parse_args()
    COMMANDS["run"] += ["--jobs", str(options.jobs)]
    draw, killed = random.Random(options.seed), Counter()
    shares = {"prepare": 3, "run": 12, "tune": 8, "report": 3, "sync": 4}
    with tempfile.TemporaryDirectory() as folder:
        calm, stormy = Path(folder, "calm"), Path(folder, "stormy")
        draw_faces(Path(folder, "faces"))
        for home in (calm, stormy):
            home.mkdir()
        for name, command in COMMANDS.items():
            seconds = finish(command, calm)
            if name == "sync":  # as if nothing had been mirrored yet, so that the store's creation is killed too
                for file in stormy.glob("mlflow.db*"):
                    file.unlink()
            done = 0
            while done < max(1, round(options.kills * shares[name] / sum(shares.values()))):
                before = written(stormy)
                role = kill_once(command, stormy, draw.uniform(0.05, 0.6) * seconds, draw)
                if role is None or role == "gone":
                    begin_again(name, stormy)
                    continue
                done += 1
                killed[name, role] += 1
                again = {k: v for k, v in written(stormy).items() if k in before and v != before[k]}
                if again:
                    raise SystemExit(f"trained again after a kill of {name} ({role}): {again}")
            finish(command, stormy)
        one, other = finished(calm), finished(stormy)
        if one != other:
            raise SystemExit("records differ:\n" + "\n".join(differences(one, other)))
        tables = [(home / "results/s/table.csv").read_bytes() for home in (calm, stormy)]  # pages tell durations too
        if tables[0] != tables[1]:
            raise SystemExit("the reports' numbers differ")
        if mirrored(calm) != mirrored(stormy):
            raise SystemExit(f"MLflow's runs differ: {mirrored(calm)} and {mirrored(stormy)}")
    total = sum(killed.values())
    print(f"{total} kills: nothing lost, nothing trained twice, {len(one)} records bitwise equal, tables equal")
    for (name, role), number in sorted(killed.items()):
        print(f"{number:4} x {role} of `{name}`")


if __name__ == "__main__":
    main()
