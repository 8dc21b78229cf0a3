"""The benchmark of coverage: what it simulates, and the page that it writes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from fer_bench.stats.confusion import ClassRecall
from fer_bench.stats.crossed_errors import jackknife
from fer_bench.stats.intervals import score_intervals
from fer_bench.stats.sampling import Truth

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("coverage_benchmark", ROOT / "benchmarks" / "coverage.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_it_simulates_the_recall_and_the_spread_it_names(benchmark):
    correct, recall = benchmark.hits(np.random.default_rng(0), 2000, (0.65, 0.95), 2000, 0.03)
    assert correct.shape == (2, 2000, 2000)
    assert recall.mean(1) == pytest.approx([0.65, 0.95], abs=0.003)
    assert recall.std(1) == pytest.approx([0.03, 0.03], rel=0.1)
    assert correct.mean(2) == pytest.approx(
        recall, abs=0.08
    )  # 2000 images: standard error .01, common to all trainings


def test_the_committed_page_is_written_from_the_committed_cells(benchmark, tmp_path, monkeypatch):
    command = ["coverage.py", "--from", str(RESULTS / "coverage.csv"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    benchmark.main()
    assert (tmp_path / "coverage.md").read_text() == (RESULTS / "coverage.md").read_text()
    assert not (tmp_path / "coverage.csv").exists()


def test_cells_survive_being_written_and_read(benchmark):
    text = (RESULTS / "coverage.csv").read_text()
    assert benchmark.csv_text(benchmark.cells_of(text)) == text


def test_its_shortcut_to_the_jackknife_of_a_recall_gives_what_the_jackknife_gives(benchmark):
    correct = np.random.default_rng(1).random((3, 40)) < 0.7
    truth = Truth(labels=np.zeros(40, dtype=int), classes=2)
    full = jackknife(truth, 1 - correct.astype(int), {"recall": ClassRecall(0)})
    quick = benchmark.recall_sample(correct)
    assert vars(quick.estimates["recall"]) == pytest.approx(vars(full.estimates["recall"]))
    assert (quick.units, quick.effective_units, quick.units_are_images) == (
        full.units, full.effective_units, full.units_are_images,
    )  # fmt: skip
    ours, theirs = score_intervals(quick)["recall"], score_intervals(full)["recall"]
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))


def test_p_values_and_intervals_never_disagree_and_equal_methods_seldom_differ(benchmark):
    cells = list(benchmark.equal_classes(60, 55, 3, 0.02)) + list(benchmark.gains(20, 1, 55, 0.65, 3, 0.01))
    assert benchmark.select(cells, part="disagreement").tolist() == [0, 0]
    alarms = benchmark.select(cells, part="alarms at 5 %", of=benchmark.OURS)
    assert alarms.shape == (1,)
    assert alarms[0] < 0.15  # nominally 3 of 60; 9 or more have a probability of 0.3 %


def test_verdicts_on_equal_methods_come_from_the_reports_own_code(benchmark):
    cells = {cell.of: cell.share for cell in benchmark.false_alarms(2, 0.01)}
    assert set(cells) == set(benchmark.RULES)
    assert (
        cells["a claim on the tail"] <= cells["any claim of the report"] <= cells["any endpoint's unadjusted interval"]
    )
