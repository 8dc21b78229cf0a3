"""A server that forks: every training and scoring gets a fresh process, and the imports are paid for once.

The server has imported the harness and torch, and no plug-in; it has read no data. Asked for a process, it forks one,
which reads its order, works, and ends. So nothing that a method keeps in memory reaches another process, and a process
costs some hundredths of a second instead of some seconds. The process that asks (the driver) needs no torch.

::

    driver --order, arrays--> child        driver <--messages, one JSON line each-- child
    driver --replies--------> child        driver <--exit status-- server

What a child sends is read as JSON and nothing else, since plug-in code runs there. Several threads of a driver may each
have a child at work. Every child has a connection between server and driver, which tells its exit status: the server
kills a child when the driver closes that connection, and all children when the driver has gone.

Some libraries take seconds to import (:data:`LIBRARIES`). A child tells which of them its work has imported, and the
server imports those before it forks the next one.

On macOS a process may not go on after a fork if Apple's libraries, which torch uses, have started threads. There the
server starts a new interpreter for every order, which makes the imports itself.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NoReturn

import numpy as np

from fer_bench.errors import TrainingError

Message = dict[str, Any]
Handle = Callable[[Message], Any]
_STATUS = struct.Struct("<i")
IMPORTED = "imported"  # the kind of message that names libraries

LIBRARIES = (
    "scipy.optimize",
    "imblearn",
    "sklearn.decomposition",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.svm",
    "skops.io",
)
"""Modules that methods import and that take long; of each one the request for a child has a bit."""


class Channel:
    """A child's line to its driver."""

    def __init__(self, orders: io.BufferedReader, answers: int):
        self._orders, self._answers = orders, answers

    def tell(self, kind: str, **message: Any) -> None:
        """Send a message; the process ends where the driver has gone."""
        line = json.dumps({"kind": kind, **message}).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._answers, line) :]
        except BrokenPipeError:
            os._exit(1)

    def ask(self, kind: str, **message: Any) -> Any:
        """Send a message and wait for the driver's reply."""
        self.tell(kind, ask=True, **message)
        line = self._orders.readline()
        if not line:
            os._exit(1)
        return json.loads(line)


# -- the driver's side -----------------------------------------------------------------------------------------------


class Interrupted(KeyboardInterrupt):
    """Another thread of the driver has ended all its processes, as Ctrl-C does: not a failure of the run."""


class ForkServer:
    """Starts the server when it is first needed, and has it carry out orders, one at a time for each thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._socket: socket.socket | None = None
        self._owner = 0
        self._interrupted = False
        self._imported: set[str] = set()  # of LIBRARIES, by any child
        self._lock = threading.RLock()

    def start(self) -> None:
        """Start the server, unless it runs; its imports go on while the driver does something else."""
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return
        self._socket, theirs = socket.socketpair()
        with theirs:
            how = "exec" if sys.platform == "darwin" else "fork"
            command = [sys.executable, "-P", "-m", "fer_bench.runs.forkserver", str(theirs.fileno()), how]
            # one order of sets of strings in all processes of a run, and again when it is resumed
            environment = {"PYTHONHASHSEED": "0", **os.environ}
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=environment
            )
        self._owner = os.getpid()

    def call(self, role: str, order: Mapping[str, Any], arrays: Mapping[str, np.ndarray], handle: Handle) -> int:
        """Have a fresh process carry out `order` in the role `role`; `handle` gets its messages.

        What `handle` returns is the reply to a message that asks. An exception from it, or Ctrl-C, ends the process.

        Returns
        -------
        int
            The exit status: 0, or a negative signal number, or what the process exited with.

        Raises
        ------
        TrainingError
            The server has died, or the process sent something unreadable.
        Interrupted
            :meth:`interrupt` was called.
        """
        server, child, orders, answers = self._start_child()
        try:
            with open(orders, "wb", buffering=0, closefd=False) as file, contextlib.suppress(BrokenPipeError):
                _write_all(file, _order(role, order, arrays))
            return _listen(child, answers, orders, partial(self._hear, handle))
        except OSError as error:
            raise self._lost(server, error) from error
        except BaseException:
            with contextlib.suppress(OSError):  # kill the child, and wait until it is gone
                child.sendall(b"K")
                _read_status(child)
            raise
        finally:
            child.close()
            os.close(orders)
            os.close(answers)

    def _hear(self, handle: Handle, message: Message) -> Any:
        """Note which libraries a child has imported; all other messages are for `handle`."""
        if message["kind"] != IMPORTED:
            return handle(message)
        names = message.get("names")
        self._imported.update(name for name in LIBRARIES if isinstance(names, list) and name in names)
        return None

    def _start_child(self) -> tuple[socket.socket, socket.socket, int, int]:
        """The server's connection, a new child's, and the ends of its pipes for orders and for answers."""
        with self._lock, _standard() as standard:
            self._check()
            self.start()
            server = self._socket
            assert server is not None
            child, theirs = socket.socketpair()
            orders_r, orders_w = os.pipe()
            answers_r, answers_w = os.pipe()
            try:
                wanted = sum(1 << place for place, name in enumerate(LIBRARIES) if name in self._imported)
                socket.send_fds(server, [bytes([wanted])], [*standard, orders_r, answers_w, theirs.fileno()])
            except OSError as error:
                child.close()
                os.close(orders_w)
                os.close(answers_r)
                raise self._lost(server, error) from error
            finally:
                theirs.close()
                os.close(orders_r)
                os.close(answers_w)
        return server, child, orders_w, answers_r

    def stop(self) -> None:
        """End the server, and with it all children."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
            if self._process is not None and self._owner == os.getpid():
                self._process.wait()
            self._process = self._socket = None

    def interrupt(self) -> None:
        """End all processes; calls in other threads, and further ones, raise Interrupted until :meth:`go_on`."""
        self._interrupted = True
        self.stop()

    def go_on(self) -> None:
        """Take calls again after an interruption."""
        self._interrupted = False

    def _check(self) -> None:
        if self._interrupted:
            raise Interrupted

    def _lost(self, server: socket.socket, error: OSError) -> TrainingError:
        """Forget a server that has died, unless another thread has replaced it already; returns the error to raise."""
        self._check()
        with self._lock:
            if self._socket is server:
                self.stop()
        return TrainingError("the process that starts trainings has died", hint=str(error))


