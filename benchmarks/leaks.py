"""What plug-ins that cheat achieve: each trains through the real command's processes and tries to reach the test.

``python benchmarks/leaks.py`` prints the table in docs/architecture.md. A test compares the two.

Every plug-in writes what it obtained to a file. Only real loot counts: test labels, or test images, which carry a
pattern that is easily recognised.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

DATASET = '''
"""Rows of a CSV file; the images of the test begin with a row of black and white pixels."""
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

HEAD = """
import gc, os, subprocess, sys, threading
from pathlib import Path
import numpy as np
import torch
from fer_bench import Method, MethodCard, Output

HOME, TMP = Path({home!r}), Path({tmp!r})
STORE, RAW, LOOT = HOME / "data/marked", HOME / "data/raw/marked", TMP / "loot.txt"
LABELS = {labels!r}  # to recognise them by, not to be used: a cheat does not know them


def holds_labels(value):
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu" or value.ndim != 1 or len(value) < len(LABELS):
        return False
    windows = np.lib.stride_tricks.sliding_window_view(value, len(LABELS))
    return bool((windows == np.array(LABELS)).all(-1).any())


def holds_images(value):
    pattern = np.array([255, 0] * 12, np.uint8)
    return isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.shape[-1:] == (24,) and bool(
        (value == pattern).all(-1).any())


def note(loot):
    LOOT.write_text(str(loot))


def labels_of(text):
    rows = [line.split(",") for line in text.split()[1:]]
    return [int(r[1]) for r in rows if "test" in r]


def take_table(text):
    if labels_of(text) == LABELS:
        note("labels")


card = MethodCard(name="thief", title="tries what it must not")
"""


@dataclass(frozen=True)
class Leak:
    """One plug-in: what it tries, in which process, and its code."""

    name: str
    where: str
    code: str


def _in_training(name: str, body: str) -> Leak:
    head = "class Thief(Method):\n    card = card\n\n    def on_fit_start(self, model, view):\n"
    return Leak(name, "training", head + textwrap.indent(textwrap.dedent(body).strip(), " " * 8) + "\n")


def _in_scoring(name: str, body: str, before: str = "") -> Leak:
    head = "class Thief(Method):\n    card = card\n\n    def predict(self, model, x):\n        if len(x) == 30:\n"
    body = textwrap.indent(textwrap.dedent(body).strip(), " " * 12)
    return Leak(name, "scoring", f"{textwrap.dedent(before)}\n{head}{body}\n        return model(x)\n")


_SEARCH = """
    def search(wanted):
        known = gc.get_referents(*gc.get_objects())
        known += gc.get_referents(*[v for v in known if type(v) in (dict, list, tuple)])
        for value in known:
            if type(value) in (np.ndarray, torch.Tensor) and wanted(value):
                note("found in memory")
"""
_WRAPPED = """
    load = np.load

    def wrapped(*args, **options):
        array = load(*args, **options)
        if isinstance(array, np.ndarray) and (holds_labels(array) or holds_images(np.asarray(array))):
            note("seen in np.load")
        return array

    np.load = wrapped
"""
_PROFILE = """
    def watch(frame, event, result):
        for value in (result, *frame.f_locals.values()) if event == "return" else ():
            if holds_labels(value):
                note("seen by the profiler")

    sys.setprofile(watch)
    threading.setprofile(watch)
