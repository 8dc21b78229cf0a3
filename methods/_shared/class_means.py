"""Means over the training images of each class, as a network has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from fer_bench import Batch, Context, Output, evaluation_mode


@torch.no_grad()
def class_means(
    model: nn.Module, batches: Iterable[Batch], counts: np.ndarray, of: Callable[[Output], Tensor]
) -> Tensor:
    """Means of a quantity of the outputs over the images of each class, float32 [C, D]; 0 for a class without images.

    Parameters
    ----------
    batches : batches
        The training fold once, as ``before_eval`` is given it.
    counts : array [C]
        Images a class.
    of : callable
        Output of a batch -> the quantity, float [B, D].
    """
    sums: Tensor | None = None
    with evaluation_mode(model):
        for batch in batches:
            values = of(model(batch.x)).float()
            sums = values.new_zeros(len(counts), values.shape[1]) if sums is None else sums
            sums.index_add_(0, batch.y, values)
    assert sums is not None, "a training fold has images"
    return sums / torch.as_tensor(counts.clip(min=1), device=sums.device)[:, None]


class FirstStage:
    """Beside ``Decoupled``: whether the first stage, which has the recipe's epochs, ends with this epoch."""

    ctx: Context
    ends: bool = False

    def on_epoch_start(self, epoch: int, model: nn.Module) -> None:
        """Called by the harness before each epoch, counted over both stages."""
        self.ends = epoch == self.ctx.epochs - 1
