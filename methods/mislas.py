"""MiSLAS: mixup for the trunk, then a classifier with label-aware smoothing and learned scales."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import Batch, Float, LossOut, Method, MethodCard, Output, Param, Stage, Trunk

from ._shared.decoupled import (
    BALANCED,
    FIRST,
    SAMPLER_DEVIATION,
    SECOND,
    SECOND_STAGE,
    STAGES_DEVIATION,
    AdjustedClassifier,
    Decoupled,
    Scales,
)
from ._shared.losses import row_of
from ._shared.mixing import mixed
from ._shared.smoothing import label_aware_losses, label_aware_shares

card = MethodCard(
    name="mislas",
    title="Mixup, then shifted learning with label-aware smoothing (MiSLAS)",
    paper="Zhong et al., Improving Calibration for Long-Tailed Recognition, CVPR 2021",
    year=2021,
    url="https://arxiv.org/abs/2104.00466",
    family="two-stage",
    changes="the trunk is trained with mixup and frozen. The classifier learns on, slower, with one scale a class, on "
    "class-balanced batches, by cross-entropy on targets smoothed by ε_c, the more the larger the class",
    deviations=(
        STAGES_DEVIATION,
        SAMPLER_DEVIATION,
        "the smoothed target keeps the mass 1 - ε_c + ε_c/C on the true class, as in the authors' code "
        "(dvlab-research/MiSLAS 0fc381e, methods.py), not 1 - ε_c as in the paper's eq. 7",
        "ε_h = 0.3 is the code's for CIFAR10-LT, the set with a number of classes like ours; 0.4 for CIFAR100-LT",
        "in the second stage, label-aware smoothing takes the place of the recipe's",
        "the scales have no weight decay, as no vector has in the recipe; in the code they decay with 2e-4",
    ),
    calibration="label-aware smoothing lowers the confidence for large classes by design",
    params={
        **SECOND_STAGE,
        **BALANCED,
        "mix.alpha": Param(
            1.0,
            "both parameters of the Beta distribution of mixup's share in the first stage; 1 in the paper",
            low=0.01,
            high=10.0,
            space=Float(0.1, 2.0),
        ),
        "smooth.head": Param(0.3, "smoothing ε_h of the largest class", low=0.0, high=0.9, space=Float(0.1, 0.5)),
        "smooth.tail": Param(0.0, "smoothing ε_t of the smallest class; 0 in the code", low=0.0, high=0.9),
        "second.head_lr": Param(
            0.5,
            "factor on the learning rate of the classifier's weights beside that of the scales: 0.5 in the code for "
            "CIFAR10-LT, 0.05 to 0.2 for larger sets",
            low=0.0,
            high=1.0,
        ),
        "shift_bn": Param(
            False,
            "whether BatchNorm's running statistics follow the class-balanced batches in the second stage; off for "
            "CIFAR10-LT in the code, on for the larger sets",
        ),
    },
)


class Mislas(Decoupled, Method):
    """Two stages: mixup, then head and scales."""

    card = card
    waits = ("head.adjust",)

    def stages(self) -> list[Stage]:
        """With shifted statistics no part is frozen as a whole, as frozen BatchNorm keeps its statistics."""
        self.frozen = () if self.params["shift_bn"] else ("trunk",)
        return Decoupled.stages(self)

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A classifier with a scale for each class."""
        return AdjustedClassifier(backbone(), self.ctx.num_classes, Scales(self.ctx.num_classes))

    def on_stage_start(self, stage: Stage, model: nn.Module, view: object) -> None:
        """Note which stage it is: `on_batch` is not told."""
        self.stage = stage.name

    def param_groups(self, model: nn.Module, stage: Stage) -> list[dict] | None:
        """Head and scales at their own rates in the second stage, and nothing of the trunk."""
        if stage.name == FIRST:
            return None
        head: Any = model.get_submodule("head")
        factor = self.params["second.head_lr"]
        return [
            {"params": [head.linear.weight], "lr_scale": factor},
            {"params": [head.linear.bias], "lr_scale": factor, "weight_decay": 0.0},
            {"params": [head.adjust.scale], "weight_decay": 0.0},
        ]

    def on_batch(self, batch: Batch) -> Batch:
        """Mixed images and targets in the first stage."""
        return mixed("mixup", batch, self.ctx.counts, self.params["mix.alpha"]) if self.stage == FIRST else batch

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """The trunk is read without gradients in the second stage."""
        if self.moment[0] != SECOND:
            return Method.training_step(self, model, batch)
        network: Any = model
        with torch.no_grad():
            fmap, features = network.trunk(batch.x)
        output = Output(logits=network.classify(features), features=features, fmap=fmap)
        plain = batch.with_(smoothing=0.0)  # label-aware smoothing takes the place of the recipe's
        return LossOut(total=self.batch_loss(output, plain), output=output)

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy of each image [B], with label-aware smoothing in the second stage."""
        if self.moment[0] != SECOND:
            return F.cross_entropy(output.logits, target, reduction="none")
        shares = label_aware_shares(self.ctx.counts, self.params["smooth.head"], self.params["smooth.tail"])
        return label_aware_losses(output.logits, target, row_of(shares, output.logits))