"""

LEAKS = (
    _in_training("opens the store's table", "take_table((STORE / 'table.csv').read_text())"),
    _in_training("opens the source file", "take_table('header\\n' + (RAW / 'faces.csv').read_text())"),
    _in_training("makes a hard link to the table and opens that",
                 "os.link(STORE / 'table.csv', TMP / 'x'); take_table((TMP / 'x').read_text())"),
    _in_training("opens another run's test labels", """
        for file in (HOME / 'ledger').glob('*/test_labels.npy'):
            if holds_labels(np.load(file)):
                note('labels')
    """),
    _in_training("swallows the refusal and goes on", """
        try:
            take_table((STORE / 'table.csv').read_text())
        except Exception:
            pass
    """),
    _in_training("tries, removes the seal's record, and kills itself", """
        try:
            take_table((STORE / 'table.csv').read_text())
        except Exception:
            for file in (HOME / 'ledger').glob('*/seal.json'):
                if not (file.parent / 'done.json').exists():
                    file.unlink()
            os.kill(os.getpid(), 9)
    """),
    _in_training("reads the data set anew through its plug-in", """
        from fer_bench.contract.plugins import plugins
        chunk = next(iter(plugins([Path(__file__).parent]).dataset('marked').read(RAW).chunks()))
        note('labels')
    """),
    _in_training("reads the driver's memory through /proc", """
        driver = int(Path(f'/proc/{os.getppid()}/stat').read_text().split()[3])
        for process in (os.getppid(), driver):
            open(f'/proc/{process}/mem', 'rb').close()
        note('memory open to be searched')
    """),
    Leak("wraps np.load at import, and waits for the harness to read labels", "all three", textwrap.dedent(_WRAPPED)
         + "\nclass Thief(Method):\n    card = card\n"),
    Leak("sets a profile hook at import, and watches what functions return", "all three", textwrap.dedent(_PROFILE)
         + "\nclass Thief(Method):\n    card = card\n"),
    Leak("searches the memory for test images and labels", "training", textwrap.dedent(_SEARCH) + textwrap.dedent("""
        class Thief(Method):
            card = card

            def on_fit_start(self, model, view):
                search(lambda v: holds_labels(v) or holds_images(np.asarray(v.detach() if hasattr(v, "detach") else v)))
    """)),
    _in_scoring("searches the memory for test labels", "search(holds_labels)", _SEARCH),
    _in_scoring("opens the store's table while it predicts the test", "take_table((STORE / 'table.csv').read_text())"),
    Leak("adapts to the test batch, and remembers each image's answer", "scoring", """
CACHE = {}

class Thief(Method):
    card = card

    def predict(self, model, x):
        out = model(x).logits
        out = out - out.mean(0)
        rows = [CACHE.setdefault(i.numpy().tobytes(), row.clone()) for i, row in zip(x, out)]
        return Output(logits=torch.stack(rows))
"""),
    Leak("answers otherwise once it has seen an image", "scoring", """
SEEN = set()

class Thief(Method):
    card = card

    def predict(self, model, x):
        out, names = model(x).logits.clone(), [i.numpy().tobytes() for i in x]
        out[:, 0] += torch.tensor([float(n in SEEN) for n in names])
        SEEN.update(names)
        return Output(logits=out)
"""),
    Leak("keeps the training fold in a global variable for the scoring process", "scoring", """
KEPT = []

class Thief(Method):
    card = card

    def on_fit_start(self, model, view):
        KEPT.append(view)

    def predict(self, model, x):
        if len(x) == 30 and KEPT:
            note("training labels in the scoring process")
        return model(x)
"""),
    Leak("returns code to be unpickled as its state", "driver", """
class Bomb:
    def __reduce__(self):
        return (note, ("code run by whoever reads the record",))

class Thief(Method):
    card = card

    def state_dict(self):
        return {"bomb": Bomb()}
"""),
    _in_training("starts another program that reads the table", """
        take_table(subprocess.run(['cat', str(STORE / 'table.csv')], capture_output=True, text=True).stdout)
    """),
    _in_training("opens the table through the C library", """
        import ctypes
        libc = ctypes.CDLL(None)
        text = ctypes.create_string_buffer(100000)
        libc.read(libc.open(os.fsencode(STORE / 'table.csv'), 0), text, 100000)
        take_table(text.value.decode())
    """),
    _in_training("removes the hook's list of files first", """
        from fer_bench.seal import Guard
        for guard in [o for o in gc.get_objects() if isinstance(o, Guard)]:
            guard._files, guard._folders = frozenset(), {}
        take_table((STORE / 'table.csv').read_text())
    """),
    Leak("keeps test images in a file for the next run's training", "scoring, then training", """
