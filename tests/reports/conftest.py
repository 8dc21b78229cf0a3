"""A ledger written from plain NumPy, in which every recall is known."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fer_bench.record.ledger import Ledger, run_id
from fer_bench.reports import study_table
from fer_bench.reports.facts import second_process
from fer_bench.reports.facts.numbers import Numbers, compute
from fer_bench.reports.facts.records import load_study
from fer_bench.reports.facts.second_process import Job
from fer_bench.reports.render.blocks import Document
from fer_bench.reports.render.markdown import page as markdown
from fer_bench.reports.sections import Context
from fer_bench.reports.sections.composition import document
from fer_bench.reports.sections.registry import SECTIONS

CLASSES = ("angry", "disgust", "happy")
TRAIN = (300, 40, 900)
TEST = (50, 20, 100)


def logits_with_hits(labels: np.ndarray, hits: tuple[int, ...], first: int = 0) -> np.ndarray:
    """Logits with `hits[c]` images of class c right, from its image `first` on; errors go to the next class."""
    classes = len(hits)
    predicted = (labels + 1) % classes
    for c, k in enumerate(hits):
        mine = np.flatnonzero(labels == c)
        predicted[np.roll(mine, -first)[:k]] = c
    return (4.0 * np.eye(classes)[predicted]).astype(np.float32)


def constant(labels: np.ndarray, answer: int, classes: int = 3) -> np.ndarray:
    """Logits of one class for everything."""
    return np.tile(np.eye(classes, dtype=np.float32)[answer], (len(labels), 1))


class Bench:
    """A throw-away ledger; `run` writes one finished run and returns its id."""

    def __init__(self, root, classes: tuple[str, ...] = CLASSES, train: tuple = TRAIN, test: tuple = TEST):
        self.ledger = Ledger(root)
        self.classes, self.train, self.test = classes, train, test
        self.labels = np.repeat(np.arange(len(classes)), test)

    def spec(self, label: str, seed: int, **changes: Any) -> dict[str, Any]:
        recipe = {
            "epochs": 2,
            "batch_size": 32,
            "optimizer": "sgd",
            "lr": 0.1,
            "weight_decay": 5e-4,
            "schedule": "cosine",
        }
        spec = {"method": label.split("[")[0], "params": {}, "dataset": "toy", "dataset_params": {}}
        spec |= {
            "protocol": "official",
            "fold": None,
            "profile": "natural",
            "backbone": "tiny",
            "pretrained": False,
            "seed": seed,
        }
        return spec | {"selection": {"rule": "val", "metric": "mean_recall"}, "recipe": recipe} | changes

    def data(self, **changes: Any) -> dict[str, Any]:
        protocol = {
            "name": "toy/official",
            "title": "as published",
            "watermark": "",
            "train": ["train"],
            "val": ["val"],
        }
        counts = {"train": list(self.train), "val": list(self.test), "test": list(self.test)}
        data = {
            "dataset": "toy",
            "classes": list(self.classes),
            "fingerprint": "f00d",
            "layout": "csv",
            "counts": counts,
        }
        return data | {"protocol": protocol | {"test": ["test"]}} | changes

    def run(
        self,
        label: str,
        seed: int,
        hits: tuple[int, ...] | None = None,
        *,
        logits: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        rows: np.ndarray | None = None,
        epochs: np.ndarray | None = None,
        groups: np.ndarray | None = None,
        spec: dict | None = None,
        data: dict | None = None,
        method: dict | None = None,
        transductive: bool = False,
        finish: bool = True,
        edit: Callable | None = None,
    ) -> str:
        labels = self.labels if labels is None else labels
        logits = logits_with_hits(labels, hits) if logits is None else logits
        spec, data = self.spec(label, seed, **(spec or {})), self.data(**(data or {}))
        writer = self.ledger.writer(run_id({**spec, "label": label}, str(data), "source"))
        writer.start()
        named = {"run_id": writer.id, "label": label, "spec": spec}
        writer.put("spec", named | {"fingerprint": "f00d", "source": "s", "numerics": 1})
        writer.put("data", data)
        writer.put("method", self.card(label, spec["method"], transductive) | (method or {}))
        writer.put("history", self.history(seed))
        for name, content in self.side_files(len(labels), transductive).items():
            writer.put(name, content)
        predicted = logits.argmax(1).astype(np.uint8)
        arrays = {"rows": np.arange(len(labels)) if rows is None else rows, "labels": labels, "logits": logits}
        arrays["epochs"] = np.stack([predicted, predicted]) if epochs is None else epochs
        for name, array in arrays.items():
            writer.put(f"test_{name}", array)
            writer.put(f"val_{name}", array)
        if groups is not None:
            writer.put("test_groups", groups)
        if edit:
            edit(writer)
        if finish:
            writer.finish()
        return writer.id

    def card(self, label: str, name: str, transductive: bool) -> dict[str, Any]:
        about = {"name": name, "title": f"The {label} method", "paper": "Doe", "year": 2020, "url": "https://x.org"}
        about |= {"changes": "loss", "deviations": [], "tier": "method", "parameters": 1_250_000}
        return about | {"transductive": transductive}

    def side_files(self, images: int, transductive: bool) -> dict[str, Any]:
        checks = [{"name": "alone", "max_difference": 1e-7, "flipped": 3 if transductive else 0}]
        speed = {"epoch_seconds": [2, 1], "images_per_second": [50.0, 100.0]}
        return {
            "selection": {"rule": "val", "metric": "mean_recall", "epoch": 1, "value": 0.5, "candidates": [0, 1]},
            "seal": {"count": 1, "openings": [{"reason": "final", "rows": images}], "blocked": []},
            "probe": {"transductive": transductive, "images": 64, "tolerance": 1e-3, "checks": checks},
            "environment": {"versions": {"torch": "2.11", "python": "3.12"}, "device": "cpu"},
            "timing": speed | {"device": "cpu", "total_seconds": 90},
        }

    def history(self, seed: int) -> list[dict[str, Any]]:
        scores = {"val_loss": 1.0, "val_accuracy": 0.6, "val_macro_f1": 0.4, "val_recall": [0.5] * len(self.classes)}
        scores |= {"stage": 0, "lr": 0.1, "train_accuracy": 0.5}
        return [
            {"epoch": e, "train_loss": 1 / (e + 1), "val_mean_recall": 0.4 + 0.01 * e * seed} | scores for e in (0, 1)
        ]

    def study(self, runs: list[str], methods: list[str], reference: str | None = "base", **more: Any) -> dict[str, Any]:
        study = {
            "name": "toy-study",
            "command": "fer-bench run better base --dataset toy",
            "dataset": "toy",
            "kind": "run",
        }
        study |= {"protocol": "toy/official", "runs": runs, "methods": methods, "reference": reference} | more
        self.ledger.put_study(study["name"], study)
        return study

    def study_of(self, methods: dict, seeds: int = 5, reference: str | None = "base", **more: Any) -> dict[str, Any]:
        """A study of methods given by their hits, by the class they predict for everything, or by logits of a seed."""
        runs = []
        for label, of in methods.items():
            for seed in range(seeds):
                if isinstance(of, tuple):
                    runs.append(self.run(label, seed, of, **more))
                else:
                    logits = of(seed) if callable(of) else constant(self.labels, of, len(self.classes))
                    runs.append(self.run(label, seed, logits=logits, **more))
        return self.study(runs, list(methods), reference)

    def numbers(self, study: dict[str, Any]) -> Numbers:
        return compute(load_study(self.ledger, study), draws=100)

    def page(self, numbers: Numbers) -> Document:
        """The page without what takes long."""
        slow = ("frequency", "curves", "confusion", "recall", "further", "calibration")
        return document(Context(numbers), [s for s in SECTIONS if s.name not in slow])

    def section(self, page: Document, name: str) -> str:
        """The text of a section."""
        match = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", markdown(page), re.MULTILINE | re.DOTALL)
        assert match
        return match[1]

    def terminal(self, study: dict[str, Any]) -> str:
        console = Console(width=500, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        console.print(study_table(self.ledger, study))
        return console.export_text()


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    """Thousands of small files a minute need no flushing to a real disk."""
    monkeypatch.setattr("os.fsync", lambda file: None)


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(tmp_path / "ledger")


@pytest.fixture
def leave_to_helper(monkeypatch) -> Callable[[], None]:
    """Once it is called, this process leaves every job that was handed on to the other one, or fails."""

    def do(job: Job) -> Any:
        assert job.sheet is None, "the helper has not done it"
        return job.function(*job.arguments)

    def begin() -> None:
        monkeypatch.setattr(second_process, "_claimed", lambda sheet: False)
        monkeypatch.setattr(Job, "do", do)

    return begin


def _check_latex(text: str) -> None:
    """ASCII; braces, environments and formulas closed; no bare special sign; as many cells in every row as columns."""
    assert text.isascii()
    code = "\n".join(re.sub(r"(?<!\\)%.*", "", line) for line in text.split("\n"))
    bare = re.sub(r"\\(?:begin|end|input|label|IfFileExists|includegraphics\[[^\]]*\])\{[^}]*\}", "", code)
    bare = re.sub(r"\\([^a-zA-Z]|[a-zA-Z]+)", "", bare)
    depth = 0
    for sign in bare:
        depth += {"{": 1, "}": -1}.get(sign, 0)
        assert depth >= 0
    assert depth == 0
    assert all(line.count("$") % 2 == 0 for line in bare.split("\n"))
    assert not re.search(r"[#~_^]", re.sub(r"\$[^$]*\$", "", bare))
    open_ones: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\*?\}", code):
        if kind == "begin":
            open_ones.append(name)
        else:
            assert open_ones.pop() == name
    assert open_ones == []
    for spec, body in re.findall(r"\\begin\{tabular\}\{(.+)\}\n(.*?)\\end\{tabular\}", code, re.DOTALL):
        columns = len(re.sub(r">\{[^}]*\}|\{[^}]*\}", "", spec))
        rows = re.findall(r"^ +(.*) \\\\$", body, re.MULTILINE)
        assert len(rows) >= 2
        assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {columns}
        assert not [row for row in rows if row.startswith(("[", "*"))]


@pytest.fixture
def check_latex() -> Callable[[str], None]:
    """Looks for faults of LaTeX without LaTeX."""
    return _check_latex
