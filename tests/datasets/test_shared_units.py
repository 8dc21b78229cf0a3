"""The share of disgust's action units that other expressions have (``synthetic[shared]``)."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_bench.datasets._synthetic.action_units import (
    EXPRESSIONS,
    PROTOTYPE_UNITS,
    UNITS,
    draw_units,
    prototypes,
    shared_mass,
)
from fer_bench.datasets.synthetic import Synthetic, card
from fer_bench.errors import SpecError
from fer_bench.rng import numpy_generator
from tests.datasets.conftest import drawn

# probability times mean intensity of disgust's units, from the table by hand
MASS = {9: 0.72, 10: 0.595, 15: 0.27, 16: 0.28, 17: 0.24, 4: 0.175}
MASS_TOTAL = 2.28


def test_shared_mass_by_hand():
    # fear: 1 .68, 2 .49, 4 .39, 5 .6, 7 .14, 20 .52, 25 .36, 26 .25, in all 3.43; nobody else has 20
    of = prototypes()
    assert shared_mass("fear", of) == pytest.approx(2.91 / 3.43)
    assert shared_mass("disgust", of) == pytest.approx((MASS[15] + MASS[17] + MASS[4]) / MASS_TOTAL)
    assert shared_mass("sad", of) == shared_mass("surprise", of) == 1
    assert math.isnan(shared_mass("neutral", of))


def test_default_share_is_emfacs():
    assert card.params["shared"].default == 0.3
    assert prototypes(0.3) == EXPRESSIONS


@pytest.mark.parametrize(
    ("shared", "own"),
    [
        (0, {9: 0.8, 10: 0.7, 16: 0.4, 19: 0.35, 38: 0.4, 14: 0.45}),
        # (0.5 - 0.3) / 0.7 of the mass 1.595 on 9, 10 and 16 is 0.4557: 16 (0.28), and 0.1757 / 0.595 = 0.2953 of 10
        (0.5, {9: 0.8, 10: 0.7 * 0.7047, 5: 0.7 * 0.2953, 15: 0.45, 20: 0.4, 17: 0.4, 4: 0.35}),
        (1, {6: 0.8, 5: 0.7, 15: 0.45, 20: 0.4, 17: 0.4, 4: 0.35}),
    ],
)
def test_units_of_disgust_by_hand(shared, own):
    of = prototypes(shared)
    assert {unit: p for unit, (p, _) in of["disgust"].items()} == pytest.approx(own, abs=1e-4)
    assert {k: v for k, v in of.items() if k != "disgust"} == {k: v for k, v in EXPRESSIONS.items() if k != "disgust"}


@given(st.floats(0, 1))
def test_shared_mass_is_the_parameter_to_three_digits(shared):
    assert shared_mass("disgust", prototypes(shared)) == pytest.approx(shared, abs=5e-4)


@given(st.floats(0, 1), st.floats(0, 1))
def test_shared_mass_rises_with_the_parameter(one, other):
    masses = [shared_mass("disgust", prototypes(shared)) for shared in sorted((one, other))]
    assert masses[0] <= masses[1] + 1e-8


@given(st.floats(0, 1))
def test_mass_and_strength_of_disgust_do_not_depend_on_the_share(shared):
    own = prototypes(shared)["disgust"]
    assert sum(p * mean for p, mean in own.values()) == pytest.approx(MASS_TOTAL)
    assert sum(p for p, _ in own.values()) == pytest.approx(3.1)


@pytest.mark.parametrize("shared", [0.0, 0.2, 0.5, 1.0])
def test_share_changes_nothing_but_which_units_disgust_shows(shared):
    expressions = np.arange(7000) % 7
    natural = draw_units(expressions, numpy_generator(1, "units"))
    units = draw_units(expressions, numpy_generator(1, "units"), shared)
    drawn = len(UNITS) if shared > 0.3 else len(PROTOTYPE_UNITS)
    assert np.array_equal(units[expressions != 1, :drawn], natural[expressions != 1, :drawn])
    if shared > 0.3:  # the same numbers in other columns
        assert np.array_equal(np.sort(units[expressions == 1]), np.sort(natural[expressions == 1]))


@pytest.mark.parametrize("shared", [0.0, 0.2, 0.5, 1.0])
def test_faces_of_disgust_have_the_mass_that_the_table_promises(shared):
    units = draw_units(np.ones(40_000, np.int64), numpy_generator(2, "units"), shared) / 100
    own = prototypes(shared)["disgust"]
    for k, unit in enumerate(UNITS):
        probability, mean = own.get(unit, (0.0, 0.0))
        # The overall strength is 0.75 on average; clipping at 1 costs little. 4 % show a unit by chance, at 0.35.
        expected, chance = probability * mean * 0.75, 0.04 * 0.35
        error = 4 * units[:, k].std() / 200
        assert expected - error - 0.01 * probability <= units[:, k].mean() <= expected + chance + error


def test_units_of_no_prototype_occur_by_chance_where_they_stand_in():
    happy = np.full(20_000, 3)
    expected = {0.0: (True, True, True), 0.29: (True, False, False), 0.3: (False,) * 3, 1.0: (False,) * 3}
    for shared, there in expected.items():
        often = (draw_units(happy, numpy_generator(0, "units"), shared)[:, 17:] > 0).mean(0)
        assert often == pytest.approx(0.04 * np.asarray(there), abs=0.006)  # four standard errors of 0.0014


def test_pictures_of_other_classes_are_the_same_bytes_at_every_share_from_emfacs_on():
    natural, other = drawn(size=400), drawn(size=400, shared=1.0)
    disgust = natural["labels"] == 1
    assert np.array_equal(natural["images"][~disgust], other["images"][~disgust])
    assert (natural["images"][disgust] != other["images"][disgust]).any((1, 2, 3)).mean() > 0.9


def test_share_outside_0_to_1_is_refused():
    for wrong in (-0.1, 1.1, "emfacs", float("nan")):
        with pytest.raises(SpecError, match="shared"):
            Synthetic({"shared": wrong})


def test_preparing_says_what_share_is_shared():
    assert "; 30 % of disgust's action units" in Synthetic().read(None).summary
    assert "; 75 % of disgust's action units" in Synthetic({"shared": 0.75}).read(None).summary
