"""Distribution alignment: frozen logits, scaled and shifted by class as far as the image calls for it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fer_bench import Method, MethodCard, Trunk

from ._shared.decoupled import SECOND_STAGE, STAGES_DEVIATION, AdjustedClassifier, Decoupled
from ._shared.reweighted import POWER, Reweighted

card = MethodCard(
    name="disalign",
    title="Distribution alignment (DisAlign)",
    paper="Zhang et al., Distribution Alignment: A Unified Framework for Long-tail Visual Recognition, CVPR 2021, "
    "section 3.3",
    year=2021,
    url="https://arxiv.org/abs/2103.16370",
    family="two-stage",
    changes="after the usual training, trunk and classifier are frozen. Their logits z become "
    "σ(x) (α_c z_c + β_c) + (1 - σ(x)) z_c, with σ(x) = sigmoid(v x + u). α, β, v and u are learned by cross-entropy "
    "weighted with π_c^-ρ",
    deviations=(
        STAGES_DEVIATION,
        "α starts at 1 and β at 0, so that the second stage starts from the logits of the first; the authors' layer "
        "(cvpods DisAlignLinear, as copied in public repositories) learns α - 1 and starts it at 1, so at α = 2",
        "the weights v of the confidence start at 0.1 as in that layer, its bias u at 0 instead of at random",
        "weights of images are those of their labels before smoothing; the weighted sum is divided by the weights of "
        "the batch, as PyTorch's weight argument does in the authors' code (Megvii-BaseDetection/DisAlign a2fc350)",
    ),
    params={**SECOND_STAGE, **POWER},
)


class Alignment(nn.Module):
    """Scale α and shift β of each class, and the confidence with which they are applied."""

    def __init__(self, features: int, num_classes: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(num_classes))
        self.shift = nn.Parameter(torch.zeros(num_classes))
        self.direction = nn.Parameter(torch.full((features,), 0.1))
        self.offset = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor, logits: Tensor, weights: Tensor) -> Tensor:
        """Aligned logits [B, C]."""
        confidence = torch.sigmoid(features @ self.direction + self.offset)[:, None]
        return logits + confidence * ((self.scale - 1) * logits + self.shift)


class DisAlign(Reweighted, Decoupled, Method):
    """Two stages; only the alignment learns in the second."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A classifier whose logits are aligned."""
        trunk = backbone()
        alignment = Alignment(trunk.num_features, self.ctx.num_classes)
        return AdjustedClassifier(trunk, self.ctx.num_classes, alignment)
