"""The page of a dose-response study, from ledgers in which every recall is known."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path

import numpy as np
import pytest

from fer_bench.errors import FerBenchError, LedgerError

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
# toy data: angry 50 test images, disgust 20, happy 100
ARMS = {  # hits in disgust at the doses 0, 0.5 and 1
    "none": (10, 10, 10),
    "batch_mean": (10, 10, 10),
    "class_prototypes": (10, 12, 14),  # gains 0, 10 and 20 points: a slope of 20
    "own": (10, 11, 12),
}
DOSES = (0.0, 0.5, 1.0)


@pytest.fixture
def numbers(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("dose_numbers")


@pytest.fixture
def pages(numbers):
    return importlib.import_module("sharing_dose")


def study(bench, dose, arms=ARMS, seeds=2, left_out=(), **changes):
    """One study; seed 1 errs on other images than seed 0, in all arms alike. `left_out` are pairs of arm and seed."""
    runs, place = [], DOSES.index(dose)
    for source, hits in arms.items():
        params = {"share.source": source, "loss.tau": 1.0}
        spec = {"params": params, "dataset_params": {"shared": dose, "size": 10}, "fold": 0, **changes}
        for seed in (s for s in range(seeds) if (source, s) not in left_out):
            logits = bench_logits(bench, hits[place], seed)
            runs.append(bench.run(f"rasn[share.source={source}]", seed, logits=logits, spec=spec))
    name, labels = f"sharing-dose-{100 * dose:g}", [f"rasn[share.source={s}]" for s in arms]
    command = f"fer-bench run {' '.join(labels)} --dataset synthetic --dataset-set shared={dose} --name {name}"
    return bench.study(runs, labels, "rasn[share.source=none]", name=name, command=command)


def bench_logits(bench, hits, seed):
    predicted = bench.labels.copy()
    predicted[np.roll(np.flatnonzero(bench.labels == 1), -3 * seed)[hits:]] = 2  # missed disgust is called happy
    return (4.0 * np.eye(3)[predicted]).astype(np.float32)


@pytest.fixture
def studies(bench):
    for dose in DOSES:
        study(bench, dose)
    return bench


def home_of(bench):
    return bench.ledger.root.parent


def test_gains_and_their_slope_by_hand(studies, numbers):
    doses = numbers.load_doses([home_of(studies)])
    effects = numbers.effects_of(doses)
    row = effects.row(("class_prototypes", "none"), "recall")
    assert [e.shared for e in row] == [0.0, 0.5, 1.0, None]
    assert [e.interval.value for e in row] == pytest.approx([0, 0.1, 0.2, 0.2])
    assert row[-1].by_seed == pytest.approx((0.2, 0.2))
    beyond = effects.row(("class_prototypes", "own"), "recall")
    assert [e.interval.value for e in beyond] == pytest.approx([0, 0.05, 0.1, 0.1])
    assert row[1].interval.low < 0.1 < row[1].interval.high


def test_weights_of_the_slope_are_those_of_least_squares(numbers):
    doses, gains = [0.0, 0.25, 0.5, 1.0], [0.1, 0.3, -0.2, 0.4]
    assert numbers.weights_of_slope(doses) @ gains == pytest.approx(np.polyfit(doses, gains, 1)[0])


def test_precision_and_mean_class_accuracy_by_hand(studies, numbers):
    doses = numbers.load_doses([home_of(studies)])
    effects = numbers.effects_of(doses)
    means = effects.row(("class_prototypes", "none"), "mean_recall")
    assert [e.interval.value for e in means] == pytest.approx([0, 0.1 / 3, 0.2 / 3, 0.2 / 3])
    assert [e.interval.value for e in effects.row(("own", "none"), "precision")] == [0, 0, 0, 0]  # nothing false


def test_the_recall_without_sharing_is_shown(studies, pages, numbers):
    doses = numbers.load_doses([home_of(studies)])
    table = next(t for t in pages.page(doses, numbers.effects_of(doses)).tables if t.id == "dose-reference").table
    assert [row[0] for row in table.rows] == ["0 %", "50 %", "100 %"]
    assert all(row[3].startswith("50.0 [") for row in table.rows)
    assert [row[1:3] for row in table.rows] == [("40", "20")] * 3


def test_the_first_sentences_claim_nothing_that_is_not_shown(studies, pages, numbers):
    doses = numbers.load_doses([home_of(studies)])
    text = pages.lead(doses, numbers.effects_of(doses))
    assert "is not shown to grow or fall" in text
    assert "+20.0 [" in text
    assert "At no dose is a form shown to gain or lose recall" in text
    assert "nor class prototypes against their control, which has as many weights (0.0 to +10.0 points)." in text
    assert text.count(". ") == 1


def test_the_slope_to_read_is_that_beyond_the_control_seed_by_seed(studies, pages, numbers):
    doses = numbers.load_doses([home_of(studies)])
    effects = numbers.effects_of(doses)
    text = pages.reading(doses, effects)
    assert "Without sharing, recall of *disgust* is 50.0 % at a dose of" in text
    by_seed = effects.of["class_prototypes", "own", "recall", None].by_seed
    listed = " and ".join(f"{100 * value:+.1f}".replace("-", "−") for value in by_seed)
    assert f"class prototypes beyond the control: {listed} points in the {len(by_seed)} seeds, " in text
    assert "So few seeds can't show a slope of this size." in text


def test_a_slope_that_no_seed_and_no_image_doubts_is_claimed(bench, pages, numbers):
    big = type(bench)(bench.ledger.root, train=(300, 40, 900), test=(50, 400, 100))
    arms = {"none": (100, 100, 100), "class_prototypes": (100, 200, 380), "own": (100, 100, 100)}
    for dose in DOSES:
        study(big, dose, arms, seeds=3)
    doses = numbers.load_doses([home_of(big)])
    effects = numbers.effects_of(doses)
    text = pages.lead(doses, effects)
    assert "is shown to grow with class prototypes" in text
    assert "ith class prototypes, recall is shown to rise at 100 % (+70.0 [" in text
    assert text.endswith("against the control, which has as many weights.")
    assert effects.of["class_prototypes", "none", "recall", None].claimed
    assert effects.of["own", "none", "recall", None].verdict is None  # the control is shown, not tested
    assert effects.tests == 2 * 4


def test_one_seed_claims_nothing(bench, pages, numbers):
    big = type(bench)(bench.ledger.root, train=(300, 40, 900), test=(50, 400, 100))
    arms = {"none": (100, 100, 100), "class_prototypes": (100, 200, 380)}
    for dose in DOSES:
        study(big, dose, arms, seeds=1)
    doses = numbers.load_doses([home_of(big)])
    effects = numbers.effects_of(doses)
    assert effects.of["class_prototypes", "none", "recall", 1.0].verdict.name == "ONE_SEED"
    text = pages.lead(doses, effects)
    assert text.startswith("With one seed, what sharing gains in recall of *disgust* is not shown to grow")
    assert effects.of["class_prototypes", "none", "recall", 1.0].adjusted is None
    assert "one seed says nothing about other training runs" in str(pages.page(doses, effects).parts[0])


def test_a_seed_that_one_arm_lacks_is_left_out_and_named(bench, pages, numbers):
    for dose in DOSES:
        study(bench, dose, left_out=[("own", 1)] if dose == 0.5 else [])
    doses = numbers.load_doses([home_of(bench)])
    assert doses.seeds == (0,)
    assert any("Seed 1 is left out: it lacks 1 run (own features (control) at 50 %" in note for note in doses.notes)
    assert "Seed 1 is left out" in str(pages.page(doses, numbers.effects_of(doses)).parts[3])


def test_an_arm_that_one_dose_lacks_is_left_out_and_named(bench, numbers):
    for dose in DOSES:
        study(bench, dose, {k: v for k, v in ARMS.items() if k != "own" or dose != 1.0})
    doses = numbers.load_doses([home_of(bench)])
    assert doses.sources == ("batch_mean", "class_prototypes")
    assert "The arm *own features (control)* is left out: it has no run at 100 %." in doses.notes
    assert ("class_prototypes", "own") not in doses.contrasts


def test_a_dose_without_its_reference_is_left_out_and_named(bench, numbers):
    for dose in DOSES:
        study(bench, dose, {k: v for k, v in ARMS.items() if k != "none" or dose != 0.5})
    doses = numbers.load_doses([home_of(bench)])
    assert [dose.shared for dose in doses.doses] == [0.0, 1.0]
    assert "Study `sharing-dose-50` is left out: it lacks a run without sharing" in doses.notes[0]


def test_one_dose_is_no_response(bench, numbers):
    study(bench, 0.5)
    study(bench, 1.0, {k: v for k, v in ARMS.items() if k != "none"})
    with pytest.raises(LedgerError, match="two doses or more, and 1 can be used") as error:
        numbers.load_doses([home_of(bench)])
    assert "`sharing-dose-100` is left out" in error.value.hint


def test_studies_that_differ_in_more_than_the_dose_are_refused(bench, numbers):
    study(bench, 0.0)
    study(bench, 1.0, backbone="larger")
    with pytest.raises(LedgerError, match="differ in more than their dose and seeds"):
        numbers.load_doses([home_of(bench)])


def test_studies_without_a_common_seed_are_refused(bench, numbers):
    study(bench, 0.0, seeds=1)
    study(bench, 1.0, left_out=[(source, 0) for source in ARMS])
    with pytest.raises(LedgerError, match="no seed was trained with every arm at every dose"):
        numbers.load_doses([home_of(bench)])


def test_doses_of_several_homes_are_read_together(tmp_path, bench, numbers):
    for dose in DOSES:
        study(type(bench)(tmp_path / f"home-{dose:g}" / "ledger"), dose)
    doses = numbers.load_doses([tmp_path / f"home-{dose:g}" for dose in DOSES])
    assert [dose.shared for dose in doses.doses] == list(DOSES)


def test_the_script_writes_page_figure_and_numbers(studies, pages, tmp_path, capsys):
    out = tmp_path / "out"
    pages.main([str(home_of(studies)), "--out", str(out)])
    assert capsys.readouterr().out == f"report: {out / 'report.md'}\n"
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "--dataset-set shared=0.5 --name sharing-dose-50" in text
    assert "training times mean nothing" in text
    assert "Every arm was trained at every dose with 2 seeds (seeds 0–1)." in text
    assert {p.name for p in (out / "figures").iterdir()} == {"sharing-dose.svg", "sharing-dose.png"}
    rows = list(csv.DictReader((out / "dose.csv").open(encoding="utf-8")))
    slope = [r for r in rows if r["kind"] == "slope" and r["measure"] == "recall" and r["arm"] == "class prototypes"]
    assert [float(r["value"]) for r in slope] == pytest.approx([20, 10])
    again = (out / "report.md").read_bytes()
    pages.main([str(home_of(studies)), "--out", str(out)])
    assert (out / "report.md").read_bytes() == again


def test_a_folder_with_files_of_others_is_not_overwritten(studies, pages, tmp_path):
    (tmp_path / "report.md").write_text("mine")
    with pytest.raises(FerBenchError, match="not listed as its own"):
        pages.build([home_of(studies)], tmp_path)
    assert (tmp_path / "report.md").read_text() == "mine"
