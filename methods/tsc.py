"""Targeted supervised contrastive learning: classes are drawn to places that lie as far apart as they can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import Batch, Float, LossOut, Method, MethodCard, Output, Param, SpecError, Stage, StreamSpec, Trunk

from ._shared.compose import SAMPLER, Composable
from ._shared.contrastive import (
    AUGMENT,
    HEAD_STAGE,
    NEVER,
    compared_view,
    contrast,
    not_self,
    similarities,
    some_positives,
)
from ._shared.corners import TargetedClassifier
from ._shared.decoupled import BALANCED, SECOND, Decoupled
from ._shared.samplers import make_sampler

card = MethodCard(
    name="tsc",
    title="Targeted supervised contrastive learning (TSC)",
    paper="Li et al., Targeted supervised contrastive learning for long-tailed recognition, CVPR 2022",
    year=2022,
    url="https://arxiv.org/abs/2111.13998",
    family="contrastive",
    changes="KCL (supcon with six positives), and from the middle of the first stage on, embeddings are drawn as well "
    "to the corner of a regular simplex that is their class's; classes and corners are matched by nearness",
    deviations=(
        "images are compared with those of their batch; the authors' code compares them with a momentum queue",
        "the corners are exact, as there are not more classes than dimensions; the authors optimise them for 1,000",
        "classes and corners are matched at the start of each epoch; LTH14/targeted-supcon at c4f15eb does so each "
        "step, with the same running centres of classes",
        "the loss is that code's (sep_t), with its weight 0.2 of the target",
        "the optimiser is not started anew in the middle of the first stage",
        "the views are moved, turned and erased in part; the authors crop them and change their colours",
        "images are drawn together by their label; soft labels count in the second stage alone",
    ),
    params={
        **AUGMENT,
        **SAMPLER,
        **HEAD_STAGE,
        **BALANCED,
        "temperature": Param(
            0.07, "τ; 0.07 in the authors' code", low=0.005, high=10.0, space=Float(0.05, 0.5, log=True)
        ),
        "positives": Param(
            6, "how many other images of its class an image is drawn to; 6 in the authors' code", low=1, high=1024
        ),
        "target": Param(
            0.2, "weight of the corner among the positives; 0.2 in the authors' code", low=0.0, high=10.0,
            space=Float(0.05, 1.0),
        ),
        "target.from": Param(
            0.5, "share of the first stage after which the corners count; 0.5 in the authors' code", low=0.0, high=1.0
        ),
        "dim": Param(128, "length of the embedding; at least the number of classes", low=8, high=4096),
    },
)  # fmt: skip


class TSC(Decoupled, Composable, Method):
    """Two stages: embeddings, then the head."""

    card = card
    frozen = ("trunk", "projector")
    fresh = ("head",)

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """The network with its corners."""
        classes, dim = self.ctx.num_classes, self.params["dim"]
        if classes > dim:
            raise SpecError(f"{classes} classes need embeddings of as many dimensions", where=f"tsc[dim={dim}]")
        return TargetedClassifier(backbone(), classes, dim)

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """Two views of each image first, one for the head."""
        if stage.name == SECOND:
            return {"main": StreamSpec(sampler=make_sampler(self.params["second.sampler"], self.ctx))}
        augment = compared_view(self.params["augment"], self.ctx)
        return {"main": StreamSpec(sampler=self.sampler(), views=2, augment=augment)}

    def on_epoch_start(self, epoch: int, model: Any) -> None:
        """Match classes and corners."""
        model.match()

    def training_step(self, model: Any, batch: Batch) -> LossOut:
        """The contrastive loss of both views in the first stage, cross-entropy in the second."""
        if len(batch.views) == 1:
            return super().training_step(model, batch)
        z, y = model.projector(model(torch.cat(batch.views)).features), batch.y.repeat(2)
        model.follow(z, y)
        images = torch.arange(len(batch.y), device=y.device).repeat(2)
        positives = some_positives(y, images, self.params["positives"], self.generator("positives"))
        targeted = batch.epoch >= self.ctx.epoch_after(self.params["target.from"])
        corners = model.corners[model.corner_of] if targeted else z[:0]
        return LossOut(total=self.pull(z, y, positives, corners).mean())

    def pull(self, z: Tensor, y: Tensor, positives: Tensor, corners: Tensor) -> Tensor:
        """-(Σ_p log q_p + w log q_corner) / (|P| + 1) of each embedding [N]; without corners KCL's loss.

        Parameters
        ----------
        z, y : tensors [N, D], [N]
        positives : bool tensor [N, N]
        corners : tensor [C, D], or [0, D]
            By class.
        """
        logits = similarities(z, torch.cat([z, corners]), self.params["temperature"])
        own = y[:, None] == torch.arange(len(corners), device=y.device)
        weights = torch.cat([positives.float(), self.params["target"] * own], dim=1)
        others = torch.cat([not_self(len(z), len(z), z.device), torch.ones_like(own)], dim=1)
        count = positives.sum(1) + own.sum(1)
        return contrast(logits, weights, torch.where(others, 0.0, NEVER)) * weights.sum(1) / count.clamp_min(1)

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy of the head."""
        return F.cross_entropy(output.logits, target)
