"""RIDE: experts that share their first stages and are told to disagree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import Batch, Float, LossOut, Method, MethodCard, Output, Param, Trunk

from ._shared.compose import Composable
from ._shared.deferred import DEFERRED
from ._shared.experts import COUNT, OWN, Experts, each
from ._shared.heads import CosineLinear
from ._shared.losses import ldam_margins, margin_losses, row_of

card = MethodCard(
    name="ride",
    title="Routing diverse experts (RIDE), without the router",
    paper="Wang et al., Long-tailed recognition by routing diverse distribution-aware experts, ICLR 2021",
    year=2021,
    url="https://arxiv.org/abs/2010.01809",
    family="multi-expert",
    changes="experts with cosine heads and the loss LDAM-DRW each; a term rewards their difference from the mean "
    "answer, with a temperature by class that is lower for rare classes; the mean of their logits is the answer",
    deviations=(
        "all experts answer; the router, which asks fewer of them to save time, and the distillation are left out",
        "experts have the backbone's full width; the authors' have fewer channels in their own stages",
        "the term is KL(mean, expert) with a mean that has no gradient, as in frank-xwang/RIDE-LongTailRecognition at "
        "ab8be5c, with which the loss agrees; the paper's term is over all pairs of experts",
        "a weighted loss is divided by the number of images; the code divides by the sum of the weights",
        "temperatures by class set in with the weights, as in the code; with weights=none, where the code fails, they "
        "do from the start",
    ),
    params={
        **DEFERRED,
        **COUNT,
        **OWN,
        "loss": Param(
            "ldam",
            "loss of each expert; ldam: margins and a cosine head, as in the authors' configurations; ce: "
            "cross-entropy and a linear head",
            choices=("ldam", "ce"),
        ),
        "diversity": Param(
            0.2,
            "factor on the term for difference; 0.2 is the code's default, 0.45 that for CIFAR-100-LT. 0: no term",
            low=0.0,
            high=2.0,
            space=Float(0.0, 0.6),
        ),
        "temperature": Param(1.0, "T of the term for difference; 1 in the authors' code", low=0.1, high=20.0),
        "spread": Param(
            0.05,
            "ρ in T_c ∝ C π_c ρ + 1 - ρ, whose largest is T; 0.05 is the code's default, 0 the same T for all classes",
            low=0.0,
            high=0.99,
        ),
        "margin": Param(0.5, "largest margin of LDAM, in units of the cosine", low=0.0, high=2.0),
        "scale": Param(30.0, "scale of the cosine heads; 30 in the authors' code", low=1.0, high=128.0),
    },
    needs=("stages",),
)


class Ride(Composable, Method):
    """The sum of the experts' losses, less a share of their differences."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """Experts that share their first stages."""
        return Experts(backbone, self.params["experts"], self.params["own"], self.head)

    def head(self, features: int) -> nn.Module:
        """A head for one expert."""
        if self.params["loss"] == "ce":
            return nn.Linear(features, self.ctx.num_classes)
        return CosineLinear(features, self.ctx.num_classes, self.params["scale"])

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """Every expert learns by itself, and away from the mean."""
        output = model(batch.x)
        learn = torch.stack([self.batch_loss(one, batch) for one in each(output)]).sum()
        differ = differences(output.extra["experts"], self.temperatures(batch.epoch)).sum(1).mean()
        total = learn - self.params["diversity"] * differ
        return LossOut(total=total, parts={"learn": learn, "differ": differ}, output=output)

    def temperatures(self, epoch: int) -> np.ndarray:
        """T_c, the same for all classes until weights by class set in [C]."""
        ctx, rho = self.ctx, self.params["spread"]
        if self.params["weights"] != "none" and epoch < ctx.epoch_after(self.params["weights.from"]):
            return np.full(ctx.num_classes, self.params["temperature"])
        raw = ctx.num_classes * ctx.counts / ctx.counts.sum() * rho + 1 - rho
        return self.params["temperature"] * raw / raw.max()

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Loss of each image [B] for one expert."""
        if self.params["loss"] == "ce":
            return F.cross_entropy(output.logits, target, reduction="none")
        margins = self.params["scale"] * ldam_margins(self.ctx.counts, self.params["margin"])
        return margin_losses(output.logits, target, row_of(margins, output.logits))


def differences(logits: Tensor, temperatures: np.ndarray) -> Tensor:
    """T̄² KL(softmax(z̄ / T), softmax(z_m / T)) of each image and expert, float32 [B, M].

    z̄ is the mean over experts and has no gradient; T̄ is the mean of the temperatures of classes.

    Parameters
    ----------
    logits : tensor [B, M, C]
    temperatures : array [C]
    """
    t = row_of(temperatures, logits)
    mean = F.log_softmax(logits.detach().float().mean(1, keepdim=True) / t, dim=2)
    own = F.log_softmax(logits.float() / t, dim=2)
    return float(temperatures.mean()) ** 2 * (mean.exp() * (mean - own)).sum(2)
