"""A second stage that calibrates frozen logits by a loss weighted with a power of the class frequencies."""

from __future__ import annotations

from torch import Tensor

from fer_bench import Batch, Context, Float, Param

from .cross_entropy import CrossEntropyByImage
from .decoupled import SECOND
from .losses import inverse_weights, relative

POWER = {
    "rho": Param(
        1.2,
        "weights of the second stage ∝ π_c^-ρ: 1.2 in the authors' ImageNet-LT configuration, 0 weighs all alike",
        low=0.0,
        high=3.0,
        space=Float(0.0, 2.0),
    ),
}


class Reweighted(CrossEntropyByImage):
    """Beside `Decoupled`: its second stage learns the module `head.adjust` alone, by weighted cross-entropy."""

    params: dict
    ctx: Context
    moment: tuple[str, int, int]
    frozen: tuple[str, ...] = ("trunk", "head.linear")
    waits: tuple[str, ...] = ("head.adjust",)

    def image_weights(self, batch: Batch) -> Tensor | None:
        """Weights [B] by the classes of the labels in the second stage (Zhang et al. 2021, eq. 12); none before."""
        if self.moment[0] != SECOND:
            return None
        return relative(batch.expected(inverse_weights(self.ctx.counts, self.params["rho"], "classes")))
