import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from fer_bench.contract.batch import Augment, StreamSpec, TrainView
from fer_bench.errors import TrainingError
from fer_bench.training.dataplane import DataPlane, _grid, apply, draw, prepare
from fer_bench.training.recipe import Recipe

SHAPE = (1, 12, 20)  # not square, so that a swapped height and width shows
STRONG = Recipe(batch_size=8, flip=0.5, shift=3.0, rotate=15.0, scale=0.2, erase=0.5)
GENTLE = Recipe(batch_size=8, flip=0.0, shift=0.0, rotate=0.0)


def images_of(n, shape=SHAPE, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, *shape), generator=g, dtype=torch.uint8)


def view_of(n, **fields):
    return TrainView(images=images_of(n), labels=np.arange(n) % 4, num_classes=4, **fields)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def largest_draws(monkeypatch):
    """Every uniform number is 1: the largest angle, size and shift to one side, no flip."""
    monkeypatch.setattr(torch, "rand", lambda *size, **kwargs: torch.ones(*size, dtype=kwargs["dtype"]))


# -- augmentation ----------------------------------------------------------------------------------------------------


def test_flip_mirrors_left_and_right_exactly():
    x = prepare(images_of(40), 0)
    found = draw(Augment(flip=0.5), 40, SHAPE, generator())
    mirrored = found.moves[:, 0].numpy()
    assert 5 < mirrored.sum() < 35
    expected = np.where(mirrored[:, None, None, None] == 1, x.numpy()[..., ::-1], x.numpy())
    assert (apply(x, found).numpy() == expected).all()


def whole_moves(n):
    """Images of two channels, their drawn moves, and what numpy's indexing makes of them."""
    x, (_, height, width) = prepare(images_of(n, (2, *SHAPE[1:])), 0), SHAPE
    found = draw(Augment(flip=0.5, shift=3), n, SHAPE, generator())
    expected = []
    for k, (mirrored, down, right) in enumerate(found.moves.tolist()):
        columns = np.arange(width)[::-1] if mirrored else np.arange(width)
        rows, columns = np.clip(np.arange(height) + down, 0, height - 1), np.clip(columns + right, 0, width - 1)
        expected.append(x[k].numpy()[:, rows][:, :, columns])
    return x, found, np.stack(expected)


def test_shift_moves_whole_pixels_and_repeats_the_border():
    x, found, expected = whole_moves(60)
    for axis in (1, 2):
        assert set(found.moves[:, axis].tolist()) == {-3, -2, -1, 0, 1, 2, 3}
    assert set(found.moves[:, 0].tolist()) == {0, 1}
    assert (apply(x, found).numpy() == expected).all(), "not one value changes"


def test_a_shift_by_the_matrix_is_the_shift_by_whole_pixels():
    x, _, expected = whole_moves(60)
    rest = draw(Augment(flip=0.5, shift=3, rotate=1e-9), 60, SHAPE, generator())
    np.testing.assert_allclose(apply(x, rest), expected, atol=1e-4)


def matrices(n=40):
    return draw(Augment(flip=0.5, shift=4, rotate=15, scale=0.2), n, SHAPE, generator())


def test_positions_are_those_of_torch_within_rounding():
    found = matrices()
    expected = torch.nn.functional.affine_grid(found.theta.double(), [40, *SHAPE], align_corners=False)
    torch.testing.assert_close(_grid(found.theta, *SHAPE[1:]).double(), expected, rtol=0, atol=5e-7)


