"""Two worlds that several files of this room need: a home whose test images are marked, and a server whose runs die.

The runs die for real: a process imports torch once, then forks a driver for every attempt, which is killed from outside
at a random moment, or at a chosen one (the moments that chance seldom meets), whichever of its processes is at work.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fer_bench.record.ledger import UNHASHED
from fer_bench.runs.executor import execute, identify
from fer_bench.training.checkpoint import load_plain

# -- marked test images ---

MARKED_DATASET = '''
"""Marked faces: a CSV of seeds is the source; test images start with a row of black and white pixels."""
import numpy as np
from fer_bench import Chunk, Dataset, DatasetCard, Protocol, Reading

card = DatasetCard(
    name="marked", title="marked test images", classes=("c0", "c1", "c2"),
    protocols=(Protocol(name="official", train=("train",), val=("val",), test=("test",)),),
)


class Marked(Dataset):
    card = card

    def read(self, source):
        return Reading(layout="csv", summary="marked", files=[source / "faces.csv"], chunks=lambda: self.chunks(source))

    def chunks(self, source):
        rows = [line.split(",") for line in (source / "faces.csv").read_text().split()]
        labels = np.array([int(r[1]) for r in rows])
        images = np.stack([np.random.default_rng(int(r[2])).integers(0, 256, (1, 24, 24)) for r in rows])
        for k, row in enumerate(rows):
            images[k, 0, 4 + 5 * labels[k]] = 250
            if row[0] == "test":
                images[k, 0, 0] = [255, 0] * 12
        yield Chunk(images=images.astype(np.uint8), labels=labels, split=[r[0] for r in rows],
                    source=[str(k) for k in range(len(rows))])
'''

HEADER = """
import gc, io, linecache, os, shutil, subprocess, sys, threading, time
from pathlib import Path
import numpy as np
import torch
from torch import nn
from fer_bench import Method, MethodCard, Output

HOME, STORE, RAW, OTHER = Path({home!r}), Path({store!r}), Path({raw!r}), Path({other!r})
TMP, LOOT = Path({tmp!r}), Path({loot!r})
IMAGES, TABLE, SOURCE = STORE / "images.npy", STORE / "table.csv", RAW / "faces.csv"
LABELS = [int(line.split(",")[1]) for line in {truth!r}.split() if line.startswith("test")]

def is_test(value):
    '''Whether an array is the test's: its pixels carry the row, or its values are the test labels.'''
    if isinstance(value, torch.Tensor) and not value.is_meta and value.layout == torch.strided:
        value = value.detach().numpy() if value.dtype != torch.bfloat16 else np.zeros(0)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
        return False
    if value.ndim >= 2 and value.shape[-1] == 24 and value.dtype == np.uint8:
        return bool((value == np.array([255, 0] * 12, np.uint8)).all(-1).any())
    if value.ndim == 1 and len(value) >= len(LABELS):
        windows = np.lib.stride_tricks.sliding_window_view(value, len(LABELS))
        return bool((windows == np.array(LABELS)).all(-1).any())
    return False

def take(found):
    if found is not None and found is not False:
        LOOT.write_text(repr(found))

card = MethodCard(name="thief", title="tries what it must not")
"""

ATTEMPT = """
def attempt(self, model, view):
{body}

class Thief(Method):
    card = card

    def on_fit_start(self, model, view):
        take(attempt(self, model, view))
