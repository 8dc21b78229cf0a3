"""The curve of the shifted reference and the distances from it, against calculations that share no code with them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fer_bench.record.ledger import Ledger
from fer_bench.reports.facts.operating_point import missing, on_curve, operating_points
from fer_bench.reports.facts.records import load_study

TINY = Path(__file__).parents[3] / "docs" / "results" / "fer2013-tiny" / "ledger"
TAUS = [k / 10 for k in range(21)]


def committed(label: str) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Logits, labels and training counts of every run of a method in the committed study, by seed."""
    found = []
    for run in json.loads((TINY / "studies" / "fer2013-tiny.json").read_text())["runs"]:
        head = json.loads((TINY / run / "spec.json").read_text())
        if head["label"] == label:
            counts = json.loads((TINY / run / "data.json").read_text())["counts"]["train"]
            arrays = [np.load(TINY / run / f"test_{name}.npy") for name in ("logits", "labels")]
            found.append((head["spec"]["seed"], (*arrays, np.array(counts, dtype=float))))
    return [run for _, run in sorted(found, key=lambda pair: pair[0])]


def recalls(logits, labels, counts, tau) -> tuple[list[float], float]:
    """Recall of every class, and accuracy, of the logits minus tau times the logarithm of the class shares."""
    predicted = np.argmax(logits.astype(float) - tau * np.log(counts / counts.sum()), axis=1)
    return [float(np.mean(predicted[labels == c] == c)) for c in range(7)], float(np.mean(predicted == labels))


def test_the_committed_studys_plain_network_at_tau_1():
    scores = [recalls(*run, 1.0) for run in committed("baseline_resnet")]
    by_class, accuracy = np.mean([r for r, _ in scores], axis=0), np.mean([a for _, a in scores])
    assert by_class[1] == pytest.approx(0.851, abs=0.02), "disgust"
    assert by_class.mean() == pytest.approx(0.507, abs=0.01)
    assert accuracy == pytest.approx(0.472, abs=0.01)
    points = operating_points(load_study(Ledger(TINY), "fer2013-tiny"))
    tail = by_class[[1, 5]].mean()  # disgust and surprise
    np.testing.assert_allclose(points.curve.at(1.0), (accuracy, tail), rtol=0, atol=1e-12)
    plain = [recalls(*run, 0.0) for run in committed("baseline_resnet")]
    np.testing.assert_allclose(points.curve.accuracy[0], np.mean([a for _, a in plain]), atol=1e-12)


def by_hand(label: str) -> float:
    """The mean distance of a method from the curve, by a search from the strongest shift downwards."""
    distances = []
    for ours, reference in zip(committed(label), committed("baseline_resnet"), strict=True):
        mine, accuracy = recalls(*ours, 0.0)
        curve = [(a, (r[1] + r[5]) / 2) for r, a in (recalls(*reference, tau) for tau in TAUS)]
        best = [(a, max(t for _, t in curve[: k + 1])) for k, (a, _) in enumerate(curve)]
        height = max(best)[1]
        for (high, left), (low, right) in reversed(list(pairwise(best))):
            if high >= accuracy > low:
                height = left + (high - accuracy) / (high - low) * (right - left)
                break
        distances.append((mine[1] + mine[5]) / 2 - height)
    return float(np.mean(distances))


@pytest.mark.parametrize("label", ["baseline_weighted", "baseline_oversample"])
def test_the_distance_from_the_curve_is_that_of_a_slow_search(label):
    points = operating_points(load_study(Ledger(TINY), "fer2013-tiny"))
    assert points.distances[label].value == pytest.approx(by_hand(label), abs=1e-9)
    assert points.distances[label].low < points.distances[label].value < points.distances[label].high


def test_oversampling_learns_what_no_shift_gives():
    points = operating_points(load_study(Ledger(TINY), "fer2013-tiny"))
    assert points.distances["baseline_oversample"].low > 0