class Operations(TorchDispatchMode):
    """Notes the names of torch's operations."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def products(function):
    """Matrix products among the operations of a call: what a GPU rounds to TF32."""
    with Operations() as seen:
        function()
    return {name for name in seen.names if any(word in name for word in ("mm", "matmul", "affine_grid", "linear"))}


def test_augmentation_multiplies_no_matrices():
    x, found = prepare(images_of(8), 0), matrices(8)
    assert products(lambda: apply(x, found)) == set()
    assert products(lambda: torch.nn.functional.affine_grid(found.theta, [8, *SHAPE], align_corners=False))


def test_rotation_by_a_right_angle_is_a_quarter_turn(largest_draws):
    shape = (1, 16, 16)
    x = prepare(images_of(3, shape), 0)
    turned = apply(x, draw(Augment(rotate=90), 3, shape, generator())).numpy()
    expected = [np.rot90(x.numpy(), k, axes=(2, 3)) for k in (1, 3)]
    assert min(np.abs(turned - e).max() for e in expected) < 1e-4


def test_rotation_of_an_image_that_is_not_square_keeps_angles(largest_draws):
    x = prepare(images_of(3), 0)
    turned = apply(x, draw(Augment(rotate=180), 3, SHAPE, generator()))
    np.testing.assert_allclose(turned, x.numpy()[..., ::-1, ::-1], atol=1e-4)
    point = torch.zeros(1, 1, 13, 21)
    point[0, 0, 6, 10 + 4] = 1  # four pixels right of the centre go four pixels up or down
    turned = apply(point, draw(Augment(rotate=90), 1, (1, 13, 21), generator()))[0, 0]
    assert max(turned[2, 10], turned[10, 10]) == pytest.approx(1, abs=1e-3)


def test_scale_enlarges_by_its_largest_factor(largest_draws):
    x = torch.zeros(1, 1, 32, 32)
    x[..., 12:20, 12:20] = 1.0
    enlarged = apply(x, draw(Augment(scale=0.5), 1, (1, 32, 32), generator()))
    assert enlarged.sum() == pytest.approx(8 * 8 * 1.5**2, rel=0.02)


@settings(deadline=None, max_examples=25)
@given(p=st.floats(0.05, 1.0), seed=st.integers(0, 1000), side=st.sampled_from([24, 48, 64]))
def test_erased_rectangles_lie_inside_and_within_the_area_limits(p, seed, side):
    n, low, high = 400, 0.02, 0.2
    box = draw(Augment(erase=p, erase_area=(low, high)), n, (1, side, side), generator(seed)).box.long()
    top, bottom, left, right = box.T
    on = bottom > top
    assert abs(on.float().mean() - p) < 5 * math.sqrt(p * (1 - p) / n) + 1e-9
    assert (top >= 0).all()
    assert (bottom <= side).all()
    assert (left >= 0).all()
    assert (right <= side).all()
    height, width = (bottom - top)[on], (right - left)[on]
    assert (height * width <= high * side**2 + 1e-6).all()
    assert ((height + 1) * (width + 1) >= low * side**2).all(), "sides are rounded down to whole pixels"


def test_erased_pixels_become_the_mean_grey_and_others_stay():
    x = prepare(images_of(50), 0)
    found = draw(Augment(erase=1.0), 50, SHAPE, generator())
    erased = apply(x, found)
    for k, (top, bottom, left, right) in enumerate(found.box.tolist()):
        expected = x[k].clone()
        expected[:, top:bottom, left:right] = 0
        assert torch.equal(erased[k], expected)


def test_no_augmentation_is_the_identity():
    view = view_of(24)
    _, batches = DataPlane(view, GENTLE, 0).epoch({"main": StreamSpec()}, "train", 0)
    for batch in batches:
        assert torch.equal(batch.x, prepare(view.images[batch.index], 0))
    _, batches = DataPlane(view, STRONG, 0).epoch({"main": StreamSpec(augment=Augment())}, "train", 0)
    for batch in batches:
        assert torch.equal(batch.x, prepare(view.images[batch.index], 0))


def test_images_are_normalised_and_resized_on_the_device():
    images = torch.tensor([0, 255], dtype=torch.uint8).reshape(2, 1, 1, 1).expand(2, 1, 8, 8)
    x = prepare(images, 16)
    assert x.shape == (2, 1, 16, 16)
    assert x[0].unique().tolist() == pytest.approx([-2.0])
    assert x[1].unique().tolist() == pytest.approx([2.0])
    assert prepare(images_of(2, (3, 8, 8)), 0).is_contiguous(memory_format=torch.channels_last)


# -- order and streams -----------------------------------------------------------------------------------------------


def epoch_of(view, recipe=STRONG, seed=0, epoch=0, stage="train", **streams):
    return list(DataPlane(view, recipe, seed).epoch({"main": StreamSpec()} | streams, stage, epoch)[1])


def same(one, other):
    return all(torch.equal(a.x, b.x) and torch.equal(a.index, b.index) for a, b in zip(one, other, strict=True))


def test_the_same_seed_gives_the_same_batches_and_any_other_name_does_not():
    view = view_of(40)
    base = epoch_of(view)
    assert same(base, epoch_of(view))
    for change in ({"seed": 1}, {"epoch": 1}, {"stage": "second"}):
        assert not same(base, epoch_of(view, **change))


def test_resuming_at_an_epoch_gives_the_batches_of_running_through():
    view, plane = view_of(40), DataPlane(view_of(40), STRONG, 3)
    through = [list(plane.epoch({"main": StreamSpec()}, "train", k)[1]) for k in range(4)]
    for k in (3, 1):
        resumed = epoch_of(view, seed=3, epoch=k)
        assert same(through[k], resumed)
        draws = [[torch.rand(3, generator=b.generator).tolist() for b in batches] for batches in (through[k], resumed)]
        assert draws[0] == draws[1]
        assert len({tuple(d) for d in draws[0]}) == 5


def test_more_views_or_streams_or_augmentation_do_not_move_the_order():
    view = view_of(40)
    order = [b.index.tolist() for b in epoch_of(view)]
    others = [
        epoch_of(view, main=StreamSpec(views=3)),
        epoch_of(view, other=StreamSpec()),
        epoch_of(view, recipe=GENTLE),
        epoch_of(view, main=StreamSpec(augment=Augment(erase=1.0))),
    ]
    assert all([b.index.tolist() for b in batches] == order for batches in others)
    assert torch.equal(others[0][0].x, epoch_of(view)[0].x), "the first view keeps its own draws"
    assert torch.equal(others[1][0].x, epoch_of(view)[0].x)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 70), batch_size=st.integers(2, 40), own_size=st.none() | st.integers(1, 40))
def test_an_epoch_holds_full_batches_of_distinct_images(n, batch_size, own_size):
    plane = DataPlane(view_of(n), replace(STRONG, batch_size=batch_size), 0)
    steps, batches = plane.epoch({"main": StreamSpec(batch_size=own_size)}, "train", 0)
    batches = list(batches)
    size = min(own_size or batch_size, n)
    assert len(batches) == steps == max(1, n // size)
    assert {len(b.x) for b in batches} == {size}
    visited = torch.cat([b.index for b in batches]).tolist()
    assert len(set(visited)) == len(visited) == steps * size
    for step, batch in enumerate(batches):
        assert batch.step == step
        assert (batch.y.numpy() == batch.index.numpy() % 4).all()


def test_other_streams_cycle_until_the_main_one_ends():
    rare = np.array([30, 31, 32, 33, 34])
    batches = epoch_of(view_of(40), GENTLE, rare=StreamSpec(sampler=lambda view, epoch, rng: rare, batch_size=3))
    assert len(batches) == 5
    visited = torch.cat([b.aux["rare"].index for b in batches])
    assert visited.tolist() == np.resize(rare, 15).tolist()
    assert all(b.aux["rare"].generator is b.generator for b in batches)


def test_repeats_in_a_cycling_stream_are_augmented_afresh():
    batches = epoch_of(view_of(40), rare=StreamSpec(sampler=lambda view, epoch, rng: np.array([7]), batch_size=1))
    seen = [b.aux["rare"].x for b in batches]
    assert not any(torch.equal(seen[0], x) for x in seen[1:])


def test_soft_targets_and_groups_follow_their_images():
    n = 24
    soft = np.random.default_rng(0).dirichlet(np.ones(4), n).astype(np.float32)
    for batch in epoch_of(view_of(n, soft=soft, groups=np.arange(n) * 10)):
        assert (batch.soft.numpy() == soft[batch.index]).all()
        assert (batch.groups == batch.index * 10).all()
        assert batch.target is batch.soft


def test_clean_pass_visits_every_image_once_in_order():
    view = view_of(600)
    batches = list(DataPlane(view, STRONG, 0).clean())
    assert torch.cat([b.index for b in batches]).tolist() == list(range(600))
    assert torch.equal(torch.cat([b.x for b in batches]), prepare(view.images, 0))


def test_a_stream_called_main_is_required():
    with pytest.raises(TrainingError, match="'main'"):
        DataPlane(view_of(8), STRONG, 0).epoch({"other": StreamSpec()}, "train", 0)


# On a GPU ------------------------------------------------------------------------------------------------------------
# Positions are equal bit for bit, but `grid_sample` turns them into pixels with fused products there. A last bit of a
# position near 24 pixels is 2e-6 pixels; between black and white, 4 apart, in two directions, that is 2e-5. Two grids
# on one CPU whose last bits differ already move pixels by 3e-5. TF32 would move them by 5e-2.
ROUNDING = 1e-4


@pytest.fixture
def tf32():
    """Matrix products as the harness sets them on a GPU."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("recipe", [STRONG, replace(STRONG, rotate=0.0, scale=0.0)], ids=["matrix", "whole pixels"])
