"""A Ray cluster: reaching it, what its nodes have, and asking them."""

from __future__ import annotations

import functools
import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fer_bench.base.quantities import plural
from fer_bench.errors import ClusterError, missing_library
from fer_bench.launch.same_code import code_facts
from fer_bench.runs.machine import Machine

PATIENCE = 20.0  # seconds that nodes are waited for when all is done
WHERE = "--executor ray"


@dataclass(frozen=True)
class Share:
    """What each run takes of a node: whole cores, and a GPU or a part of one."""

    cpus: int = 1
    gpus: float = 0.0

    def __str__(self) -> str:
        return plural(self.cpus, "CPU core") + (f" and {self.gpus:g} GPU" if self.gpus else "")

    def fits(self, resources: Mapping[str, float]) -> int:
        """How many runs a node with these resources can carry out at once."""
        by_cpu = int(resources.get("CPU", 0) // self.cpus)
        return min(by_cpu, int(resources.get("GPU", 0) / self.gpus + 1e-6)) if self.gpus else by_cpu


class Cluster:
    """A cluster that this process is connected to."""

    def __init__(self, ray: Any, *, ours: bool):
        self.ray, self._ours = ray, ours
        self._machines: dict[Share, Machine] = {}

    @property
    def nodes(self) -> list[dict[str, float]]:
        """The resources of every node that is alive."""
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    @property
    def has_gpus(self) -> bool:
        """Whether a node has a GPU."""
        return any(node.get("GPU", 0) > 0 for node in self.nodes)

    def places(self, share: Share) -> int:
        """How many runs the nodes can carry out at once."""
        return sum(map(share.fits, self.nodes))

    def require(self, share: Share) -> None:
        """Raise ClusterError if no node can carry out a run."""
        if not self.places(share):
            have = [f"{node.get('CPU', 0):g} CPU, {node.get('GPU', 0):g} GPU" for node in self.nodes]
            raise ClusterError(
                f"no node of the cluster has {share} for a run",
                where=WHERE,
                hint=f"its nodes have: {'; '.join(have)}",
                next="the same command with other --cpus-per-run and --gpus-per-run",
            )

    def task(self, name: str, share: Share, **options: Any) -> Callable[[Mapping[str, Any]], Any]:
        """The function `name` of :mod:`fer_bench.launch.ray_node`, to be called with an order; its news are streamed.

        Ray does not try it again by itself.
        """
        how = {"num_cpus": share.cpus, "num_gpus": share.gpus, "num_returns": "streaming", "max_retries": 0, **options}
        return self.ray.remote(_at_node(name)).options(name=f"fer-bench {name}", **how).remote

    def machine(self, share: Share) -> Machine:
        """What runs compute on, as the first node with room for one tells; asked once.

        Raises
        ------
        ClusterError
            That node can't carry out runs of this command.
        """
        if share not in self._machines:
            kind, content = self.ray.get(next(self.task("look", share)({"code": code_facts()})))
            if kind == "refused":
                raise refused(content)
            self._machines[share] = Machine(**content)
        return self._machines[share]

    def clear(self, nodes: Iterable[str]) -> None:
        """Remove what runs have left on the disks of nodes, by id, as far as those are alive."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        alive = {node["NodeID"] for node in self.ray.nodes() if node["Alive"]}
        there = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes if node in alive]
        told = [self.task("clear", Share(cpus=0), scheduling_strategy=node)({}) for node in there]
        if told:
            self.ray.wait(told, num_returns=len(told), timeout=PATIENCE)

    def close(self) -> None:
        """Leave the cluster; one that was started for this command ends."""
        connect.cache_clear()
        if self._ours:
            self.ray.shutdown()


@functools.cache
def connect(given: str | None) -> Cluster:
    """Reach the cluster at an address: ``HOST:PORT``, ``auto`` (the one of this machine), or ``local`` (one that is
    started here and ends with the command). None is that of ``$RAY_ADDRESS``, or ``auto``.

    Raises
    ------
    ClusterError
        Ray is not installed, nothing answers, or it runs another version of Ray or Python.
    """
    address = given or os.environ.get("RAY_ADDRESS") or "auto"
    if "://" in address:
        raise ClusterError(
            "the driver must be on a node of the cluster: Ray's client can't stream what runs tell",
            where=f"--ray-address {address.partition('://')[0]}://...",
            hint="run the command on a node, with --ray-address auto; a node with --num-cpus=0 carries out no runs",
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # of a cluster that is started here
    try:
        import ray
    except ImportError as error:
        raise missing_library(
            f"{WHERE} needs Ray", error, install="'fer-bench[ray]'", kind=ClusterError, where=WHERE
        ) from error
    if ray.is_initialized():
        return Cluster(ray, ours=False)
    alone: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **alone)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise ClusterError(
            f"no Ray cluster can be reached at '{address}'",
            where="--ray-address" if given else WHERE,
            hint=str(error).strip().partition("\n")[0],
            next="ray start --head, and on every other node the command that this prints",
        ) from error
    return Cluster(ray, ours=True)


def _knock(address: str) -> None:
    """Raise OSError or ValueError if nothing listens at HOST:PORT; Ray itself would try for minutes."""
    if address in ("auto", "local"):
        return
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ValueError(f"'{address}' is neither auto, local nor HOST:PORT")
    socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()


def refused(why: str) -> ClusterError:
    """The error for a node that can't carry out runs of this command."""
    return ClusterError(why, where=WHERE, hint="every node needs the same versions and the same installed plug-ins")


def _at_node(name: str) -> Callable[[Mapping[str, Any]], Iterator[tuple[str, Any]]]:
    """A task that calls a function of ours where it runs, and says so if that has no fer-bench."""

    def task(order: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:  # inside a function, so that it is sent as code
        try:
            from fer_bench.launch import ray_node
        except ImportError as error:
            import platform

            yield "refused", f"fer-bench can't be imported on {platform.node()}: {error}"
            return
        yield from getattr(ray_node, name)(order)

    return task
