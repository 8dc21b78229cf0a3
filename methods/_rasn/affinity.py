"""Sharing affinity features: the mean of a batch's features, given to each of its samples.

In training the affinity comes from the batch. In evaluation it is a stored buffer, so that a prediction depends on its
own image alone; the one exception, "test_batch", exists to measure what the leak is worth.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fer_bench import SpecError


class Sharing(nn.Module):
    """z = fuse(x, α·A*) for features x [B, C, H, W], with affinity A and A* = A ⊙ M_A(A).

    Parameters
    ----------
    shape : (C, H, W)
    source : {"batch_mean", "ema", "class_balanced_mean", "leave_one_out"}
    fusion : {"add_alpha", "gate", "concat"}
        x + αA*, x ⊙ σ(αA*) + αA*, or a 1x1 convolution of [x; αA*] that starts as their sum.
    alpha : "learnable" or a number
    detach : bool
        Stop the gradient from the affinity to the features.
    momentum : float
        Of the stored mean: Â <- momentum·Â + (1 - momentum)·A; the first batch sets it.
    evaluate : {"frozen_ema", "train_set_mean", "none", "test_batch"}
    gate : module or None
        M_A.
    """

    ema: Tensor
    train_mean: Tensor
    updates: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        *,
        source: str,
        fusion: str,
        alpha: float | str,
        detach: bool,
        momentum: float,
        evaluate: str,
        gate: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.source, self.fusion, self.detach, self.evaluate = source, fusion, detach, evaluate
        self.momentum, self.gate = momentum, gate
        self.register_buffer("ema", torch.zeros(1, *shape))
        self.register_buffer("train_mean", torch.zeros(1, *shape))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        if alpha == "learnable":
            self.alpha = nn.Parameter(torch.tensor(1.0))
        else:
            self.register_buffer("alpha", torch.tensor(float(alpha)))
        self.mix = _summing_conv(shape[0]) if fusion == "concat" else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Shared features, float32, the shape of `x`; labels `y` [B] serve "class_balanced_mean" in training only."""
        x = x.float()  # a mean over a batch loses its digits in bfloat16
        affinity = self._from_batch(x, y) if self.training else self._stored(x)
        if self.gate is not None:
            affinity = affinity * self.gate(affinity)
        return self._fuse(x, self.alpha * affinity)

    def _from_batch(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Affinity of a training batch, [1, C, H, W] ([B, C, H, W] for leave_one_out); updates the stored mean."""
        x = x.detach() if self.detach else x
        mean = x.mean(0, keepdim=True)
        if self.source == "class_balanced_mean":
            mean = (x * balanced_shares(y)[:, None, None, None]).sum(0, keepdim=True)
        rate = torch.where(self.updates == 0, 1.0, 1.0 - self.momentum)
        running = self.ema.clone().lerp(mean, rate)
        self.ema.copy_(running.detach())
        self.updates += 1
        if self.source == "ema":
            return running
        if self.source == "leave_one_out":  # alone in its batch, a sample has no others: zero
            return (x.sum(0, keepdim=True) - x) / max(1, len(x) - 1)
        return mean

    def _stored(self, x: Tensor) -> Tensor:
        """Affinity in evaluation, [1, C, H, W]."""
        match self.evaluate:
            case "frozen_ema":
                return self.ema
            case "train_set_mean":
                return self.train_mean
            case "test_batch":
                return x.mean(0, keepdim=True)
        return torch.zeros_like(self.ema)

    def _fuse(self, x: Tensor, affinity: Tensor) -> Tensor:
        if self.fusion == "gate":
            return x * torch.sigmoid(affinity) + affinity
        if self.mix is not None:
            return self.mix(torch.cat([x, affinity.expand_as(x)], dim=1)).float()
        return x + affinity


def balanced_shares(y: Tensor | None) -> Tensor:
    """Weights [B] that turn a sum over samples into the mean, over classes present, of class means."""
    if y is None:
        raise SpecError("share.source=class_balanced_mean needs the labels of a training batch", where="method rasn")
    weights = 1.0 / (y[:, None] == y[None, :]).sum(1).float()
    return weights / weights.sum()


def _summing_conv(channels: int) -> nn.Conv2d:
    """1x1 convolution 2C -> C that starts as the sum of both halves, so that training starts where add_alpha does."""
    conv = nn.Conv2d(2 * channels, channels, 1)
    eye = torch.eye(channels)
    with torch.no_grad():
        conv.weight.copy_(torch.cat([eye, eye], dim=1)[:, :, None, None])
        conv.bias.zero_()  # type: ignore[union-attr]
    return conv
