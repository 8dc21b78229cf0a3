"""Results in Python: one row per run, class and metric; one row per image; the same numbers as in reports."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, precision_score, recall_score, roc_auc_score

import fer_bench
from fer_bench import FerBenchError
from fer_bench.reports import build_report
from fer_bench.reports.facts.tidy import DTYPES
from fer_bench.stats import metrics
from fer_bench.stats.metrics import Metric, Registry

TINY = Path(__file__).parents[3] / "docs" / "results" / "fer2013-tiny"
LEDGER = TINY / "ledger"


@pytest.fixture
def toy(bench):
    """Two methods with two seeds each, and the study that lists them."""
    runs = [bench.run(label, seed, (40, 8 + seed, 90)) for label in ("better", "base") for seed in (0, 1)]
    bench.study(runs, ["better", "base"])
    return bench


def home_of(bench) -> Path:
    return bench.ledger.root.parent


def value(frame: pd.DataFrame, metric: str, class_name: str = "") -> float:
    return frame.loc[(frame.metric == metric) & (frame["class"] == class_name), "value"].item()


def read_back(path: Path) -> pd.DataFrame:
    texts = {name: kind for name, kind in DTYPES.items() if name != "value"}
    return pd.read_csv(path, dtype=texts, keep_default_na=False, na_values={"value": [""], "epoch": [""]})


def test_every_number_of_a_real_run_is_what_scikit_learn_computes_from_its_logits():
    frame = fer_bench.results(TINY, study="fer2013-tiny")
    run = frame.run.iloc[-1]
    mine, folder = frame[frame.run == run], LEDGER / run
    labels, logits = np.load(folder / "test_labels.npy"), np.load(folder / "test_logits.npy").astype(float)
    classes, predicted = json.loads((folder / "data.json").read_text())["classes"], logits.argmax(1)
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert value(mine, "accuracy") == pytest.approx(accuracy_score(labels, predicted))
    assert value(mine, "mean_recall") == pytest.approx(recall_score(labels, predicted, average="macro"))
    assert value(mine, "macro_f1") == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert value(mine, "macro_auroc") == pytest.approx(roc_auc_score(labels, share, multi_class="ovr"))
    brier = sum(brier_score_loss(labels == k, share[:, k]) for k in range(7))
    assert value(mine, "brier") == pytest.approx(brier)
    for metric, score in (("recall", recall_score), ("precision", precision_score), ("f1", f1_score)):
        expected = score(labels, predicted, average=None, zero_division=0)
        assert [value(mine, metric, name) for name in classes] == pytest.approx(expected.tolist())
    spec = json.loads((folder / "spec.json").read_text())
    assert mine.seed.unique().tolist() == [spec["spec"]["seed"]]
    assert mine.method.unique().tolist() == [spec["label"]]
    assert mine.epoch.unique().tolist() == [json.loads((folder / "selection.json").read_text())["epoch"] + 1]
    assert mine[mine.metric == "recall"].images.tolist() == np.bincount(labels).tolist()


def test_a_frame_has_one_row_per_run_class_and_metric_and_the_documented_types(toy):
    frame = fer_bench.results(home_of(toy))
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == DTYPES
    assert not frame.duplicated(["run", "class", "metric"]).any()
    by_class = [m.name for m in metrics.METRICS if m.kind == "class"]
    assert len(frame) == 4 * (len(metrics.METRICS) + len(by_class) * (len(toy.classes) - 1))
    recall = frame[(frame.metric == "recall") & (frame["class"] == "disgust")].set_index(["method", "seed"]).value
    assert recall.to_dict() == {("base", 0): 0.4, ("base", 1): 0.45, ("better", 0): 0.4, ("better", 1): 0.45}
    assert frame.study.unique().tolist() == ["toy-study"]
    assert "epochs=2" in frame.recipe[0]
    assert frame.attrs["remarks"] == []


def test_the_csv_of_a_report_holds_the_same_frame(toy, tmp_path):
    build_report(toy.ledger, toy.ledger.study("toy-study"), tmp_path / "page", formats=["csv"])
    written = read_back(tmp_path / "page" / "results.csv")
    pd.testing.assert_frame_equal(written, fer_bench.results(home_of(toy), study="toy-study"), check_exact=True)


def test_the_csv_of_a_report_over_folds_holds_the_same_frame(bench, tmp_path):
    runs = [
        bench.run(label, 0, (40 + fold, 9, 90), spec={"fold": fold}, rows=np.arange(170) + 170 * fold)
        for label in ("better", "base")
        for fold in (0, 1)
    ]
    study = bench.study(runs, ["better", "base"])
    build_report(bench.ledger, study, tmp_path / "page", formats=["csv"])
    written = read_back(tmp_path / "page" / "results.csv")
    frame = fer_bench.results(home_of(bench), study="toy-study")
    pd.testing.assert_frame_equal(written, frame, check_exact=True)
    recall = frame[(frame.metric == "recall") & (frame["class"] == "angry") & (frame.method == "base")]
    assert recall.set_index("fold").value.to_dict() == {0: 0.8, 1: 0.82}


def test_a_metric_of_a_package_is_in_the_frame_and_a_broken_one_gives_its_reason(toy, monkeypatch):
    def seventh(predictions, labels, context):
        return np.full(len(predictions), 1 / 7)

    def broken(predictions, labels, context):
        raise RuntimeError("no luck")

    more = Registry(metrics.METRICS)
    more.add(Metric(name="seventh", title="One seventh", compute=seventh))
    more.add(Metric(name="broken", title="Broken", compute=broken))
    monkeypatch.setattr("fer_bench.reports.facts.tidy.METRICS", more)
    monkeypatch.setattr("fer_bench.reports.facts.scoring.METRICS", more)
    frame = fer_bench.results(home_of(toy))
    assert frame[frame.metric == "seventh"].value.tolist() == [1 / 7] * 4
    lost = frame[frame.metric == "broken"]
    assert lost.value.isna().all()
    assert "no luck" in lost.reason.iloc[0]


def test_a_class_without_images_has_no_recall_and_the_row_says_why(bench):
    labels = np.repeat([0, 2], [30, 60])
    run = bench.run("base", 0, labels=labels, logits=(4.0 * np.eye(3)[labels]).astype(np.float32))
    bench.study([run], ["base"])
    row = fer_bench.results(home_of(bench)).query("metric == 'recall' and `class` == 'disgust'").iloc[0]
    assert (row.images, row.reason) == (0, "the class has no images here")
    assert np.isnan(row.value)


def test_validation_scores_come_from_validation_outputs(bench):
    def worse_on_validation(writer):
        writer.put("val_logits", np.eye(3, dtype=np.float32)[np.zeros(170, dtype=int)])

    run = bench.run("base", 0, (50, 20, 100), edit=worse_on_validation)
    bench.study([run], ["base"])
    test, val = (fer_bench.results(home_of(bench), split=split) for split in ("test", "val"))
    assert (value(test, "mean_recall"), value(val, "mean_recall")) == (1.0, pytest.approx(1 / 3))
    assert val.split.unique().tolist() == ["val"]
    assert fer_bench.predictions(run, home_of(bench), split="val").correct.sum() == 50


def test_runs_that_are_unfinished_or_damaged_are_left_out_with_a_warning(toy):
    unfinished = toy.run("base", 7, (40, 8, 90), finish=False)
    damaged = toy.run("base", 8, (40, 8, 90))
    np.save(toy.ledger.root / damaged / "test_logits.npy", np.zeros((170, 3), np.float32))
    with pytest.warns(UserWarning, match=f"run {unfinished}.*is unfinished"):
        frame = fer_bench.results(home_of(toy))
    assert sorted(frame.seed.unique()) == [0, 1]
    assert len(frame.attrs["remarks"]) == 2
    assert any(damaged in remark and "has changed" in remark for remark in frame.attrs["remarks"])
    with pytest.raises(FerBenchError, match="has changed since the run"):
        fer_bench.predictions(damaged, home_of(toy))


def test_tuning_trials_are_left_out(toy):
    toy.run("base", 9, (40, 8, 90), spec={"test": False})
    assert 9 not in set(fer_bench.results(home_of(toy)).seed)


def test_what_makes_numbers_unfair_stands_beside_them(bench):
    protocol = bench.data()["protocol"] | {"watermark": "chosen on the test"}
    runs = [
        bench.run("peeks", 0, (40, 8, 90), data={"protocol": protocol}, transductive=True),
        bench.run("tries", 0, (40, 8, 90), data={"protocol": protocol}, edit=lambda writer: writer.put(
            "seal", {"count": 1, "openings": [], "blocked": [{"event": "open", "file": "x"}]})),
    ]  # fmt: skip
    bench.study(runs, ["peeks", "tries"])
    frame = fer_bench.results(home_of(bench)).drop_duplicates("method").set_index("method")
    assert frame.watermark.unique().tolist() == ["chosen on the test"]
    assert frame.transductive.to_dict() == {"peeks": True, "tries": False}
    assert frame.blocked.to_dict() == {"peeks": False, "tries": True}


def test_predictions_are_one_row_per_image_with_probabilities():
    run = sorted(p.name for p in LEDGER.iterdir() if (p / "spec.json").is_file())[0]
    frame = fer_bench.predictions(run, TINY)
    logits, labels = np.load(LEDGER / run / "test_logits.npy").astype(float), np.load(LEDGER / run / "test_labels.npy")
    classes = json.loads((LEDGER / run / "data.json").read_text())["classes"]
    assert list(frame) == ["row", "source", "true", "predicted", "correct", *(f"p_{c}" for c in classes)]
    assert frame.row.tolist() == np.load(LEDGER / run / "test_rows.npy").tolist()
    assert frame.true.tolist() == [classes[k] for k in labels]
    assert frame.predicted.tolist() == [classes[k] for k in logits.argmax(1)]
    assert frame.correct.mean() == pytest.approx(accuracy_score(labels, logits.argmax(1)))
    share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert frame.iloc[:, 5:].to_numpy() == pytest.approx(share)
    assert frame.source.isna().all()  # no store in this home
    assert list(frame.true.cat.categories) == classes


def test_file_names_come_from_the_store_that_the_run_was_trained_on(workplace, bench):
    store = json.loads((workplace.home.store("tiny") / "manifest.json").read_text())
    bench.ledger = workplace.home.ledger
    labels = np.array([0, 1, 2])
    facts = {"rows": np.array([2, 0, 80]), "labels": labels, "logits": np.eye(3, dtype=np.float32)}
    run = bench.run("base", 0, data={"dataset": "tiny", "fingerprint": store["fingerprint"]}, **facts)
    names = [line.split(",") for line in (workplace.home.store("tiny") / "table.csv").read_text().splitlines()]
    column = names[0].index("source")
    expected = [names[row + 1][column] for row in (2, 0, 80)]
    assert fer_bench.predictions(run, workplace.home.root).source.tolist() == expected
    other = bench.run("base", 1, data={"dataset": "tiny", "fingerprint": "another"}, **facts)
    with pytest.warns(UserWarning, match="holds other data"):
        assert fer_bench.predictions(other, workplace.home.root).source.isna().all()


def test_a_wrong_run_id_is_answered_with_the_nearest(toy):
    run = toy.ledger.runs()[0].id
    with pytest.raises(FerBenchError, match=f"did you mean '{run}'"):
        fer_bench.predictions(run[:-1] + "x", home_of(toy))


@pytest.mark.parametrize("home", ["", "nothing"])
def test_an_empty_or_missing_home_is_an_error_in_words(tmp_path, home):
    with pytest.raises(FerBenchError, match="there is no run in") as error:
        fer_bench.results(tmp_path / home)
    assert error.value.next == "fer-bench run METHOD --dataset NAME"


def test_the_ledger_given_for_the_home_is_understood(toy):
    with pytest.raises(FerBenchError, match=f"home is the folder that holds ledger/: {home_of(toy)}"):
        fer_bench.results(toy.ledger.root)


def test_a_home_whose_runs_all_lack_the_outputs_says_so():
    with pytest.raises(FerBenchError, match=r"has val outputs that can be read[\s\S]*val_rows.npy"):
        fer_bench.results(TINY, split="val")


def test_a_wrong_split_or_study_is_refused(toy):
    with pytest.raises(FerBenchError, match="no split 'train'"):
        fer_bench.results(home_of(toy), split="train")  # type: ignore[arg-type]
    with pytest.raises(FerBenchError, match="no study called 'toy-stud'"):
        fer_bench.results(home_of(toy), study="toy-stud")


def test_a_run_of_two_studies_is_there_once_and_names_both(toy):
    toy.ledger.put_study("second", {"name": "second", "runs": [toy.ledger.study("toy-study")["runs"][0]]})
    frame = fer_bench.results(home_of(toy))
    assert sorted(frame.study.unique()) == ["second, toy-study", "toy-study"]
    assert not frame.duplicated(["run", "class", "metric"]).any()


def test_reading_results_imports_no_torch_and_importing_fer_bench_no_pandas():
    program = f"""
import sys
import fer_bench
early = [m for m in ("pandas", "numpy", "torch") if m in sys.modules]
frame = fer_bench.results({str(TINY)!r}, study="fer2013-tiny")
fer_bench.predictions(frame.run[0], {str(TINY)!r})
print(early, [m for m in ("torch", "timm", "mlflow", "matplotlib") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[] []\n"


def test_no_warning_is_given_where_there_is_nothing_to_say(toy):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fer_bench.results(home_of(toy))
