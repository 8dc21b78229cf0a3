"""Cross-entropy that composes, for methods that add to it or change the network below it."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from fer_bench import Output

from .compose import Composable


class ComposableCrossEntropy(Composable):
    """The hooks of :class:`.compose.Composable` and a loss that they can weigh."""

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy of each image, float32 [B]."""
        return F.cross_entropy(output.logits.float(), target, reduction="none")