def test_points_on_a_curve():
    accuracy, tail = np.array([[0.50, 0.60, 0.50, 0.40]]), np.array([[0.1, 0.2, 0.6, 0.5]])
    at = {a: float(on_curve(accuracy, tail, np.array([a]))[0]) for a in (0.9, 0.6, 0.55, 0.5, 0.45, 0.4, 0.1)}
    # above the curve's end: that of the most accurate point; a stronger shift that loses recall is not used
    assert at == pytest.approx({0.9: 0.2, 0.6: 0.2, 0.55: 0.4, 0.5: 0.6, 0.45: 0.6, 0.4: 0.6, 0.1: 0.6})


def noisy(bench, shift: float, seed: int) -> np.ndarray:
    """Logits that are right for most images, of a prior that favours frequent classes."""
    draw = np.random.default_rng([seed, int(100 * shift)])
    truth = np.eye(3)[bench.labels] * 1.5 + np.log(np.array(bench.train) / sum(bench.train)) * (1 - shift)
    return (truth + draw.normal(size=truth.shape)).astype(np.float32)


def test_the_interval_is_that_of_a_jackknife_by_hand(bench):
    """Two-way jackknife: every image left out in turn, everything computed anew (Obuchowski and Rockette 1995)."""
    methods = {"base": lambda s: noisy(bench, 0.0, s), "half": lambda s: noisy(bench, 0.5, s + 50)}
    study = load_study(bench.ledger, bench.study_of(methods, seeds=4))
    interval = operating_points(study).distances["half"]
    shares = np.array(bench.train) / sum(bench.train)

    def distance(keep: np.ndarray) -> np.ndarray:
        out = []
        for seed in range(4):
            labels = bench.labels[keep]

            def point(logits, tau, labels=labels):
                right = np.argmax(logits[keep] - tau * np.log(shares), 1) == labels
                return right.mean(), right[labels == 1].mean()  # the tail is the class of 40 images

            along = np.array([point(noisy(bench, 0.0, seed), tau) for tau in TAUS])
            accuracy, tail = point(noisy(bench, 0.5, seed + 50), 0.0)
            out.append(tail - on_curve(along[None, :, 0], along[None, :, 1], np.array([accuracy]))[0])
        return np.array(out)

    everything = np.ones(len(bench.labels), dtype=bool)
    values, common, alone = distance(everything), [], []
    for c in range(3):
        members = np.flatnonzero(bench.labels == c)
        left = np.array([distance(np.arange(len(everything)) != i) for i in members])
        left -= left.mean(0)
        scale = (len(members) - 1) / len(members)
        own, mean = scale * (left**2).sum() / 4, scale * (left.mean(1) ** 2).sum()
        common.append((4 * mean - own) / 3)
        alone.append(own)
    variance = max(values.var(ddof=1), sum(alone) - sum(common)) / 4 + max(sum(common), 0)
    assert interval.value == pytest.approx(values.mean(), abs=1e-6)
    assert variance > 0
    low, high = interval.value - interval.low, interval.high - interval.value
    assert low == pytest.approx(high)
    assert 1.96 < low / variance**0.5 < 4, "a t-quantile times the standard error"


def test_nothing_is_drawn_where_training_counts_are_unknown(bench):
    run = bench.run("base", 0, (40, 5, 90), data={"counts": {"test": list(bench.test)}})
    study = load_study(bench.ledger, bench.study([run], ["base"]))
    assert "numbers of training images" in missing(study)


def test_a_class_that_was_never_trained_is_not_favoured(bench):
    data = {"counts": {"train": [300, 40, 0], "val": [1, 1, 1], "test": list(bench.test)}}
    runs = [bench.run(label, 0, (40, 5, 90), data=data) for label in ("base", "other")]
    study = load_study(bench.ledger, bench.study(runs, ["base", "other"]))
    if missing(study):
        pytest.skip("no tail can be formed")
    assert np.isfinite(operating_points(study).curve.accuracy).all()
