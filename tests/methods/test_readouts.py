"""Read-outs learned on validation: temperature, scales and shifts, thresholds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from torch import nn

from fer_bench import ValOutputs
from fer_bench.methods._shared.readout import score
from fer_bench.methods.class_thresholds import ClassThresholds
from fer_bench.methods.temperature_scaling import TemperatureScaling


def validation(temperature=1.0, n=4000, seed=0, classes=3):
    """Labels drawn from the softmax of logits; what is handed on are the logits times a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, classes)) + [1.0, 0.0, -1.0][:classes]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (rng.random((n, 1)) > p.cumsum(1)).sum(1)
    return (logits * temperature).astype(np.float32), labels


def fitted(make_method, cls, logits, labels, counts=(90, 9, 1), **params):
    method = make_method(cls, params, counts=counts)
    method.fit_posthoc(nn.Identity(), ValOutputs(logits=logits, labels=labels))
    return method


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_that_logits_were_multiplied_by_is_found(make_method, true):
    logits, labels = validation(true)
    method = fitted(make_method, TemperatureScaling, logits, labels)
    assert 1 / method.scale[0] == pytest.approx(true, rel=0.06)
    assert (method.adjust(logits, None).argmax(1) == logits.argmax(1)).all(), "no decision changes"


def test_the_temperature_has_the_least_loss_of_a_fine_grid(make_method):
    logits, labels = validation(2.0, n=200)
    grid = np.exp(np.linspace(-1, 2, 3001))
    z = logits.astype(np.float64)
    losses = [np.mean(np.log(np.exp(z / t).sum(1)) - z[np.arange(200), labels] / t) for t in grid]
    found = 1 / fitted(make_method, TemperatureScaling, logits, labels).scale[0]
    assert found == pytest.approx(grid[np.argmin(losses)], rel=1e-3)


def test_a_validation_without_errors_gives_a_finite_temperature(make_method):
    labels = np.arange(30) % 3
    method = fitted(make_method, TemperatureScaling, np.eye(3, dtype=np.float32)[labels], labels)
    assert 10 < method.scale[0] <= 100, "the likelihood rises for ever, if by less than is worth looking for"


def test_scales_and_shifts_undo_what_was_done_to_the_logits(make_method):
    logits, labels = validation(n=20000)
    spoilt = (logits - [0.0, 1.0, -2.0]) / [1.0, 2.0, 0.5]
    method = fitted(make_method, TemperatureScaling, spoilt.astype(np.float32), labels, kind="vector")
    np.testing.assert_allclose(method.scale, [1.0, 2.0, 0.5], rtol=0.08)
    np.testing.assert_allclose(method.shift - method.shift[0], [0.0, 1.0, -2.0], atol=0.15)


def test_a_class_without_validation_images_keeps_scale_and_shift(make_method):
    logits, labels = validation(n=300)
    method = fitted(make_method, TemperatureScaling, logits[labels < 2], labels[labels < 2], kind="vector")
    assert (method.scale[2], method.shift[2]) == (1.0, 0.0)


def test_the_threshold_lies_midway_between_the_images_it_parts(make_method):
    # class 0 is ahead by 4, 3 and 1; the last image is of class 1. All are right once b_0 is between -3 and -1
    logits = np.array([[4.0, 0.0], [3.0, 0.0], [1.0, 0.0]], np.float32)
    method = fitted(make_method, ClassThresholds, logits, np.array([0, 0, 1]), counts=(90, 10))
    assert method.shift.tolist() == [-2.0, 0.0]
    np.testing.assert_array_equal(method.adjust(logits, None), logits - [2.0, 0.0])


@pytest.mark.parametrize("criterion", ["mean_recall", "accuracy"])
def test_no_grid_of_shifts_is_better_for_two_classes(make_method, criterion):
    logits, labels = validation(n=60, classes=2, seed=1)
    method = fitted(make_method, ClassThresholds, logits, labels, counts=(90, 10), criterion=criterion)
    reached = score(criterion, labels, method.adjust(logits, None).argmax(1), 2)
    grid = [score(criterion, labels, (logits + np.array([0, b])).argmax(1), 2) for b in np.linspace(-8, 8, 4001)]
    assert reached == pytest.approx(max(grid), abs=1e-12)
    assert reached > score(criterion, labels, logits.argmax(1), 2) - 1e-12


def test_rounds_gain_on_three_classes_and_end_where_no_class_gains(make_method):
    logits, labels = validation(n=150, seed=2)
    method = fitted(make_method, ClassThresholds, logits, labels)
    reached = score("mean_recall", labels, method.adjust(logits, None).argmax(1), 3)
    assert reached > score("mean_recall", labels, logits.argmax(1), 3)
    for c, b in itertools.product(range(3), np.linspace(-6, 6, 601)):
        moved = method.shift + b * np.eye(3)[c]
        assert score("mean_recall", labels, (logits + moved).argmax(1), 3) <= reached + 1e-12


def test_what_is_best_already_stays(make_method):
    labels = np.array([0, 0, 1, 2])
    method = fitted(make_method, ClassThresholds, np.eye(3, dtype=np.float32)[labels], labels)
    assert method.shift.tolist() == [0.0, 0.0, 0.0]


def test_a_class_without_validation_images_is_not_moved(make_method):
    logits, labels = validation(n=100)
    method = fitted(make_method, ClassThresholds, logits[labels != 1], labels[labels != 1])
    assert method.shift[1] == 0


@pytest.mark.parametrize("cls", [TemperatureScaling, ClassThresholds])
def test_the_state_holds_what_was_learned(make_method, cls):
    logits, labels = validation(n=50)
    first = fitted(make_method, cls, logits, labels)
    second = make_method(cls, counts=(90, 9, 1))
    second.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(first.adjust(logits, None), second.adjust(logits, None))
    assert second.adjust(logits, None).dtype == np.float32