class Thief(Method):
    card = card

    def on_fit_start(self, model, view):
        if (TMP / "kept.npy").exists():
            note("test images, without labels")

    def predict(self, model, x):
        if len(x) == 30:
            np.save(TMP / "kept.npy", x.numpy())
        return model(x)
"""),
)  # fmt: skip


def outcomes() -> dict[str, str]:
    """What became of each attempt, by its name; takes a second or two each."""
    from fer_bench.contract.plugins import plugins
    from fer_bench.data.prepare import prepare
    from fer_bench.record.home import Home
    from fer_bench.runs.executor import Workplace
    from fer_bench.training.job import Runtime

    with tempfile.TemporaryDirectory() as folder:
        home, own = Home(Path(folder, "home")), Path(folder, "plugins")
        own.mkdir()
        (own / "marked.py").write_text(DATASET)
        labels = _make_source(home.raw("marked"))
        prepare(home, plugins([own]).dataset("marked"), None, say=lambda line: None)
        outcomes = {}
        for leak in (Leak("honest", "", "class Thief(Method):\n    card = card\n"), *LEAKS):
            tmp = Path(folder, "tmp")
            shutil.rmtree(tmp, ignore_errors=True)
            tmp.mkdir()
            head = HEAD.replace("{home!r}", repr(str(home.root))).replace("{tmp!r}", repr(str(tmp)))
            (own / "thief.py").write_text(head.replace("{labels!r}", repr(labels)) + leak.code)
            work = Workplace(home=home, plugins=plugins([own]), runtime=Runtime(device="cpu", threads=1))
            outcomes[leak.name] = _outcome(work, tmp / "loot.txt", 2 if "next run" in leak.name else 1)
    honest = outcomes.pop("honest")
    if honest != "finds nothing":
        raise RuntimeError(f"a method that tries nothing should find nothing, but: {honest}")
    return outcomes


def _make_source(folder: Path) -> list[int]:
    """40 training, 24 validation and 30 test images, with labels in an order that nobody can guess."""
    draw = random.Random(11)
    rows = [(s, draw.randrange(3), k) for k, s in enumerate(["train"] * 40 + ["val"] * 24 + ["test"] * 30)]
    folder.mkdir(parents=True)
    (folder / "faces.csv").write_text("\n".join(f"{s},{label},{k}" for s, label, k in rows))
    return [label for s, label, _ in rows if s == "test"]


def _outcome(work, loot: Path, runs: int) -> str:
    """Run the plug-in, and summarise what its loot and its record show."""
    from fer_bench.errors import FerBenchError
    from fer_bench.runs.executor import execute, identify
    from fer_bench.runs.spec import RunSpec
    from fer_bench.training.recipe import Recipe

    recipe = Recipe.build({"epochs": 1, "batch_size": 16, "precision": "fp32"}, {})
    failed = ""
    for seed in range(runs):
        spec = RunSpec(
            method="thief", dataset="marked", protocol="official", backbone="resnet10_tiny", recipe=recipe, seed=seed
        )
        try:
            execute(spec, work)
        except FerBenchError:
            failed = "; the run fails"
    record = work.home.ledger.run(identify(spec, work)[0])
    seal = record.json("seal") if record.has("seal.json") else {"blocked": []}
    if loot.exists():
        return f"**not stopped**: {loot.read_text()}" + (", but recorded" if seal["blocked"] else "")
    if seal["blocked"]:
        return f"refused and recorded{failed}"
    if record.has("probe.json") and record.json("probe")["transductive"]:
        return "flagged by the probe"
    return f"refused{failed}" if failed else "finds nothing"


def table(outcomes: dict[str, str]) -> str:
    """The outcomes as a Markdown table."""
    where = {leak.name: leak.where for leak in LEAKS}
    rows = [f"| {name} | {where[name]} | {outcome} |" for name, outcome in outcomes.items()]
    return "\n".join(["| a method that ... | process | outcome |", "| --- | --- | --- |", *rows]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table(outcomes()))
