"""Open long-tailed recognition (Liu et al. 2019): attention on a map, a memory of class centroids, a squashed cosine.

All in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TINY = 1e-12


class ModulatedAttention(nn.Module):
    """Self-attention, weighed by a softmax over the positions of the map, added to it; nothing at first.

    Parameters
    ----------
    shape : (D, h, w)
        Of the map.
    """

    def __init__(self, shape: tuple[int, int, int]):
        super().__init__()
        channels, height, width = shape
        inner = max(1, channels // 2)
        self.value, self.query, self.key = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.out = nn.Conv2d(inner, channels, 1, bias=False)
        self.where = nn.Linear(channels * height * width, height * width)
        for part in (self.value, self.query, self.key):
            nn.init.kaiming_normal_(part.weight)
            nn.init.zeros_(part.get_parameter("bias"))
        nn.init.zeros_(self.out.weight)

    def forward(self, fmap: Tensor) -> Tensor:
        """Map [B, D, h, w] of a map."""
        value, query, key = (part(fmap).flatten(2) for part in (self.value, self.query, self.key))
        seen = torch.softmax(query.transpose(1, 2) @ key, dim=2) @ value.transpose(1, 2)
        mask = self.out(seen.transpose(1, 2).unflatten(2, fmap.shape[2:]))
        return self.weight(fmap)[:, None] * mask + fmap

    def weight(self, fmap: Tensor) -> Tensor:
        """How much each position of a map counts, [B, h, w]; sums to 1."""
        return self.where(fmap.flatten(1)).softmax(1).unflatten(1, fmap.shape[2:])


class SquashedCosine(nn.Module):
    """Logits s |x| / (1 + |x|) cos(x, w_c), s = 16 in the authors' code."""

    def __init__(self, features: int, num_classes: int, scale: float):
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(num_classes, features).uniform_(-1, 1) / features**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, C] of vectors [B, D]."""
        length = torch.sqrt((x**2).sum(1, keepdim=True) + TINY)
        return self.scale * (x / (1 + length)) @ F.normalize(self.weight, dim=1).T


class Memory(nn.Module):
    """Class centroids, and what is made of features with their help: the meta-embedding.

    v = (10 / d) (x + tanh(S x) ⊙ Σ_c o_c m_c), with d the distance of x to the nearest centroid m_c, and o the softmax
    of the hallucinator, the classifier of the first stage.
    """

    def __init__(self, features: int, num_classes: int, scale: float):
        super().__init__()
        self.centroids = nn.Parameter(torch.zeros(num_classes, features))
        self.selector = nn.Linear(features, features)
        self.cosine = SquashedCosine(features, num_classes, scale)

    def forward(self, x: Tensor, hallucinated: Tensor) -> Tensor:
        """Logits [B, C] of features [B, D] and the hallucinator's logits [B, C]."""
        gaps = (x[:, None] - self.centroids[None]).pow(2).sum(2)
        reach = 10.0 / torch.sqrt(gaps.min(1, keepdim=True).values + TINY)
        recalled = hallucinated.softmax(1) @ self.centroids
        return self.cosine(reach * (x + torch.tanh(self.selector(x)) * recalled))


def centroid_loss(x: Tensor, y: Tensor, centroids: Tensor) -> Tensor:
    """Features drawn to the centroid of their class, and all centroids kept away, as in the authors' code; scalar.

    Σ_i |x_i - m_y|² / 2B + 0.01 max(0, 10 - Σ_i Σ_{c≠y} |x_i - m_c|² / BC). A centroid's gradient of the first term is
    divided by one more than the images of its class in the batch, as for center loss.
    """
    own = centroids[y]
    among = 1 + F.one_hot(y, len(centroids)).sum(0)[y]
    attract = (x - own.detach()).pow(2).sum() / (2 * len(x))
    follow = ((x.detach() - own).pow(2).sum(1) / among).sum() / (2 * len(x))
    gaps = (x[:, None] - centroids[None]).pow(2).sum(2)
    others = gaps.masked_fill(F.one_hot(y, len(centroids)).bool(), 0.0).mean()
    return attract + follow - follow.detach() + 0.01 * (10.0 - others).clamp_min(0.0)
