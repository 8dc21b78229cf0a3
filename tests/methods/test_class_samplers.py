"""Samplers by class: where they may go, how often, how long, and that they repeat."""

import pickle
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fer_bench.contract.batch import TrainView
from fer_bench.methods._shared.samplers import (
    SAMPLERS,
    ClassesPerBatch,
    Effective,
    Power,
    Progressive,
    RepeatFactor,
    Undersample,
    make_sampler,
)
from fer_bench.rng import numpy_generator

from .conftest import FER2013

COUNTS = (40, 4, 0, 72, 1)
WITH_N = [kind for kind in SAMPLERS if kind != "pk"]


def view_of(counts, seed=0):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    return TrainView(images=torch.zeros(len(labels), 1, 1, 1), labels=labels, num_classes=len(counts))


def context(seed=0):
    return SimpleNamespace(epochs=5, batch_size=8, seed=seed)


def test_a_subset_that_lasts_is_another_for_another_seed():
    view = view_of((40, 4))
    seen = [set(draw(make_sampler("undersample", context(seed)), view)) for seed in (0, 1)]
    assert seen[0] != seen[1]


def draw(sampler, view, epoch=0, seed=0):
    return sampler(view, epoch, numpy_generator(seed, "sampler", epoch))


@settings(deadline=None, max_examples=25)
@given(
    counts=st.lists(st.integers(0, 30), min_size=2, max_size=6).filter(any),
    kind=st.sampled_from(WITH_N),
    epoch=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_every_sampler_gives_as_many_positions_as_there_are_images_all_within_the_fold(counts, kind, epoch, seed):
    view = view_of(counts)
    positions = draw(make_sampler(kind, context(seed)), view, epoch, seed)
    assert positions.dtype == np.int64
    assert positions.shape == (len(view),)
    assert positions.min() >= 0
    assert positions.max() < len(view)


@pytest.mark.parametrize("kind", SAMPLERS)
def test_every_sampler_survives_pickling_and_repeats_for_a_seed_and_an_epoch(kind):
    view = view_of(COUNTS)
    sampler = make_sampler(kind, context())
    again = pickle.loads(pickle.dumps(sampler))
    assert again == sampler
    first = draw(sampler, view, epoch=1)
    assert (draw(again, view, epoch=1) == first).all()
    assert (draw(sampler, view, epoch=2) != first).any()
    assert (draw(sampler, view, epoch=1, seed=1) != first).any()


# -- undersampling ---------------------------------------------------------------------------------------------------


def test_undersampling_once_sees_the_smallest_class_size_of_every_class_in_all_epochs():
    view = view_of((40, 4, 0, 72))
    epochs = [draw(Undersample(seed=3), view, epoch) for epoch in range(5)]
    seen = np.unique(np.concatenate(epochs))
    assert np.bincount(view.labels[seen], minlength=4).tolist() == [4, 4, 0, 4]
    for positions in epochs:  # 116 positions are 9 rounds over 12 images, and 8 of a tenth
        assert len(positions) == 116
        assert set(Counter(positions.tolist()).values()) <= {9, 10}


def test_the_subset_of_a_run_depends_on_its_seed():
    view = view_of((40, 4, 0, 72))
    assert set(draw(Undersample(seed=0), view)) != set(draw(Undersample(seed=1), view))


def test_minimal_resampling_draws_another_subset_every_round():
    view = view_of((40, 4, 0, 72))
    positions = draw(Undersample(redraw=True), view)
    rounds = [set(positions[k : k + 12]) for k in range(0, 108, 12)]
    for subset in rounds:
        assert np.bincount(view.labels[list(subset)], minlength=4).tolist() == [4, 4, 0, 4]
    assert len({frozenset(s) for s in rounds}) == 9
    assert len(draw(Undersample(redraw=True, epoch_length="full"), view)) == 12


@settings(deadline=None, max_examples=25)
@given(
    counts=st.lists(st.integers(0, 40), min_size=2, max_size=6).filter(any),
    cap=st.integers(1, 50),
    redraw=st.booleans(),
)
def test_a_cap_bounds_every_class_and_no_image_comes_twice_in_a_round(counts, cap, redraw):
    view = view_of(counts)
    positions = draw(Undersample(redraw=redraw, cap=cap, epoch_length="full"), view)
    assert len(np.unique(positions)) == len(positions)
    assert np.bincount(view.labels[positions], minlength=len(counts)).tolist() == np.minimum(counts, cap).tolist()


def test_every_image_of_a_class_is_equally_likely_to_be_kept():
    view = view_of((12, 3))
    kept = np.concatenate([draw(Undersample(epoch_length="full", seed=s), view) for s in range(400)])
    times = np.bincount(kept, minlength=15)[view.labels == 0]
    assert times.sum() == 1200
    assert stats.chisquare(times).pvalue > 0.001


# -- classes by probability ------------------------------------------------------------------------------------------


def test_probabilities_of_powers_by_hand():
    counts = np.array([16, 4, 0, 1])
    assert Power(q=1.0).probabilities(counts) == pytest.approx([16 / 21, 4 / 21, 0, 1 / 21])
    assert Power(q=0.5).probabilities(counts) == pytest.approx([4 / 7, 2 / 7, 0, 1 / 7])
    assert Power(q=0.0).probabilities(counts) == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])
    assert Power(q=-1.0).probabilities(counts) == pytest.approx([1 / 21, 4 / 21, 0, 16 / 21])


