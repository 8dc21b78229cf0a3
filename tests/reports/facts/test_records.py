"""Broken and mixed ledgers: one sentence for each, and everything sound still reported."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re

import numpy as np
import pytest
from click.testing import CliRunner

from fer_bench.cli import cli
from fer_bench.errors import LedgerError
from fer_bench.reports import build_report
from fer_bench.reports.facts.numbers import compute
from fer_bench.reports.facts.records import load_study

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
    assert f"`better` seed 1 (run {runs[-1]}): test_logits.npy is missing. The run is left out." in notes
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
    assert f"(run {runs[-1]}) differs from the other runs in its {what} and is left out." in notes
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
    assert "The reference `base` has no usable run, so no gains are computed." in notes
    assert not compute(study, draws=50).compared


def test_methods_that_share_no_seed_have_no_gains(bench):
    study, _ = load(bench, [bench.run("base", 0, BASE), bench.run("better", 1, BETTER)])
    assert not compute(study, draws=50).compared


def test_a_second_run_of_the_same_seed_is_left_out(sound):
    bench, runs = sound
    runs.append(bench.run("base", 0, BETTER, spec={"backbone": "other"}))
    study, notes = load(bench, runs)
    assert f"duplicates run {runs[0]}" in notes
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
    assert "`better` seed 0 is missing fold 0, so its results cover fewer test images." in notes
    assert {m.label: dict(m.folds_of) for m in study.methods} == {"base": {(0, 0): {0, 1}}, "better": {(0, 0): {1}}}
    numbers = compute(study, draws=50)
    assert numbers.method("better").recall[1].value == pytest.approx(18 / 20)
    assert numbers.method("better").gains["recall:disgust"].value == pytest.approx(0.5)


# -- records that are not what they should be ------------------------------------------------------------------------


def replace(bench, run, name, content):
    """Put another file into a record, as if the run had written it."""
    folder = bench.ledger.root / run
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / name).write_bytes(content)
    done = json.loads((folder / "done.json").read_text())
    done["files"][name] = hashlib.sha256(content).hexdigest()
    (folder / "done.json").write_text(json.dumps(done))


def npy(array, claims=None):
    """A .npy file; with `claims` its head tells of another shape than it has."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    data = out.getvalue()
    if claims is None:
        return data
    head, text = data[:128], str(array.shape).encode()
    assert text in head
    return head.replace(text + b", }" + b" " * (len(claims) - len(text)), claims + b", }") + data[128:]


class Trap:
    """What a pickle must never do."""

    def __reduce__(self):
        return exec, ("raise SystemExit('code in a record was run')",)


LABELS = np.repeat(np.arange(3), (50, 20, 100))
BAD_ARRAYS = {
    "6 TB in 40 kB": ("test_logits", npy(np.zeros((170, 3), np.float32), b"(500000000000, 3)"), "missing or damaged"),
    "labels of 6 TB": ("test_labels", npy(LABELS, b"(750000000000,)"), "missing or damaged"),
    "objects": ("test_logits", npy(np.array([Trap()], dtype=object)), "missing or damaged"),
    "no array": ("test_logits", b"not an array at all", "missing or damaged"),
    "empty": ("test_rows", b"", "missing or damaged"),
    "texts": ("test_labels", npy(np.array(["angry"] * 170)), "missing or damaged"),
    "halves": ("test_labels", npy(LABELS + 0.5), "are of the wrong kind"),
    "whole logits": ("test_logits", npy(np.zeros((170, 3), np.int64)), "are of the wrong kind"),
    "one less": ("test_labels", npy(LABELS[1:]), "do not fit"),
    "a table of labels": ("test_labels", npy(LABELS.reshape(17, 10)), "do not fit"),
    "a single number": ("test_labels", npy(np.array(3)), "do not fit"),
    "flat logits": ("test_logits", npy(np.zeros(510, np.float32)), "do not fit"),
    "no classes": ("test_logits", npy(np.zeros((170, 0), np.float32)), "do not fit"),
    "too many rows": ("test_rows", npy(np.arange(999)), "do not fit"),
    "a label too far": ("test_labels", npy(np.where(LABELS == 2, 3, LABELS)), "lie outside 0 to 2"),
    "groups of texts": ("test_groups", npy(np.zeros(170)), "do not fit"),
}


@pytest.mark.parametrize("what", BAD_ARRAYS)
def test_an_array_that_can_not_be_used_costs_its_run_and_no_memory(sound, what):
    bench, runs = sound
    name, content, reason = BAD_ARRAYS[what]
    runs.append(bench.run("better", 1, BETTER, groups=np.arange(170)))
    replace(bench, runs[-1], f"{name}.npy", content)
    study, notes = load(bench, runs)
    assert [r.record.id for r in study.runs] != []
    assert runs[-1] not in {r.record.id for r in study.runs}
    assert f"Run {runs[-1]}: " in notes
    assert reason in notes


