"""Losses and class weights shared by methods.

Targets are hard [B] or soft [B, C]; losses are float32, one value for each image. Class weights [C] become weights of
images through :meth:`fer_bench.Batch.expected`, and so never reach the share that smoothing gives to other classes.

A loss that treats the class of the label differently (a margin, a smoothing of its own) has no meaning yet for a soft
target. Here such losses are computed for every label, [B, C], and a soft target gives their expected value
(:func:`expected_losses`). That is linear in the target, agrees with hard labels on one-hot rows, and is what released
code does under mixup. A class without training images is left alone everywhere: no margin, no prior, no temperature.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fer_bench import constant

EFFECTIVE_BETA = 0.9999  # Cui et al. 2019; a beta of 0.99 or less changes nothing on FER2013 or RAF-DB


def soft_targets(target: Tensor, num_classes: int) -> Tensor:
    """Targets as probabilities, float32 [B, C]; hard labels [B] become one-hot rows."""
    return target.float() if target.ndim == 2 else F.one_hot(target, num_classes).float()


def row_of(values: np.ndarray, like: Tensor) -> Tensor:
    """Values of classes as a float32 tensor on the device of another."""
    return constant(values, like.device)


def expected_losses(losses: Tensor, target: Tensor) -> Tensor:
    """Losses [B] of images from their losses under every label [B, C]: that of the label, or Σ_k q_ik L_ik."""
    if target.ndim == 2:
        return (target.float() * losses).sum(1)
    return losses.gather(1, target[:, None])[:, 0]


def losses_by_label(logits: Tensor, shift: Tensor) -> Tensor:
    """-log softmax(z_i + shift_ik)_k, float32 [B, C]: the cross-entropy of image i if its label were k.

    Parameters
    ----------
    logits : tensor [B, C]
    shift : tensor [C, C] or [B, C, C]
        What is added to the logits of an image with label k, in row k. -inf takes a class out; never that of the label.
    """
    moved = logits.float()[:, None, :] + shift
    return -F.log_softmax(moved, dim=2).diagonal(dim1=1, dim2=2)


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
        exactly w_c = N / (C n_c), scikit-learn's "balanced": each observation's τ_c / (n_c / N) of King & Zeng 2001
        with equal population shares τ_c = 1 / C.
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


def ldam_margins(counts: np.ndarray, largest: float = 0.5) -> np.ndarray:
    """Margins M n_c^(-1/4) / max_k n_k^(-1/4), float64 [C] (Cao et al. 2019); 0 for a class without images."""
    counts = np.asarray(counts, dtype=np.float64)
    raw = np.where(counts > 0, np.maximum(counts, 1.0) ** -0.25, 0.0)
    return largest * raw / raw.max()


def margin_losses(logits: Tensor, target: Tensor, margins: Tensor) -> Tensor:
    """Cross-entropy with the logit of the label lowered by its margin, float32 [B].

    Parameters
    ----------
    margins : tensor [C] or [B, C]
        What the label's logit loses, by label. With a cosine head of scale s these are s times those of the angles.
    """
    return expected_losses(losses_by_label(logits, -torch.diag_embed(margins)), target)


def class_weights(kind: str, counts: np.ndarray) -> np.ndarray | None:
    """Weights [C] by name: "none" (None), "inverse" N / (C n_c), "sqrt" ∝ n_c^(-1/2) with mean 1 over classes, or
    "effective" with β = 0.9999."""
    if kind == "none":
        return None
    if kind == "sqrt":
        return inverse_weights(counts, 0.5, "classes")
    return inverse_weights(counts) if kind == "inverse" else effective_weights(counts)


def relative(weights: Tensor) -> Tensor:
    """Image weights [B] divided by their mean, so that Σ_i w_i l_i / B becomes Σ_i w_i l_i / Σ_i w_i."""
    return weights / weights.mean().clamp_min(torch.finfo(torch.float32).tiny)


def focal_losses(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Σ_k q_ik (1 - p_ik)^γ (-log p_ik) of each image, float32 [B].

    On one-hot targets this is Lin et al. 2017, eq. 4. On a soft target q it is lowest where all classes have the same
    q_k d/dp_k [(1 - p_k)^γ log p_k], at a p flatter than q: 0.69 for the label at γ = 2, where smoothing by 0.1 over
    7 classes gives q = 0.91.
    """
    log_p = F.log_softmax(logits.float(), dim=1)
    # 1 - p by expm1 keeps its digits as p nears 1; the floor keeps the gradient of a power below 1 finite.
    miss = (-torch.expm1(log_p)).clamp_min(torch.finfo(torch.float32).tiny)
    return -(soft_targets(target, log_p.shape[1]) * miss**gamma * log_p).sum(1)
