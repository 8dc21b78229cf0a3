"""Heads that look at different places of a map (Wen et al. 2023, DAN)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import Output, Trunk

from .layers import BatchNorm


class AttentionHead(nn.Module):
    """Spatial attention from convolutions of three shapes, pooling, then a gate on the channels."""

    def __init__(self, channels: int):
        super().__init__()
        middle, squeezed = max(1, channels // 2), max(1, channels // 16)
        self.reduce = nn.Sequential(nn.Conv2d(channels, middle, 1), nn.BatchNorm2d(middle))
        self.look = nn.ModuleList(
            nn.Sequential(nn.Conv2d(middle, channels, (h, w), padding=(h // 2, w // 2)), nn.BatchNorm2d(channels))
            for h, w in ((3, 3), (1, 3), (3, 1))
        )
        self.gate = nn.Sequential(
            nn.Linear(channels, squeezed), BatchNorm(squeezed), nn.ReLU(), nn.Linear(squeezed, channels), nn.Sigmoid()
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.001)
                nn.init.zeros_(module.bias)

    def forward(self, fmap: Tensor) -> Tensor:
        """Attended features, float32 [B, D], of a map [B, D, h, w]."""
        attention = self.attention(fmap)
        with torch.autocast(fmap.device.type, enabled=False):
            pooled = (fmap.float() * attention.float()).mean((2, 3))
            return pooled * self.gate(pooled)

    def attention(self, fmap: Tensor) -> Tensor:
        """The spatial attention [B, 1, h, w] of a map."""
        reduced = self.reduce(fmap)
        return F.relu(sum(conv(reduced) for conv in self.look)).sum(1, keepdim=True)


class MultiHeadClassifier(nn.Module):
    """A trunk, attention heads, and a linear layer with BatchNorm on the sum of their log-softmax over heads."""

    def __init__(self, trunk: Trunk, num_classes: int, heads: int):
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleList(AttentionHead(trunk.num_features) for _ in range(heads))
        self.classify = nn.Sequential(nn.Linear(trunk.num_features, num_classes), BatchNorm(num_classes))
        self.centers = nn.Parameter(torch.randn(num_classes, trunk.num_features))

    def forward(self, x: Tensor) -> Output:
        """Logits, the heads' sum as features, and in ``extra`` "heads" [B, N, D] and the trunk's "pooled" [B, D]."""
        fmap, pooled = self.trunk(x)
        heads = torch.stack([head(fmap) for head in self.heads], dim=1)
        if len(self.heads) > 1:
            heads = heads.log_softmax(1)
        features = heads.sum(1)
        with torch.autocast(x.device.type, enabled=False):
            logits = self.classify(features)
        return Output(logits=logits, features=features, fmap=fmap, extra={"heads": heads, "pooled": pooled})