BAD_HEADS = {
    "spec.json": [[], 3, None, "x", {}, {"spec": [], "label": "b"}, {"spec": {"seed": "1e"}, "label": "b"},
                  {"spec": {"seed": 0, "fold": 1e999}, "label": "b"}, {"spec": {"seed": 0}, "label": ["b"]},
                  {"spec": {"seed": 0, "params": 3}, "label": "b"}, {"spec": {"seed": 0, "recipe": []}, "label": "b"}],
    "data.json": [[], 3, None, {}, {"classes": "abc"}, {"classes": []}, {"classes": [1, 2, 3]},
                  {"classes": ["a", "a", "b"]}, {"classes": [None, "a", "b"]},
                  {"classes": ["a", "b", "c"], "counts": [1]}, {"classes": ["a", "b", "c"], "counts": {"train": "x"}},
                  {"classes": ["a", "b", "c"], "counts": {"train": [1, None, 3]}},
                  {"classes": ["a", "b", "c"], "protocol": "official"},
                  {"classes": ["a", "b", "c"], "protocol": {"folds": "two"}}],
    "done.json": [[], 3, None, {}, {"status": "finished"}, {"status": "finished", "files": []},
                  {"status": "finished", "files": {}}, {"status": "finished", "files": {"spec.json": 3}}],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "content"), [(n, c) for n, contents in BAD_HEADS.items() for c in contents])
def test_a_record_of_other_types_costs_its_run(sound, name, content):
    bench, runs = sound
    runs.append(bench.run("better", 1, BETTER))
    if name == "done.json":
        (bench.ledger.root / runs[-1] / name).write_text(json.dumps(content))
    else:
        replace(bench, runs[-1], name, content)
    study, notes = load(bench, runs)
    assert {r.record.id for r in study.runs} == set(runs[:-1])
    assert runs[-1] in notes


@pytest.mark.parametrize("name", ["spec.json", "done.json", "data.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 200_000])
def test_a_file_that_is_no_json_costs_its_run(sound, name, content):
    bench, runs = sound
    runs.append(bench.run("better", 1, BETTER))
    (bench.ledger.root / runs[-1] / name).write_bytes(content)
    study, notes = load(bench, runs)
    assert {r.record.id for r in study.runs} == set(runs[:-1])
    assert runs[-1] in notes


BAD_FACTS = {
    "method": [[], {"parameters": "many"}, {"title": 3}, {"deviations": "none"}, {"calibration": 1}, {"url": []}],
    "selection": [[], 3, {"epoch": "last"}, {"epoch": None}, {"epoch": float("inf")}],
    "history": [{}, [3], [{"epoch": "x"}], [{"epoch": 0, "train_loss": "low"}], [{}]],
    "seal": [[], {"count": "one"}, {"count": None}, {"count": 1, "blocked": 3}],
    "probe": [[], {"images": None}, {"images": 1, "checks": {}}, {"images": 1, "checks": [3]}],
    "environment": [[], 3, {"versions": []}],
    "timing": [[], {"total_seconds": "long"}, {"images_per_second": [None]}, {"epoch_seconds": "x"}],
}


@pytest.mark.parametrize(("name", "content"), [(n, c) for n, contents in BAD_FACTS.items() for c in contents])
def test_a_side_file_of_other_types_costs_what_it_tells_and_the_report_is_built(sound, tmp_path, name, content):
    bench, runs = sound
    replace(bench, runs[2], f"{name}.json", content)
    study, notes = load(bench, runs)
    assert len(study.runs) == 3
    assert f"{name}.json " in notes
    assert "so the report leaves its contents out" in notes
    page = build_report(bench.ledger, bench.ledger.study(), tmp_path / "out", formats=["csv"])
    assert "40.0000" in page.read_text()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32])
def test_predictions_of_every_epoch_are_read_in_every_whole_type(bench, kind):
    right = LABELS.copy()
    epochs = np.stack([np.zeros(170), right]).astype(kind)
    study, notes = load(bench, [bench.run("base", 0, BASE, epochs=epochs)], ["base"])
    assert compute(study, draws=20).method("base").epochs[0]["accuracy"] == pytest.approx([50 / 170, 1.0])
    assert notes.count("epochs") == 0


@pytest.mark.parametrize(
    "epochs", [np.full((2, 170), 3), np.full((2, 170), -1), np.zeros((2, 170)), np.zeros((2, 9), np.uint8)]
)
def test_predictions_of_epochs_that_can_not_be_are_not_used(bench, epochs):
    study, _ = load(bench, [bench.run("base", 0, BASE, epochs=epochs)], ["base"])
    assert compute(study, draws=20).method("base").leak == {}