def test_progressive_sampling_starts_with_instances_and_ends_with_classes():
    counts = np.array([60, 20, 0, 20])
    sampler = Progressive(epochs=5)
    assert sampler.probabilities(counts, 0) == pytest.approx([0.6, 0.2, 0, 0.2])
    assert sampler.probabilities(counts, 1) == pytest.approx([1.6 / 3, 0.7 / 3, 0, 0.7 / 3])
    assert sampler.probabilities(counts, 4) == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])
    assert sampler.probabilities(counts, 7) == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])
    assert Progressive(epochs=1).probabilities(counts, 0) == pytest.approx([0.6, 0.2, 0, 0.2])


def test_effective_sampling_by_hand():
    # β = 0.5: E(1) = 1, E(2) = 1.5, E(3) = 1.75; p ∝ 1/1, 2/1.5, 3/1.75
    raw = np.array([1.0, 4 / 3, 0.0, 12 / 7])
    assert Effective(beta=0.5).probabilities(np.array([1, 2, 0, 3])) == pytest.approx(raw / raw.sum())
    assert Effective(beta=0.0).probabilities(np.array([30, 10])) == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize("sampler", [Power(q=0.5), Power(q=-1.0), Progressive(epochs=4), Effective(beta=0.99)], ids=str)
def test_classes_come_as_often_as_their_probability_and_images_of_a_class_alike(sampler):
    view = view_of((60, 20, 0, 3))
    expected = sampler.probabilities(view.counts, *((2,) if isinstance(sampler, Progressive) else ()))
    positions = np.concatenate([draw(sampler, view, epoch=2, seed=s) for s in range(100)])
    by_class = np.bincount(view.labels[positions], minlength=4)
    present = [0, 1, 3]
    assert by_class[2] == 0
    assert stats.chisquare(by_class[present], (expected * len(positions))[present]).pvalue > 0.001
    for c in present:
        assert stats.chisquare(np.bincount(positions, minlength=83)[view.labels == c]).pvalue > 0.001


# -- repeat factors --------------------------------------------------------------------------------------------------


def test_repeat_factors_of_fer2013():
    printed = [1.0132, 3.0670, 1.0005, 1.0, 1.0, 1.1373, 1.0]
    assert RepeatFactor().factors(FER2013) == pytest.approx(printed, abs=5e-5)
    assert RepeatFactor(threshold=1 / 7).factors(FER2013) == pytest.approx(printed, abs=5e-5)


def test_images_come_floor_times_and_once_more_by_chance():
    view = view_of((90, 10, 0))  # t = 1/2: the factor of class 1 is √5 = 2.236
    sampler = RepeatFactor(epoch_length="full")
    times = np.array([np.bincount(draw(sampler, view, seed=s), minlength=100) for s in range(300)])
    assert (times[:, view.labels == 0] == 1).all()
    rare = times[:, view.labels == 1]
    assert set(np.unique(rare)) == {2, 3}
    assert stats.binomtest(int((rare == 3).sum()), rare.size, 5**0.5 - 2).pvalue > 0.001


# -- P classes, K images ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(
    counts=st.lists(st.integers(0, 30), min_size=2, max_size=6).filter(any),
    classes=st.integers(0, 7),
    batch_size=st.integers(0, 12),
    seed=st.integers(0, 9),
)
def test_each_batch_holds_p_classes_as_evenly_as_can_be(counts, classes, batch_size, seed):
    view = view_of(counts)
    positions = draw(ClassesPerBatch(batch_size=batch_size, classes=classes), view, seed=seed)
    present = np.count_nonzero(counts)
    width = min(classes or present, present)
    size = batch_size or width
    assert positions.dtype == np.int64
    assert len(positions) == size * max(1, len(view) // size)
    for batch in positions.reshape(-1, size):
        held = np.bincount(view.labels[batch], minlength=len(counts))
        assert np.count_nonzero(held) == min(width, size)
        assert np.ptp(held[held > 0]) <= 1


def test_a_class_goes_through_all_its_images_before_it_repeats_one():
    view = view_of((30, 6, 24))
    positions = draw(ClassesPerBatch(batch_size=12), view)
    assert len(positions) == 60
    for c, n in enumerate((30, 6, 24)):
        drawn = positions[view.labels[positions] == c]
        assert len(drawn) == 20
        times = np.bincount(np.searchsorted(np.flatnonzero(view.labels == c), drawn), minlength=n)
        assert np.ptp(times) <= 1


def test_every_choice_of_classes_is_equally_likely():
    view = view_of((50, 50, 50, 50))
    pairs = Counter()
    for seed in range(30):
        batches = view.labels[draw(ClassesPerBatch(batch_size=4, classes=2), view, seed=seed)].reshape(-1, 4)
        pairs.update(tuple(np.unique(batch)) for batch in batches)
    assert len(pairs) == 6
    assert stats.chisquare(list(pairs.values())).pvalue > 0.001
