"""Mixing of images and their labels within a batch, for `on_batch`."""

from __future__ import annotations

import numpy as np
import torch

from fer_bench import Batch

MIXES = ("mixup",)
"""What `mix` may be."""


def mixed(kind: str, batch: Batch, counts: np.ndarray, alpha: float) -> Batch:
    """The batch with every view mixed with another image of the batch, and `soft` targets to match.

    Parameters
    ----------
    kind : str
        One of :data:`MIXES`.
    counts : int array [C]
        Images per class in the training fold.
    alpha : float
        The share λ of an image itself is drawn from Beta(α, α), once a batch.
    """
    share = beta(alpha, alpha, batch.generator)
    order = torch.randperm(len(batch.y), generator=batch.generator).to(batch.y.device)
    target = batch.soft_target(len(counts))
    views = [share * view + (1 - share) * view[order] for view in batch.views]
    return batch.with_(views=views, soft=share * target + (1 - share) * target[order])


def beta(a: float, b: float, generator: torch.Generator) -> float:
    """One draw from Beta(a, b), by NumPy: torch's own takes no generator."""
    seed = int(torch.randint(2**31, (), generator=generator))
    return float(np.random.default_rng(seed).beta(a, b))
