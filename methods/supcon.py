"""Supervised contrastive learning: a representation from pairs of images, then a linear classifier on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import Batch, Float, LossOut, Method, MethodCard, Output, Param, Stage, StreamSpec, Trunk

from ._shared.compose import SAMPLER, Composable
from ._shared.contrastive import (
    AUGMENT,
    HEAD_STAGE,
    ContrastiveClassifier,
    Projector,
    compared_view,
    some_positives,
    supervised_contrast,
)
from ._shared.decoupled import SECOND, Decoupled
from ._shared.samplers import SAMPLERS, make_sampler

card = MethodCard(
    name="supcon",
    title="Supervised contrastive learning (SupCon, KCL)",
    paper="Khosla et al., Supervised contrastive learning, NeurIPS 2020; positives=6: Kang et al., Exploring balanced "
    "feature spaces for representation learning, ICLR 2021",
    year=2020,
    url="https://arxiv.org/abs/2004.11362",
    family="contrastive",
    also_known={"kcl": "positives=6, temperature=0.07, second.sampler=balanced"},
    changes="first stage: images of a class are drawn together and others apart, as embeddings of two views; second "
    "stage: a linear classifier on the frozen features. With positives=6 it is k-positive contrastive learning (KCL)",
    deviations=(
        "the loss is eq. 2 of the paper; it agrees with HobbitLong/SupContrast at 66a8fe5, which multiplies it by "
        "τ/0.07 besides",
        "the first stage lasts as long as the recipe; the papers train 200 to 1,000 epochs, with larger batches",
        "the views are moved, turned and erased in part; the papers crop them and change their colours",
        "KCL's authors take positives from a momentum queue, the first k of a class; here they are drawn "
        "from the batch, and the classifier's stage is balanced with second.sampler=balanced",
        "images are drawn together by their label; soft labels count in the second stage alone",
    ),
    params={
        **AUGMENT,
        **SAMPLER,
        **HEAD_STAGE,
        "temperature": Param(
            0.1,
            "τ; 0.1 in Khosla et al., 0.07 in KCL's code",
            low=0.005,
            high=10.0,
            space=Float(0.05, 0.5, log=True),
        ),
        "positives": Param(
            0,
            "how many other images of its class an image is drawn to, besides its own second view; 0: all of the "
            "batch. KCL takes 6, so that frequent classes are not drawn together more tightly",
            low=0,
            high=1024,
        ),
        "dim": Param(128, "length of the embedding; 128 in both papers", low=2, high=4096),
        "second.sampler": Param(
            "shuffle",
            "how the second stage draws its images; shuffle: linear evaluation, balanced: as in KCL. "
            "progressive is balanced by then",
            choices=SAMPLERS,
        ),
    },
)


class SupCon(Decoupled, Composable, Method):
    """Two stages: embeddings, then the head."""

    card = card
    frozen = ("trunk", "projector")
    fresh = ("head",)

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A classifier with a projector, as in the authors' code without BatchNorm."""
        trunk = backbone()
        return ContrastiveClassifier(
            trunk, self.ctx.num_classes, Projector(trunk.num_features, self.params["dim"])
        )  # fmt: skip

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """Two views of each image first, one for the head."""
        if stage.name == SECOND:
            return {"main": StreamSpec(sampler=make_sampler(self.params["second.sampler"], self.ctx))}
        augment = compared_view(self.params["augment"], self.ctx)
        return {"main": StreamSpec(sampler=self.sampler(), views=2, augment=augment)}

    def training_step(self, model: Any, batch: Batch) -> LossOut:
        """The contrastive loss of all views in the first stage, cross-entropy in the second."""
        if len(batch.views) == 1:
            return super().training_step(model, batch)
        output = model(torch.cat(batch.views))
        return LossOut(total=self.pull(model.projector(output.features), batch))

    def pull(self, z: Tensor, batch: Batch) -> Tensor:
        """Mean contrastive loss of embeddings [views B, D], the first view of all images first."""
        y, k = batch.y.repeat(len(batch.views)), self.params["positives"]
        positives = None
        if k:
            images = torch.arange(len(batch.y), device=y.device).repeat(len(batch.views))
            positives = some_positives(y, images, k, self.generator("positives"))
        return supervised_contrast(z, y, self.params["temperature"], positives).mean()

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy of the head."""
        return F.cross_entropy(output.logits, target)