def _read_status(child: socket.socket) -> int:
    data = b""
    while len(data) < _STATUS.size:
        part = child.recv(_STATUS.size - len(data))
        if not part:
            raise ConnectionResetError("it closed its connection; see its output")
        data += part
    return _STATUS.unpack(data)[0]


def _listen(child: socket.socket, answers: int, replies: int, handle: Handle) -> int:
    """Pass messages on until the child has ended and all that it sent is read; returns its exit status."""
    os.set_blocking(answers, False)
    rest, status = b"", None
    with selectors.DefaultSelector() as selector:
        selector.register(answers, selectors.EVENT_READ)
        selector.register(child, selectors.EVENT_READ)
        while status is None:
            ready = {key.fd for key, _ in selector.select()}
            if answers not in ready:
                status = _read_status(child)
            lines, rest, open_still = _lines(answers, rest)
            for line in lines:
                _answer(line, replies, handle)
            if not open_still:
                with contextlib.suppress(KeyError):
                    selector.unregister(answers)
    return status


@contextlib.contextmanager
def _standard() -> Iterator[list[int]]:
    """Descriptors of this process's input, output and errors; what is closed becomes the null device."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        yield [n if _is_open(n) else null for n in (0, 1, 2)]
    finally:
        os.close(null)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _order(role: str, order: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    packed = io.BytesIO()
    np.savez(packed, **arrays)  # type: ignore[arg-type]
    head = {"role": role, "order": order, "arrays": packed.tell()}
    head |= {"cwd": os.getcwd(), "environ": dict(os.environ), "path": [p for p in sys.path if p]}
    return json.dumps(head).encode() + b"\n" + packed.getvalue()


def _write_all(file: Any, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _lines(descriptor: int, rest: bytes) -> tuple[list[bytes], bytes, bool]:
    """The whole lines that can be read now, what is left over, and whether more may come."""
    while True:
        try:
            part = os.read(descriptor, 1 << 16)
        except BlockingIOError:
            part = None
        if not part:
            *lines, rest = rest.split(b"\n")
            return lines, rest, part is None
        rest += part


def _answer(line: bytes, replies: int, handle: Handle) -> None:
    try:
        message = json.loads(line)
        asks = bool(message["kind"]) and message.pop("ask", False)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise TrainingError("the training process sent something unreadable", where=repr(line[:80])) from error
    reply = handle(message)
    if asks:
        with contextlib.suppress(BrokenPipeError):
            os.write(replies, json.dumps(reply).encode() + b"\n")


SERVER = ForkServer()


# -- the server's side -----------------------------------------------------------------------------------------------


def main() -> NoReturn:
    """The server: ``CONNECTION fork`` or ``CONNECTION exec``; or one of its processes: ``child ORDERS ANSWERS``."""
    if sys.argv[1] == "child":
        from fer_bench.runs import worker

        _child(worker.ROLES, 0, 1, 2, *map(int, sys.argv[2:4]))
    _serve(socket.socket(fileno=int(sys.argv[1])), forks="exec" not in sys.argv[2:])


def _serve(connection: socket.socket, *, forks: bool) -> NoReturn:
    """Start a child for every request, until the driver's end of the connection closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to hear; it ends the children in order
    gc.disable()  # imports make objects that stay: looking through them again and again takes a sixth of the time
    if forks:
        from fer_bench.runs import worker

        worker.prepare()
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    gc.collect()
    gc.freeze()  # the collector of a child does not touch, and so copy, the pages of what was imported
    gc.enable()
    family = _Family(connection, woken)
    while True:
        for wanted, (*streams, line) in family.requests():
            if forks:
                _import(wanted)
            pid = os.fork() if forks else _new_interpreter(streams)
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                family.close()
                for end in (woken, wake, connection.detach(), line):
                    os.close(end)
                _child(worker.ROLES, *streams)
            family.add(pid, line)
            for descriptor in streams:
                os.close(descriptor)


