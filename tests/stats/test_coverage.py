"""The benchmark of coverage: what it simulates, and the page that it writes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

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
