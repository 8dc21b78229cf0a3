"""Centres of classes in feature space: distances to them, and the rule by which they follow the features.

Labels are shares [B, K] of classes (one-hot rows for hard labels), from before label smoothing: a smoothed share would
pull every image a little to every centre.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import Classifier, Trunk


class CentredClassifier(Classifier):
    """A plain classifier with one centre for each class, a buffer [K, D] that the method moves.

    The centres start uniform in ±√(3/D), as Caffe's "xavier" filler makes them, so that their length is near 1.
    """

    centers: Tensor

    def __init__(self, trunk: Trunk, num_classes: int):
        super().__init__(trunk, num_classes)
        width = math.sqrt(3 / trunk.num_features)
        centers = torch.empty(num_classes, trunk.num_features)
        self.register_buffer("centers", nn.init.uniform_(centers, -width, width))


def squared_gaps(features: Tensor, centers: Tensor, shares: Tensor) -> Tensor:
    """Σ_k q_k (f - c_k)² in each dimension, float32 [B, D]; with one-hot labels (f - c_y)²."""
    features, centers, shares = features.float(), centers.float(), shares.float()
    with torch.autocast(features.device.type, enabled=False):  # bfloat16 would move the centres
        mean = shares @ centers
        spread = (shares @ centers.square() - mean.square()).clamp_min(0.0)  # of centres, where labels are shared
    return (features - mean).square() + spread


@torch.no_grad()
def center_steps(centers: Tensor, features: Tensor, shares: Tensor, weights: Tensor | None = None) -> Tensor:
    """Δ_k = Σ_i q_ik a_i (c_k - f_i) / (1 + Σ_i q_ik), float32 [K, D] (Wen et al. 2016, eq. 4, where a = 1).

    The 1 keeps a class that is absent from the batch where it is, and slows down those with few images.

    Parameters
    ----------
    weights : tensor [B, D], optional
        a, of each image and dimension.
    """
    features, shares = features.detach().float(), shares.float()
    weights = torch.ones_like(features) if weights is None else weights.detach().float()
    pull = (shares.T @ weights) * centers - shares.T @ (weights * features)
    return pull / (1 + shares.sum(0))[:, None]


def pairwise_cosines(centers: Tensor) -> Tensor:
    """Σ_j Σ_{k≠j} (cos(c_j, c_k) + 1), over ordered pairs (Cai et al. 2018, eq. 5)."""
    unit = F.normalize(centers.float(), dim=1)
    others = 1 - torch.eye(len(unit), device=unit.device)
    return ((unit @ unit.T + 1) * others).sum()


@torch.no_grad()
def island_steps(centers: Tensor) -> Tensor:
    """1/(K - 1) Σ_{k≠j} ∂cos(c_j, c_k)/∂c_j for each centre j, float32 [K, D] (Cai et al. 2018, eq. 7)."""
    lengths = centers.norm(dim=1, keepdim=True).clamp_min(1e-12)
    unit = centers / lengths
    others = unit.sum(0) - unit
    across = others - (others * unit).sum(1, keepdim=True) * unit  # its part along c_j itself turns nothing
    return across / lengths / max(1, len(centers) - 1)
