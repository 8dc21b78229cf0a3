"""The scripts behind docs/rasn.md: what they print is what the page says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fer_bench.contract.plugins import plugins
from fer_bench.data.prepare import prepare
from fer_bench.record.home import Home
from fer_bench.runs.executor import Workplace, execute
from fer_bench.runs.spec import RunSpec
from fer_bench.training.job import Runtime
from fer_bench.training.recipe import Recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def batches():
    return runpy.run_path(str(ROOT / "benchmarks/test_batches.py"))


def test_share_of_an_images_own_class_by_hand(batches):
    labels = np.array([0, 1, 0, 1, 2])
    in_files = (0.5 * 4 + 1) / 5  # [0 1] [0 1] [2]
    assert batches["own_share"](labels, np.arange(5), 2) == pytest.approx(in_files)
    assert batches["own_share"](labels, np.array([0, 2, 1, 3, 4]), 2) == 1.0


def test_orders_are_those_that_are_named(batches):
    labels = np.array([2, 0, 1, 0])
    found = list(batches["orders"](labels))
    assert [name for name, _ in found[-2:]] == ["order of the files", "sorted by class"]
    assert all(sorted(order) == [0, 1, 2, 3] for _, order in found)
    assert labels[found[-1][1]].tolist() == [0, 0, 1, 2]


def readings(batches, seeds=2, gain=0.5):
    """Readings of one network, where class-sorted batches of 64 gain `gain` points with seed 0, and one more with 1."""
    rows = []
    for seed in range(seeds):
        of = {"run": f"{seed}" * 16, "data": "toy", "network": "rasn", "seed": seed, "images": 10, "mean-class": 50.0}
        for affinity, order, batch in [
            (batches["STORED"], "any", 256),
            (batches["ALONE"], "any", 1),
            *((batches["BATCH"], order, size) for size in batches["SIZES"] for order in batches["ORDERS"]),
        ]:
            sorted_64 = (order, batch) == ("sorted by class", 64)
            right = 60.0 + seed + (gain + seed if sorted_64 else 0)
            share = float("nan") if affinity == batches["STORED"] else 0.25
            row = {"affinity": affinity, "order": order, "batch": batch, "own class": share, "accuracy": right}
            rows.append({**of, **row, "disgust": 20.0})
    return pd.DataFrame(rows)


def test_the_page_says_what_every_seed_agrees_on(batches):
    (said,) = batches["lead"](readings(batches))
    assert (
        "sorted by class, the mean of a test batch of 64 raises accuracy in every seed, by +1.0 (+0.5 to +1.5)" in said
    )
    assert "shuffled, no order moves it by more than 0.0 points" in said
    (said,) = batches["lead"](readings(batches, gain=-0.5))  # −0.5 with seed 0, +0.5 with seed 1
    assert "64 moves accuracy by at most 0.5 points" in said
    (said,) = batches["lead"](readings(batches, seeds=1, gain=-2))
    assert "64 lowers accuracy, by −2.0 points" in said


def test_what_a_shuffle_does_as_well_is_no_gain(batches):
    frame = readings(batches)  # sorted by class: +0.5 and +1.5
    shuffled = (frame["order"] == "shuffled") & (frame["batch"] == 64) & (frame["seed"] == 1)
    frame.loc[shuffled, "accuracy"] -= 0.6
    (said,) = batches["lead"](frame)
    assert "shuffled, no order moves it by more than 0.6 points" in said
    assert "sorted by class, the mean of a test batch of 64 moves accuracy by at most 1.5 points" in said


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text.replace("data", "date", 1), "the readings have no column 'data'"),
        (lambda text: text.replace("60.0000", "sixty", 1), "something else than numbers in 'accuracy'"),
        (lambda text: text.splitlines()[0] + "\n", "there is no reading"),
        (lambda text: "", "the readings can't be read"),
        (lambda text: text.replace("stored mean", "kept mean"), "the readings of 'rasn' are not complete"),
    ],
)
def test_wrong_readings_are_refused_with_the_reason(batches, tmp_path, change, told):
    file = batches["build"](readings(batches), tmp_path / "one").with_name("readings.csv")
    file.write_text(change(file.read_text()))
    with pytest.raises(SystemExit, match=told) as stopped:
        batches["main"](["--readings", str(file), "--out", str(tmp_path / "two")])
    assert str(file) in str(stopped.value)
    assert not (tmp_path / "two").exists()


def test_the_page_can_be_written_again_from_the_readings(batches, tmp_path):
    first = batches["build"](readings(batches), tmp_path / "one")
    again = batches["build"](batches["read"](tmp_path / "one" / "readings.csv"), tmp_path / "two")
    for name in ("report.md", "readings.csv", "figures/test-batches.svg"):
        assert (first.parent / name).read_bytes() == (again.parent / name).read_bytes()
    assert "| mean of the test batch | sorted by class | 64 | 25 % | 61.5 | +1.0 (+0.5 to +1.5) |" in first.read_text()


@pytest.mark.slow
def test_one_network_is_read_with_test_batches_of_every_size_and_order(batches, plugin_folder, tmp_path):
    home, available = Home(tmp_path), plugins([plugin_folder])
    prepare(home, available.dataset("tiny"), None, say=lambda line: None)
    recipe = Recipe.build({"epochs": 1, "batch_size": 16, "precision": "fp32"}, {})
    params = available.method("arm").card.resolve({})
    spec = RunSpec(
        method="arm", dataset="tiny", protocol="official", backbone="resnet10_tiny", params=params, recipe=recipe
    )
    record = execute(spec, Workplace(home=home, plugins=available, runtime=Runtime(device="cpu", threads=1)))
    frame = batches["study"](record.id, home)
    stored = frame[frame["affinity"] == "stored mean"]["accuracy"].item()
    recorded = record.array("test_logits").argmax(1) == record.array("test_labels")
    assert stored == pytest.approx(100 * recorded.mean())
    shared = frame[frame["affinity"] == "mean of the test batch"]
    assert len(shared) == len(batches["SIZES"]) * (batches["SHUFFLES"] + 2)
    largest = shared[shared["batch"] >= len(recorded)]  # a batch that holds all images has no order
    assert largest["accuracy"].nunique() <= 1


@pytest.mark.slow
def test_the_gradient_that_sharing_adds_is_that_of_the_bias(capsys):
    inert = runpy.run_path(str(ROOT / "benchmarks/inert_sharing.py"))
    inert["in_training"](steps=1, sizes=(32,))
    shared, off = (float(x) for x in capsys.readouterr().out.splitlines()[-1].split()[1:])
    assert shared > 0
    assert off < 1e-4


def test_the_page_shows_the_forms_that_the_script_measures():
    inert = runpy.run_path(str(ROOT / "benchmarks/inert_sharing.py"))
    page = (ROOT / "docs/rasn.md").read_text(encoding="utf-8")
    shown = {
        line[:40].strip(): float(line.split()[-1]) for line in re.findall(r"^.{40}\s+\S+e-\d+\s+\S+e-\d+$", page, re.M)
    }
    assert list(shown) == list(inert["FORMS"])
    constant = {name for name, differs in shown.items() if differs < 1e-6}
    additive = {"add_alpha", "add_alpha on pooled features", "concat", "de-albino head", "ARM"}
    assert constant == additive | {"the default: attention and add_alpha"}
