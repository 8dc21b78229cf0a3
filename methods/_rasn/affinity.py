"""Sharing affinity features: what comes from elsewhere, attended and fused into each image's own features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Sharing(nn.Module):
    """z = fuse(x, α·A*) for features x [B, C, H, W], with affinity A from a source and A* = A ⊙ M_A(A).

    Parameters
    ----------
    source : module
        Features [B, C, H, W] and labels [B] or None -> affinity (:mod:`.sources`).
    channels : int
        C.
    fusion : {"add_alpha", "gate", "concat", "attend"}
        x + αA*; x ⊙ σ(αA*) + αA*; a 1x1 convolution of [x; αA*] that starts as their sum; or x + g(x)·αA* with a
        learned gate g(x) = σ(w·x/√C + b) at every position, which starts at 1/2. Unscaled, the first steps of Adam
        would close it for good: x is not negative, and its sum is large.
    alpha : "learnable" or a number
        "learnable" starts at 1.
    detach : bool
        Stop the gradient from the affinity, and from the gate g, to the features.
    share_in_evaluation : bool
        False: the affinity is zero in evaluation.
    gate : module or None
        M_A.
    """

    def __init__(
        self,
        source: nn.Module,
        channels: int,
        *,
        fusion: str,
        alpha: float | str,
        detach: bool,
        share_in_evaluation: bool = True,
        gate: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.source, self.fusion, self.detach, self.gate = source, fusion, detach, gate
        self.share_in_evaluation = share_in_evaluation
        if alpha == "learnable":
            self.alpha = nn.Parameter(torch.tensor(1.0))
        else:
            self.register_buffer("alpha", torch.tensor(float(alpha)))
        self.mix = _summing_conv(channels) if fusion == "concat" else None
        self.openness = _half_open(channels) if fusion == "attend" else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Shared features, float32, the shape of `x`; labels `y` [B] serve sources that need them, in training only."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()  # a mean over a batch loses its digits in bfloat16
            seen = x.detach() if self.detach else x
            if not self.training and not self.share_in_evaluation:
                affinity = torch.zeros_like(x)
            else:
                affinity = self.source(seen, y)
            if self.gate is not None:
                affinity = affinity * self.gate(affinity)
            return self._fuse(x, seen, self.alpha * affinity)

    def open(self, x: Tensor) -> Tensor:
        """The learned gate g(x) [B, 1, H, W] of "attend"."""
        assert self.openness is not None
        return torch.sigmoid(self.openness(x / math.sqrt(x.shape[1])))

    def _fuse(self, x: Tensor, seen: Tensor, affinity: Tensor) -> Tensor:
        if self.fusion == "gate":
            return x * torch.sigmoid(affinity) + affinity
        if self.mix is not None:
            return self.mix(torch.cat([x, affinity.expand_as(x)], dim=1))
        if self.openness is not None:
            return x + self.open(seen) * affinity
        return x + affinity


def _summing_conv(channels: int) -> nn.Conv2d:
    """1x1 convolution 2C -> C that starts as the sum of both halves, so that training starts where add_alpha does."""
    conv = nn.Conv2d(2 * channels, channels, 1)
    eye = torch.eye(channels)
    with torch.no_grad():
        conv.weight.copy_(torch.cat([eye, eye], dim=1)[:, :, None, None])
        conv.bias.zero_()  # type: ignore[union-attr]
    return conv


def _half_open(channels: int) -> nn.Conv2d:
    """1x1 convolution C -> 1 that starts at zero, so that its sigmoid starts at 1/2 everywhere."""
    conv = nn.Conv2d(channels, 1, 1)
    nn.init.zeros_(conv.weight)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