def test_changed_predictions_of_epochs_are_told_and_not_used(bench):
    run = bench.run("base", 0, BASE)
    np.save(bench.ledger.root / run / "test_epochs.npy", np.stack([LABELS, LABELS]))
    study, notes = load(bench, [run], ["base"])
    assert "test_epochs.npy has changed since the run, so the report leaves its contents out." in notes
    assert compute(study, draws=20).method("base").leak == {}


def test_files_that_no_report_reads_are_not_opened(bench):
    run = bench.run("base", 0, BASE)
    for name in ("val_logits.npy", "../outside.npy", "model.pt"):
        replace(bench, run, name, b"another content")
        (bench.ledger.root / run / name).unlink()
    assert load(bench, [run], ["base"])[1] == ""


def test_a_fifo_or_a_folder_in_the_place_of_a_file_stops_nothing(sound):
    bench, runs = sound
    runs += [bench.run("better", seed, BETTER) for seed in (1, 2)]
    (bench.ledger.root / runs[3] / "test_logits.npy").unlink()
    os.mkfifo(bench.ledger.root / runs[3] / "test_logits.npy")
    (bench.ledger.root / runs[4] / "data.json").unlink()
    (bench.ledger.root / runs[4] / "data.json").mkdir()
    study, notes = load(bench, runs)
    assert {r.record.id for r in study.runs} == set(runs[:3])
    assert notes.count("is not a regular file. The run is left out.") == 2


# -- studies ---------------------------------------------------------------------------------------------------------

BAD_STUDIES = ["", "{", "[]", "null", "3", '{"runs": "all"}', '{"runs": [3]}', '{"methods": {}}', '{"command": []}',
               '{"name": 5}', '{"reference": []}', "[" * 100_000]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("text", BAD_STUDIES)
def test_a_study_that_can_not_be_read_is_told_and_the_next_one_is_reported(sound, tmp_path, text):
    bench, runs = sound
    bench.study(runs, ["better", "base"])
    bad = bench.ledger.root / "studies" / "later.json"
    bad.write_text(text)
    os.utime(bad, (2e9, 2e9))
    with pytest.raises(LedgerError, match=r"record of study 'later'|can't be a run's id") as caught:
        bench.ledger.study("later")
    assert caught.value.where == str(bad)
    assert bench.ledger.study()["name"] == "toy-study"
    listed = CliRunner().invoke(cli, ["list", "studies", "--home", str(tmp_path)])
    assert listed.exit_code == 0, listed.output
    assert "later" in listed.output
    assert "toy-study  3 runs" in listed.output
    reported = CliRunner().invoke(cli, ["report", "--home", str(tmp_path), "--format", "csv"])
    assert reported.exit_code == 0, reported.output


def test_a_ledger_of_unreadable_studies_is_an_error_in_words(bench):
    (bench.ledger.root / "studies").mkdir(parents=True)
    (bench.ledger.root / "studies" / "only.json").write_text("")
    with pytest.raises(LedgerError, match="the record of study 'only' is damaged: it is empty"):
        bench.ledger.study()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content"),
    [("spec", "[]"), ("spec", "{"), ("selection", "3"), ("method", '"x"'), ("probe", "[1]"), ("data", "[]"),
     ("selection", '{"epoch": "x", "value": 3, "metric": 4}'), ("data", '{"classes": 3}')],
)  # fmt: skip
def test_damaged_runs_stop_no_list(sound, tmp_path, name, content):
    bench, runs = sound
    (bench.ledger.root / runs[0] / f"{name}.json").write_text(content)
    done = CliRunner().invoke(cli, ["list", "runs", "--home", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert re.search(f"{runs[2]} +finished", done.output)
    assert runs[0] in done.output


def test_pages_on_several_studies_leave_an_unreadable_one_out_and_say_so(bench, tmp_path):
    for name, train in (("one", (300, 40, 900)), ("two", (300, 20, 900))):
        bench.train = train
        pairs = (("base", BASE), ("better", BETTER))
        runs = [bench.run(label, 0, hits, spec={"profile": f"exp:{900 // train[1]}"}) for label, hits in pairs]
        bench.ledger.put_study(name, bench.study(runs, ["better", "base"], name=name))
    (bench.ledger.root / "studies" / "bad.json").write_text("")
    for command in ("compare", "response"):
        out = tmp_path / command
        arguments = [command, "one", "bad", "two", "--home", str(tmp_path), "--out", str(out), "--format", "md"]
        done = CliRunner().invoke(cli, arguments)
        assert done.exit_code == 0, done.output
        assert "! Left out: the record of study 'bad' is damaged: it is empty." in done.output
        assert "Left out: the record of study 'bad' is damaged: it is empty." in (out / "report.md").read_text()
    done = CliRunner().invoke(cli, ["compare", "one", "twoo", "--home", str(tmp_path)])
    assert "no study called 'twoo'" in str(done.exception)
