"""Post-hoc logit adjustment, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from fer_bench import ValOutputs
from fer_bench.errors import SpecError
from fer_bench.methods._shared.readout import score
from fer_bench.methods.logit_adjust_posthoc import TAUS, LogitAdjustPosthoc, card

# Two classes with shares 0.1 and 0.9: subtracting tau log(share) helps the first by tau * log 9 = 2.197 tau.
COUNTS = (10, 90)
LEAD = np.log(9)


def fitted(make_method, leads, labels, counts=COUNTS, **params):
    """The method fitted on images in which the second class leads by `leads`."""
    method = make_method(LogitAdjustPosthoc, params, counts=counts)
    logits = np.stack([np.zeros(len(leads)), np.array(leads)], 1).astype(np.float32)
    method.fit_posthoc(nn.Identity(), ValOutputs(logits=logits, labels=np.array(labels)))
    return method


def test_it_is_the_logits_minus_tau_log_prior(make_method):
    method = fitted(make_method, [1.0], [0], tau=1.5)
    expected = np.array([[-1.5 * np.log(0.1), 2.0 - 1.5 * np.log(0.9)]])
    np.testing.assert_allclose(method.adjust(np.array([[0.0, 2.0]], np.float32), None), expected, rtol=1e-6)
    assert method.adjust(np.zeros((3, 2), np.float32), None).dtype == np.float32


def test_tau_is_the_smallest_of_the_best_on_validation(make_method):
    # the rare image is found from tau > 1 / 2.197 = 0.455 on, the frequent one is lost from tau > 2 / 2.197 = 0.910 on
    method = fitted(make_method, [1.0, 2.0], [0, 1])
    assert method.tau == 0.5
    assert TAUS[0] == 0
    assert TAUS[-1] == 2


def test_without_a_gain_nothing_changes(make_method):
    assert fitted(make_method, [-1.0, 1.0], [0, 1]).tau == 0.0
    assert fitted(make_method, [1.0, 2.0], [0, 1], counts=(50, 50)).tau == 0.0, "equal shares shift nothing"


def test_the_criterion_can_be_chosen(make_method):
    # one rare image behind by 1, three frequent ones ahead by 0.9: each tau that finds the first loses the others
    leads, labels = [1.0, 0.9, 0.9, 0.9, 3.0], [0, 1, 1, 1, 1]
    assert fitted(make_method, leads, labels, criterion="accuracy").tau == 0.0
    assert fitted(make_method, leads, labels, criterion="mean_recall").tau == 0.5


def test_a_class_without_training_images_stays_as_it_is(make_method):
    method = fitted(make_method, [0.0], [0], counts=(0, 100), tau=1.0)
    np.testing.assert_array_equal(method.adjust(np.array([[1.0, 2.0]], np.float32), None), [[1.0, 2.0]])


def test_the_scores_are_those_of_the_harness():
    from fer_bench.stats.confusion import SCORES, confusion_matrix

    draw = np.random.default_rng(0)
    for _ in range(20):
        labels, predicted = draw.integers(0, 4, 30), draw.integers(0, 5, 30)  # class 4 has no image
        matrix = confusion_matrix(labels, predicted, 5)
        for name, of in SCORES.items():
            assert score(name, labels, predicted, 5) == pytest.approx(float(of(matrix)))


def test_the_state_holds_what_was_chosen(make_method):
    first = fitted(make_method, [1.0, 2.0], [0, 1])
    second = make_method(LogitAdjustPosthoc, {}, counts=COUNTS)
    second.load_state_dict(first.state_dict())
    logits = np.array([[0.0, 1.0]], np.float32)
    np.testing.assert_array_equal(first.adjust(logits, None), second.adjust(logits, None))


@pytest.mark.parametrize(
    ("typed", "value"), [("validation", "validation"), ("1", 1.0), ("0.35", 0.35), (2, 2.0), ("10", 10.0)]
)
def test_tau_is_a_number_or_the_word(typed, value):
    assert card.resolve({"tau": typed})["tau"] == value
    assert type(card.resolve({"tau": typed})["tau"]) is type(value)


@pytest.mark.parametrize("typed", ["val", "-1", "11", "nan", "true", "", None])
def test_tau_is_nothing_else(typed):
    with pytest.raises(SpecError) as caught:
        card.resolve({"tau": typed})
    assert "0 to 10, or validation" in (caught.value.hint or "")
