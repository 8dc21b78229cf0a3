"""Means over the training images of each class, as a network has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn

from fer_bench import Batch, Context, Output, evaluation_mode


@torch.no_grad()
def class_sums(
    model: nn.Module, batches: Iterable[Batch], num_classes: int, of: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Sums of a quantity over the images of each class, float32 [C, ...], and their numbers [C], in evaluation mode.

    Parameters
    ----------
    batches : batches
        The training fold once, as ``before_eval`` is given it.
    of : callable
        Images [B, ...] -> the quantity, float [B, ...].
    """
    sums: Tensor | None = None
    counts = torch.zeros(num_classes)
    with evaluation_mode(model):
        for batch in batches:
            values = of(batch.x).float()
            if sums is None:
                sums, counts = values.new_zeros(num_classes, *values.shape[1:]), counts.to(values.device)
            sums.index_add_(0, batch.y, values)
            counts += torch.bincount(batch.y, minlength=num_classes)
    assert sums is not None, "a training fold has images"
    return sums, counts


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
    sums, _ = class_sums(model, batches, len(counts), lambda x: of(model(x)))
    return sums / torch.as_tensor(counts.clip(min=1), device=sums.device)[:, None]


class FirstStage:
    """Beside ``Decoupled``: whether the first stage, which has the recipe's epochs, ends with this epoch."""

    ctx: Context
    ends: bool = False

    def on_epoch_start(self, epoch: int, model: nn.Module) -> None:
        """Called by the harness before each epoch, counted over both stages."""
        self.ends = epoch == self.ctx.epochs - 1
