"""DAN: several attention heads that must look at different places, and features pulled to separable centres."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fer_bench import Batch, Choice, Float, Insight, LossOut, Method, MethodCard, Param, Trunk

from ._shared.attention_heads import MultiHeadClassifier
from ._shared.centers import squared_gaps
from ._shared.compose import COMPOSE
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.maps import build_cam_classifier

card = MethodCard(
    name="dan",
    title="Distract Your Attention Network (DAN)",
    paper="Wen et al., Distract Your Attention: Multi-head Cross Attention Network for Facial Expression Recognition, "
    "Biomimetics 8(2), 2023",
    year=2023,
    url="https://arxiv.org/abs/2109.07270",
    family="architecture",
    changes="heads of spatial and channel attention on the last map, their log-softmax over heads summed and "
    "classified; plus an affinity loss (distance from class centres over the centres' variance) and a partition loss "
    "(small where heads agree)",
    deviations=(
        "network and losses agree with the authors' code (yaoing/DAN, commit 3872eef) on the same weights; its floor "
        "of 1e-12 on distances is left out",
        "the affinity loss reads the trunk's own pooled features: of a ResNet, the mean of the map as in the code",
        "widths of the heads follow the map's D: D/2 between the convolutions, D/16 in the channel gate (256 and 32 of "
        "512 in the code)",
        "soft labels, from votes or mixed images, have their expected distance",
        "a batch of one image is normalised by the running statistics",
        "pretraining (MS-Celeb ResNet-18), 224 pixels, SGD 0.1 with steps of 10 epochs, crops and erasing are the "
        "study's recipe",
    ),
    params={
        **COMPOSE,
        "heads": Param(
            4,
            "attention heads; 4 in paper and code. One head has neither log-softmax nor partition loss",
            low=1,
            high=32,
            space=Choice((2, 4, 6)),
        ),
        "affinity": Param(
            1.0,
            "factor on the affinity loss; 1 in paper and code",
            low=0.0,
            high=100.0,
            space=Float(0.01, 10.0, log=True),
        ),
        "partition": Param(
            1.0,
            "factor on the partition loss; 1 in paper and code",
            low=0.0,
            high=100.0,
            space=Float(0.01, 10.0, log=True),
        ),
    },
    needs=("feature map",),
)


class DAN(ComposableCrossEntropy, Method):
    """Cross-entropy, affinity loss and partition loss."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """The network; SpecError for a backbone whose map has not the width of its features."""
        trunk = build_cam_classifier(backbone(), self.ctx.num_classes, self.ctx.image_shape, card.name).trunk
        return MultiHeadClassifier(trunk, self.ctx.num_classes, self.params["heads"])

    def training_step(self, model: Any, batch: Batch) -> LossOut:
        """Loss of one batch."""
        output, shares = model(batch.x), batch.soft_target(self.ctx.num_classes)
        parts = {
            "ce": self.batch_loss(output, batch),
            "affinity": affinity_loss(output.extra["pooled"], model.centers, shares),
            "partition": partition_loss(output.extra["heads"]),
        }
        extra = sum(self.params[name] * parts[name] for name in ("affinity", "partition"))
        return LossOut(total=parts["ce"] + extra, parts=parts, output=output)

    def insight(self, model: Any, x: Tensor) -> Insight:
        """The spatial attention of each head."""
        fmap, _ = model.trunk(x)
        return Insight(maps={f"head {k}": head.attention(fmap)[:, 0] for k, head in enumerate(model.heads, 1)})


def affinity_loss(features: Tensor, centers: Tensor, shares: Tensor) -> Tensor:
    """Mean over images of Σ_k q_k ‖f - c_k‖², over the variance of the centres summed over dimensions.

    Centres learn by gradient; pushing them apart lowers the loss, so they don't collapse with the features.
    """
    variance = centers.var(0).sum() if len(centers) > 1 else centers.new_ones(())
    return squared_gaps(features, centers, shares).sum(1).mean() / variance


def partition_loss(heads: Tensor) -> Tensor:
    """log(1 + N / v), with v the variance over the N heads [B, N, D], averaged over images and dimensions."""
    if heads.shape[1] == 1:
        return heads.new_zeros(())
    variance = heads.var(1).mean()
    return torch.log1p(heads.shape[1] / (variance + torch.finfo(torch.float32).tiny ** 0.5))
