"""Runs on a Ray cluster of two nodes, one of which is killed: records as on one machine, and nothing left behind."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from fer_bench.errors import ClusterError
from fer_bench.launch import ray_pool
from fer_bench.launch.ray_cluster import Share, connect
from fer_bench.launch.ray_pool import RayPool
from fer_bench.launch.same_code import code_facts
from fer_bench.runs.study import run_study
from tests.conftest import processes
from tests.launch.test_jobs import family, left_of, mark, one, study_of, wait_until, work
from tests.runs.conftest import assert_equal_records, record_of

__all__ = ["one", "work"]
pytest.importorskip("ray", reason="Ray is not installed: pip install 'fer-bench[ray]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="clusters of several nodes need Linux"),
]

SMALL = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with a core each: the temporary folder of their processes, and what kills the second node."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patched, tempfile.TemporaryDirectory(prefix="ray-") as folder:
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patched.setenv("TMPDIR", folder)
        started = Cluster(initialize_head=True, head_node_args=SMALL)
        node = started.add_node(**SMALL)
        patched.setenv("RAY_ADDRESS", started.address)
        raylet = node.all_processes["raylet"][0].process

        def kill() -> set[int]:
            everybody = family(raylet.pid)
            raylet.kill()
            raylet.wait()  # Ray's workers take a raylet that nobody has waited for to be alive
            return everybody

        raylets = {started.head_node.all_processes["raylet"][0].process.pid, raylet.pid}
        yield SimpleNamespace(folder=Path(folder), raylets=raylets, second=node.node_id[:8], kill_second=kill)
        ray.shutdown()
        started.shutdown()


def pool_of(size: int, say: Callable[[str], None]) -> RayPool:
    return RayPool(lambda: connect(None), size, Share(), say)


def nothing_is_left(cluster) -> bool:
    """Whether runs have left neither processes nor files on the nodes."""
    servers = []
    for pid, _, state, command in processes():
        if "fer_bench.runs.forkserver" in command and not state.startswith("Z"):
            try:
                environment = Path(f"/proc/{pid}/environ").read_bytes()
            except OSError:  # it ended meanwhile
                continue
            servers += [pid] if os.fsencode(f"TMPDIR={cluster.folder}") in environment else []
    return not servers and [p.name for p in cluster.folder.glob("fer-bench-*/*")] == ["lock"]


def test_a_study_whose_node_is_killed_leaves_the_records_of_one_machine(work, copy_of, one, cluster):
    """One study for all that can happen to a run: it ends, fails, loses its node, or is read out of another one."""
    net = "baseline_resnet"
    runs = (one(net), one("plain"), one("broken"), one("out_one"), one("out_one", 1))
    study, calm, spread = study_of(*runs), copy_of("calm", work), copy_of("spread", work)
    run_study(study, calm, say=lambda line: None)
    said: list[str] = []
    doomed: set[int] = set()

    def hear(line: str) -> None:
        said.append(line)
        if not doomed and f"({cluster.second})" in line:
            doomed.update(cluster.kill_second())

    outcome = run_study(study, spread, say=hear, pool=pool_of(2, hear))

    for run in (*(run for run in runs if run.method != "broken"), one(net, 1)):
        assert_equal_records(record_of(run, calm), record_of(run, spread))
    failed = record_of(runs[2], spread)
    assert list(outcome.failed) == [failed.id]
    assert outcome.failed[failed.id].startswith("this method gives up")
    assert (failed.status, failed.json("spec")["label"]) == ("failed", "broken")
    again = next(line for line in said if "died" in line)
    assert again.endswith(f"({cluster.second}) or its worker there died; the run begins again")
    assert sum(line.startswith(f"{again.partition(': ')[0]}: on ") for line in said) == 2
    assert len([line for line in said if ": run " in line]) == 5, "each run is said to begin once"
    assert wait_until(lambda: not left_of(doomed))
    assert wait_until(lambda: nothing_is_left(cluster))
    assert not list(spread.home.ledger.root.glob(".*")), "half-written records are gone"


def test_an_interrupted_study_leaves_no_process_and_its_runs_can_be_taken(work, one, cluster):
    mark(work, "endless").touch()

    def interrupt(line: str) -> None:
        if ": on " in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(study_of(one("endless")), work, say=lambda line: None, pool=pool_of(2, interrupt))

    writer = work.home.ledger.writer(record_of(one("endless"), work).id)
    with writer.locked():
        assert writer.status == "unfinished"
    assert wait_until(lambda: nothing_is_left(cluster))


def test_a_run_whose_worker_dies_every_time_fails(work, one, cluster, monkeypatch):
    monkeypatch.setattr(ray_pool, "DEATHS", 1)
    mark(work, "endless").touch()

    def kill_the_worker(line: str) -> None:
        if ": on " in line:
            for pid, parent, _, command in processes():
                if parent in cluster.raylets and command.startswith("ray::fer-bench carry_out"):
                    os.kill(pid, 9)

    outcome = run_study(study_of(one("endless")), work, say=lambda line: None, pool=pool_of(1, kill_the_worker))

    (message,) = outcome.failed.values()
    assert message.startswith("the worker or the node of this run died 1 time, the last time on ")
    assert record_of(one("endless"), work).status == "failed"


def test_a_node_with_other_versions_is_refused(work, one, cluster, monkeypatch):
    monkeypatch.setattr(ray_pool, "code_facts", lambda: {**code_facts(), "torch": "1.0"})
    with pytest.raises(ClusterError, match=r"runs other code than the command: torch \d.* there, 1\.0 here"):
        run_study(study_of(one("plain")), work, say=lambda line: None, pool=pool_of(1, lambda line: None))
    assert record_of(one("plain"), work).status == "unfinished"


def test_more_than_any_node_has_is_refused(cluster):
    reached = connect(None)
    with pytest.raises(ClusterError, match=r"no node of the cluster has 2 CPU cores and 0\.5 GPU ") as refusal:
        reached.require(Share(2, 0.5))
    assert "1 CPU, 0 GPU" in refusal.value.hint
    reached.close()


@pytest.mark.parametrize(
    ("address", "why"), [("127.0.0.1:1", "refused"), ("nowhere", "neither auto, local nor HOST:PORT")]
)
def test_an_address_at_which_nothing_answers_is_told(address, why):
    with pytest.raises(ClusterError, match="no Ray cluster can be reached at") as refusal:
        connect(address)
    assert why in refusal.value.hint
    assert refusal.value.next.startswith("ray start --head")