def test_cpu_and_gpu_give_the_same_batches(recipe, tf32):
    view = replace(view_of(64), images=images_of(64, (1, 48, 48)))
    there = replace(view, images=view.images.cuda())
    streams = {"main": StreamSpec(views=2), "rare": StreamSpec(batch_size=4)}
    rounding = ROUNDING if recipe.rotate else 0  # pixels are moved as they are
    for epoch in range(3):
        here, gpu = (list(DataPlane(v, recipe, 1).epoch(streams, "train", epoch)[1]) for v in (view, there))
        for a, b in zip(here, gpu, strict=True):
            assert torch.equal(a.index, b.index.cpu())
            assert torch.equal(a.y, b.y.cpu())
            assert torch.equal(a.aux["rare"].index, b.aux["rare"].index.cpu())
            for one, other in zip([*a.views, *a.aux["rare"].views], [*b.views, *b.aux["rare"].views], strict=True):
                torch.testing.assert_close(one, other.cpu(), rtol=0, atol=rounding)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_positions_on_a_gpu_are_those_on_the_cpu(tf32):
    found = matrices()
    assert torch.equal(_grid(found.theta, *SHAPE[1:]), _grid(found.theta.cuda(), *SHAPE[1:]).cpu())


# -- strength of each image's augmentation ---------------------------------------------------------------------------


