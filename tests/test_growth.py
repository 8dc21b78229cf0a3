"""The script that measures how the project grows: its exponents, what it runs, and the page on what it found."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"


@pytest.fixture
def growth(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("growth")


def test_the_exponent_is_that_of_the_power_law_in_the_upper_half(growth):
    sizes = [1, 10, 100, 1000, 10_000]
    values = [7, 7, 0.5 * 100**1.5, 0.5 * 1000**1.5, 0.5 * 10_000**1.5]  # the lower half is none of it
    slope, number = growth.exponent(sizes, values)
    assert (slope, number) == (pytest.approx(1.5), 3)
    assert growth.exponent([2, 8], [12, 3]) == (pytest.approx(-1), 2)
    # by hand: x = 0, 1, 2 and y = 0, 3, 3 in powers of ten, so the slope is (3 - 0) / 2
    assert growth.exponent([1, 1, 1, 10, 100], [5, 5, 1, 1000, 1000]) == (pytest.approx(1.5), 3)


def test_a_curve_ends_before_a_point_that_would_take_too_long(growth, monkeypatch, capsys):
    meter = growth.Meter.__new__(growth.Meter)
    meter.most, meter.points, meter.only = 60.0, [growth.Point("a", 10, 5.0, 7.0, 1.0)], None
    monkeypatch.setattr(growth, "watched", None)
    assert meter("a", 100, "never", "run") is None
    assert capsys.readouterr().out == "a, 100: left out, it would take over 60 s\n"


def test_two_tiny_sizes_are_measured_tabulated_and_drawn(growth, tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "growth.py", "runs", "--sizes", "4,8", "--out", tmp_path]
    command += ["--curves", "list runs"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    points = growth.read_points(tmp_path / "runs.csv")
    assert [(p.curve, p.size) for p in points] == [("list runs", 4), ("list runs", 8)]
    assert all(p.cpu > 0 and p.seconds > 0 and p.memory > 1 for p in points)
    assert growth.table(points, "runs") in done.stdout
    assert (tmp_path / "runs.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["runs.csv", "runs.png"]


@pytest.mark.parametrize("sweep", ["images", "classes", "runs"])
def test_the_page_has_the_table_of_the_points(growth, sweep):
    points = growth.read_points(PAGE.with_suffix("") / f"{sweep}.csv")
    assert len({p.size for p in points}) >= 5
    assert growth.table(points, growth.SWEEPS[sweep].unit) in PAGE.read_text(encoding="utf-8")
