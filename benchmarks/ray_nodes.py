"""A study on a Ray cluster of two nodes, one of which is killed with -9 half-way: what is left of it.

``python benchmarks/ray_nodes.py`` starts the nodes on this machine, each with a core and a temporary folder of its own,
and carries out 40 small runs there, with ``--executor ray``. Two Ray workers are killed on the way, and then the second
node. The same study is carried out without Ray. The script fails if a record is missing, differs in a single byte, or
was made twice, if a process is left behind, or if runs have left files on the node that lives. Needs Linux and Ray.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kills import differences, family, finished
from ray.cluster_utils import Cluster

from fer_bench.base.files import read_json

SEEDS = 20
STUDY = ["run", "baseline_resnet", "baseline_focal", "--dataset", "synthetic", "--dataset-set", "size=300",
         "--dataset-set", "least_test=0", "--recipe", "demo", "--epochs", "2", "--set", "precision=fp32",
         "--deterministic", "--threads", "1", "--no-second-reference", "--no-track", "--quiet",
         "--name", "s"]  # fmt: skip
SMALL = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 << 20}


def lines_of(home: Path, *options: str) -> Iterator[str]:
    """Carry out the study; yields what the command prints."""
    program = [sys.executable, "-P", "-m", "fer_bench", *STUDY, *options, "--home", str(home)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(program, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = []
    for line in process.stdout:
        said.append(line)
        yield line.rstrip()
    if process.wait():
        raise SystemExit(f"the command ended with {process.returncode}:\n{''.join(said)}")


def command_line(pid: int) -> str:
    """What a process was started as; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def mentioning(folder: str) -> list[str]:
    """Processes, other than this one, whose command or environment names a folder."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            text = (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
            state = (place / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if os.fsencode(folder) in text and state != "Z" and int(place.name) != os.getpid():
            found.append(f"{place.name} {command_line(int(place.name))}")
    return found


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether a condition holds soon."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


class Killer:
    """Kills two Ray workers at a quarter and a third of the study, and the second node in its middle."""

    def __init__(self, cluster: Cluster, second: object, runs: int, draw: random.Random):
        self.raylets = [node.all_processes["raylet"][0].process for node in (cluster.head_node, second)]
        self.moments = {runs // 4: self.kill_worker, runs // 3: self.kill_worker, runs // 2: self.kill_node}
        self.draw, self.ended, self.doomed = draw, 0, set()

    def hear(self, line: str) -> None:
        """Count the runs that have ended, and kill when it is time, as soon as another one has begun."""
        self.ended += " chosen, validation" in line
        if ": on " in line:
            for moment in [m for m in self.moments if m <= self.ended]:
                self.moments.pop(moment)()

    def kill_worker(self) -> None:
        """Kill one of the Ray workers that carry out runs; its processes must end by themselves."""
        workers = [p for raylet in self.raylets for p in family(raylet.pid) if "carry_out" in command_line(p)]
        if not workers:
            raise SystemExit("no worker is at work")
        victim = self.draw.choice(workers)
        self.doomed.update(family(victim))
        os.kill(victim, 9)

    def kill_node(self) -> None:
        """Kill what makes the second node one; its workers and their processes must end by themselves."""
        raylet = self.raylets[1]
        self.doomed.update(family(raylet.pid))
        raylet.kill()
        raylet.wait()


def spread_study(home: Path, place: str, draw: random.Random) -> tuple[list[str], float]:
    """The study on the cluster; returns what the command printed, and its seconds."""
    folders = [Path(place, name) for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    os.environ |= {"TMPDIR": str(folders[0]), "RAY_USAGE_STATS_ENABLED": "0"}
    cluster = Cluster(initialize_head=True, head_node_args=SMALL)
    os.environ["TMPDIR"] = str(folders[1])
    killer = Killer(cluster, cluster.add_node(**SMALL), 2 * SEEDS, draw)
    said, began = [], time.monotonic()
    for line in lines_of(home, "--executor", "ray", "--ray-address", cluster.address):
        print(line, flush=True)
        said.append(line)
        killer.hear(line)
    seconds = time.monotonic() - began
    if killer.moments:
        raise SystemExit("the study was over before all was killed")
    if not wait_until(lambda: not [p for p in killer.doomed if command_line(p)]):
        raise SystemExit(f"left of what was killed: {[command_line(p) for p in killer.doomed]}")
    servers = [line for line in mentioning(place) if "forkserver" in line]
    files = [str(p) for p in folders[0].glob("fer-bench-*/*") if p.name != "lock"]
    cluster.shutdown()
    if servers or files or not wait_until(lambda: not mentioning(place)):
        raise SystemExit(f"left behind: {[*servers, *files, *mentioning(place)]}")
    return said, seconds


def main() -> None:
    """Do it, and print what became of the runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="chooses the workers that are killed")
    options = parser.parse_args()
    STUDY.extend(["--seeds", str(SEEDS)])
    with tempfile.TemporaryDirectory(prefix="ray-") as place, tempfile.TemporaryDirectory() as folder:
        spread, calm = Path(folder, "spread"), Path(folder, "calm")
        said, seconds = spread_study(spread, place, random.Random(options.seed))
        list(lines_of(calm, "--jobs", "2"))
        one, other = finished(calm), finished(spread)
        if one != other:
            raise SystemExit("records differ:\n" + "\n".join(differences(one, other)))
        if len(one) != 2 * SEEDS or set(one) != set(read_json(spread / "ledger/studies/s.json")["runs"]):
            raise SystemExit(f"{len(one)} records")
        tables = [(home / "results/s/table.csv").read_bytes() for home in (calm, spread)]
        if tables[0] != tables[1]:
            raise SystemExit("the reports' numbers differ")
    begun, ended = (sum(part in line for line in said) for part in (": on ", " chosen, validation"))
    again = sum("; the run begins again" in line for line in said)
    if (ended, begun - again) != (2 * SEEDS, 2 * SEEDS):
        raise SystemExit(f"{begun} runs began, {again} of them again, and {ended} ended")
    print(f"\n{ended} runs in {seconds:.0f} s on two nodes of one core; two workers and one node killed with -9")
    print(f"{again} runs began again; {len(other)} records complete, bitwise equal to local ones, none made twice")
    print("no process and no file left behind")


if __name__ == "__main__":
    main()