def _import(wanted: int) -> None:
    """Import libraries, each as a bit; what can't be imported here fails where it is needed, and says why."""
    new = [name for place, name in enumerate(LIBRARIES) if wanted >> place & 1 and name not in sys.modules]
    for name in new:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    if new:
        gc.freeze()


class _Family:
    """The server's children, each with its connection to the driver."""

    def __init__(self, connection: socket.socket, woken: int):
        self._connection, self._woken = connection, woken
        self._lines: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        for end in (connection, woken):
            self._selector.register(end, selectors.EVENT_READ)

    def requests(self) -> Iterator[tuple[int, list[int]]]:
        """Wait until something happens; kill who is to be killed, tell who has ended, yield who is to be started.

        Of each of these, which of :data:`LIBRARIES` it may need (one bit each), and its descriptors.
        """
        for key, _ in self._selector.select():
            if key.fd == self._woken:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, 4096)
            elif key.fileobj is self._connection:
                request, descriptors, _, _ = socket.recv_fds(self._connection, 1, 6)
                if not request:
                    self._end()
                yield request[0], descriptors
            else:  # the driver wants this child ended, or has closed its end
                self._selector.unregister(key.fileobj)
                os.kill(key.data, signal.SIGKILL)
        self._tell()

    def add(self, pid: int, line: int) -> None:
        """A child has been started; `line` is the connection that tells of its end."""
        self._lines[pid] = socket.socket(fileno=line)
        self._selector.register(self._lines[pid], selectors.EVENT_READ, pid)

    def _tell(self) -> None:
        """Tell the driver of each child that has ended."""
        for pid in list(self._lines):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            with self._lines.pop(pid) as line:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(line)
                with contextlib.suppress(OSError):  # a driver that has gone
                    line.sendall(_STATUS.pack(os.waitstatus_to_exitcode(status)))

    def _end(self) -> NoReturn:
        """The driver has gone: kill all children, and end. The interpreter's clean-up has nothing to do."""
        for pid in self._lines:
            os.kill(pid, signal.SIGKILL)
        for pid in self._lines:
            os.waitpid(pid, 0)
        os._exit(0)

    def close(self) -> None:
        """Let go of all connections, in a child: they are the server's."""
        self._selector.close()
        for line in self._lines.values():
            os.close(line.detach())


def _new_interpreter(descriptors: list[int]) -> int:
    """Start the program of this process again, as a child with these descriptors; returns its process id."""
    program = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv[1:])]
    stdin, stdout, stderr, *line = descriptors
    command = [*program, "child", *map(str, line)]
    process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=line)
    process.returncode = 0  # its end is waited for by its number: nothing is left to do for this object
    return process.pid


def _child(roles: Mapping[str, Callable], stdin: int, stdout: int, stderr: int, orders: int, answers: int) -> NoReturn:
    """Carry out one order, and end."""
    status = 1
    try:
        for number, descriptor in enumerate((stdin, stdout, stderr)):
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
        for descriptor in (orders, answers):
            os.set_inheritable(descriptor, False)  # a program that a method starts has no business with them
        reader = open(orders, "rb")  # noqa: SIM115 - open until the process ends
        head = json.loads(reader.readline())
        with np.load(io.BytesIO(reader.read(head["arrays"]))) as packed:
            arrays = {name: packed[name] for name in packed.files}
        os.chdir(head["cwd"])
        os.environ.clear()
        os.environ.update(head["environ"])
        sys.path += [p for p in head["path"] if p not in sys.path]
        channel = Channel(reader, answers)
        lacking = [name for name in LIBRARIES if name not in sys.modules]
        status = roles[head["role"]](head["order"], arrays, channel)
        if names := [name for name in lacking if name in sys.modules]:
            channel.tell(IMPORTED, names=names)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
