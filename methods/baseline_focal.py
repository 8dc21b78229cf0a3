"""Focal loss: easy examples count less."""

from __future__ import annotations

from torch import Tensor

from fer_bench import Float, Method, MethodCard, Output, Param

from ._shared.compose import COMPOSE, Composable
from ._shared.losses import focal_losses

card = MethodCard(
    name="baseline_focal",
    title="Focal loss",
    paper="Lin et al., Focal Loss for Dense Object Detection, ICCV 2017",
    year=2017,
    url="https://arxiv.org/abs/1708.02002",
    family="loss",
    changes="loss Σ_k q_k (1 - p_k)^γ (-log p_k) instead of Σ_k q_k (-log p_k)",
    deviations=(
        "softmax over classes, as usual for classification; the paper detects with one sigmoid per class",
        "soft targets (label smoothing, mixup) sum the loss over classes; on one-hot targets it is the paper's",
        "the paper's bias initialisation for rare foreground is left out, since there is no background class",
        "with weights, an image has the weight of its label before smoothing, and soft labels their expected weight",
        "p stays that of the unweighted softmax, unlike in the LDAM and SADE code",
        "weights=effective follows Cui et al. 2019, with the softmax instead of their sigmoid",
    ),
    calibration="on soft targets the focal loss is lowest at probabilities flatter than the target, so confidences are "
    "lower by design: with label smoothing 0.1, 7 classes and γ = 2 at p = 0.69 for the label, cross-entropy at 0.91",
    params={
        **COMPOSE,
        "gamma": Param(
            2.0,
            "focusing exponent γ; 0 is cross-entropy, 2 the paper's best (table 1b), 1 in the LDAM and IB code",
            low=0.0,
            high=10.0,
            space=Float(0.5, 5.0),
        ),
    },
    tier="baseline",
)


class BaselineFocal(Composable, Method):
    """Cross-entropy with factor (1 - p)^γ."""

    card = card

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Focal loss of each image [B]."""
        return focal_losses(output.logits, target, self.params["gamma"])