"""


def make_source(folder: Path) -> str:
    """Labels in no order that a method could guess, 40 training, 24 validation and 30 test images."""

    draw = random.Random(11)
    splits = ["train"] * 40 + ["val"] * 24 + ["test"] * 30
    text = "\n".join(f"{s},{draw.randrange(3)},{k}" for k, s in enumerate(splits))
    folder.mkdir(parents=True)
    (folder / "faces.csv").write_text(text)
    (folder / "another_copy.csv").write_text(text)
    return text


@dataclass
class World:
    """A home with the store of `marked` and one finished run; `write` makes a method, `run` executes it."""

    tmp: Path
    home: Path
    truth: str
    folder: Path
    other: str = "none"
    images: str = "auto"

    def write(self, code: str) -> None:
        values = {
            "home": str(self.home), "store": str(self.home / "data/marked"), "raw": str(self.home / "data/raw/marked"),
            "other": str(self.home / "ledger" / self.other), "tmp": str(self.tmp), "loot": str(self.loot),
            "truth": self.truth,
        }  # fmt: skip
        header = HEADER
        for name, value in values.items():
            header = header.replace("{" + name + "!r}", repr(value))
        (self.folder / "thief.py").write_text(header + textwrap.dedent(code))

    @property
    def loot(self) -> Path:
        return self.tmp / "loot.txt"

    def workplace(self):
        from fer_bench.contract.plugins import plugins
        from fer_bench.record.home import Home
        from fer_bench.runs.executor import Workplace
        from fer_bench.training.job import Runtime

        runtime = Runtime(device="cpu", checkpoint_seconds=0.0, images=self.images)
        return Workplace(home=Home(self.home), plugins=plugins([self.folder]), runtime=runtime)

    def spec(self, method: str = "thief", **fields):
        from fer_bench.runs.spec import RunSpec
        from fer_bench.training.recipe import Recipe

        recipe = Recipe.build({"epochs": 1, "batch_size": 16, "precision": "fp32"}, {})
        fields = {"dataset": "marked", "protocol": "official", "backbone": "resnet10_tiny", **fields}
        return RunSpec(method=method, recipe=recipe, **fields)

    def run(self, method: str = "thief", **fields) -> SimpleNamespace:
        """The record of a run, and the error that ended it if one did."""
        from fer_bench.runs.executor import identify

        work, spec, error = self.workplace(), self.spec(method, **fields), None
        try:
            execute(spec, work)
        except Exception as raised:
            error = raised
        record = work.home.ledger.run(identify(spec, work)[0])
        blocked = record.json("seal")["blocked"] if record.has("seal.json") else []
        return SimpleNamespace(record=record, error=error, blocked=blocked)


@pytest.fixture(scope="session")
def marked_home(tmp_path_factory: pytest.TempPathFactory) -> World:
    import torch

    from fer_bench.data.prepare import prepare

    torch.set_num_threads(1)
    tmp = tmp_path_factory.mktemp("seal")
    truth = make_source(tmp / "home/data/raw/marked")
    (tmp / "plugins").mkdir()
    (tmp / "plugins" / "marked.py").write_text(MARKED_DATASET)
    world = World(tmp=tmp, home=tmp / "home", truth=truth, folder=tmp / "plugins")
    work = world.workplace()
    prepare(work.home, work.plugins.dataset("marked"), None, say=lambda line: None)
    world.other = world.run("baseline_resnet").record.id
    other_labels = world.home / "ledger/labels/f00d/second"
    other_labels.mkdir(parents=True)
    (other_labels / "votes.npy").write_bytes(b"how people see the test images")
    return world


@pytest.fixture
def world(marked_home: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The shared home, with a folder of its own for the method and what it takes away."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "plugins"
    shutil.copytree(marked_home.folder, folder, ignore=shutil.ignore_patterns("thief.py", "__pycache__"))
    return World(tmp=tmp_path, home=marked_home.home, truth=marked_home.truth, folder=folder, other=marked_home.other)


# -- runs that are killed ---

KILL_SERVER = """
import json, os, signal, socket, sys, time, traceback
from types import SimpleNamespace
from fer_bench.runs import forkserver, worker
from fer_bench.errors import FerBenchError
from fer_bench.runs.executor import Workplace, execute
from fer_bench.training.job import Listener, Runtime
from fer_bench.record.home import Home
from fer_bench.contract.plugins import plugins
from fer_bench.runs.spec import RunSpec


class Watch(Listener):
    def __init__(self, order):
        self.order, self.steps = order, 0

    def step(self, images, steps=1):
        self.steps += steps
        if self.order.get("at") == f"step {self.steps}":
            os.kill(os.getpid(), self.order.get("signal", 9))


worker.STEP_SECONDS = -1.0  # tell of every step


def start(server):
    '''The real server, forked from here instead of started anew, so that its imports are paid once for all orders.'''
    if server._process is not None:
        return
    server._socket, theirs = socket.socketpair()
    server._owner = os.getpid()
    pid = os.fork()
    if pid == 0:
        connection = theirs.detach()
        os.closerange(3, connection)  # the run's lock among them, as a program that is started anew has none of these
        os.closerange(connection + 1, 99)
        sys.argv = ["", str(connection)]
        forkserver.main()
    theirs.close()
    server._process = SimpleNamespace(poll=lambda: None, wait=lambda: os.waitpid(pid, 0))


