"""Fixtures: a throw-away home with a tiny data set, written from strings so that each test shows its world."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two cores: tests of small models lose time to thread switching
os.environ.setdefault("MPLBACKEND", "Agg")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell leaves it in a job it starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the commands under test must hear Ctrl-C all the same

# A machine that is busy takes longer; no test asserts a time.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

ROOT = Path(__file__).parent.parent

if "FER_BENCH_COVERAGE" in os.environ and find_spec("slipcover"):  # before any module of ours is imported
    # SlipCover writes probes into bytecode and takes them out again. Tracing (coverage.py before Python 3.12) doubles
    # the time of the tests. Processes that tests start are not measured.
    import slipcover

    SOURCES = [ROOT / folder for folder in ("fer_bench", "methods", "datasets", "reports")]
    COVERED = slipcover.Slipcover(source=[str(folder) for folder in SOURCES])
    slipcover.ImportManager(COVERED, slipcover.FileMatcher(SOURCES)).__enter__()

    def pytest_sessionfinish() -> None:
        """Write which lines this process has run."""
        file = Path(os.environ["FER_BENCH_COVERAGE"], f"{os.getpid()}.json")
        file.write_text(json.dumps(COVERED.get_coverage()))


# Which tests are slow, and why, is read off what they call: a test gets the marker of every kind whose names are
# mentioned by it, its fixtures or the helpers in its file, and `slow` with each of them. What is slow for another
# reason is marked by hand.
KINDS = {
    "training": {"execute", "run_study", "tune", "run_path"},
    "process": {"subprocess", "Popen", "ForkServer", "multiprocessing", "openpty", "this_machine"},
    "server": {"serve_forever", "create_server"},
    "mlflow": {"mlflow_client", "schema"},
    "command": {"shlex"},
    "browser": {"CHROMIUM", "browser"},
    "latex": {"pdflatex", "check_latex"},
    "report": {"build_report", "build_response", "build_comparison"},
}
COMMANDS = {"run": "training", "ablate": "training", "tune": "training", "report": "report", "compare": "report"}
COMMANDS |= {"response": "report"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test the markers of its kinds."""
    for item in items:
        if isinstance(item, pytest.Function):
            fixtures = [d.func for name in item.fixturenames for d in item._fixtureinfo.name2fixturedefs.get(name, ())]
            for kind in kinds_of(item.function, *fixtures, mentioned=item.fixturenames):
                item.add_marker(kind)
                item.add_marker("slow")
        if item.get_closest_marker("realdata"):
            item.add_marker("slow")


def kinds_of(*functions: Callable[..., Any], mentioned: Iterable[str] = ()) -> set[str]:
    """The kinds of a test, given its function, those of its fixtures, and their names."""
    names = set(mentioned).union(*map(_all_reached, functions))
    kinds = {kind for kind, calls in KINDS.items() if names & calls}
    if "main" in names:  # of the command line
        kinds |= {kind for command, kind in COMMANDS.items() if f"fer-bench {command}" in names}
    return kinds


@functools.cache
def _all_reached(function: Callable[..., Any]) -> frozenset[str]:
    """What :func:`_reached` gives: thousands of tests share a function or a fixture."""
    return frozenset(_reached(function, set()))


def _reached(function: Any, seen: set[Any]) -> Iterator[str]:
    """Names that a function mentions, and those of the functions of its own file that it calls."""
    function = getattr(function, "__func__", function)
    function = getattr(function, "__wrapped__", function)
    if not isinstance(function, FunctionType) or function in seen:
        return
    seen.add(function)
    for name in _names(function.__code__, function.__doc__):
        yield name
        called = function.__globals__.get(name)
        if getattr(called, "__module__", None) == function.__module__:
            for inner in [called, *vars(called).values()] if isinstance(called, type) else [called]:
                yield from _reached(inner, seen)


def _names(code: CodeType, doc: str | None = None) -> Iterator[str]:
    """Names that code and the functions inside it mention, and the commands in its texts, as 'fer-bench run'."""
    yield from code.co_names
    yield from code.co_varnames
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
        for text in constant if isinstance(constant, tuple) else (constant,):
            if isinstance(text, str) and text != doc:
                yield "fer-bench " + text.removeprefix("fer-bench ").partition(" ")[0]


