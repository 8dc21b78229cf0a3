"""Several runs at once on the nodes of a Ray cluster, which share no disk.

Every run is a Ray task (:mod:`fer_bench.launch.ray_node`). Data and plug-ins go to a node once, through Ray's object
store. The record comes back the same way, and is written here, under the lock of the run, which this process holds as
long as the task is at work. A run that is read out of another one's logits is made here, when that one's record is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fer_bench.base.credentials import words
from fer_bench.base.quantities import plural
from fer_bench.errors import FerBenchError, LockedError, OutOfMemoryError, TrainingError
from fer_bench.launch.parcel import Parcel, data_parcel, plugin_parcel
from fer_bench.launch.ray_cluster import PATIENCE, Cluster, Share, refused
from fer_bench.launch.same_code import code_facts
from fer_bench.record.ledger import RunWriter
from fer_bench.record.travel import install, install_unfinished
from fer_bench.runs.executor import Workplace
from fer_bench.runs.failures import error_of
from fer_bench.runs.pool import Ended, Task, attempt
from fer_bench.runs.readout import base_of
from fer_bench.runs.spec import RunSpec
from fer_bench.training.job import Listener, Runtime

DONE = ("finished", "pruned")
DEATHS = 5  # of workers or nodes that one run may meet before it counts as failed
LOOK = 5.0  # seconds without news after which the cluster is looked at


@dataclass
class _Flight:
    """A run that is at work on a node, or waits for one there."""

    task: Task
    spec: RunSpec  # what is trained: the task's own run, or the one that it is read out of
    work: Workplace
    started: Callable[[], None]  # to be called as often as the run begins, and heard once
    writer: RunWriter
    held: contextlib.ExitStack
    node: str = ""
    deaths: int = 0
    listener: Listener | None = None

    def hear(self, name: str, told: tuple) -> None:
        """Tell the listener what its run tells."""
        if self.listener is None:
            self.listener = self.work.listener(self.spec, self.work.label(self.spec))
        getattr(self.listener, name)(*told)
        if name == "close":
            self.listener = None

    def silence(self) -> None:
        """Close the listener of a run that can't do so any more."""
        if self.listener is not None:
            self.hear("close", ())


