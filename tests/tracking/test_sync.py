"""The MLflow mirror in a real SQLite store: what it holds, and that a second sync writes nothing."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from fer_bench.cli.track import track as track_command
from fer_bench.errors import LedgerError
from fer_bench.tracking.sync import sync
from fer_bench.tracking.translate import class_keys, key, mirrored
from tests.tracking.conftest import (
    CLASSES,
    STARTED,
    mlflow_client,
    runs_of,
    write_run,
    write_study,
)


class TestContent:
    def test_a_run_carries_the_parameters_of_its_spec(self, ledger, uri):
        sync(ledger, "first", uri)
        params = runs_of(uri, "run")["b" * 16].data.params
        assert params["method"] == "rasn"
        assert params["method.share.source"] == "ema"
        assert params["method.gamma"] == "2.0"
        assert params["recipe.epochs"] == "3"
        assert params["selection.metric"] == "mean_recall"
        assert (params["seed"], params["profile"], params["pretrained"]) == ("1", "exp:50", "false")
        assert params["subset"] == "0"

    def test_a_run_on_another_draw_says_so_in_its_name(self, ledger):
        spec = ledger.run(write_run(ledger, "d" * 16)).json("spec")
        writer = ledger.writer("e" * 16)
        write_run(ledger, writer.id)
        writer.put("spec", spec | {"spec": spec["spec"] | {"subset": 2}})
        there = mirrored(ledger.run(writer.id))
        assert "· subset 2 · seed 0" in there.name
        assert there.params["subset"] == "2"
        assert "subset" not in mirrored(ledger.run("d" * 16)).name

    def test_test_scores_are_computed_from_the_logits(self, ledger, uri):
        sync(ledger, "first", uri)
        metrics = runs_of(uri, "run")["a" * 16].data.metrics
        assert metrics["test_accuracy"] == 6 / 8
        assert metrics["test_mean_recall"] == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
        assert [metrics[f"test_recall/{c}"] for c in CLASSES] == [3 / 4, 1 / 2, 1.0]
        f1 = [2 * 3 / (4 + 3), 2 * 1 / (2 + 1), 2 * 2 / (2 + 4)]
        assert metrics["test_macro_f1"] == pytest.approx(sum(f1) / 3)
        assert (metrics["selected_epoch"], metrics["selected_value"]) == (2, 0.5)
        assert (metrics["probe/alone/max_difference"], metrics["probe/alone/flipped"]) == (0.125, 3)

    def test_the_history_becomes_curves_with_the_times_of_the_run(self, ledger, uri):
        sync(ledger, "first", uri)
        run = runs_of(uri, "run")["a" * 16]
        curve = mlflow_client(uri).get_metric_history(run.info.run_id, "train_loss")
        start = int(1000 * datetime.fromisoformat(STARTED).timestamp())
        assert [(m.step, m.value) for m in curve] == [(1, 1.5), (2, 1.4), (3, 1.3)]
        assert [m.timestamp - start for m in curve] == [10_000, 20_000, 30_000]
        assert (run.info.start_time - start, run.info.end_time - start) == (0, 60_000)
        assert run.data.metrics["val_recall/happy"] == 1.0
        assert "val_recall/disgust" not in run.data.metrics, "a class without images has no recall"

    def test_long_histories_exceed_no_limit_of_a_batch(self, ledger, uri):
        run = write_run(ledger, "c" * 16, epochs=300, params={f"p{i:03}": i for i in range(150)} | {"long": "x" * 9000})
        write_study(ledger, "long", [run])
        assert sync(ledger, "long", uri).failed == {}
        found = runs_of(uri, "run")[run]
        assert len(mlflow_client(uri).get_metric_history(found.info.run_id, "lr")) == 300
        assert found.data.params["method.p149"] == "149"
        assert len(found.data.params["method.long"]) == 6000

    def test_records_weights_and_report_are_artifacts(self, ledger, uri, tmp_path):
        report = tmp_path / "home" / "results" / "first"
        (report / "figures").mkdir(parents=True)
        (report / "report.md").write_text("# Report")
        (report / "figures" / "recall.png").write_bytes(b"png")
        sync(ledger, "first", uri)
        client = mlflow_client(uri)
        child, parent = runs_of(uri, "run")["a" * 16], runs_of(uri, "study")["first"]
        names = {f.path for f in client.list_artifacts(child.info.run_id)}
        assert names >= {"spec.json", "selection.json", "probe.json", "history.json", "model.pt"}
        assert Path(client.download_artifacts(child.info.run_id, "model.pt")).read_bytes() == b"weights"
        assert Path(client.download_artifacts(parent.info.run_id, "report/report.md")).read_text() == "# Report"
        assert [f.path for f in client.list_artifacts(parent.info.run_id, "report/figures")] == [
            "report/figures/recall.png"
        ]
        assert Path(child.info.artifact_uri.removeprefix("file://")).is_relative_to(tmp_path), (
            "not in the current folder"
        )

    def test_a_transductive_run_under_a_leaky_protocol_says_so(self, ledger, uri):
        write_study(ledger, "leaky", [write_run(ledger, "d" * 16, watermark="the epoch is selected on the test set")])
        sync(ledger, "leaky", uri)
        run = runs_of(uri, "run")["d" * 16]
        assert run.info.run_name.startswith("⚠ ")
        assert run.data.tags["fer_bench.transductive"] == "true"
        assert "selected on the test set" in run.data.tags["mlflow.note.content"]
        assert run.inputs.dataset_inputs[0].dataset.name == "toy"

    def test_a_pruned_trial_shows_its_curves_and_no_test(self, ledger, uri):
        write_study(ledger, "tuning", [write_run(ledger, "e" * 16, status="pruned")], kind="tune")
        assert sync(ledger, "tuning", uri).written == ["e" * 16]
        run = runs_of(uri, "run")["e" * 16]
        assert run.info.status == "KILLED"
        assert run.data.metrics["val_mean_recall"] == 0.5
        assert not [m for m in run.data.metrics if m.startswith("test")]

    @pytest.mark.parametrize("name", ["wütend", "a/b", "..", "", "50%", "x" * 300])
    def test_odd_class_names_become_names_that_mlflow_accepts(self, name):
        from mlflow.utils.validation import _validate_metric_name, _validate_param_name

        for made in (key("val_recall", name), *class_keys("val_recall", [name, name])):
            _validate_metric_name(made)
            _validate_param_name(made)
        assert len(set(class_keys("val_recall", ["a%", "a&"]))) == 2

    def test_a_record_without_times_uses_its_age(self, ledger):
        record = ledger.run("a" * 16)
        (record.path / "timing.json").unlink()
        at = int(1000 * (record.path / "done.json").stat().st_mtime)
        assert mirrored(record).span == (at, at)


class TestIdempotence:
    def test_a_second_sync_writes_nothing(self, ledger, uri, tmp_path):
        first = sync(ledger, "first", uri)
        before = (tmp_path / "mlflow.db").read_bytes()
        second = sync(ledger, "first", uri)
        assert (first.written, second.written) == (["a" * 16, "b" * 16], [])
        assert second.skipped == first.written
        assert (tmp_path / "mlflow.db").read_bytes() == before

    def test_a_later_report_reaches_the_parent_alone(self, ledger, uri, tmp_path):
        sync(ledger, "first", uri)
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "report.md").write_text("late")
        assert sync(ledger, "first", uri, results=tmp_path / "elsewhere").written == []
        parent = runs_of(uri, "study")["first"].info.run_id
        assert [f.path for f in mlflow_client(uri).list_artifacts(parent, "report")] == ["report/report.md"]

    @pytest.mark.parametrize("step", ["log_batch", "log_artifact", "set_terminated", "set_tag"])
    def test_an_interrupted_mirror_is_completed(self, ledger, uri, monkeypatch, step):
        from mlflow import MlflowClient

        def die(*args, **kwargs):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, step, die)
            with pytest.raises(KeyboardInterrupt):
                sync(ledger, "first", uri)
        assert sync(ledger, "first", uri).written == ["a" * 16, "b" * 16]
        client = mlflow_client(uri)
        experiment = client.get_experiment_by_name("toy/official").experiment_id
        found = runs_of(uri, "run")
        assert len(client.search_runs([experiment])) == 3, "one parent, two children, no half-written copy"
        assert {r.info.status for r in found.values()} == {"FINISHED"}
        assert all(r.data.metrics["test_accuracy"] == 0.75 for r in found.values())

    def test_a_run_of_two_studies_appears_under_each(self, ledger, uri):
        write_study(ledger, "second", ["a" * 16])
        sync(ledger, None, uri)
        parents = runs_of(uri, "study")
        for study in ("first", "second"):
            child = runs_of(uri, "run", study)["a" * 16]
            assert child.data.tags["mlflow.parentRunId"] == parents[study].info.run_id

    def test_a_study_runs_until_its_last_run_is_mirrored(self, ledger, uri):
        write_study(ledger, "growing", ["a" * 16, write_run(ledger, "c" * 16, done=False)])
        assert sync(ledger, "growing", uri).unfinished == ["c" * 16]
        assert runs_of(uri, "study")["growing"].info.status == "RUNNING"
        ledger.writer("c" * 16).finish()
        assert sync(ledger, "growing", uri).written == ["c" * 16]
        assert runs_of(uri, "study")["growing"].info.status == "FINISHED"

    def test_a_run_trained_anew_replaces_its_copy(self, ledger, uri):
        sync(ledger, "first", uri)
        shutil.rmtree(ledger.root / ("a" * 16))
        write_run(ledger, "a" * 16, epochs=5)
        assert sync(ledger, "first", uri).written == ["a" * 16]
        assert runs_of(uri, "run")["a" * 16].data.params["recipe.epochs"] == "5"

    def test_a_damaged_record_fails_alone(self, ledger, uri):
        (ledger.root / ("a" * 16) / "test_logits.npy").write_bytes(b"torn")
        done = sync(ledger, "first", uri)
        assert done.written == ["b" * 16]
        assert "test_logits.npy" in done.failed["a" * 16]
        assert set(runs_of(uri, "run")) == {"b" * 16}

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("timing.json", '{"started": [], "finished": 3, "epoch_seconds": "long"}'),
            ("timing.json", "[]"),
            ("spec.json", '{"spec": [], "label": 3}'),
            ("data.json", '{"classes": 3}'),
            ("history.json", '[{"epoch": "last"}]'),
            ("done.json", "{"),
        ],
    )
    def test_a_record_of_other_types_fails_alone(self, ledger, uri, name, content):
        (ledger.root / ("a" * 16) / name).write_text(content)
        done = sync(ledger, "first", uri)
        assert done.written == ["b" * 16]
        assert set(done.failed) == {"a" * 16}

    def test_a_study_that_can_not_be_read_fails_alone(self, ledger, uri):
        (ledger.root / "studies" / "bad.json").write_text("")
        (ledger.root / "studies" / "odd.json").write_text('{"runs": []}')
        done = sync(ledger, None, uri)
        assert done.written == ["a" * 16, "b" * 16]
        assert done.failed == {
            "study bad": "the record of study 'bad' is damaged: it is empty",
            "study odd": "study 'odd' names no dataset and no protocol",
        }
        with pytest.raises(LedgerError, match="the record of study 'bad' is damaged"):
            sync(ledger, "bad", uri)
        said = CliRunner().invoke(
            track_command, ["sync", "--all", "--home", str(ledger.root.parent), "--tracking-uri", uri]
        )
        assert "2 already there, 2 failed" in said.output
        assert "2 studies were not mirrored" in str(said.exception)

    def test_what_is_half_written_or_hidden_is_no_artifact(self, ledger, uri, tmp_path):
        report = tmp_path / "home" / "results" / "first"
        for name in ("report.md", ".report-x.held/report.md", ".fer-bench-report.json", "figures/.recall.png.1.part"):
            (report / name).parent.mkdir(parents=True, exist_ok=True)
            (report / name).write_text("text")
        (report / "figures" / "recall.png").write_bytes(b"png")
        sync(ledger, "first", uri)
        client, parent = mlflow_client(uri), runs_of(uri, "study")["first"].info.run_id
        assert [f.path for f in client.list_artifacts(parent, "report")] == ["report/figures", "report/report.md"]
        assert [f.path for f in client.list_artifacts(parent, "report/figures")] == ["report/figures/recall.png"]

    def test_mirrors_that_start_together_share_one_parent(self, ledger, uri):
        with ThreadPoolExecutor(3) as pool:
            done = list(pool.map(lambda _: sync(ledger, "first", uri).written, range(3)))
        assert sorted(done) == [[], [], ["a" * 16, "b" * 16]]
        client = mlflow_client(uri)
        assert len(client.search_runs([client.get_experiment_by_name("toy/official").experiment_id])) == 3
