"""An ablation in a real MLflow store: its arms, and the page on its modules beside the report."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_bench.record.home import Home
from fer_bench.reports import build_report
from fer_bench.tracking.sync import sync
from tests.reports.conftest import Bench
from tests.tracking.conftest import mlflow_client, runs_of

ARMS = {"plain": ("base", "", ""), "attention": ("own[share=none]", "plain", "attention")}
HITS = {"base": (40, 4, 90), "own[share=none]": (40, 16, 90)}  # of 50, 20 and 100 images


def ids_of(runs):
    return [run for ids in runs.values() for run in ids]


@pytest.fixture
def ablation(tmp_path):
    """The home of a finished ablation of two arms and two seeds, with its report."""
    home = Home(tmp_path / "home")
    bench = Bench(home.ledger.root)
    runs = {
        label: [
            bench.run(label, seed, hits, data={"protocol": {"name": "official", "test": ["test"]}}) for seed in (0, 1)
        ]
        for label, hits in HITS.items()
    }
    arms = [
        {"name": name, "label": label, "variant": label, "to": to, "adds": adds, "control": ""}
        for name, (label, to, adds) in ARMS.items()
    ]
    study = bench.study(
        ids_of(runs), list(HITS), "base", kind="ablation", command="fer-bench ablate own --dataset toy",
        ablation={"method": "own", "arms": arms, "left_out": []},
    )  # fmt: skip
    build_report(home.ledger, study, home.results("toy-study"))
    return home, runs


def test_arms_and_the_page_on_modules_are_mirrored(ablation, uri):
    home, runs = ablation
    done = sync(home.ledger, "toy-study", uri)
    assert (sorted(done.written), done.failed) == (sorted(ids_of(runs)), {})
    parent = runs_of(uri, "study")["toy-study"]
    assert parent.data.tags["fer_bench.kind"] == "ablation"
    assert parent.data.tags["fer_bench.reference"] == "base"
    assert parent.data.tags["fer_bench.command"] == "fer-bench ablate own --dataset toy"
    assert parent.info.status == "FINISHED"

    children = runs_of(uri, "run")
    for label, ids in runs.items():
        for run in ids:
            assert children[run].data.tags["mlflow.parentRunId"] == parent.info.run_id
            assert label in children[run].info.run_name
            assert children[run].data.metrics["test_recall/disgust"] == pytest.approx(HITS[label][1] / 20)

    client = mlflow_client(uri)
    pages = {f.path for f in client.list_artifacts(parent.info.run_id, "report")}
    assert {"report/report.md", "report/ablation.md", "report/ablation.html", "report/ablation.csv"} <= pages
    drawn = {f.path for f in client.list_artifacts(parent.info.run_id, "report/figures")}
    assert "report/figures/ablation-contributions.png" in drawn
    text = Path(client.download_artifacts(parent.info.run_id, "report/ablation.md")).read_text(encoding="utf-8")
    assert text == (home.results("toy-study") / "ablation.md").read_text(encoding="utf-8")


def test_a_second_sync_of_an_ablation_writes_nothing(ablation, uri, tmp_path):
    home, runs = ablation
    sync(home.ledger, "toy-study", uri)
    before = (tmp_path / "mlflow.db").read_bytes()
    again = sync(home.ledger, "toy-study", uri)
    assert (again.written, sorted(again.skipped)) == ([], sorted(ids_of(runs)))
    assert (tmp_path / "mlflow.db").read_bytes() == before
