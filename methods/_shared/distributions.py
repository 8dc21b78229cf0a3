"""Distributions of labels that two branches of a network learn from each other (Liu et al. 2023, Ada-DF)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fer_bench import Branches, Output, Trunk

from .importance import ImportanceHead


class DualBranchClassifier(nn.Module):
    """Two branches from the second stage on, each with an :class:`ImportanceHead`; the second one predicts."""

    def __init__(self, backbone: Callable[[], Trunk], num_classes: int):
        super().__init__()
        self.branches = Branches(backbone, 2, own=3)
        self.heads = nn.ModuleList(ImportanceHead(self.branches.num_features, num_classes) for _ in range(2))

    def forward(self, x: Tensor) -> Output:
        """Logits of branch 2; in ``extra`` those of branch 1 ("auxiliary") and the mean importance ("attention")."""
        (_, first), (fmap, second) = self.branches(x)
        (auxiliary, importance), (logits, other) = self.heads[0](first), self.heads[1](second)
        extra = {"auxiliary": auxiliary, "attention": (importance + other) / 2}
        return Output(logits=logits, features=second, fmap=fmap, extra=extra)


def with_floor(means: Tensor, threshold: float) -> Tensor:
    """Rows [C, C] of mean probabilities; one with less than the threshold for its own class is replaced.

    The replacement has the threshold there, and equal shares of the rest elsewhere.
    """
    own = torch.eye(len(means), device=means.device)
    default = own * threshold + (1 - own) * (1 - threshold) / (len(means) - 1)
    return torch.where(means.diagonal()[:, None] >= threshold, means, default)


def fused(p: Tensor, classes: Tensor, attention: Tensor, least: float) -> Tensor:
    """(1 - a) p + a d of probabilities p [B, C] and class distributions d [B, C].

    a [B] is the attention rescaled over the batch to [least, 1].
    """
    low, high = attention.min(), attention.max()
    a = (attention - low) / (high - low).clamp_min(1e-12) * (1 - least) + least
    return (1 - a)[:, None] * p + a[:, None] * classes


def divergences(target: Tensor, logits: Tensor) -> Tensor:
    """KL(target ‖ softmax(logits)) of each image [B], which also gives its gradient to the target."""
    log_target = target.clamp_min(1e-12).log()  # 0 · log 0 is 0, with a finite gradient
    return (target * (log_target - logits.log_softmax(1))).sum(1)


def factors(epoch: int, beta: float) -> tuple[float, float]:
    """Factors on the divergence (α1) and on cross-entropy (α2) in an epoch, counted from 1."""
    if epoch <= beta:
        return math.exp(-((1 - epoch / beta) ** 2)), 1.0
    return 1.0, math.exp(-((1 - beta / epoch) ** 2))
