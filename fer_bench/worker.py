"""One run in a process of its own.

A process that has scored a test has held its images, and the method has seen them in ``predict``. So the next run of a
study trains in a fresh process, where nothing that a method may have kept aside can reach it. And a crash of a library
ends one run, not the study.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fer_bench.atomic import read_json, write_json
from fer_bench.console import Live
from fer_bench.errors import FerBenchError, LockedError, TrainingError
from fer_bench.executor import Workplace, execute, identify
from fer_bench.fit import Runtime
from fer_bench.home import Home
from fer_bench.ledger import RunRecord
from fer_bench.plugins import plugins
from fer_bench.spec import RunSpec

LOCKED, FAILED = 3, 4


def execute_apart(spec: RunSpec, work: Workplace, *, started: Callable[[], None] = lambda: None) -> RunRecord:
    """Like :func:`fer_bench.executor.execute`, in a fresh process that ends with this one.

    Raises
    ------
    LockedError
        Another process is training this run.
    FerBenchError
        The run failed, as the worker told; a worker that died without a word is told as such.
    """
    with tempfile.TemporaryDirectory(prefix="fer-bench-") as folder:
        answer = Path(folder) / "answer.json"
        request = {
            "spec": spec.to_dict(),
            "home": str(work.home.root),
            "plugins": list(work.plugins.folders),
            "runtime": dataclasses.asdict(work.runtime),
            "rarest": list(work.listener.rarest) if isinstance(work.listener, Live) else None,
            "answer": str(answer),
            "parent": os.getpid(),
        }
        process = subprocess.Popen([sys.executable, "-P", "-m", "fer_bench.worker"], stdin=subprocess.PIPE, text=True)
        try:
            started()
            process.communicate(json.dumps(request))
        except BaseException:  # Ctrl-C reaches the worker too: let it end in order
            process.wait()
            raise
        told = read_json(answer) if answer.exists() else {}
    if process.returncode == 0:
        return work.home.ledger.run(identify(spec, work)[0])
    if process.returncode == LOCKED:
        raise LockedError(told["what"])
    if told:
        raise FerBenchError(**told)
    raise TrainingError(f"the process of the run ended with code {process.returncode}", hint="its output says why")


def main() -> int:
    """Carry out the run that standard input describes."""
    request: dict[str, Any] = json.load(sys.stdin)
    _end_with(request["parent"])
    rarest = request["rarest"]
    live: dict[str, Any] = {"listener": Live(tuple(rarest))} if rarest else {}  # type: ignore[arg-type]
    work = Workplace(
        home=Home(Path(request["home"])),
        plugins=plugins(request["plugins"]),
        runtime=Runtime(**request["runtime"]),
        **live,
    )
    try:
        execute(RunSpec.from_dict(request["spec"]), work)
    except FerBenchError as error:
        told = {"what": error.what, "where": error.where, "hint": error.hint, "next": error.next}
        write_json(request["answer"], told)
        return LOCKED if isinstance(error, LockedError) else FAILED
    except KeyboardInterrupt:
        return 130
    return 0


def _end_with(parent: int) -> None:
    """Ask Linux to kill this process when its parent dies, so that a killed study leaves no training behind."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
