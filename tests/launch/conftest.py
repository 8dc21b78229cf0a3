"""A fork server without its imports, and drivers that die: both are forked from this process, which has torch."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from fer_bench.runs import forkserver, worker
from tests.runs.conftest import copy_of

__all__ = ["copy_of"]
assert worker.ROLES, "imported here, once for all servers"


def start(server: forkserver.ForkServer) -> None:
    """The real server, forked from here instead of started anew."""
    if server._process is not None and server._owner == os.getpid():
        return
    server._socket, theirs = socket.socketpair()
    server._owner = os.getpid()
    pid = os.fork()
    if pid == 0:
        connection = theirs.detach()
        os.closerange(3, connection)  # locks of runs among them: a program that is started anew has none of these
        os.closerange(connection + 1, 256)
        sys.argv = ["", str(connection)]
        forkserver.main()
    theirs.close()
    server._process = SimpleNamespace(pid=pid, poll=lambda: None, wait=lambda: os.waitpid(pid, 0))


@pytest.fixture(autouse=True)
def forked_server(monkeypatch: pytest.MonkeyPatch):
    """Every test has a server of its own."""
    monkeypatch.setattr(forkserver.ForkServer, "start", start)
    forkserver.SERVER.stop()
    yield
    forkserver.SERVER.stop()


@pytest.fixture
def driver():
    """``driver(work)`` has another process do some work; returns its number and what it prints, as a file."""
    started: list[int] = []

    def fork(carry_out: Callable[[Callable[[str], None]], None]):
        listen, tell = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(listen)
            try:
                forkserver.SERVER.__init__()  # the other one belongs to the process that this was forked from
                carry_out(lambda line: os.write(tell, f"{line}\n".encode()))
                os.write(tell, b"done\n")
            except BaseException as error:
                os.write(tell, f"{type(error).__name__}: {error}\n".encode())
            finally:
                os._exit(0)
        os.close(tell)
        started.append(pid)
        return pid, os.fdopen(listen)

    yield fork
    for pid in started:
        os.waitpid(pid, 0)
