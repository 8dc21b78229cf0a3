"""Detectable gains against simulation, statsmodels and arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from fer_bench.stats import intervals, mcnemar, power


def test_connors_formula_is_solved():
    # By hand for psi = .2: ((1.95996 · .44721 + .84162 · sqrt(.2 - .02734)) / .16535)² = (1.22623 / .16535)² = 55.0
    assert power.detectable_by_mcnemar(0.2, 55) == pytest.approx(0.16535, abs=1e-5)


@pytest.mark.parametrize("wanted", [0.3, 0.5, 0.8, 0.95])
@pytest.mark.parametrize(("psi", "images"), [(0.4, 55), (0.05, 879)])
def test_the_solution_gives_the_images_back(psi, images, wanted):
    d = power.detectable_by_mcnemar(psi, images, power=wanted)
    z_alpha, z_power = scipy_stats.norm.ppf([0.975, wanted])
    assert (z_alpha * psi**0.5 + z_power * (psi - d * d) ** 0.5) ** 2 / d**2 == pytest.approx(images)


@pytest.mark.parametrize(("discordance", "images"), [(0.2, 55), (0.15, 528)])
def test_mcnemar_finds_the_detectable_difference_in_four_of_five_simulated_studies(discordance, images):
    d = power.detectable_by_mcnemar(discordance, images)
    counts = np.random.default_rng(0).multinomial(
        images, [(discordance + d) / 2, (discordance - d) / 2, 1 - discordance], size=2000
    )
    gained, lost = counts[:, 0], counts[:, 1]
    midp = np.mean([mcnemar.mcnemar(int(g), int(k), images).midp < 0.05 for g, k in zip(gained, lost, strict=True)])
    assert midp == pytest.approx(0.8, abs=0.04)


def study(rng, gain: float, seeds: int, images: int, own: float = 0.1):
    """Both methods' answers [S, n] to images of class 0, with chances that differ between seeds, images and pairs."""
    hard = 0.3 * rng.normal(size=images)
    chance = [0.6 + shift + 0.02 * rng.normal(size=(seeds, 1)) + hard + own * rng.normal(size=images)
              for shift in (gain, 0.0)]  # fmt: skip
    return [(rng.random((seeds, images)) > c).astype(int) for c in chance]


@pytest.mark.parametrize(("seeds", "images"), [(5, 55), (3, 160)])
def test_the_crossed_test_finds_the_detectable_gain_in_about_four_of_five_simulated_studies(seeds, images):
    rng = np.random.default_rng(2)
    # Truth from a very large pilot. Chances end at 0 and 1, so the gain comes out smaller than asked: it is measured.
    ours, reference = study(rng, 0.0, 60, 3000)
    spread = power.components((ours == 0).astype(float) - (reference == 0))
    wanted = power.detectable_gain(spread, seeds, images)
    ours, reference = study(rng, wanted, 60, 3000)
    shift = wanted * wanted / ((ours == 0).mean() - (reference == 0).mean())
    labels, found = np.zeros(images, int), 0
    for _ in range(400):
        ours, reference = study(rng, shift, seeds, images)
        metric = {"r": intervals.recall_of(0)}
        found += intervals.crossed_difference(labels, ours, reference, metric, classes=2)["r"].p < 0.05
    assert found / 400 == pytest.approx(0.8, abs=0.07)


def test_the_components_are_those_of_a_layout_whose_parts_are_known():
    rng = np.random.default_rng(0)
    gains = 0.2 * rng.normal(size=(400, 1)) + 0.3 * rng.normal(size=400) + 0.5 * rng.normal(size=(400, 400))
    found = power.components(gains)
    assert (found.seed, found.image, found.rest) == pytest.approx((0.04, 0.09, 0.25), rel=0.15)
    assert found.variance(4, 10) == pytest.approx(found.seed / 4 + found.image / 10 + found.rest / 40)


def test_components_by_hand():
    # Rows .5 and -.5 on average, columns 0 and 0, rest 0: seed variance .5, image variance 0.
    found = power.components(np.array([[0.5, 0.5], [-0.5, -0.5]]))
    assert (found.seed, found.image, found.rest) == (0.5, 0.0, 0.0)


def test_the_parts_add_up_to_the_crossed_standard_error():
    rng = np.random.default_rng(5)
    ours, reference = study(rng, 0.05, 5, 80, own=0.3)
    labels, metric = np.zeros(80, int), {"r": intervals.recall_of(0)}
    spread = power.components((ours == 0).astype(float) - (reference == 0))
    interval = intervals.crossed_difference(labels, ours, reference, metric, classes=2)["r"]
    half = scipy_stats.t.ppf(0.975, spread.freedom(5, 80)) * spread.variance(5, 80) ** 0.5
    assert min(spread.seed, spread.image) > 0  # else one of them was cut at zero and the two need not agree
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=1e-9)


def test_power_is_that_of_statsmodels_one_sample_t_test_where_seeds_are_all():
    theirs = pytest.importorskip("statsmodels.stats.power").TTestPower()
    spread = power.Components(seed=0.03**2, image=0.0, rest=0.0)
    for gain in (0.01, 0.03, 0.06):
        expected = theirs.power(effect_size=gain / 0.03, nobs=5, alpha=0.05, alternative="two-sided")
        assert power.power_of(gain, spread, 5, 55) == pytest.approx(expected, abs=1e-6)


def test_more_seeds_and_images_find_less_and_more_comparisons_find_more():
    spread = power.Components(seed=1e-4, image=0.05, rest=0.1)
    base = power.detectable_gain(spread, 5, 55)
    assert power.detectable_gain(spread, 10, 55) < base
    assert power.detectable_gain(spread, 5, 528) < base
    assert power.detectable_gain(spread, 5, 55, comparisons=8) > base
    assert power.power_of(base, spread, 5, 55) == pytest.approx(0.8, abs=1e-6)
    assert power.power_of(1e-5, spread, 5, 55) == pytest.approx(0.05, abs=1e-6)
    assert power.power_of(0.0, spread, 5, 55) == pytest.approx(0.05, abs=1e-6)


def test_what_no_gain_can_reach_is_infinite():
    assert power.detectable_gain(power.assumed_components(1.0, 0.5), 2, 2) == np.inf
    assert power.detectable_by_mcnemar(0.02, 55) == np.inf  # one discordant image is never significant
    assert power.detectable_by_mcnemar(0.0, 55) == np.inf
    assert power.detectable_gain(power.Components(seed=0.0, image=0.0, rest=0.0), 2, 55) == 0.0


def test_the_assumption_without_a_pilot_is_on_the_safe_side_of_one_with_it():
    rng = np.random.default_rng(3)
    ours, reference = study(rng, 0.0, 10, 500)
    gains = (ours == 0).astype(float) - (reference == 0)
    discordance = float((gains != 0).mean())
    assumed = power.detectable_gain(power.assumed_components(discordance, 0.03), 5, 55)
    assert assumed > power.detectable_gain(power.components(gains), 5, 55)


def test_one_seed_is_refused():
    spread = power.assumed_components(0.2)
    with pytest.raises(ValueError, match="two seeds"):
        power.detectable_gain(spread, 1, 55)
    with pytest.raises(ValueError, match="two each"):
        power.components(np.zeros((1, 55)))
