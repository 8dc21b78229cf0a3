"""Two thousand classes: reports, intervals and scores stay within the memory of a small machine."""

from __future__ import annotations

import ast
import csv
import os
import subprocess
import sys

import numpy as np
import pytest

from fer_bench.reports.facts.numbers import compute
from fer_bench.reports.facts.records import load_study
from fer_bench.reports.sections import confusion_matrices, figures, frequency, recall
from fer_bench.stats import confusion, crossed_errors
from fer_bench.stats.sampling import Truth

MANY = 2000
LIMIT = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (int(1.5 * 2**30),) * 2)
"""
REPORT = """
from pathlib import Path
from fer_bench.record.ledger import Ledger
from fer_bench.reports import build_report
ledger = Ledger(sys.argv[1])
build_report(ledger, ledger.study(), Path(sys.argv[2]), formats=("csv",))
"""
CLUSTERS = """
import numpy as np
from fer_bench.stats import bootstrap, confusion, crossed_errors, sampling
rng = np.random.default_rng(0)
labels = np.repeat(np.arange(2000), 2)
people = rng.permutation(np.repeat(np.arange(800), 5))
predictions = np.where(rng.random((3, 4000)) < 0.5, labels, rng.integers(0, 2000, (3, 4000)))
truth = sampling.Truth(labels=labels, classes=2000, clusters=people)
sample = crossed_errors.jackknife(truth, predictions, confusion.SCORES)
assert sample.units == (800,)
drawn = bootstrap.replicates(truth, predictions, confusion.SCORES, bootstrap.Draws(number=100))
assert drawn.drawn["macro_f1"].shape == (100, 3)
print({name: round(e.value, 9) for name, e in sample.estimates.items()})
"""


def within_limit(program: str, *arguments: str) -> str:
    """What a program prints whose address space ends at 1.5 GB."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # each thread has its own arena
    command = [sys.executable, "-c", LIMIT + program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_a_report_on_two_thousand_classes_needs_little_memory(bench, tmp_path):
    names = tuple(f"c{place:04d}" for place in range(MANY))
    bench = type(bench)(tmp_path / "ledger", names, tuple(range(2, MANY + 2)), (1,) * MANY)
    rng, runs = np.random.default_rng(0), []
    for label, right in (("base", 0.3), ("better", 0.6)):
        answers = np.where(rng.random(MANY) < right, bench.labels, (bench.labels + 1) % MANY).astype(np.uint16)
        logits = rng.normal(size=(MANY, MANY)).astype(np.float32)
        logits[np.arange(MANY), answers] = 9
        runs.append(
            (bench.run(label, 0, logits=logits, epochs=np.stack([answers, answers])), (answers == bench.labels).mean())
        )
    bench.study([run for run, _ in runs], ["better", "base"])
    within_limit(REPORT, str(bench.ledger.root), str(tmp_path / "out"))
    with open(tmp_path / "out" / "table.csv", encoding="utf-8") as file:
        result = {(row["method"], row["quantity"]): row for row in csv.DictReader(file)}
    assert len(result) == 2 * (MANY + 6)  # three scores, and three groups of classes
    for label, (_, accuracy) in zip(("base", "better"), runs, strict=True):
        assert float(result[label, "accuracy"]["percent"]) == pytest.approx(100 * accuracy)
        assert float(result[label, "mean_recall"]["percent"]) == pytest.approx(100 * accuracy)
    with open(tmp_path / "out" / "tables" / "leak.csv", encoding="utf-8") as file:  # in 8 bits 300 would be 44
        leak = {row["Method"]: row["Oracle accuracy"] for row in csv.DictReader(file)}
    assert leak == {label: f"{100 * a:.1f}" for label, (_, a) in zip(("base", "better"), runs, strict=True)}
    assert not list((tmp_path / "out" / "tables").glob("confusion*"))


def test_people_who_show_many_classes_need_little_memory():
    text = ast.literal_eval(within_limit(CLUSTERS))
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(2000), 2)
    rng.permutation(np.repeat(np.arange(800), 5))
    right = np.where(rng.random((3, 4000)) < 0.5, labels, rng.integers(0, 2000, (3, 4000))) == labels
    assert text["accuracy"] == text["mean_recall"] == pytest.approx(right.mean(), abs=1e-9)  # two images of each class


@pytest.mark.parametrize("clustered", [False, True])
def test_margins_give_what_whole_matrices_give(clustered):
    """The jackknife against matrices that are counted anew without each image, or each person."""
    rng = np.random.default_rng(3)
    labels, runs = rng.integers(0, 5, 60), rng.integers(-1, 5, (3, 60))
    people = rng.integers(0, 12, 60) if clustered else np.arange(60)
    scores = confusion.SCORES | {"one": confusion.ClassRecall(1), "two": confusion.GroupRecall((0, 3))}
    truth = Truth(labels=labels, classes=5, clusters=people if clustered else None)
    sample = crossed_errors.jackknife(truth, runs, scores)
    units = [np.unique(people)] if clustered else [np.flatnonzero(labels == c) for c in range(5)]
    for name, score in scores.items():
        assert sample.values[name] == pytest.approx(score(confusion.confusion_matrix(labels, runs, 5)))
        for stratum, of in enumerate(units):
            kept = [people != unit for unit in of]
            expected = [score(confusion.confusion_matrix(labels[k], runs[:, k], 5)) for k in kept]
            values = np.broadcast_to(sample.left_out[name].get(stratum, sample.values[name]), np.shape(expected))
            assert values == pytest.approx(np.array(expected), nan_ok=True)


@pytest.mark.slow
def test_figures_of_many_classes_show_the_rarest_in_a_bearable_size(bench, tmp_path):
    classes = 300
    names, train = tuple(f"c{k}" for k in range(classes)), tuple(range(400, 400 - classes, -1))
    bench = type(bench)(tmp_path, names, train, (1,) * classes)
    logits = np.eye(classes, dtype=np.float32)
    study = bench.study([bench.run("base", 0, logits=logits), bench.run("b", 0, logits=logits)], ["b", "base"])
    numbers = compute(load_study(bench.ledger, study), draws=20)
    for draw in (recall.draw_recall, recall.draw_gains, frequency.draw, confusion_matrices.draw):
        drawn = draw(numbers)
        width, height = 160 * drawn.get_size_inches()
        assert width * height < 4e7, draw.__name__  # 160 MB of colours
    names = [label.get_text() for label in confusion_matrices.draw(numbers).axes[0].get_yticklabels()]
    assert names == [f"c{k}" for k in range(classes - 1, classes - 1 - figures.MOST, -1)]
