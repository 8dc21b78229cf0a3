"""Ring loss: the length of features is pulled to a radius that is learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fer_bench import Batch, Classifier, Float, LossOut, Method, MethodCard, Param, Trunk

from ._shared.compose import COMPOSE
from ._shared.cross_entropy import ComposableCrossEntropy

card = MethodCard(
    name="ring_loss",
    title="Ring loss",
    paper="Zheng et al., Ring loss: Convex Feature Normalization for Face Recognition, CVPR 2018",
    year=2018,
    url="https://arxiv.org/abs/1803.00130",
    family="loss",
    changes="plus λ/2 times the mean squared difference between the length of the features and a learned radius",
    deviations=(
        "the L2 form of the authors' code (Paralysis/ringloss, read in copies): its radius starts at the mean length "
        "in the first batch too. Its forms l1 and auto, which divides by the mean length, are left out",
        "the radius learns at the recipe's rate, without weight decay",
        "network, images and optimiser are the study's recipe. λ was set for face recognition",
    ),
    params={
        **COMPOSE,
        "weight": Param(
            0.01,
            "λ; 0.01 is what the authors' code advises for this form",
            low=0.0,
            high=100.0,
            space=Float(0.001, 1.0, log=True),
        ),
    },
)


class RingClassifier(Classifier):
    """A plain classifier and a radius, below 0 until the first batch has set it."""

    def __init__(self, trunk: Trunk, num_classes: int):
        super().__init__(trunk, num_classes)
        self.radius = nn.Parameter(torch.tensor(-1.0))


class RingLoss(ComposableCrossEntropy, Method):
    """Cross-entropy and distances from the ring."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A classifier with a radius."""
        return RingClassifier(backbone(), self.ctx.num_classes)

    def training_step(self, model: Any, batch: Batch) -> LossOut:
        """Loss of one batch."""
        output = model(batch.x)
        lengths = feature_lengths(output.features)
        with torch.no_grad():
            model.radius.copy_(torch.where(model.radius < 0, lengths.mean(), model.radius))
        parts = {"ce": self.batch_loss(output, batch), "ring": (lengths - model.radius).square().mean() / 2}
        return LossOut(total=parts["ce"] + self.params["weight"] * parts["ring"], parts=parts, output=output)


def feature_lengths(features: Tensor) -> Tensor:
    """‖f_i‖ of features [B, D], float32 [B]; with a gradient of 0 where f is 0."""
    return features.float().square().sum(1).clamp_min(1e-12).sqrt()
