"""Deep Attentive Center Loss: which dimensions of the features are pulled to the centre, an attention decides."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fer_bench import Batch, Choice, Float, LossOut, Method, MethodCard, Output, Param, Trunk

from ._shared.centers import CentredClassifier, center_steps, squared_gaps
from ._shared.compose import COMPOSE
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.layers import BatchNorm
from ._shared.maps import map_shape

card = MethodCard(
    name="dacl",
    title="Deep Attentive Center Loss (DACL)",
    paper="Farzaneh and Qi, Facial Expression Recognition in the Wild via Deep Attentive Center Loss, WACV 2021",
    year=2021,
    url="https://github.com/amirhfarzaneh/dacl",
    family="loss",
    changes="plus λ/2 times the mean squared distance of features from their class's centre, each dimension with a "
    "weight between 0 and 1 that a perceptron reads from the last map. Predictions use neither",
    deviations=(
        "loss, gradients and steps of the centres agree with the authors' code (amirhfarzaneh/dacl, commit c41e9e8)",
        "centres don't follow the learning rate's schedule, neither here nor there, and start at a length near 1, "
        "where the code's start at √(2D/C), about 12",
        "the first hidden layer has a seventh of the map's size, the code's 3584 of 25088; other maps are not in it",
        "soft labels, from votes or mixed images, have their expected distance and share in the centres",
        "pretraining (MS-Celeb ResNet-18), 224 pixels, five crops, optimiser and schedule are the study's recipe",
    ),
    params={
        **COMPOSE,
        "weight": Param(0.01, "λ; 0.01 in paper and code", low=0.0, high=10.0, space=Float(0.001, 0.1, log=True)),
        "center_rate": Param(
            0.5,
            "share of its step by which a centre moves at once; 0.5 in the code, not multiplied by λ",
            low=0.0,
            high=1.0,
            space=Choice((0.1, 0.5, 1.0)),
        ),
    },
    needs=("feature map",),
)
HIDDEN = (512, 64)  # of the code


class AttentiveClassifier(CentredClassifier):
    """A classifier with centres, and in training a weight in (0, 1) for each dimension of the features."""

    def __init__(self, trunk: Trunk, num_classes: int, shape: tuple[int, int, int]):
        super().__init__(trunk, num_classes)
        size = shape[0] * shape[1] * shape[2]
        widths = (size, max(1, size // 7), *HIDDEN)
        layers: list[nn.Module] = []
        for width, following in pairwise(widths):
            layers += [nn.Linear(width, following), BatchNorm(following), nn.ReLU()]
        layers[-1] = nn.Tanh()
        self.attention = nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 2 * trunk.num_features))
        for layer in self.attention:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Output:
        """Logits, features and map, and in training the attention [B, D]."""
        output = super().forward(x)
        if self.training and output.fmap is not None:
            with torch.autocast(x.device.type, enabled=False):
                pairs = self.attention(output.fmap.float().flatten(1)).reshape(len(x), -1, 2)
            output.extra["attention"] = pairs.softmax(2)[:, :, 1]
        return output


class DACL(ComposableCrossEntropy, Method):
    """Cross-entropy and attentive distances from moving centres."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A classifier with centres and attention; SpecError for a backbone without a map."""
        trunk = backbone()
        return AttentiveClassifier(trunk, self.ctx.num_classes, map_shape(trunk, self.ctx.image_shape, card.name))

    def training_step(self, model: Any, batch: Batch) -> LossOut:
        """Loss of one batch; no gradient reaches the centres."""
        output = model(batch.x)
        gaps = squared_gaps(output.features, model.centers, batch.soft_target(self.ctx.num_classes))
        sparse = (output.extra["attention"] * gaps).sum(1).mean() / 2
        parts = {"ce": self.batch_loss(output, batch), "center": sparse}
        return LossOut(total=parts["ce"] + self.params["weight"] * sparse, parts=parts, output=output)

    @torch.no_grad()
    def on_step_end(self, model: Any, batch: Batch, loss: LossOut) -> None:
        """Move the centres by the features of this step, dimension by dimension as the attention says."""
        assert loss.output is not None
        shares, attention = batch.soft_target(self.ctx.num_classes), loss.output.extra["attention"]
        step = center_steps(model.centers, loss.output.features, shares, attention)
        model.centers -= self.params["center_rate"] * step
