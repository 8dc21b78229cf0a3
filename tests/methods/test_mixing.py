"""Mixing of a batch: pixels, label shares and targets against NumPy in float64, and label rules by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fer_bench.contract.batch import Batch
from fer_bench.methods._shared.mixing import (
    MIXES,
    beta,
    blended,
    cut_to,
    mamix_share,
    mixed,
    pasted,
    rectangle,
    remix_share,
)

from .conftest import FER2013


def batch_of(y, views=1, side=8, seed=0, soft=None, offset=0.0):
    g = torch.Generator().manual_seed(seed)
    images = [torch.randn(len(y), 1, side, side, generator=g) + offset for _ in range(views)]
    return Batch(views=images, y=torch.tensor(y), index=torch.arange(len(y)), generator=g, soft=soft)


def float64(tensor):
    return tensor.double().numpy()


# -- blending and pasting --------------------------------------------------------------------------------------------


def test_blended_images_and_targets_are_the_convex_combinations():
    a, b = batch_of([0, 1, 2], views=2), batch_of([2, 2, 0], views=2, seed=1)
    label = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    out = blended(a, b, 3, 0.7, label)
    for view, one, two in zip(out.views, a.views, b.views, strict=True):
        assert float64(view) == pytest.approx(0.7 * float64(one) + 0.3 * float64(two), abs=1e-6)
    expected = [[0, 0, 1], [0, 0.25, 0.75], [0, 0, 1]]
    assert out.soft.tolist() == expected
    assert out.soft.dtype == out.x.dtype == torch.float32
    assert torch.equal(out.y, a.y)


@settings(deadline=None, max_examples=40)
@given(share=st.floats(0, 1), height=st.integers(1, 20), width=st.integers(1, 20), seed=st.integers(0, 999))
def test_a_pasted_label_has_exactly_the_share_of_its_pixels(share, height, width, seed):
    g = torch.Generator().manual_seed(seed)
    a = Batch(views=[torch.zeros(2, 1, height, width)] * 2, y=torch.tensor([0, 1]), index=torch.arange(2), generator=g)
    b = a.with_(views=[torch.ones(2, 1, height, width)] * 2, y=torch.tensor([1, 1]))
    out = pasted(a, b, 2, share)
    pixels = int(out.x[0].sum())
    assert torch.equal(out.views[0], out.views[1])
    assert out.soft[0, 1].item() == pytest.approx(pixels / (height * width), abs=1e-7)
    assert out.soft.sum(1).tolist() == pytest.approx([1, 1])
    assert out.soft[1].tolist() == pytest.approx([0, 1])
    assert a.x.abs().sum() == 0, "the batch itself must stay as it is"
    assert pixels <= (1 - share) * height * width + 1e-6


def test_rectangles_are_centred_on_uniform_points_and_cut_off_at_the_border():
    g = torch.Generator().manual_seed(0)
    boxes = np.array([rectangle(10, 20, 0.75, g) for _ in range(4000)])  # half of 5 rounded down, half of 10
    heights, widths = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    # centres 0 and 1 lose two and one rows at the top, 9 one at the bottom
    assert stats.chisquare(np.bincount(heights, minlength=5)[2:], [400, 800, 2800]).pvalue > 0.001
    assert widths.min() == 5
    assert widths.max() == 10
    assert boxes.min() >= 0
    assert boxes[:, 1].max() <= 10


def test_a_share_of_one_pastes_nothing_and_of_zero_at_most_everything():
    a, b = batch_of([0, 1]), batch_of([1, 0], seed=1)
    assert torch.equal(pasted(a, b, 2, 1.0).x, a.x)
    assert pasted(a, b, 2, 1.0).soft.tolist() == [[1, 0], [0, 1]]


def test_a_shorter_batch_is_repeated_from_its_start():
    out = cut_to(batch_of([3, 5]), 5)
    assert out.y.tolist() == [3, 5, 3, 5, 3]
    assert cut_to(batch_of([3, 5]), 1).y.tolist() == [3]


# -- whose label -----------------------------------------------------------------------------------------------------


def sizes(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("share", "own", "other", "expected"),
    [
        (0.4, 300, 100, 0.0),  # κ = 3 is reached and λ < τ: the rare partner takes the label
        (0.4, 299, 100, 0.4),
        (0.5, 300, 100, 0.5),  # λ must be below τ
        (0.6, 100, 300, 1.0),  # the rare image itself
        (0.5, 100, 300, 0.5),
        (0.4, 100, 300, 0.4),  # rare, but with the smaller share
        (0.6, 300, 100, 0.6),
        (0.0, 5, 5, 0.0),
        (1.0, 5, 5, 1.0),
    ],
)
def test_remix_by_hand(share, own, other, expected):
    assert remix_share(share, sizes(own), sizes(other), 3.0, 0.5).tolist() == pytest.approx([expected])


def test_mamix_by_hand():
    # n = 1 and 16: k = 1 and 1/2, so κ = 2/3 for the rare image with the frequent partner, 1/3 the other way round
    def rare(share):
        return mamix_share(share, sizes(1), sizes(16), -0.25).item()

    def frequent(share):
        return mamix_share(share, sizes(16), sizes(1), -0.25).item()

    assert [rare(1.0), rare(2 / 3), rare(1 / 3), rare(1 / 6), rare(0.0)] == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    assert [frequent(1.0), frequent(2 / 3), frequent(1 / 3), frequent(0.0)] == pytest.approx([1, 0.5, 0.25, 0])
    assert mamix_share(0.3, sizes(7), sizes(7), -0.25).item() == pytest.approx(0.3)  # equal classes: mixup


@settings(deadline=None, max_examples=100)
@given(share=st.floats(0, 1), own=st.integers(1, 10**5), other=st.integers(1, 10**5))
def test_mamix_is_a_share_and_fair_to_both_sides(share, own, other):
    label = mamix_share(share, sizes(own), sizes(other), -0.25).item()
    assert 0 <= label <= 1
    assert mamix_share(1 - share, sizes(other), sizes(own), -0.25).item() == pytest.approx(1 - label, abs=1e-9)


def test_mamix_has_no_gap_where_the_boundary_lies():
    middle = 7215**-0.25 / (7215**-0.25 + 436**-0.25)
    around = [mamix_share(1 - middle + e, sizes(7215), sizes(436), -0.25).item() for e in (-1e-12, 0.0, 1e-12)]
    assert around == pytest.approx([0.5] * 3, abs=1e-9)


# -- a whole batch ---------------------------------------------------------------------------------------------------


def plain_numpy(kind, batch, counts, share, order):
    """Images and targets in float64, image by image."""
    y, x = batch.y.numpy(), float64(batch.x)
    images, targets = np.empty_like(x), np.zeros((len(y), len(counts)))
    for i, j in enumerate(order):
        images[i] = share * x[i] + (1 - share) * x[j]
        ratio = counts[y[i]] / counts[y[j]]
        label = share
        if kind == "remix":
            if ratio >= 3 and share < 0.5:
                label = 0.0
            elif ratio <= 1 / 3 and 1 - share < 0.5:
                label = 1.0
        elif kind == "mamix":
            a, b = counts[y[i]] ** -0.25, counts[y[j]] ** -0.25
            label = np.interp(1 - share, [0, a / (a + b), 1], [1, 0.5, 0])
        targets[i, y[i]] += label
        targets[i, y[j]] += 1 - label
    return images, targets


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["mixup", "remix", "mamix"])
def test_mixed_batches_agree_with_plain_numpy(kind, seed):
    counts = FER2013.astype(float)
    batch = batch_of([0, 1, 1, 3, 3, 5, 6, 1], seed=seed)
    state = batch.generator.get_state()
    out = mixed(kind, batch, FER2013, 1.0)
    g = torch.Generator()
    g.set_state(state)
    share = float(np.random.default_rng(int(torch.randint(2**31, (), generator=g))).beta(1.0, 1.0))
    images, targets = plain_numpy(kind, batch, counts, share, torch.randperm(8, generator=g).tolist())
    assert float64(out.x) == pytest.approx(images, abs=1e-6)
    assert float64(out.soft) == pytest.approx(targets, abs=1e-6)


@pytest.mark.parametrize("kind", MIXES)
@pytest.mark.parametrize("y", [[2], [0, 1, 1, 3, 3, 5, 6, 1]])
def test_targets_sum_to_one_and_views_are_mixed_alike(kind, y):
    for seed in range(6):
        batch = batch_of(y, views=2, seed=seed)
        batch.views[1] = batch.views[0] + 1  # then the mixed views differ by 1 as well
        out = mixed(kind, batch, FER2013, 1.0)
        assert (out.views[1] - out.views[0]).numpy() == pytest.approx(1, abs=1e-5)
        if out.soft is not None:
            assert out.soft.sum(1).tolist() == pytest.approx([1] * len(y))
            assert (out.soft >= 0).all()


@pytest.mark.parametrize("kind", MIXES)
def test_votes_are_mixed_as_distributions(kind):
    soft = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.2, 0.8], [1.0, 0.0, 0.0]])
    out = mixed(kind, batch_of([0, 2, 0], soft=soft, seed=2), np.array([30, 20, 10]), 1.0)
    assert out.soft.sum(1).tolist() == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("kind", MIXES)
def test_the_same_generator_gives_the_same_batch(kind):
    first, second = (mixed(kind, batch_of([0, 1, 2, 3], seed=5), FER2013, 0.4) for _ in range(2))
    assert torch.equal(first.x, second.x)


def test_cutmix_changes_half_of_the_batches():
    changed = sum(mixed("cutmix", batch_of([0, 1], seed=s), FER2013, 1.0).soft is not None for s in range(400))
    assert stats.binomtest(changed, 400, 0.5).pvalue > 0.001


def test_shares_have_the_distribution_asked_for():
    g = torch.Generator().manual_seed(0)
    draws = [beta(0.2, 1.0, g) for _ in range(500)]
    assert stats.kstest(draws, stats.beta(0.2, 1.0).cdf).pvalue > 0.001
