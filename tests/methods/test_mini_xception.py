"""mini-Xception: the number of weights that Keras prints, and the padding of its maxima."""

import pytest
import torch

from fer_bench.methods.mini_xception import MiniXception, MiniXceptionMethod, same_max_pool


def test_weights_are_those_that_keras_prints_for_seven_classes():
    model = MiniXception(1, 7)
    # of a block: shortcut, then two separable convolutions, each with BatchNorm
    stem = 8 * 9 + 2 * 8 + 8 * 8 * 9 + 2 * 8
    blocks = sum(
        (i * o + 2 * o) + (9 * i + i * o + 2 * o) + (9 * o + o * o + 2 * o)
        for i, o in [(8, 16), (16, 32), (32, 64), (64, 128)]
    )
    learned = stem + blocks + (9 * 128 * 7 + 7)
    assert sum(p.numel() for p in model.parameters()) == learned == 56_951
    kept = sum(b.numel() for n, b in model.named_buffers() if "running" in n)
    assert learned + kept == 58_423


@pytest.mark.parametrize(("side", "after"), [(64, 4), (48, 3), (40, 3)])
def test_four_blocks_halve_the_side_rounded_up(side, after):
    # 64: 62 and 60 after the first convolutions, then 30, 15, 8, 4; 48: 44, 22, 11, 6, 3; 40: 36, 18, 9, 5, 3
    output = MiniXception(1, 7).eval()(torch.randn(1, 1, side, side))
    assert output.fmap.shape == (1, 128, after, after)
    assert output.logits.shape == (1, 7)


def test_maxima_of_an_even_side_are_padded_at_its_end_only():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert same_max_pool(x)[0, 0].tolist() == [[10, 11], [14, 15]]
    assert same_max_pool(-x)[0, 0].tolist() == [[0, -2], [-8, -10]]


def test_maxima_of_an_odd_side_are_padded_on_both_ends():
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    assert same_max_pool(x)[0, 0].tolist() == [[4, 5], [7, 8]]


def test_the_backbone_of_the_study_is_not_made(make_method, make_batch):
    def never():
        raise AssertionError

    method = make_method(MiniXceptionMethod)
    model = method.build_model(never).train()
    method.training_step(model, make_batch()).total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
