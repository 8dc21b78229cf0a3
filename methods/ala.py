"""Adaptive logit adjustment: margins by rarity and difficulty."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor, nn

from fer_bench import Float, Method, MethodCard, Output, Param, Trunk

from ._shared.compose import COMPOSE, Composable
from ._shared.heads import CosineClassifier
from ._shared.losses import margin_losses, row_of

card = MethodCard(
    name="ala",
    title="Adaptive logit adjustment loss (ALA)",
    paper="Zhao et al., Adaptive Logit Adjustment Loss for Long-Tailed Visual Recognition, AAAI 2022",
    year=2022,
    url="https://arxiv.org/abs/2104.06094",
    family="logit adjustment",
    changes="a cosine head of scale s; the logit of the label loses s times difficulty times rarity: (1 - cos θ_y) / "
    "2, which has no gradient, and 1 / log₂(n_y / n_min + 1)",
    deviations=(
        "the authors' code was not found: the loss agrees with ALALoss of github.com/liming-ai/OpenLT (52a0dc2). The "
        "paper, as recalled, writes log without a base; base 2 gives the rarest class the factor 1",
        "with label smoothing, votes or mixup: the expected loss over the labels of the target, each with its own "
        "terms",
        "n_min is that of the classes with images; a class without has no margin",
    ),
    params={
        **COMPOSE,
        "scale": Param(30.0, "scale s of the cosine head; 30 as in LDAM's code", low=1.0, high=100.0),
        "strength": Param(
            1.0,
            "factor on the adjustment; 1 as in OpenLT, 0 is a plain cosine head",
            low=0.0,
            high=5.0,
            space=Float(0.25, 2.0),
        ),
    },
)


class AdaptiveLogitAdjustment(Composable, Method):
    """Hard images of rare classes must win by the most."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A trunk with a cosine head."""
        return CosineClassifier(backbone(), self.ctx.num_classes, self.params["scale"])

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy of each image [B] with the margin of its label."""
        difficulty = (self.params["scale"] - output.logits.detach().float()) / 2  # s (1 - cos θ) / 2
        rarity = row_of(self.params["strength"] * rarities(self.ctx.counts), output.logits)
        return margin_losses(output.logits, target, difficulty * rarity)


def rarities(counts: np.ndarray) -> np.ndarray:
    """1 / log₂(n_c / n_min + 1), float64 [C]: 1 for the rarest class, 0 for a class without images."""
    counts = np.asarray(counts, dtype=np.float64)
    present = counts > 0
    return np.where(present, 1 / np.log2(np.where(present, counts, 1.0) / counts[present].min() + 1), 0.0)
