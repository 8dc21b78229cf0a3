"""A server that forks: every training and scoring gets a fresh process, and the imports are paid for once.

The server has imported the harness and torch, and nothing else: no plug-in, no data. Asked for a process, it forks one,
which reads its order, works, and ends. So nothing that a method keeps in memory reaches another process, and a process
costs some hundredths of a second instead of some seconds. The process that asks (the driver) needs no torch.

::

    driver --order, arrays--> child        driver <--messages, one JSON line each-- child
    driver --replies--------> child        driver <--exit status-- server

What a child sends is read as JSON and nothing else, since plug-in code runs there. A driver that dies, or gives up,
ends its child: the server sees its connection close and kills.

On macOS a process may not go on after a fork if Apple's libraries, which torch uses, have started threads. There the
server starts a new interpreter for every order, which makes the imports itself.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from fer_bench.errors import TrainingError

Message = dict[str, Any]
Handle = Callable[[Message], Any]
_STATUS = struct.Struct("<i")


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


class ForkServer:
    """Starts the server when it is first needed, and has it carry out one order at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._socket: socket.socket | None = None
        self._owner = 0

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
        """
        self.start()
        assert self._socket is not None
        orders_r, orders_w = os.pipe()
        answers_r, answers_w = os.pipe()
        try:
            try:
                with _standard() as standard:
                    socket.send_fds(self._socket, [b"F"], [*standard, orders_r, answers_w])
            finally:
                os.close(orders_r)
                os.close(answers_w)
            with open(orders_w, "wb", buffering=0, closefd=False) as orders, contextlib.suppress(BrokenPipeError):
                _write_all(orders, _order(role, order, arrays))
            status = self._listen(answers_r, orders_w, handle)
        except OSError as error:
            self.stop()
            raise TrainingError("the process that starts trainings has died", hint=str(error)) from error
        except BaseException:
            self._end_child()
            raise
        finally:
            os.close(orders_w)
            os.close(answers_r)
        return status

    def stop(self) -> None:
        """End the server, and with it any child."""
        if self._socket is not None:
            self._socket.close()
        if self._process is not None and self._owner == os.getpid():
            self._process.wait()
        self._process = self._socket = None

    def _end_child(self) -> None:
        """Kill the child and wait until it is gone."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendall(b"K")
                self._read_status()

    def _read_status(self) -> int:
        assert self._socket is not None
        data = b""
        while len(data) < _STATUS.size:
            part = self._socket.recv(_STATUS.size - len(data))
            if not part:
                raise ConnectionResetError("it closed its connection; see its output")
            data += part
        return _STATUS.unpack(data)[0]

    def _listen(self, answers: int, replies: int, handle: Handle) -> int:
        """Pass messages on until the child has ended and all that it sent is read."""
        os.set_blocking(answers, False)
        rest, status = b"", None
        with selectors.DefaultSelector() as selector:
            selector.register(answers, selectors.EVENT_READ)
            selector.register(self._socket, selectors.EVENT_READ)  # type: ignore[arg-type]
            while status is None:
                ready = {key.fd for key, _ in selector.select()}
                if answers not in ready:
                    status = self._read_status()
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to hear; it ends the child in order
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
    while True:
        request, descriptors, _, _ = socket.recv_fds(connection, 1, 5)
        if not request:
            os._exit(0)  # without the interpreter's clean-up, which has nothing to clean
        if len(descriptors) != 5:  # a late order to kill a child that has ended
            continue
        pid = os.fork() if forks else _new_interpreter(descriptors)
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (woken, wake, connection.detach()):
                os.close(end)
            _child(worker.ROLES, *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        status = _wait(pid, connection, woken)
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(_STATUS.pack(status))


def _new_interpreter(descriptors: list[int]) -> int:
    """Start the program of this process again, as a child with these descriptors; returns its process id."""
    program = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv[1:])]
    stdin, stdout, stderr, *line = descriptors
    command = [*program, "child", *map(str, line)]
    process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=line)
    process.returncode = 0  # its end is waited for by its number: nothing is left to do for this object
    return process.pid


def _wait(pid: int, connection: socket.socket, woken: int) -> int:
    """Wait for a child to end; kill it when the driver asks for that, or has gone."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while True:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            for key, _ in selector.select():
                if key.fd == woken:
                    with contextlib.suppress(BlockingIOError):
                        os.read(woken, 4096)
                    continue
                os.kill(pid, signal.SIGKILL)
                _, status = os.waitpid(pid, 0)
                connection.recv(1)
                return os.waitstatus_to_exitcode(status)


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
        status = roles[head["role"]](head["order"], arrays, Channel(reader, answers))
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