def test_strength_multiplies_shift_angle_size_and_the_chance_to_be_erased():
    n = 4000
    augment = Augment(flip=0.5, shift=4.0, rotate=20.0, scale=0.2, erase=0.4)
    strength = torch.tensor([0.0, 0.5, 1.0, 2.0]).repeat(n // 4)
    found = draw(augment, n, (1, 20, 20), generator(), strength)
    plain = draw(augment, n, (1, 20, 20), generator())

    for k, factor in enumerate((0.0, 0.5, 1.0, 2.0)):
        across, along = found.theta[k::4, 0], found.theta[k::4, 1]
        size = torch.hypot(along[:, 0], along[:, 1])  # square images: the norm of a row is 1 / size
        angle = torch.rad2deg(torch.asin((along[:, 0].abs() / size).clamp(max=1)))
        assert angle.max() <= 20 * factor + 1e-3
        assert angle.max() >= 19 * factor - 1e-3
        assert (1 / size - 1).abs().max() <= 0.2 * factor + 1e-6
        assert (1 / size - 1).abs().max() >= 0.19 * factor - 1e-6
        pixels = across[:, 2] * 10  # 2 / width a pixel
        assert pixels.abs().max() == pytest.approx(4 * factor, abs=1e-4)
        box = found.box[k::4]
        erased = (box[:, 1] > box[:, 0]).float().mean().item()
        assert erased == pytest.approx(0.4 * factor, abs=0.05)
    ones = strength == 1
    assert torch.equal(found.theta[ones], plain.theta[ones])
    assert torch.equal(found.box[ones], plain.box[ones])
    mirrored = [torch.sign(draws.theta[:, 0, 0]) for draws in (found, plain)]
    assert torch.equal(*mirrored)


def test_strength_reaches_the_batch_beside_its_images():
    def by_class(view, positions, epoch, rng):
        return view.labels[positions] * (epoch + 1)

    plane = DataPlane(view_of(32), GENTLE, seed=1)
    _, batches = plane.epoch({"main": StreamSpec(strength=by_class), "plain": StreamSpec()}, "s", 2)
    for batch in batches:
        assert torch.equal(batch.strength, (3 * batch.y).float())
        assert batch.aux["plain"].strength is None


@pytest.mark.parametrize("given", [np.ones(3), np.full(32, -0.1), np.full(32, np.nan)])
def test_unusable_strength_is_refused(given):
    stream = StreamSpec(strength=lambda view, positions, epoch, rng: given)
    with pytest.raises(TrainingError, match="finite numbers from 0 up") as caught:
        DataPlane(view_of(32), GENTLE, seed=1).epoch({"main": stream}, "s", 0)
    assert "stream 'main', stage 's'" in caught.value.where


def test_each_view_can_have_an_augmentation_of_its_own():
    plane = DataPlane(view_of(32), GENTLE, seed=1)
    stream = StreamSpec(views=2, augment=(Augment(), Augment(flip=1.0)))
    _, batches = plane.epoch({"main": stream}, "s", 0)
    for batch in batches:
        assert torch.equal(batch.views[1], batch.views[0].flip(3))


def test_one_augmentation_too_few_is_refused():
    with pytest.raises(TrainingError, match="1 augmentations for 2 views"):
        DataPlane(view_of(32), GENTLE, seed=1).epoch({"main": StreamSpec(views=2, augment=(None,))}, "s", 0)
