"""Places that lie as far apart as they can, one for each class (Li et al. 2022, TSC)."""

from __future__ import annotations

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from fer_bench import Trunk

from .contrastive import ContrastiveClassifier, Projector


class TargetedClassifier(ContrastiveClassifier):
    """A classifier with a projector, corners of a simplex, and running centres of classes.

    ``corners`` [C, D] and ``centres`` [C, D] have length 1; ``corner_of`` [C] is the corner of each class.
    """

    corners: Tensor
    centres: Tensor
    corner_of: Tensor

    def __init__(self, trunk: Trunk, num_classes: int, dim: int):
        super().__init__(trunk, num_classes, Projector(trunk.num_features, dim))
        self.register_buffer("corners", F.pad(simplex(num_classes), (0, dim - num_classes)))
        self.register_buffer("centres", torch.zeros(num_classes, dim))
        self.register_buffer("corner_of", torch.arange(num_classes))

    @torch.no_grad()
    def follow(self, z: Tensor, y: Tensor) -> None:
        """Move the centres of the classes of embeddings [N, D] a tenth of the way to their mean."""
        hot = F.one_hot(y, len(self.centres)).float()
        with torch.autocast(z.device.type, enabled=False):
            mean = F.normalize(hot.T @ z.detach().float(), dim=1)
        moved = F.normalize(0.9 * self.centres + 0.1 * mean, dim=1)
        self.centres.copy_(torch.where(hot.sum(0)[:, None] > 0, moved, self.centres))

    @torch.no_grad()
    def match(self) -> None:
        """Give each class a corner, so that the similarities of centres and corners have the largest sum."""
        near = (self.centres @ self.corners.T).cpu().numpy()
        self.corner_of.copy_(torch.as_tensor(linear_sum_assignment(-near)[1]))


def simplex(n: int) -> Tensor:
    """Corners of a regular simplex around 0, of length 1, float32 [n, n]: any two have the cosine -1 / (n - 1)."""
    return (torch.eye(n) - 1 / n) * (n / (n - 1)) ** 0.5
