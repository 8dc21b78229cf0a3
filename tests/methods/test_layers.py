"""Layers that several methods put behind a trunk."""

import pytest
import torch

from fer_bench.methods._shared.layers import BatchNorm


def test_a_lone_image_is_normalised_by_the_running_statistics_and_leaves_them():
    norm, x = BatchNorm(3).train(), torch.randn(1, 3)
    norm.running_mean.fill_(2.0)
    torch.testing.assert_close(norm(x), (x - 2) / (1 + norm.eps) ** 0.5)
    assert norm.running_mean.tolist() == [2.0] * 3
    assert norm.num_batches_tracked == 0
    with pytest.raises(ValueError, match="more than 1 value"):
        torch.nn.BatchNorm1d(3)(x)


def test_more_images_are_normalised_among_themselves():
    x = torch.randn(5, 3)
    torch.testing.assert_close(BatchNorm(3).train()(x), torch.nn.BatchNorm1d(3).train()(x))
