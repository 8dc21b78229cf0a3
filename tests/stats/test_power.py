"""Detectable gains against simulation, statsmodels and arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from fer_bench.stats import mcnemar, power
from fer_bench.stats.confusion import ClassRecall
from fer_bench.stats.crossed_errors import jackknife
from fer_bench.stats.intervals import score_differences, t_intervals
from fer_bench.stats.sampling import Truth


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
    mid_p = np.mean([mcnemar.mcnemar(int(g), int(k), images).mid_p < 0.05 for g, k in zip(gained, lost, strict=True)])
    assert mid_p == pytest.approx(0.8, abs=0.04)


def crossed_test(ours, reference):
    """The crossed t-test of the gain in recall on images of class 0."""
    truth = Truth(labels=np.zeros(ours.shape[1], int), classes=2)
    a, b = (jackknife(truth, side, {"r": ClassRecall(0)}) for side in (ours, reference))
    return t_intervals(a - b)["r"]


def study(rng, gain: float, seeds: int, images: int, own: float = 0.1):
    """Both methods' answers [S, n] to images of class 0, with chances that differ between seeds, images and pairs."""
    hard = 0.3 * rng.normal(size=images)
    chance = [0.6 + shift + 0.02 * rng.normal(size=(seeds, 1)) + hard + own * rng.normal(size=images)
              for shift in (gain, 0.0)]  # fmt: skip
    return [(rng.random((seeds, images)) > c).astype(int) for c in chance]


def verdict(ours, reference):
    """The p-value that reports print for the gain in recall of class 0, whose answers are 0."""
    truth = Truth(labels=np.zeros(ours.shape[1], int), classes=2)
    return score_differences(*(jackknife(truth, side, {"r": ClassRecall(0)}) for side in (ours, reference)))["r"].p


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "images"), [(5, 55), (3, 160)])
def test_the_p_value_of_reports_finds_the_detectable_gain_in_about_four_of_five_simulated_studies(seeds, images):
    rng = np.random.default_rng(2)
    # Truth from a very large pilot. Chances end at 0 and 1, so the gain comes out smaller than asked: it is measured.
    ours, reference = study(rng, 0.0, 60, 3000)
    components = power.variance_components((ours == 0).astype(float) - (reference == 0))
    wanted = power.detectable_gain(components, seeds, images)
    ours, reference = study(rng, wanted, 60, 3000)
    shift = wanted * wanted / ((ours == 0).mean() - (reference == 0).mean())
    detected = sum(verdict(*study(rng, shift, seeds, images)) < 0.05 for _ in range(400))
    assert detected / 400 == pytest.approx(0.8, abs=0.07)


def test_the_components_are_those_of_a_layout_whose_parts_are_known():
    rng = np.random.default_rng(0)
    gains = 0.2 * rng.normal(size=(400, 1)) + 0.3 * rng.normal(size=400) + 0.5 * rng.normal(size=(400, 400))
    components = power.variance_components(gains)
    assert (components.var_seeds, components.var_images, components.var_residual) == pytest.approx(
        (0.04, 0.09, 0.25), rel=0.15
    )
    assert components.variance(4, 10) == pytest.approx(
        components.var_seeds / 4 + components.var_images / 10 + components.var_residual / 40
    )


def test_components_by_hand():
    # Rows .5 and -.5 on average, columns 0 and 0, rest 0: seed variance .5, image variance 0.
    components = power.variance_components(np.array([[0.5, 0.5], [-0.5, -0.5]]))
    assert (components.var_seeds, components.var_images, components.var_residual) == (0.5, 0.0, 0.0)


def test_the_parts_add_up_to_the_crossed_standard_error():
    rng = np.random.default_rng(5)
    ours, reference = study(rng, 0.05, 5, 80, own=0.3)
    components = power.variance_components((ours == 0).astype(float) - (reference == 0))
    interval = crossed_test(ours, reference)
    half = scipy_stats.t.ppf(0.975, components.df(5, 80)) * components.variance(5, 80) ** 0.5
    assert min(components.var_seeds, components.var_images) > 0  # else one was set to zero and the two may differ
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=1e-9)


def test_power_is_that_of_statsmodels_one_sample_t_test_where_seeds_are_all():
    theirs = pytest.importorskip("statsmodels.stats.power").TTestPower()
    components = power.VarianceComponents(var_seeds=0.03**2, var_images=0.0, var_residual=0.0)
    for gain in (0.01, 0.03, 0.06):
        expected = theirs.power(effect_size=gain / 0.03, nobs=5, alpha=0.05, alternative="two-sided")
        assert power.power_of(gain, components, 5, 55) == pytest.approx(
            expected, abs=1e-5
        )  # SciPy's own precision before 1.15


def test_more_seeds_and_images_find_less_and_more_comparisons_find_more():
    components = power.VarianceComponents(var_seeds=1e-4, var_images=0.05, var_residual=0.1)
    base = power.detectable_gain(components, 5, 55)
    assert power.detectable_gain(components, 10, 55) < base
    assert power.detectable_gain(components, 5, 528) < base
    assert power.detectable_gain(components, 5, 55, comparisons=8) > base
    assert power.power_of(base, components, 5, 55) == pytest.approx(0.8, abs=1e-6)
    assert power.power_of(1e-5, components, 5, 55) == pytest.approx(0.05, abs=1e-6)
    assert power.power_of(0.0, components, 5, 55) == pytest.approx(0.05, abs=1e-6)


def test_what_no_gain_can_reach_is_infinite():
    assert power.detectable_gain(power.assumed_components(1.0, 0.5), 2, 2) == np.inf
    assert power.detectable_by_mcnemar(0.02, 55) == np.inf  # one discordant image is never significant
    assert power.detectable_by_mcnemar(0.0, 55) == np.inf
    assert (
        power.detectable_gain(power.VarianceComponents(var_seeds=0.0, var_images=0.0, var_residual=0.0), 2, 55) == 0.0
    )


def test_the_assumption_without_a_pilot_is_on_the_safe_side_of_one_with_it():
    rng = np.random.default_rng(3)
    ours, reference = study(rng, 0.0, 10, 500)
    gains = (ours == 0).astype(float) - (reference == 0)
    discordance = float((gains != 0).mean())
    assumed = power.detectable_gain(power.assumed_components(discordance, 0.03), 5, 55)
    assert assumed > power.detectable_gain(power.variance_components(gains), 5, 55)


def test_one_seed_is_refused():
    components = power.assumed_components(0.2)
    with pytest.raises(ValueError, match="two seeds"):
        power.detectable_gain(components, 1, 55)
    with pytest.raises(ValueError, match="at least two of each"):
        power.variance_components(np.zeros((1, 55)))
