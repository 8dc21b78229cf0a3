"""Smoothing of targets by other rules than the recipe's."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from .losses import soft_targets


def spread(target: Tensor, share: float, num_classes: int) -> Tensor:
    """Targets (1 - ε) q + ε / C, float32 [B, C], of hard [B] or soft [B, C] ones."""
    return (1 - share) * soft_targets(target, num_classes) + share / num_classes


def label_aware_shares(counts: np.ndarray, head: float, tail: float, shape: str = "concave") -> np.ndarray:
    """Smoothing ε_c of each class, float64 [C]: `head` for the largest, `tail` for the smallest class (MiSLAS, eq. 8).

    With x_c = (n_c - n_min) / (n_max - n_min), "linear" is ε_t + (ε_h - ε_t) x_c; "concave" has sin(π x_c / 2) and
    "convex" 1 - cos(π x_c / 2) in place of x_c. Classes of equal size all get `tail`, since none is larger than
    another. n_min is that of the classes with training images.
    """
    n = np.asarray(counts, dtype=np.float64)
    low, high = n[n > 0].min(), n.max()
    x = np.clip((n - low) / max(high - low, 1.0), 0.0, 1.0)
    rise = {"linear": x, "concave": np.sin(np.pi / 2 * x), "convex": 1 - np.cos(np.pi / 2 * x)}[shape]
    return tail + (head - tail) * rise


def label_aware_losses(logits: Tensor, target: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy of each image against its target smoothed by the share of its class, float32 [B] (MiSLAS, eq. 7).

    A soft target is smoothed class by class, Σ_c q_c ((1 - ε_c) e_c + ε_c / C), which is the expected loss over labels
    drawn from it.
    """
    q = soft_targets(target, logits.shape[1])
    smoothed = q * (1 - shares) + (q * shares).sum(1, keepdim=True) / logits.shape[1]
    return -(smoothed * F.log_softmax(logits.float(), dim=1)).sum(1)
