"""Losses and class weights shared by methods. Targets are hard [B] or soft [B, C]; everything is float32."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

EFFECTIVE_BETA = 0.9999  # Cui et al. 2019; a beta of 0.99 or less changes nothing on FER2013 or RAF-DB


def soft_targets(target: Tensor, num_classes: int) -> Tensor:
    """Targets as probabilities, float32 [B, C]; hard labels [B] become one-hot rows."""
    return target.float() if target.ndim == 2 else F.one_hot(target, num_classes).float()


def inverse_weights(counts: np.ndarray, power: float = 1.0, normalise: str = "images") -> np.ndarray:
    """Class weights w_c ∝ n_c^(-power), float64 [C]; a class without images gets weight 0.

    Parameters
    ----------
    counts : int array [C]
        Images per class in the training fold.
    power : float
        0 gives equal weights, 1 inverse frequency.
    normalise : {"images", "classes"}
        "images": the mean weight over training images is 1, Σ_c n_c w_c = N. With power 1 and no empty class this is
        exactly w_c = N / (C n_c), the "balanced" rule of King & Zeng 2001.
        "classes": the mean weight over classes is 1, Σ_c w_c = C.
    """
    counts = np.asarray(counts, dtype=np.float64)
    present = counts > 0
    raw = np.where(present, np.maximum(counts, 1.0) ** -power, 0.0)
    if normalise == "classes":
        return raw * (len(counts) / raw.sum())
    return raw * (counts.sum() / (counts * raw).sum())


def effective_weights(counts: np.ndarray, beta: float = EFFECTIVE_BETA) -> np.ndarray:
    """Class weights ∝ (1 - β) / (1 - β^n_c) with Σ_c w_c = C, float64 [C] (Cui et al. 2019, eq. 2 and section 4)."""
    counts = np.asarray(counts, dtype=np.float64)
    present = counts > 0
    raw = np.where(present, (1.0 - beta) / (1.0 - beta ** np.maximum(counts, 1.0)), 0.0)
    return raw * (len(counts) / raw.sum())


def class_weights(kind: str, counts: np.ndarray) -> np.ndarray | None:
    """Weights [C] by name: "none" (None), "inverse" N / (C n_c), or "effective" with β = 0.9999."""
    if kind == "none":
        return None
    return inverse_weights(counts) if kind == "inverse" else effective_weights(counts)


def _as_row(weights: np.ndarray | None, like: Tensor) -> Tensor:
    """Weights as a float32 row [1, C] on the device of `like` [B, C]; ones where there are none."""
    if weights is None:
        return torch.ones(1, like.shape[1], device=like.device)
    return torch.as_tensor(weights, dtype=torch.float32, device=like.device)[None]


def weighted_cross_entropy(logits: Tensor, target: Tensor, weights: np.ndarray, reduction: str = "weights") -> Tensor:
    """Scalar Σ_i Σ_k w_k q_ik (-log p_ik) / D.

    D is Σ_i Σ_k w_k q_ik for reduction "weights" (what ``F.cross_entropy(weight=...)`` does with hard labels) and B for
    "batch". PyTorch divides soft targets by B always; here both kinds of target agree on one-hot rows.
    """
    log_p = F.log_softmax(logits.float(), dim=1)
    mass = _as_row(weights, log_p) * soft_targets(target, log_p.shape[1])
    loss = -(mass * log_p).sum()
    if reduction == "batch":
        return loss / len(log_p)
    return loss / mass.sum().clamp_min(torch.finfo(torch.float32).tiny)


def focal_loss(logits: Tensor, target: Tensor, gamma: float, weights: np.ndarray | None = None) -> Tensor:
    """Scalar (1/B) Σ_i Σ_k w_k q_ik (1 - p_ik)^γ (-log p_ik).

    On one-hot targets this is Lin et al. 2017, eq. 4 (eq. 5 with weights). p comes from the unweighted softmax.
    """
    log_p = F.log_softmax(logits.float(), dim=1)
    # 1 - p by expm1 keeps its digits as p nears 1; the floor keeps the gradient of a power below 1 finite.
    miss = (-torch.expm1(log_p)).clamp_min(torch.finfo(torch.float32).tiny)
    mass = _as_row(weights, log_p) * soft_targets(target, log_p.shape[1])
    return -(mass * miss**gamma * log_p).sum() / len(log_p)
