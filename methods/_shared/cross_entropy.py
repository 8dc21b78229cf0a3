"""Cross-entropy of each image, which weights can multiply, alone and with the pieces that compose."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from fer_bench import Output

from .compose import Composable


class CrossEntropyByImage:
    """A loss that ``image_weights`` can weigh."""

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy of each image, float32 [B]."""
        return F.cross_entropy(output.logits.float(), target, reduction="none")


class ComposableCrossEntropy(CrossEntropyByImage, Composable):
    """The hooks of :class:`.compose.Composable` and a loss that they can weigh."""