forkserver.ForkServer.start = start


def die():
    '''Kill the driver, which is this process or the one this works for; its server then ends everything else.'''
    os.kill(DRIVER, 9)
    time.sleep(600)


def die_at(at):
    '''Die just before or just after the nth file of a name is put in its place; half of it is on disk before.'''
    how, name, nth = at.split()
    calls, replace = [0], os.replace

    def dying(old, new):
        calls[0] += os.path.basename(new) == name
        due = os.path.basename(new) == name and calls[0] == int(nth)
        if due and how == "before":
            os.truncate(old, os.path.getsize(old) // 2)
            die()
        replace(old, new)
        if due:
            die()

    os.replace = dying


def child(order, told):
    global DRIVER
    DRIVER = os.getpid()
    os.dup2(told, 1)
    if order.get("at", "").startswith(("before", "after")):
        die_at(order["at"])
    if order.get("file_size"):
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_size"],) * 2)
    work = Workplace(home=Home.find(order["home"]), plugins=plugins(order["plugins"]),
                     runtime=Runtime(device="cpu", deterministic=True, threads=1, checkpoint_seconds=0),
                     listener=lambda spec, label: Watch(order))
    try:
        execute(RunSpec.from_dict(order["spec"]), work, started=lambda: os.write(told, b"started\\n"))
        answer = "done"
    except BaseException as error:
        answer = f"{type(error).__name__}: {error}"
    os.write(told, answer.encode())
    os._exit(0)


print("ready", flush=True)
for line in sys.stdin:
    order = json.loads(line)
    listen, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(listen)
        child(order, told)
    os.close(told)
    said = b""
    while not said.startswith(b"started\\n") and (part := os.read(listen, 9999)):
        said += part
    began = time.perf_counter()
    if order.get("after") is not None:
        time.sleep(order["after"])
        os.kill(pid, signal.SIGKILL)
    while part := os.read(listen, 9999):
        said += part
    _, status = os.waitpid(pid, 0)
    answer = {"killed": os.WIFSIGNALED(status), "said": said.decode().removeprefix("started\\n")}
    print(json.dumps({**answer, "seconds": time.perf_counter() - began}), flush=True)
"""


class KillServer:
    """Executes orders, each in a process of its own."""

    def __init__(self, process: subprocess.Popen):
        self.process = process

    def __call__(self, work, spec, **order) -> dict:
        order |= {"home": str(work.home.root), "spec": spec.to_dict()}
        order["plugins"] = sorted({p.origin for p in (*work.plugins.methods.values(), *work.plugins.datasets.values())
                                   if p.origin.startswith("/")})  # fmt: skip
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="session")
def server():
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", KILL_SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield KillServer(process)
    finally:
        process.stdin.close()
        process.wait(20)


@pytest.fixture
def copy_of(workplace, tmp_path: Path):
    """The workplace in another, empty home that shares the store."""
    from dataclasses import replace

    from fer_bench.record.home import Home

    def make(name: str, work=workplace):
        home = tmp_path / name
        home.mkdir()
        (home / "data").symlink_to(workplace.home.data)
        return replace(work, home=Home(home))

    return make


def record_of(spec, work):
    return work.home.ledger.run(identify(spec, work)[0])


def assert_equal_records(one, other) -> None:
    """Every file bitwise, except durations and hardware; weights and method state bitwise."""
    assert one.status == other.status == "finished"
    assert one.id == other.id
    files = [{p.name: p.read_bytes() for p in r.path.iterdir() if p.is_file()} for r in (one, other)]
    assert set(files[0]) == set(files[1])
    for name in set(files[0]) - set(UNHASHED) | {"done.json"}:
        assert files[0][name] == files[1][name], name
    one.verify()
    other.verify()
    models = [load_plain(r.path / "model.pt") for r in (one, other)]
    assert set(models[0]["model"]) == set(models[1]["model"])
    for name, tensor in models[0]["model"].items():
        assert torch.equal(tensor, models[1]["model"][name]), name
    assert repr(models[0]["method"]) == repr(models[1]["method"])
