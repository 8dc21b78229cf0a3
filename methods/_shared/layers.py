"""Layers that several methods put behind a trunk."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class BatchNorm(nn.BatchNorm1d):
    """BatchNorm1d that reads its running statistics where a training batch holds one image, which has no variance."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalised features of `input` [B, D], in its precision."""
        if not self.training or len(input) > 1:
            return super().forward(input)
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
