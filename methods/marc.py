"""Margin calibration: the margins of a trained classifier, scaled and shifted by class."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fer_bench import Method, MethodCard, Trunk

from ._shared.decoupled import SECOND_STAGE, STAGES_DEVIATION, AdjustedClassifier, Decoupled
from ._shared.reweighted import POWER, Reweighted

card = MethodCard(
    name="marc",
    title="Margin calibration (MARC)",
    paper="Wang et al., Margin Calibration for Long-Tailed Visual Recognition, ACML 2022",
    year=2022,
    url="https://arxiv.org/abs/2112.07225",
    family="two-stage",
    changes="after the usual training, trunk and classifier are frozen. Their logits z become ω_c z_c + β_c ||w_c||, "
    "with 2 C learned numbers, by cross-entropy weighted with π_c^-ρ",
    deviations=(
        STAGES_DEVIATION,
        "the second stage lasts a share of the recipe's epochs, as on ImageNet-LT (10 epochs), not a number of steps, "
        "as on CIFAR (2000 of 512 images) in the authors' code (microsoft/robustlearn 31580cd, marc)",
        "weights of images are those of their labels before smoothing; the weighted sum is divided by the weights of "
        "the batch, as PyTorch's weight argument does in that code",
    ),
    params={**SECOND_STAGE, **POWER},
)


class Margins(nn.Module):
    """A factor ω and an offset β of each class's margin."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(num_classes))
        self.shift = nn.Parameter(torch.zeros(num_classes))

    def forward(self, features: Tensor, logits: Tensor, weights: Tensor) -> Tensor:
        """Calibrated logits [B, C]: the margin z_c / ||w_c|| becomes ω_c z_c / ||w_c|| + β_c."""
        return self.scale * logits + self.shift * weights.detach().norm(dim=1)


class Marc(Reweighted, Decoupled, Method):
    """Two stages; only the margins learn in the second."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A classifier with calibrated margins."""
        return AdjustedClassifier(backbone(), self.ctx.num_classes, Margins(self.ctx.num_classes))
