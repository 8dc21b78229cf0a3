"""Broken and mixed ledgers: one sentence for each, and everything sound still reported."""

from __future__ import annotations

import numpy as np
import pytest

from fer_bench.errors import LedgerError
from fer_bench.reports.numbers import compute
from fer_bench.reports.records import load_study

BASE, BETTER = (40, 8, 90), (40, 18, 90)


@pytest.fixture
def sound(bench):
    """Two runs of `base` and one of `better`, to which a test adds something broken."""
    return bench, [bench.run("base", 0, BASE), bench.run("base", 1, BASE), bench.run("better", 0, BETTER)]


def load(bench, runs, methods=("better", "base")):
    study = load_study(bench.ledger, bench.study(runs, list(methods)))
    return study, " ".join(study.notes)


def test_a_sound_study_has_no_notes(bench):
    study, notes = load(bench, [bench.run("base", 0, BASE), bench.run("better", 0, BETTER)])
    assert notes == ""
    assert [m.label for m in study.methods] == ["better", "base"]


def test_no_runs_at_all_names_the_next_command(bench):
    with pytest.raises(LedgerError) as caught:
        load(bench, [])
    assert caught.value.next == "fer-bench run better base --dataset toy"
    with pytest.raises(LedgerError, match="no run that can be reported"):
        load(bench, ["0" * 16])


def test_missing_logits_cost_that_run_only(sound):
    bench, runs = sound
    runs.append(bench.run("better", 1, BETTER))
    (bench.ledger.root / runs[-1] / "test_logits.npy").unlink()
    study, notes = load(bench, runs)
    assert f"`better` seed 1 (run {runs[-1]}): test_logits.npy is missing; the run is left out." in notes
    assert "`better` has no usable run for seed 1; gains use shared seeds only." in notes
    assert len(study.runs) == 3


def test_a_changed_file_is_not_believed(sound):
    bench, runs = sound
    np.save(bench.ledger.root / runs[1] / "test_logits.npy", np.zeros((170, 3), np.float32))
    study, notes = load(bench, runs)
    assert "test_logits.npy has changed since the run" in notes
    assert study.method("base").seeds == (0,)


def test_side_files_cost_only_what_they_tell(sound):
    bench, runs = sound
    for name in ("history.json", "probe.json", "seal.json", "method.json", "selection.json", "test_epochs.npy"):
        (bench.ledger.root / runs[2] / name).unlink()
    study, notes = load(bench, runs)
    assert len(study.runs) == 3
    for name in ("history", "probe", "seal", "method", "selection"):
        assert f"{name}.json is missing" in notes
    assert compute(study, draws=50).method("better").leak == {}


def test_unfinished_and_failed_runs_are_told(sound):
    bench, runs = sound
    runs.append(bench.run("better", 1, BETTER, finish=False))
    runs.append(bench.run("better", 2, BETTER, finish=False, edit=lambda w: w.fail(ValueError("loss is nan"))))
    study, notes = load(bench, runs)
    assert f"`better` seed 1 (run {runs[3]}) is unfinished and is left out." in notes
    assert f"`better` seed 2 (run {runs[4]}) is failed (ValueError: loss is nan) and is left out." in notes
    assert len(study.runs) == 3


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("class names or their order", {"classes": ["disgust", "angry", "happy"]}),
        ("data fingerprint", {"fingerprint": "beef"}),
        ("protocol", {"protocol": {"name": "toy/other"}}),
    ],
)
def test_a_run_on_other_data_is_left_out(sound, what, data):
    bench, runs = sound
    runs.append(bench.run("better", 1, BETTER, data=data))
    study, notes = load(bench, runs)
    assert f"(run {runs[-1]}) differs from the other runs in its {what}; it is left out." in notes
    assert len(study.runs) == 3


def test_other_test_images_are_left_out(sound):
    bench, runs = sound
    runs.append(bench.run("better", 1, BETTER, rows=np.arange(170) + 1))
    _, notes = load(bench, runs)
    assert "differs from the other runs in its test images" in notes


@pytest.mark.parametrize("bad", ["shape", "nan"])
def test_unusable_logits_are_left_out(sound, bad):
    bench, runs = sound
    logits = np.zeros((170, 3 if bad == "nan" else 2), np.float32)
    logits[0] = np.nan if bad == "nan" else 0
    runs.append(bench.run("better", 1, logits=logits))
    study, notes = load(bench, runs)
    assert ("are not finite" if bad == "nan" else "do not fit") in notes
    assert len(study.runs) == 3


def test_a_damaged_spec_costs_that_run(sound):
    bench, runs = sound
    (bench.ledger.root / runs[0] / "spec.json").write_text("{")
    study, notes = load(bench, runs)
    assert f"Run {runs[0]}: run {runs[0]}: spec.json is damaged" in notes
    assert len(study.runs) == 2


def test_a_reference_without_runs_means_no_gains(sound):
    bench, runs = sound
    study, notes = load(bench, runs[2:])
    assert study.reference is None
    assert "The reference `base` has no usable run, so no gains are given." in notes
    assert not compute(study, draws=50).compared


def test_methods_that_share_no_seed_have_no_gains(bench):
    study, _ = load(bench, [bench.run("base", 0, BASE), bench.run("better", 1, BETTER)])
    assert not compute(study, draws=50).compared


def test_a_second_run_of_the_same_seed_is_left_out(sound):
    bench, runs = sound
    runs.append(bench.run("base", 0, BETTER, spec={"backbone": "other"}))
    study, notes = load(bench, runs)
    assert f"repeats run {runs[0]}" in notes
    assert len(study.runs) == 3


def test_tuning_trials_are_counted_not_reported(sound):
    bench, runs = sound
    runs += [bench.run("better", s, BETTER, spec={"test": False}) for s in (5, 6)]
    study, notes = load(bench, runs)
    assert notes.startswith("2 tuning trials never opened the test")
    assert len(study.runs) == 3


def test_a_missing_fold_is_told_and_the_rest_is_counted(bench):
    runs = [bench.run("base", 0, BASE, spec={"fold": f}, data={"fold": f}) for f in (0, 1)]
    runs.append(bench.run("better", 0, BETTER, spec={"fold": 1}))
    study, notes = load(bench, runs)
    assert "`better` seed 0 lacks fold 0, so its numbers cover fewer test images." in notes
    numbers = compute(study, draws=50)
    assert numbers.method("better").recall[1].value == pytest.approx(18 / 20)
    assert numbers.method("better").gains["recall:disgust"].value == pytest.approx(0.5)
