"""What a node of a Ray cluster does. Every function is a Ray task, which tells its news one by one.

A run is carried out as it is anywhere else (:func:`fer_bench.runs.executor.execute`), in a home of its own on the
node's disk, by processes of the fork server. The Ray worker is only its driver: it runs no code of methods, and when it
ends, however it ends, so do they.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from fer_bench.base.files import write_bytes
from fer_bench.base.process import wait_passively
from fer_bench.contract.plugins import plugins
from fer_bench.errors import FerBenchError
from fer_bench.launch.node_folder import run_home, tidy
from fer_bench.launch.parcel import unpack
from fer_bench.launch.relay import Relay
from fer_bench.launch.same_code import code_facts, difference
from fer_bench.record.home import Home
from fer_bench.record.travel import pack
from fer_bench.runs.executor import Workplace, execute, identify
from fer_bench.runs.failures import failure_of
from fer_bench.runs.forkserver import SERVER
from fer_bench.runs.machine import this_machine
from fer_bench.runs.spec import RunSpec
from fer_bench.training.job import Runtime

Order = Mapping[str, Any]
News = tuple[str, Any]
"""Its kind and its content. ``refused``: why nothing can be carried out here. ``node``: its id and its name. Of a run
then ``started``, ``heard`` (a call of its listener), and at the end ``record`` or ``failed``."""
LAST = ("record", "failed", "refused")


def look(order: Order) -> Iterator[News]:
    """What the node computes on."""
    if why := _refusal(order):
        yield "refused", why
        return
    _prepare()
    try:
        yield "machine", dataclasses.asdict(this_machine())
    except FerBenchError as error:
        yield "refused", f"{_name()[1]}: {error.what}"


def clear(order: Order) -> Iterator[News]:
    """Remove what runs have left on the node's disk."""
    tidy()
    yield "cleared", None


def carry_out(order: Order) -> Iterator[News]:
    """Carry out one run, and send its record."""
    import ray

    if why := _refusal(order):
        yield "refused", why
        return
    yield "node", _name()
    _prepare()
    with contextlib.ExitStack() as stack:
        try:
            home = stack.enter_context(run_home(order["digest"], lambda: ray.get(order["data"][0])))
            folders = _plugin_folders(order, home)
        except (OSError, FerBenchError) as error:
            yield "refused", f"{_name()[1]} can't take the data of a run: {error}"
            return
        news: queue.SimpleQueue[News] = queue.SimpleQueue()
        threading.Thread(target=_work, args=(order, home, folders, news.put), daemon=True).start()
        while True:
            kind, content = news.get()
            yield kind, content
            if kind in LAST:
                return


def _plugin_folders(order: Order, home: Path) -> list[Path]:
    """Copies of the command's folders of plug-ins."""
    import ray

    folders = [home / "plugins" / str(number) for number in range(len(order["named"]["folders"]))]
    for folder in folders:
        folder.mkdir(parents=True)
    for parcel in order["plugins"]:
        unpack(ray.get(parcel), home / "plugins")
    return folders


def _work(order: Order, home: Path, folders: list[Path], tell: Callable[[News], None]) -> None:
    """The run, in a thread, so that its news can be told while it goes on."""
    places = {str(folder): given for folder, given in zip(folders, order["named"]["folders"], strict=True)}
    places[str(home)] = order["named"]["home"]
    try:
        _execute(order, home, folders, tell)
    except Exception as error:
        failure = {name: _placed(text, places) for name, text in failure_of(error).items()}
        record = Home(home).ledger.run(order["key"])
        tell(("failed", {"failure": failure, "files": pack(record)}))


def _execute(order: Order, home: Path, folders: list[Path], tell: Callable[[News], None]) -> None:
    sys.argv = order["argv"]  # the record tells the command

    def listener(spec: RunSpec, label: str) -> Relay:
        return Relay(lambda name, *told: tell(("heard", (name, told))))

    work = Workplace(home=Home(home), plugins=plugins(folders), runtime=Runtime(**order["runtime"]), listener=listener)
    spec = RunSpec.from_dict(order["spec"])
    if why := _other_run(spec, work, order["key"]):
        return tell(("refused", f"{_name()[1]}: {why}"))
    record = work.home.ledger.writer(order["key"])
    for name, content in order["earlier"].items():
        write_bytes(record.path / name, content)
    tell(("record", pack(execute(spec, work, started=partial(tell, ("started", None))))))
    return None


def _other_run(spec: RunSpec, work: Workplace, key: str) -> str:
    """Why this node would carry out another run than the one that is asked for; empty if it would not."""
    try:
        same = identify(spec, work)[0] == key
    except FerBenchError as error:
        return error.what
    return "" if same else f"the files of '{spec.method}' differ from those of the command"


def _refusal(order: Order) -> str:
    """Why nothing can be carried out here; empty if all is well."""
    other = difference(order["code"], code_facts())
    return f"{_name()[1]} runs other code than the command: {other}" if other else ""


def _prepare() -> None:
    """Start the fork server, whose imports take seconds; a Ray worker that carries out several runs has one."""
    wait_passively()
    SERVER.start()


def _name() -> tuple[str, str]:
    """The node's id, and what people call it; several nodes may have the host's name, as in a test."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    return node, f"{socket.gethostname()} ({node[:8]})"


def _placed(text: str | None, places: Mapping[str, str]) -> str | None:
    """A text with the places of the node replaced by what they are for the command."""
    for place, named in places.items():
        text = text and text.replace(place, named)
    return text
