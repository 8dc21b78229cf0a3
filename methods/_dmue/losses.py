"""What DMUE compares: branches with labels, with one another, and images within a batch (She et al. 2021, section 3).

Auxiliary logits are [B, C, C - 1]: by image, branch, and the classes other than that of the branch, in their order.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def auxiliary_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Mean over classes c of the cross-entropy, in branch c, of the images of other classes; of [B, C, C - 1]."""
    total = logits.sum() * 0.0
    for c in range(logits.shape[1]):
        others = (y != c).float()
        losses = F.cross_entropy(logits[:, c], (y - (y > c).long()).clamp_max(logits.shape[2] - 1), reduction="none")
        total = total + (losses * others).sum() / others.sum().clamp_min(1)
    return total / logits.shape[1]


def latent_targets(latent: Tensor, y: Tensor, temperature: float) -> Tensor:
    """What the branch of an image's own class makes of it: softmax(z)^(1/T), normalised, 0 for that class; [B, C]."""
    own = latent.detach()[torch.arange(len(y), device=y.device), y]  # [B, C - 1]
    p = (own.log_softmax(1) / temperature).softmax(1)
    columns = torch.arange(latent.shape[1], device=y.device)
    place = (columns - (columns > y[:, None]).long()).clamp(0, own.shape[1] - 1)
    return torch.where(columns == y[:, None], 0.0, p.gather(1, place))


def soft_loss(logits: Tensor, targets: Tensor, one_hot: Tensor) -> Tensor:
    """Mean squared difference between soft targets and the target branch's probabilities of the other classes."""
    return (logits.float().softmax(1) * (1 - one_hot) - targets).square().mean()


def gram_loss(auxiliary: Tensor, necked: Tensor, y: Tensor) -> Tensor:
    """Mean over classes c of the mean squared difference of Gram matrices, rows of length 1, of the other classes."""
    with torch.autocast(y.device.type, enabled=False):
        return _gram_loss(auxiliary.float(), necked.float(), y)


def _gram_loss(auxiliary: Tensor, necked: Tensor, y: Tensor) -> Tensor:
    gram, gaps = necked @ necked.T, []
    for c in range(auxiliary.shape[1]):
        kept = (y != c).float()
        mask = kept[:, None] * kept
        pair = (F.normalize(g * mask, dim=1) for g in (auxiliary[:, c] @ auxiliary[:, c].T, gram))
        gaps.append((next(pair) - next(pair)).square().sum() / mask.sum().clamp_min(1))
    return torch.stack(gaps).mean()


def similarities(features: Tensor, one_hot: Tensor) -> Tensor:
    """Mean cosine to the images of each class in the batch, itself included, rescaled to [0, 1] by image; [B, C]."""
    unit, counts = F.normalize(features.float(), dim=1), one_hot.sum(0)
    with torch.autocast(unit.device.type, enabled=False):
        means = unit @ (unit.T @ one_hot) / counts.clamp_min(1)
    low = means.masked_fill(counts == 0, 2.0).amin(1, keepdim=True)
    means = torch.where(counts > 0, means, low)
    return (means - low) / (means.amax(1, keepdim=True) - low).clamp_min(1e-6)


def ramps(epoch: int, length: float) -> tuple[float, float]:
    """Weights of the target branch and of the others in an epoch, counted from 0."""
    up = math.exp(-5 * (1 - epoch / length) ** 2) if epoch <= length else 1.0
    return up, 1.0 if epoch < length else math.exp(-((1 - length / epoch) ** 2))