TINY_DATASET = '''
"""Four classes of bright bars on noise: learnable in seconds."""
import numpy as np
from fer_bench import Chunk, Dataset, DatasetCard, Protocol, Reading

card = DatasetCard(
    name="tiny",
    title="bars on noise",
    classes=("c0", "c1", "c2", "c3"),
    protocols=(
        Protocol(name="official", train=("train",), val=("val",), test=("test",)),
        Protocol(name="folds", scheme="kfold", folds=4),
        Protocol(name="besttest", train=("train",), test=("test",), val_is_test=True, watermark="chosen on the test"),
        Protocol(name="three", train=("train",), val=("val",), test=("test",), classes=("c3", "c1", "c0")),
        Protocol(name="cleaned", train=("train",), val=("val",), test=("test",), clean=True),
    ),
    built_in=True,
)
COUNTS = {"train": (48, 24, 16, 8), "val": (10, 10, 10, 10), "test": (12, 12, 12, 12)}


class Tiny(Dataset):
    card = card

    def read(self, source):
        return Reading(layout="drawn", summary="bars on noise", files=[], chunks=self.chunks)

    def chunks(self):
        rng = np.random.default_rng(5)
        for split, counts in COUNTS.items():
            labels = np.repeat(np.arange(4), counts)
            labels = labels[rng.permutation(len(labels))]
            images = rng.integers(0, 90, (len(labels), 1, 16, 16))
            for k, label in enumerate(labels):
                images[k, 0, 4 * label : 4 * label + 3, 2:14] += 110
            yield Chunk(images=images.astype(np.uint8), labels=labels, split=[split] * len(labels),
                        source=[f"{split}/{k}" for k in range(len(labels))])
'''


def processes() -> Iterator[tuple[int, int, str, str]]:
    """Every process: its number, its parent's, its state (``Z``: it has ended) and its command line."""
    if not Path("/proc/self/stat").exists():
        listing = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="], capture_output=True, text=True)
        for line in listing.stdout.splitlines():
            pid, parent, state, *command = line.split(maxsplit=3)
            yield int(pid), int(parent), state, " ".join(command)
        return
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            yield int(folder.name), int(parent), state, command


@pytest.fixture
def drawn_figures() -> None:
    """Asked for by tests of what figures show or weigh; see :func:`figures_in_outline`."""


