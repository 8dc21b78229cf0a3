"""The rare-class sample generator (Wang et al. 2021): deviations of frequent images from centres, lent to rare ones.

Maps are [n, D, h, w]; a "vector" is the D numbers of one position. Losses are means over images and positions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Generator(nn.Module):
    """Centres of each class, a transformation of deviations, and a judge of pairs.

    Parameters
    ----------
    channels, num_classes : int
    centres : int
        K, centres a class.
    width : int
        Channels of the judge.
    """

    def __init__(self, channels: int, num_classes: int, centres: int, width: int):
        super().__init__()
        self.choice = nn.Parameter(torch.randn(num_classes, centres, channels))
        self.offset = nn.Parameter(torch.ones(num_classes, centres))
        self.centres = nn.Parameter(torch.zeros(num_classes, centres, channels))
        self.transform = nn.Conv2d(channels, channels, 3, padding=1)
        self.judge = nn.Sequential(
            nn.Conv2d(2 * channels, width, 1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2),
        )  # fmt: skip

    def shares(self, maps: Tensor, y: Tensor) -> Tensor:
        """How much of an image each centre of its class stands for, γ [n, K] (eq. 1)."""
        pooled = maps.mean((2, 3))
        return torch.softmax((self.choice[y] @ pooled[:, :, None])[:, :, 0] + self.offset[y], dim=1)

    def centre_loss(self, maps: Tensor, y: Tensor) -> Tensor:
        """Squared distances of vectors from the centres of their class, weighed by γ (the first term of eq. 3)."""
        gaps = (maps[:, None] - self.centres[y][:, :, :, None, None]).pow(2).sum(2).mean((2, 3))
        return (self.shares(maps, y) * gaps).sum(1).mean()

    def pair_loss(self, maps: Tensor, y: Tensor) -> Tensor:
        """Whether the two images of a pair, one of each half of the batch, are of one class (its second term)."""
        half = len(y) // 2
        pairs = torch.cat([maps[:half], maps[half : 2 * half]], dim=1)
        return F.cross_entropy(self.judge(pairs), (y[:half] == y[half : 2 * half]).long())

    def nearest(self, maps: Tensor, y: Tensor) -> Tensor:
        """The centre with the largest γ of each image, [n, D, 1, 1]."""
        best = self.shares(maps, y).argmax(1)
        return self.centres[y, best][:, :, None, None]

    def lend(self, head: Tensor, head_y: Tensor, tail: Tensor, tail_y: Tensor) -> tuple[Tensor, Tensor]:
        """New maps of the rare classes, and the loss of the transformation (eqs. 4 to 6).

        Deviations of frequent images are transformed and added to rare ones. The loss asks that a transformed deviation
        tells the judge nothing of its class, keeps its length, and points where the rare image deviates itself.
        """
        deviation = (head - self.nearest(head, head_y)).detach()
        own = (tail - self.nearest(tail, tail_y)).detach()
        moved = self.transform(deviation)
        told = self.judge(torch.cat([head, moved], dim=1))
        nothing = F.cross_entropy(told, torch.zeros(len(head), dtype=torch.long, device=head.device))
        length = (_lengths(moved) - _lengths(deviation)).abs().mean()
        cosine = (moved * own).sum(1) / (_lengths(moved) * _lengths(own))
        return tail + moved, nothing + length + (cosine - 1).abs().mean()


def _lengths(maps: Tensor) -> Tensor:
    """Lengths [n, h, w] of vectors, never 0."""
    return torch.sqrt(maps.pow(2).sum(1) + 1e-12)


def largest_classes(counts: np.ndarray, share: float) -> np.ndarray:
    """Positions of the largest classes, int64: a share of all of them, at least one and not all."""
    number = min(max(int(share * len(counts)), 1), len(counts) - 1)
    return np.argsort(-counts, kind="stable")[:number]


def pairs(heads: int, tails: int, strength: float) -> tuple[list[int], list[int]]:
    """Which of `heads` frequent and `tails` rare images of a batch are paired.

    The smaller group goes through the larger one, as often as it fits into `strength` times the larger, at least once.
    """
    if not heads or not tails:
        return [], []
    small, large = min(heads, tails), max(heads, tails)
    n = max(1, int(large * strength / small)) * small
    once, round_ = [k % large for k in range(n)], [k % small for k in range(n)]
    return (once, round_) if heads >= tails else (round_, once)
