"""Class shares of the training fold, as shifts of logits."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from fer_bench import constant


def log_prior(counts: np.ndarray) -> np.ndarray:
    """log π_c = log(n_c / N), float64 [C]; 0 for a class without training images.

    A class without images thereby counts as in plain cross-entropy, where every image lowers its logit. With log 0 it
    would take no part in the loss, and its logit would be free to win at test.
    """
    counts = np.asarray(counts, dtype=np.float64)
    return np.log(np.where(counts > 0, counts / counts.sum(), 1.0))


def shifted_losses(logits: Tensor, target: Tensor, shift: np.ndarray) -> Tensor:
    """Cross-entropy of each image, float32 [B], of logits [B, C] plus a shift [C]; targets are hard or soft.

    The shift τ log π gives the logit-adjusted loss of Menon et al. 2021 (eq. 10); τ = 1 is balanced softmax.
    """
    z = logits.float() + constant(shift, logits.device)
    return F.cross_entropy(z, target, reduction="none")