@pytest.fixture(autouse=True)
def figures_in_outline(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports get stand-ins for the files of their figures, whose drawing is two thirds of a small report's time."""
    if "drawn_figures" in request.fixturenames:
        return
    from PIL import Image

    from fer_bench.reports.render import figure_files

    def outline(figure: Any, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="9pt" height="9pt" viewBox="0 0 9 9"><!-- {name} --></svg>'
        )
        (folder / f"{name}.svg").write_text(svg)
        Image.new("L", (9, 9)).save(folder / f"{name}.png")

    monkeypatch.setattr(figure_files, "save", outline)


@pytest.fixture
def markdown_linter() -> Callable[..., str]:
    """The linter's complaints about some pages; empty if there are none."""

    def lint(*pages: Path, links: bool = True) -> str:
        # MD013: lines up to 80 letters; MD076: blank lines between all items of a list, or none; MD057: links to files
        rules = "MD013,MD076" if links else "MD013,MD076,MD057"
        options = ["--no-cache", "--no-config", "--quiet", "--disable", rules]
        program = Path(sysconfig.get_path("scripts"), "rumdl")
        done = subprocess.run([program, "check", *options, *map(str, pages)], capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stderr
        return done.stdout + done.stderr

    return lint


@pytest.fixture(scope="session")
def plugin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plug-in folder that holds the data set `tiny`."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "tiny.py").write_text(TINY_DATASET)
    return folder


@pytest.fixture
def workplace(tmp_path: Path, plugin_folder: Path):
    """A fresh home with the store of `tiny` prepared, and all plug-ins."""
    import torch

    from fer_bench.contract.plugins import plugins
    from fer_bench.data.prepare import prepare
    from fer_bench.record.home import Home
    from fer_bench.runs.executor import Workplace
    from fer_bench.training.job import Runtime

    torch.set_num_threads(1)
    home = Home(tmp_path)
    available = plugins([plugin_folder])
    prepare(home, available.dataset("tiny"), None, say=lambda line: None)
    return Workplace(home=home, plugins=available, runtime=Runtime(device="cpu", checkpoint_seconds=0.0))


@pytest.fixture
def with_plugins(workplace, plugin_folder: Path, tmp_path: Path):
    """The workplace with plug-ins of one's own: ``with_plugins(name=source, ...)`` writes and finds them."""
    from dataclasses import replace

    from fer_bench.contract.plugins import plugins

    def write(**sources: str):
        folder = tmp_path / "own"
        folder.mkdir(exist_ok=True)
        for name, source in sources.items():
            (folder / f"{name}.py").write_text(source)
        return replace(workplace, plugins=plugins([plugin_folder, folder]))

    return write


@pytest.fixture
def tiny_run():
    """Make a RunSpec on `tiny`: fast, float32, three epochs by default."""
    from fer_bench.runs.spec import RunSpec
    from fer_bench.training.recipe import Recipe

    def make(method: str = "baseline_resnet", *, recipe: dict | None = None, **fields) -> RunSpec:
        base = {"epochs": 3, "batch_size": 16, "optimizer": "adamw", "lr": 4e-3, "precision": "fp32", "shift": 1.0}
        chosen = Recipe.build(base, recipe or {})
        fields = {"dataset": "tiny", "protocol": "official", "backbone": "resnet10_tiny", **fields}
        return RunSpec(method=method, recipe=chosen, **fields)

    return make


METHOD_HEAD = """
from collections import defaultdict
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from fer_bench import *

card = MethodCard(name="own", title="of a test")
SEEN = defaultdict(list)


def copy_of(model):
    return {k: v.clone() for k, v in model.state_dict().items()}
"""


@pytest.fixture
def with_method(with_plugins):
    """A workplace with a method called `own`, given as the text of its hooks and of what stands before its class."""
    import textwrap

    def write(hooks: str, *, before: str = ""):
        body = textwrap.indent(textwrap.dedent(hooks), "    ")
        source = f"{METHOD_HEAD}\n{textwrap.dedent(before)}\n\nclass Own(Method):\n    card = card\n{body}"
        return with_plugins(own=source)

    return write


@pytest.fixture
def in_process():
    """Let training, scoring and probing happen in this process, without the guard, so that a test can look inside."""
    import runpy

    with runpy.run_path(str(ROOT / "benchmarks" / "separation.py"))["one_process"]():
        yield


@pytest.fixture
def noted_by(in_process):
    """``noted_by(work)``: what the hooks of `own` noted in their module's ``SEEN``; they run in this process."""

    return lambda work: sys.modules[work.plugins.method("own").load().__module__].SEEN


@pytest.fixture
def carry_out(with_method, noted_by, tiny_run):
    """Train `own`, given as hooks, for two epochs by default; returns its record and what it noted."""
    from fer_bench.runs.executor import execute

    def run(hooks: str, *, before: str = "", **fields):
        work = with_method(hooks, before=before)
        fields.setdefault("recipe", {"epochs": 2})
        return execute(tiny_run("own", **fields), work), noted_by(work)

    return run


@pytest.fixture
def interrupt_after():
    """``interrupt_after(epoch, spec, work)`` starts a run and interrupts it after an epoch, as Ctrl-C would."""
    from dataclasses import replace

    from fer_bench.runs.executor import execute
    from fer_bench.training.job import Listener

    class Interrupt(Listener):
        def __init__(self, after: int):
            self.after = after

        def epoch(self, entry):
            if entry["epoch"] == self.after:
                raise KeyboardInterrupt

    def start(epoch, spec, work):
        with pytest.raises(KeyboardInterrupt):
            execute(spec, replace(work, listener=lambda spec, label: Interrupt(epoch)))

    return start


def real_unpacker() -> ModuleType:
    """The module that unpacks the real FER2013; skips the test where it is not here."""
    beside = ROOT.parent / "shared" / "data" / "fer2013"
    path = Path(os.environ.get("FER_BENCH_FER2013") or beside) / "unpack.py"
    if not path.is_file():
        pytest.skip("the real FER2013 is not here: set FER_BENCH_FER2013 to the folder that holds unpack.py")
    spec = spec_from_file_location("fer2013_unpack", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
