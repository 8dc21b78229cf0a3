"""The seal: what a method may try to reach test images or labels, and what the record says of it.

Each attempt is the body of a function in a real plug-in, run by the real executor and its processes on a small store.
Test images of this world carry a pattern in their first pixel row, so that finding them needs no luck.
"""

from __future__ import annotations

import ast
import shutil
import textwrap
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from fer_bench.errors import PluginError, SealError, TrainingError

DATASET = '''
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
    import random

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

        runtime = Runtime(device="cpu", checkpoint_seconds=0.0)
        return Workplace(home=Home(self.home), plugins=plugins([self.folder]), runtime=runtime)

    def spec(self, method: str = "thief", **fields):
        from fer_bench.runs.spec import RunSpec
        from fer_bench.training.recipe import Recipe

        recipe = Recipe.build({"epochs": 1, "batch_size": 16, "precision": "fp32"}, {})
        fields = {"dataset": "marked", "protocol": "official", "backbone": "resnet10_tiny", **fields}
        return RunSpec(method=method, recipe=recipe, **fields)

    def run(self, method: str = "thief", **fields) -> SimpleNamespace:
        """The record of a run, and the error that ended it if one did."""
        from fer_bench.runs.executor import execute, identify

        work, spec, error = self.workplace(), self.spec(method, **fields), None
        try:
            execute(spec, work)
        except Exception as raised:
            error = raised
        record = work.home.ledger.run(identify(spec, work)[0])
        blocked = record.json("seal")["blocked"] if record.has("seal.json") else []
        return SimpleNamespace(record=record, error=error, blocked=blocked)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> World:
    import torch

    from fer_bench.data.prepare import prepare

    torch.set_num_threads(1)
    tmp = tmp_path_factory.mktemp("seal")
    truth = make_source(tmp / "home/data/raw/marked")
    (tmp / "plugins").mkdir()
    (tmp / "plugins" / "marked.py").write_text(DATASET)
    world = World(tmp=tmp, home=tmp / "home", truth=truth, folder=tmp / "plugins")
    work = world.workplace()
    prepare(work.home, work.plugins.dataset("marked"), None, say=lambda line: None)
    world.other = world.run("baseline_resnet").record.id
    return world


@pytest.fixture
def world(shared: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The shared home, with a folder of its own for the method and what it takes away."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "plugins"
    shutil.copytree(shared.folder, folder, ignore=shutil.ignore_patterns("thief.py", "__pycache__"))
    return World(tmp=tmp_path, home=shared.home, truth=shared.truth, folder=folder, other=shared.other)


# -- attempts that meet the guard ------------------------------------------------------------------------------------

REFUSED = {
    "open": "return open(IMAGES, 'rb').read()",
    "io.FileIO": "return io.FileIO(str(TABLE)).read()",
    "io.open_code": "return io.open_code(str(TABLE)).read()",
    "np.load, mapped": "return np.load(IMAGES, mmap_mode='r')[-1]",
    "np.memmap": "return np.memmap(IMAGES, np.uint8, 'r')[-9:]",
    "np.fromfile": "return np.fromfile(IMAGES, np.uint8)",
    "pandas.read_csv": "import pandas; return pandas.read_csv(TABLE)['label'].tolist()",
    "Store.columns": "from fer_bench.data.store import Store; return Store.open(STORE).columns('label')",
    "Store.images": "from fer_bench.data.store import Store; return Store(STORE, {}).images(np.arange(94))",
    "Store.columns, forged": "from fer_bench.data import store; return store.Store(STORE, {}).columns('label')",
    "os.open": "return os.read(os.open(IMAGES, os.O_RDONLY), 9999)",
    "os.open, bytes": "return os.read(os.open(os.fsencode(IMAGES), os.O_RDONLY), 9999)",
    "os.open, O_PATH": "return os.open(IMAGES, os.O_PATH)",
    "Path.read_bytes": "return IMAGES.read_bytes()",
    "another name through /proc": "return open('/proc/self/root' + str(IMAGES), 'rb').read()",
    "dots in the path": "return open(STORE / '..' / 'marked' / '.' / 'images.npy', 'rb').read()",
    "symbolic link": "os.symlink(IMAGES, TMP / 'x'); return (TMP / 'x').read_bytes()",
    "symbolic link, relative": "os.symlink(os.path.relpath(IMAGES, TMP), TMP / 'x'); return (TMP / 'x').read_bytes()",
    "symbolic link to the folder": "os.symlink(STORE, TMP / 'x'); return (TMP / 'x/images.npy').read_bytes()",
    "symbolic link to the home": "os.symlink(HOME, TMP / 'x'); return (TMP / 'x/data/marked/table.csv').read_bytes()",
    "hard link": "os.link(IMAGES, TMP / 'x'); return (TMP / 'x').read_bytes()",
    "shutil.copy": "shutil.copy(IMAGES, TMP / 'x'); return (TMP / 'x').read_bytes()",
    "chdir": "os.chdir(STORE); return open('images.npy', 'rb').read()",
    "dir_fd": "return os.read(os.open('images.npy', os.O_RDONLY, dir_fd=os.open(STORE, os.O_RDONLY)), 999)",
    "dir_fd, with a decoy in the present folder": """
        os.chdir(TMP); Path("images.npy").write_bytes(b"decoy")
        return os.read(os.open("images.npy", os.O_RDONLY, dir_fd=os.open(STORE, os.O_RDONLY)), 9999)
    """,
    "dir_fd of the home": "return os.read(os.open('data/marked/table.csv', 0, dir_fd=os.open(HOME, os.O_RDONLY)), 999)",
    "dir_fd of another run": "return os.read(os.open('test_labels.npy', 0, dir_fd=os.open(OTHER, os.O_RDONLY)), 999)",
    "opener": "return open('table.csv', opener=lambda n, f: os.open(n, f, dir_fd=os.open(STORE, 0))).read()",
    "a path that lies": """
        class Liar(os.PathLike):
            told = 0
            def __fspath__(self):
                self.told += 1
                return str(IMAGES) if self.told == 1 else "/dev/null"
        return io.FileIO(Liar()).read()
    """,
    "a text that lies": """
        class Liar(str):
            __eq__ = lambda self, other: False
            __hash__ = str.__hash__
            __str__ = lambda self: "/dev/null"
            startswith = lambda self, *a: False
        return open(Liar(IMAGES), "rb").read()
    """,
    "the source file": "return SOURCE.read_text()",
    "another copy in the raw folder": "return (RAW / 'another_copy.csv').read_text()",
    "labels in another run": "return np.load(OTHER / 'test_labels.npy')",
    "the data set, read again": """
        from fer_bench.contract.plugins import plugins
        return next(iter(plugins([Path(__file__).parent]).dataset("marked").read(RAW).chunks()))
    """,
    "the data set, without its constructor": """
        from fer_bench.contract.plugins import plugins
        kind = plugins([Path(__file__).parent]).dataset_plugin("marked").load()
        kind.read = lambda self, source: None
        (TMP / "faces.csv").write_text("test,0,1")
        return next(iter(kind.__new__(kind).chunks(TMP)))
    """,
}


@pytest.mark.parametrize("body", [pytest.param(b, id=n) for n, b in REFUSED.items()])
def test_attempt_is_refused_and_recorded(world: World, body: str):
    world.write(ATTEMPT.replace("{body}", textwrap.indent(textwrap.dedent(body), "    ")))

    run = world.run()

    assert isinstance(run.error, SealError), repr(run.error)
    assert run.record.status == "failed"
    assert run.record.json("failed")["type"] == "SealError"
    assert run.blocked
    assert not world.loot.exists(), world.loot.read_text()[:200]
    assert not run.record.has("selection.json")


def test_attempt_that_a_library_swallows_is_recorded(world: World):
    world.write(ATTEMPT.replace("{body}", "    return linecache.getlines(str(TABLE)) or None"))

    run = world.run()

    assert run.error is None
    assert run.blocked == [{"event": "open", "file": "table.csv"}]
    assert not world.loot.exists()


def test_every_attempt_is_python_that_would_have_run():
    for name, body in REFUSED.items():
        code = ATTEMPT.replace("{body}", textwrap.indent(textwrap.dedent(body), "    "))
        assert ast.parse(code), name


def test_opening_a_file_while_the_plugin_is_imported_is_refused(world: World):
    world.write("take(TABLE.read_text())\n" + ATTEMPT.replace("{body}", "    return None"))

    run = world.run()

    assert isinstance(run.error, PluginError)
    assert "SealError" in str(run.error)
    assert run.blocked == [{"event": "open", "file": "table.csv"}]
    assert not world.loot.exists()


def test_child_made_by_fork_is_bound_too(world: World):
    body = """
        child = os.fork()
        if child == 0:
            try:
                take(TABLE.read_text())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    """
    world.write(ATTEMPT.replace("{body}", textwrap.indent(textwrap.dedent(body), "    ")))

    run = world.run()

    assert not world.loot.exists()
    assert run.record.status == "finished"
    assert run.blocked == [{"event": "open", "file": "table.csv"}]


# -- attempts that search what is in memory --------------------------------------------------------------------------

SEARCHES = {
    "local variables of all frames": """
        for frame in sys._current_frames().values():
            while frame is not None:
                for name, value in frame.f_locals.items():
                    parts = value.values() if isinstance(value, dict) else [value, *vars(value).values()] \\
                        if hasattr(value, "__dict__") else [value]
                    for part in parts:
                        part = part if not isinstance(part, dict) else list(part.values())
                        for piece in part if isinstance(part, (list, tuple)) else [part]:
                            if is_test(piece):
                                return name
                frame = frame.f_back
    """,
    "everything the collector knows": """
        known = gc.get_referents(*gc.get_objects())
        known += gc.get_referents(*[v for v in known if type(v) in (dict, list, tuple)])  # not all are tracked
        known = {id(v): v for v in known if type(v) in (np.ndarray, torch.Tensor)}
        for value in list(known.values()):
            if is_test(value) or is_test(getattr(value, "base", None)):
                return type(value), value.shape
    """,
    "open files and mappings": """
        ours = {os.stat(p).st_ino for p in (IMAGES, TABLE, SOURCE)}
        for number in os.listdir("/proc/self/fd"):
            try:
                if os.stat(f"/proc/self/fd/{number}").st_ino in ours:
                    return number
            except OSError:
                pass
        return "images.npy" in Path("/proc/self/maps").read_text() or None
    """,
    "what the method was given": """
        given = [*vars(self).values(), *vars(self.ctx).values(), *vars(view).values(), *vars(model).values()]
        sizes = {len(g) for g in given if isinstance(g, (np.ndarray, torch.Tensor)) and g.ndim}
        return (sizes & {24, 30, 64, 94}) or any(is_test(g) for g in given) or None
    """,
}


@pytest.mark.parametrize("body", [pytest.param(b, id=n) for n, b in SEARCHES.items()])
def test_search_in_training_finds_nothing_of_the_test(world: World, body: str):
    world.write(ATTEMPT.replace("{body}", textwrap.indent(textwrap.dedent(body), "    ")))
    run = world.run()

    assert run.error is None
    assert not world.loot.exists(), world.loot.read_text()
    assert run.blocked == []


def test_searches_know_the_test_when_they_meet_it(world: World):
    """The searches above are worth something: `is_test` finds the test in the store, and nothing in training."""
    import runpy

    from fer_bench.data.store import Store

    world.write("")
    is_test = runpy.run_path(str(world.folder / "thief.py"))["is_test"]
    store = Store.open(world.home / "data/marked")
    label, images = store.columns("label")["label"], store.images(range(94))
    assert is_test(label)
    assert is_test(label[64:])
    assert is_test(images)
    assert not is_test(label[:64])
    assert not is_test(images[:64])


def test_predict_sees_no_test_image_before_selection_is_written(world: World):
    world.write("""
        if not (TMP / "earlier.txt").exists():
            (TMP / "earlier.txt").write_text(str(len(list(HOME.glob("ledger/*/selection.json")))))
        EARLIER = int((TMP / "earlier.txt").read_text())

        class Spy(Method):
            card = card

            def predict(self, model, x):
                row = torch.tensor([255.0, 0.0] * 12) / 255 / 0.25 - 2
                marked = bool(torch.isclose(x[:, 0, 0, :], row, atol=1e-4).all(1).any())
                chosen = len(list(HOME.glob("ledger/*/selection.json"))) > EARLIER
                with open(TMP / "seen.txt", "a") as file:
                    print(int(marked), int(chosen), os.getpid(), file=file)
                return model(x)
    """)

    run = world.run()

    assert run.record.status == "finished"
    seen = [tuple(map(int, line.split())) for line in (world.tmp / "seen.txt").read_text().splitlines()]
    before = [marked for marked, chosen, _ in seen if not chosen]
    assert before
    assert not any(before)
    assert any(marked for marked, chosen, _ in seen if chosen)
    trainers = {pid for _, chosen, pid in seen if not chosen}
    assert len(trainers) == 1
    assert len({pid for _, _, pid in seen} - trainers) == 3, "one process scores, and two probe"
    assert run.record.json("seal")["count"] == 1


# -- after the opening -----------------------------------------------------------------------------------------------


def test_predict_can_not_read_the_labels_while_it_predicts_the_test(world: World):
    world.write("""
        class Late(Method):
            card = card

            def predict(self, model, x):
                if len(x) == 30:
                    take(TABLE.read_text())
                return model(x)
    """)

    run = world.run()

    assert isinstance(run.error, SealError)
    assert not world.loot.exists()
    assert run.record.json("seal") == {
        "count": 1,
        "openings": [{"reason": "score the selected epoch and the oracle", "rows": 30, "epoch": 0}],
        "blocked": [{"event": "open", "file": "table.csv"}],
    }


@pytest.mark.parametrize("body", [pytest.param(SEARCHES[n], id=n) for n in list(SEARCHES)[:3]])
def test_search_in_scoring_finds_no_label(world: World, body: str):
    """Labels alone: the images are given to the method, and may be found."""
    body = body.replace("if is_test(value)", "if value.ndim == 1 and is_test(value)")
    body = body.replace(
        "if is_test(piece)", "if isinstance(piece, (np.ndarray, torch.Tensor)) and piece.ndim == 1 and is_test(piece)"
    )
    world.write(
        "def search():\n" + textwrap.indent(textwrap.dedent(body), "    ")
        + textwrap.dedent("""
        class Late(Method):
            card = card

            def predict(self, model, x):
                if len(x) == 30:
                    take(search())
                return model(x)
        """)
    )  # fmt: skip

    run = world.run()

    assert run.error is None
    assert not world.loot.exists(), world.loot.read_text()


def test_what_a_method_keeps_in_memory_does_not_reach_the_scoring_process(world: World):
    world.write("""
        KEPT = []

        class Keeper(Method):
            card = card

            def on_fit_start(self, model, view):
                KEPT.append(view)
                np.secret = view
                self.secret = view

            def predict(self, model, x):
                if len(x) == 30:
                    take(KEPT or getattr(np, "secret", None) or getattr(self, "secret", None))
                return model(x)
    """)

    run = world.run()

    assert run.error is None
    assert not world.loot.exists(), world.loot.read_text()


# -- the record ------------------------------------------------------------------------------------------------------


def test_swallowed_attempt_is_in_the_record_of_the_finished_run(world: World):
    world.write("""
        class Sly(Method):
            card = card

            def on_epoch_start(self, epoch, model):
                for _ in range(3):
                    try:
                        take(open(IMAGES, "rb").read())
                    except Exception:
                        pass
    """)

    run = world.run()

    assert run.error is None
    assert run.record.status == "finished"
    assert run.blocked == [{"event": "open", "file": "images.npy"}]
    assert not world.loot.exists()
    run.record.verify()


def test_attempt_before_a_failure_stays_in_the_record_of_the_next_try(world: World):
    world.write("""
        class Unlucky(Method):
            card = card

            def on_fit_start(self, model, view):
                if not (TMP / "again").exists():
                    try:
                        open(IMAGES, "rb")
                    except Exception:
                        pass

            def on_epoch_end(self, epoch, stats):
                if not (TMP / "again").exists():
                    (TMP / "again").touch()
                    raise ValueError("bad luck")
    """)

    assert isinstance(world.run().error, TrainingError)
    again = world.run()

    assert again.record.status == "finished"
    assert again.blocked == [{"event": "open", "file": "images.npy"}]
    assert again.record.json("seal")["count"] == 1


def test_ordinary_run_opens_the_test_once(world: World):
    run = world.run("baseline_resnet", seed=3)

    seal = run.record.json("seal")
    assert seal["count"] == len(seal["openings"]) == 1
    assert seal["openings"][0]["rows"] == len(run.record.array("test_rows")) == 30
    assert seal["blocked"] == []


def test_tuning_trial_never_opens_the_test(world: World):
    run = world.run("baseline_resnet", test=False)

    assert run.record.status == "finished"
    assert run.record.json("seal") == {"count": 0, "openings": [], "blocked": []}
    assert not list(run.record.path.glob("test_*"))
    assert run.record.has("val_logits.npy")


def test_tuning_trial_that_reads_in_predict_is_refused_like_any_other(world: World):
    world.write(ATTEMPT.replace("{body}", "    return TABLE.read_text()"))

    run = world.run(test=False)

    assert isinstance(run.error, SealError)
    assert not world.loot.exists()


def test_own_folder_and_logs_stay_usable_in_training(world: World):
    world.write("""
        class Busy(Method):
            card = card

            def on_epoch_start(self, epoch, model):
                (TMP / "log.txt").write_text("fine")
                os.rename(TMP / "log.txt", TMP / "log.old")
                os.symlink(TMP / "log.old", TMP / "link")
                np.save(TMP / "test_labels.npy", np.arange(3))
                assert len(np.load(TMP / "test_labels.npy")) == 3
                os.chdir(TMP)
                assert open("log.old").read() == "fine"
                assert subprocess.run(["echo", "hello"], capture_output=True).stdout == b"hello\\n"
    """)

    run = world.run()

    assert run.error is None
    assert run.blocked == []


# -- the probe -------------------------------------------------------------------------------------------------------

READERS = {
    "its own row": ("return model(x)", False),
    "the mean of the batch": ("out = model(x).logits; return Output(logits=out - out.mean(0))", True),
    "the order of the batch": ("out = model(x).logits; return Output(logits=out + out.roll(1, 0))", True),
    "BatchNorm left in training mode": ("model.train(); return model(x)", True),
    "the size of the batch": ("out = model(x).logits; return Output(logits=out * (1 + (len(x) == 1)))", True),
    "the batch, remembered by image": (
        """
                out, names = model(x).logits, [bytes(i.numpy().tobytes()) for i in x]
                out = out - out.mean(0)
                rows = [CACHE.setdefault(n, r.clone()) for n, r in zip(names, out)]
                return Output(logits=torch.stack(rows))
        """,
        True,
    ),
    "whether it has seen an image": (
        """
                out, names = model(x).logits, [bytes(i.numpy().tobytes()) for i in x]
                bonus = torch.tensor([[float(n in CACHE)] + [0.0] * 2 for n in names])
                CACHE.update(dict.fromkeys(names))
                return Output(logits=out + bonus)
        """,
        True,
    ),
    "how often it was called": (
        "self.calls = getattr(self, 'calls', 0) + 1; return Output(logits=model(x).logits * self.calls)",
        True,
    ),
    "draws of its own": ("out = model(x).logits; return Output(logits=out + torch.randn_like(out))", True),
    "its own row, remembered": (
        """
                out, names = model(x).logits, [bytes(i.numpy().tobytes()) for i in x]
                return Output(logits=torch.stack([CACHE.setdefault(n, r.clone()) for n, r in zip(names, out)]))
        """,
        False,
    ),
}


@pytest.mark.parametrize(("body", "flagged"), [pytest.param(*v, id=n) for n, v in READERS.items()])
def test_probe_flags_predictions_that_read_the_batch(world: World, body: str, flagged: bool):
    world.write(f"""
        CACHE = {{}}

        class Reader(Method):
            card = card

            def predict(self, model, x):
                {body.strip()}
    """)

    run = world.run()

    assert run.error is None
    assert run.record.json("probe")["transductive"] is flagged


def test_probe_flags_rasn_only_when_its_affinity_is_of_the_test_batch(world: World):
    card = world.workplace().plugins.method("rasn").card

    for source, flagged in (("frozen_ema", False), ("test_batch", True)):
        run = world.run("rasn", params=card.resolve({"eval.affinity": source}))
        assert run.error is None
        assert run.record.json("probe")["transductive"] is flagged


# -- what it does not stop, as docs/architecture.md says, and that the attempts are real ------------------------------

NOT_STOPPED = {
    "torch.from_file": "return torch.from_file(str(IMAGES), size=99, dtype=torch.uint8)",
    "libc": "import ctypes; return ctypes.CDLL(None).open(os.fsencode(IMAGES), 0)",
    "another program": "return subprocess.run(['cat', str(TABLE)], capture_output=True).stdout",
    "a copy elsewhere": "return (TMP / 'copy.csv').read_text()",
}
WOULD_SUCCEED = (
    "open", "dir_fd", "dir_fd, with a decoy in the present folder", "opener", "symbolic link to the folder",
    "hard link",
    "the data set, without its constructor", "labels in another run", "another copy in the raw folder",
)  # fmt: skip


@pytest.mark.parametrize("body", [pytest.param(b, id=n) for n, b in NOT_STOPPED.items()])
def test_what_the_docs_say_is_not_stopped_is_not_stopped(world: World, body: str):
    shutil.copy(world.home / "data/marked/table.csv", world.tmp / "copy.csv")
    world.write(ATTEMPT.replace("{body}", textwrap.indent(body, "    ")))

    run = world.run()

    assert run.error is None
    assert world.loot.exists()
    assert run.blocked == []


@pytest.mark.parametrize("name", WOULD_SUCCEED)
def test_attempt_would_succeed_without_the_seal(world: World, name: str, in_process):
    world.write(ATTEMPT.replace("{body}", textwrap.indent(textwrap.dedent(REFUSED[name]), "    ")))

    run = world.run()

    assert run.error is None
    assert world.loot.exists()


HIDDEN = {
    "local variables of all frames": "def attempt(self, model, view):\n    hidden = np.array(LABELS)\n",
    "everything the collector knows": "hidden = {'a': np.array(LABELS)}\ndef attempt(self, model, view):\n",
}


@pytest.mark.parametrize("name", HIDDEN)
def test_search_finds_labels_that_are_hidden_on_purpose(world: World, name: str):
    body = textwrap.indent(textwrap.dedent(SEARCHES[name]), "    ")
    world.write(ATTEMPT.replace("def attempt(self, model, view):\n", HIDDEN[name]).replace("{body}", body))

    world.run()

    assert world.loot.exists()
