"""Heads that several methods put on a trunk."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import Classifier, Trunk


class CosineLinear(nn.Module):
    """Logits s cos θ_c, with the angle θ_c between features and the weights of class c; no bias.

    Parameters
    ----------
    in_features, out_features : int
    scale : float
        s. A softmax of cosines alone could never be sure of anything: they differ by 2 at most.
    """

    def __init__(self, in_features: int, out_features: int, scale: float):
        super().__init__()
        self.scale, self.out_features = scale, out_features
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Directions uniform on the sphere."""
        nn.init.normal_(self.weight)
        with torch.no_grad():
            self.weight.copy_(F.normalize(self.weight, dim=1))

    def forward(self, features: Tensor) -> Tensor:
        """Logits [B, K] of features [B, D]; of a feature vector of zeros they are all 0."""
        return self.scale * F.linear(F.normalize(features, dim=1), F.normalize(self.weight, dim=1))


class CosineClassifier(Classifier):
    """A trunk with a :class:`CosineLinear` head, in float32 as every head is."""

    def __init__(self, trunk: Trunk, num_classes: int, scale: float):
        super().__init__(trunk, num_classes)
        self.head: nn.Module = CosineLinear(trunk.num_features, num_classes, scale)
