"""Importance weights of images, as the Self-Cure Network learns them (Wang et al. 2020, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ImportanceHead(nn.Module):
    """A linear head whose logits are multiplied by a learned importance α of the image, in float32.

    α = σ(w·f + b) (eq. 1); the logits are α (W f + b), so that cross-entropy is the paper's logit-weighted one (eq. 2).
    """

    def __init__(self, in_features: int, num_classes: int):
        super().__init__()
        self.classify = nn.Linear(in_features, num_classes)
        self.weigh = nn.Linear(in_features, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted logits [B, K] and importances [B] of features [B, D]."""
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            importance = torch.sigmoid(self.weigh(features))
            return importance * self.classify(features), importance[:, 0]


def rank_regularisation(importance: Tensor, share: float, margin: float) -> Tensor:
    """max(0, margin - (mean of the highest ⌊share·B⌋ importances - mean of the others)), eqs. 3 and 4.

    A batch in which one of the two groups is empty has none: 0.
    """
    high = int(share * len(importance) + 1e-6)  # the 6th digit: 0.7 · 90 is 62.99...
    ordered = importance.sort(descending=True).values
    if high in (0, len(importance)):
        return ordered.sum() * 0.0
    return (margin - ordered[:high].mean() + ordered[high:].mean()).clamp_min(0.0)