class RayPool:
    """Carries out runs on the nodes of a cluster; see :class:`fer_bench.runs.pool.Pool`.

    Parameters
    ----------
    connect : callable
        Reaches the cluster; called when the first run begins, and again when the pool is used after it was closed.
    size : int
        Most runs at once.
    share : Share
        What each takes of a node.
    say : callable
        Told where runs begin, and which begin again.
    """

    def __init__(self, connect: Callable[[], Cluster], size: int, share: Share, say: Callable[[str], None] = print):
        self.size, self.share, self.say, self._connect = size, share, say, connect
        self._cluster: Cluster | None = None
        self._at_work: dict[Any, _Flight] = {}  # by the stream of news
        self._ended: deque[Ended] = deque()
        self._sent: dict[str, tuple[str, Any]] = {}  # what was put into the object store
        self._nodes: set[str] = set()  # where runs have begun
        self._waiting = False

    @property
    def cluster(self) -> Cluster:
        """The cluster, which is reached when it is first needed."""
        if self._cluster is None:
            self._cluster = self._connect()
        return self._cluster

    def begin(self, task: Task, work: Workplace, started: Callable[[], None]) -> None:
        """Send a run to the cluster, or make it here if it is read out of a finished one."""
        base = base_of(task.spec, work.plugins)
        spec, key = (task.spec, task.key) if base is None else (base, str(task.base))
        writer, held = work.home.ledger.writer(key), contextlib.ExitStack()
        if writer.status in DONE:
            self._ended.append(attempt(task, work, started))
            return
        try:
            held.enter_context(writer.locked())
        except LockedError as error:
            self._ended.append(Ended(task, error=error))
            return
        flight = _Flight(task, spec, work, functools.cache(started), writer, held)
        if writer.status in DONE:  # by another process, since the look above
            self._end(flight)
            return
        try:
            self._send(flight)
        except BaseException:
            held.close()
            raise

    def _send(self, flight: _Flight) -> None:
        """Have Ray choose a node for a run."""
        flight.node = ""
        order = self._order(flight.spec, flight.work, flight.writer)
        self._at_work[self.cluster.task("carry_out", self.share)(order)] = flight

    def _order(self, spec: RunSpec, work: Workplace, writer: RunWriter) -> dict[str, Any]:
        """What a node is given: plain data, and where in the object store the files are."""
        folders = work.plugins.folders
        digest, data = self._shipped(spec.dataset, lambda: data_parcel(work.home, spec.dataset))
        _, plugins = self._shipped("", lambda: plugin_parcel(folders, work.home)) if folders else ("", None)
        seal = writer.path / "seal.json"
        return {
            "key": writer.id,
            "spec": spec.to_dict(),
            "runtime": dataclasses.asdict(self._runtime(work.runtime)),
            "digest": digest,
            "data": [data],  # in a list, so that Ray leaves it to the node whether to fetch it
            "plugins": [plugins] if folders else [],
            "named": {"folders": list(folders), "home": str(work.home.root)},
            "earlier": {"seal.json": seal.read_bytes()} if seal.is_file() else {},
            "argv": words(sys.argv),
            "code": code_facts(),
        }

    def _runtime(self, runtime: Runtime) -> Runtime:
        """The device that Ray leaves visible, and a thread for each core of the run's share."""
        device = "cuda" if self.share.gpus else "cpu"
        return replace(runtime, device=device, threads=runtime.threads or self.share.cpus)

    def _shipped(self, name: str, make: Callable[[], Parcel | None]) -> tuple[str, Any]:
        """The hash of a parcel, and its place in the object store, where it is put once."""
        if name not in self._sent:
            parcel = make()
            assert parcel is not None
            self._sent[name] = parcel.digest, self.cluster.ray.put(parcel.files)
        return self._sent[name]

    def wait(self, seconds: float | None = None) -> Ended | None:
        """The next run to end; meanwhile listeners are told what runs tell.

        Raises
        ------
        ClusterError
            A node can't carry out runs of this command.
        """
        end = None if seconds is None else time.monotonic() + seconds
        while not self._ended:
            left = LOOK if end is None else min(LOOK, end - time.monotonic())
            if left <= 0 or not self._at_work:
                return None
            ready, _ = self.cluster.ray.wait(list(self._at_work), num_returns=1, timeout=left)
            for stream in ready:
                self._hear(stream)
            if not ready:
                self._look_around()
        return self._ended.popleft()

    def _hear(self, stream: Any) -> None:
        """Take in one piece of news of a run."""
        flight, errors = self._at_work[stream], self.cluster.ray.exceptions
        try:
            kind, content = self.cluster.ray.get(next(stream))
        except errors.RayTaskError as error:  # the task itself broke, which is a fault of ours
            self._end(self._at_work.pop(stream), error)
        except errors.OutOfMemoryError:
            what = f"the memory of {flight.node or 'a node'} did not suffice"
            self._end(self._at_work.pop(stream), OutOfMemoryError(what, hint="Ray ended the run"))
        except (errors.RayError, StopIteration) as error:
            self._lost(self._at_work.pop(stream), error)
        else:
            self._take(stream, flight, kind, content)

    def _take(self, stream: Any, flight: _Flight, kind: str, content: Any) -> None:
        if kind == "refused":
            raise refused(content)
        if kind == "node":
            node, flight.node = content
            self._nodes.add(node)
        elif kind == "started":
            flight.started()
            self.say(f"{flight.task.title}: on {flight.node}")
        elif kind == "heard":
            flight.hear(*content)
        else:
            self._end(self._at_work.pop(stream), _arrived(flight.writer, kind, content))

    def _end(self, flight: _Flight, error: Exception | None = None) -> None:
        """A run has ended: what is read out of it is made now."""
        flight.silence()
        flight.held.close()
        if error is None:  # what execute() finds finished it returns, and reads out
            self._ended.append(attempt(flight.task, flight.work, lambda: None))
        else:
            self._ended.append(Ended(flight.task, error=error))

    def _lost(self, flight: _Flight, reason: Exception) -> None:
        """The worker or the node of a run is gone: send it elsewhere."""
        flight.silence()
        flight.deaths += 1
        where = flight.node or "a node"
        if flight.deaths == DEATHS:
            what = f"the worker or the node of this run died {plural(DEATHS, 'time')}, the last time on {where}"
            error = TrainingError(what, hint=str(reason).strip().partition("\n")[0])
            flight.writer.fail(error)
            self._end(flight, error)
            return
        self.say(f"{flight.task.title}: {where} or its worker there died; the run begins again")
        try:
            self._send(flight)
        except FerBenchError as error:
            self._end(flight, error)

    def _look_around(self) -> None:
        """Tell once if what is at work can't be: the nodes that it would fit on are gone."""
        fits = self.cluster.places(self.share) > 0
        if not fits and not self._waiting:
            self.say(f"no node of the cluster has {self.share} for a run any more; waiting for one")
        self._waiting = not fits

    def close(self) -> None:
        """End all tasks and what they have left on the nodes, and leave the cluster."""
        if self._cluster is None:
            return
        for stream in self._at_work:
            with contextlib.suppress(Exception):  # it has ended, or its node has
                self.cluster.ray.cancel(stream, force=True)
        self._await_ends()
        for flight in self._at_work.values():
            flight.silence()
            flight.held.close()
        self.cluster.clear(self._nodes)
        self.cluster.close()
        self._cluster = None
        for kept in (self._at_work, self._ended, self._sent, self._nodes):
            kept.clear()

    def _await_ends(self) -> None:
        """Wait until no task is at work, but not for ever."""
        going, end = set(self._at_work), time.monotonic() + PATIENCE
        while going and (left := end - time.monotonic()) > 0:
            for stream in self.cluster.ray.wait(list(going), num_returns=1, timeout=left)[0]:
                try:
                    self.cluster.ray.get(next(stream))
                except (Exception, StopIteration):
                    going.discard(stream)


def _arrived(writer: RunWriter, kind: str, content: Any) -> Exception | None:
    """Write what a run has left; returns the error that ended it, if one did."""
    try:
        if kind == "record":
            install(writer, content)
            return None
        install_unfinished(writer, content["files"])
        failure = error_of(content["failure"])
        writer.fail(failure)
        return failure
    except Exception as error:
        return error
