"""Scores of stored answers, computed in one process or in two."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module

import numpy as np
import pytest

from fer_bench.errors import PluginError
from fer_bench.reports.facts import scoring
from fer_bench.reports.facts.records import load_study
from fer_bench.reports.facts.scoring import begin
from fer_bench.reports.facts.second_process import SharedWork, Work
from fer_bench.stats import metrics
from fer_bench.stats.metrics import Metric, Registry, Values

LABELS = ("base", "better", "worse")


@pytest.fixture
def study(bench):
    """Three methods of two seeds; the last one lacks a fold."""
    make, runs = np.random.default_rng(3), []
    for label in LABELS:
        for seed in range(2):
            for fold in range(2):
                if (label, seed, fold) == ("worse", 1, 1):
                    continue
                logits = make.normal(size=(len(bench.labels), 3)).astype(np.float32)
                rows = np.arange(len(bench.labels)) + 1000 * fold
                runs.append(bench.run(label, seed, logits=logits, rows=rows, spec={"fold": fold}))
    return load_study(bench.ledger, bench.study(runs, list(LABELS)))


@pytest.fixture
def registry(monkeypatch):
    """A registry of this test's own, with the columns that every process knows."""
    own = Registry(metrics.METRICS)
    for module in (metrics, scoring):
        monkeypatch.setattr(module, "METRICS", own)
    return own


def flat(results):
    """Everything there is to compare."""
    out = []
    for method in results.methods:
        for name, result in method.metrics.items():
            value = (result.values, result.reason) if isinstance(result, Values) else (None, result.what)
            out.append((name, None if value[0] is None else value[0].tobytes(), value[1]))
        out.append([getattr(method.diagram, a).tobytes() for a in ("counts", "confidence", "frequency")])
    return out


def test_the_helper_computes_the_same_to_the_last_bit(study, leave_to_helper):
    leave_to_helper()
    with SharedWork() as work:
        shared = begin(study, work).results()
    assert flat(shared) == flat(begin(study, Work()).results())
    assert "ece" in shared.metrics


@pytest.mark.parametrize("fate", ["stopped", "dead"])
def test_a_helper_that_does_nothing_costs_nothing(study, fate):
    with SharedWork() as work:
        os.kill(work._helper.pid, signal.SIGSTOP if fate == "stopped" else signal.SIGKILL)
        assert flat(begin(study, work).results()) == flat(begin(study, Work()).results())


def test_a_fold_that_a_seed_lacks_is_left_out(study):
    answers = begin(study, Work()).methods[2].answers()
    assert np.isnan(answers.logits[1, len(study.labels) // 2 :]).all()
    assert np.isfinite(answers.logits[0]).all()
    assert ((answers.predictions < 0) == np.isnan(answers.logits).any(-1)).all()


def test_a_registered_column_is_computed_where_it_is_known(study, registry, leave_to_helper):
    here = os.getpid()
    registry.add(Metric(name="mine", title="Mine", compute=lambda p, t, c: np.full(len(p), float(os.getpid()))))
    leave_to_helper()
    with SharedWork() as work:
        result = begin(study, work).results()
    assert [m.metrics["mine"].values.tolist() for m in result.methods] == [[here, here]] * 3
    assert result.metrics[-1] == "mine"
    assert result.metrics[:-1] == [n for n in result.metrics if n in metrics.BUILT_IN]


def test_a_registered_metric_sees_what_the_program_has_set(study, registry, leave_to_helper, tmp_path, monkeypatch):
    (tmp_path / "set_metric.py").write_text(
        "import numpy as np\n"
        "from fer_bench import Metric\n"
        "FACTOR = 1.0\n"
        "def compute(chances, labels, context):\n"
        "    return np.full(len(chances), FACTOR)\n"
        "METRIC = Metric(name='set', title='Set', compute=compute)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "set_metric", raising=False)
    module = import_module("set_metric")
    module.FACTOR = 3.0
    registry.add(module.METRIC)
    leave_to_helper()
    with SharedWork() as work:
        result = begin(study, work).results()
    assert [m.metrics["set"].values.tolist() for m in result.methods] == [[3.0, 3.0]] * 3


def test_a_registered_column_that_fails_costs_itself_only(study, registry):
    registry.add(Metric(name="mine", title="Mine", compute=lambda p, t, c: 1 / 0))
    result = begin(study, Work()).results()
    assert all(isinstance(m.metrics["mine"], PluginError) for m in result.methods)
    assert all(isinstance(m.metrics["ece"], Values) for m in result.methods)


def test_lost_logits_cost_what_needs_them(study):
    (study.runs[0].record.path / "test_logits.npy").unlink()
    first = begin(study, Work()).results().methods[0]
    assert first.diagram is None
    assert first.metrics["ece"].values is None
    assert "not kept" in first.metrics["ece"].reason
    assert first.metrics["tail_recall"].values is not None
