"""A ledger written from plain NumPy, in which every recall is known."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fer_bench.record.ledger import Ledger, run_id
from fer_bench.reports.facts import second_process
from fer_bench.reports.facts.second_process import Job

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
        card = {
            "name": spec["method"],
            "title": f"The {label} method",
            "paper": "Doe",
            "year": 2020,
            "url": "https://x.org",
        }
        card |= {
            "changes": "loss",
            "deviations": [],
            "transductive": transductive,
            "tier": "method",
            "parameters": 1_250_000,
        }
        writer.put("method", card | (method or {}))
        writer.put("history", self.history(seed))
        writer.put(
            "selection", {"rule": "val", "metric": "mean_recall", "epoch": 1, "value": 0.5, "candidates": [0, 1]}
        )
        writer.put("seal", {"count": 1, "openings": [{"reason": "final", "rows": len(labels)}], "blocked": []})
        checks = [{"name": "alone", "max_difference": 1e-7, "flipped": 3 if transductive else 0}]
        writer.put("probe", {"transductive": transductive, "images": 64, "tolerance": 1e-3, "checks": checks})
        writer.put("environment", {"versions": {"torch": "2.11", "python": "3.12"}, "device": "cpu"})
        speed = {"epoch_seconds": [2, 1], "images_per_second": [50.0, 100.0]}
        writer.put("timing", speed | {"device": "cpu", "total_seconds": 90})
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
