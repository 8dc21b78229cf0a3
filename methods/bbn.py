"""Bilateral-branch network: one branch learns from images as they come, the other from rare classes above all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import Batch, Branches, LossOut, Method, MethodCard, Output, Param, Stage, StreamSpec, Trunk

from ._shared.experts import answer
from ._shared.samplers import make_sampler

card = MethodCard(
    name="bbn",
    title="Bilateral-branch network (BBN)",
    paper="Zhou et al., BBN: Bilateral-branch network with cumulative learning for long-tailed visual recognition, "
    "CVPR 2020",
    year=2020,
    url="https://arxiv.org/abs/1912.02413",
    family="multi-expert",
    changes="two branches behind common stages. One sees the images as they come, the other classes in proportion to "
    "1/n_c. Their features have the weights l and 1 - l in the logits and the losses, and l falls from 1 to 0 as "
    "1 - (e/E)²; 1/2 each at test",
    deviations=(
        "each branch has its own last stage; the authors' have their own last residual block",
        "needs a backbone that can be divided (ResNet, RegNet, ConvNeXt, EfficientNet, vision transformer)",
        "the authors' code stretches E beyond the epochs for 90 and 180 epochs (to 100 and 200); here l reaches "
        "1 - ((E-1)/E)² in the last epoch, as for other lengths there",
        "the loss agrees with Megvii-Nanjing/BBN at 7992e90",
    ),
    params={
        "own": Param(1, "how many of the four stages each branch has for itself", choices=(1, 2, 3)),
        "decay": Param(
            "parabolic",
            "how l falls over the epochs: parabolic 1 - (e/E)², the paper's; linear 1 - e/E; cosine cos(πe/2E); "
            "constant 1/2. All are in the authors' code",
            choices=("parabolic", "linear", "cosine", "constant"),
        ),
    },
    needs=("stages",),
)


class Bilateral(nn.Module):
    """Two branches and one linear head on both."""

    def __init__(self, backbone: Callable[[], Trunk], num_classes: int, own: int):
        super().__init__()
        self.branches = Branches(backbone, 2, own=own)
        self.head = nn.Linear(2 * self.branches.num_features, num_classes)

    def features(self, x: Tensor, branch: int) -> Tensor:
        """Features [B, D] of one branch alone."""
        hidden = self.branches.shared.body.forward_features(x)
        return self.branches.trunks[branch](hidden)[1]

    def classify(self, a: Tensor, b: Tensor, share: float) -> Output:
        """Logits of features [B, D] of the two branches, with weights 2l and 2(1 - l)."""
        features = torch.cat([2 * share * a, 2 * (1 - share) * b], dim=1)
        return Output(logits=answer(self.head, features), features=features)

    def forward(self, x: Tensor) -> Output:
        """Both branches with equal weights."""
        (_, a), (_, b) = self.branches(x)
        return self.classify(a, b, 0.5)


class BBN(Method):
    """Two streams, one network."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """The two branches; SpecError where the backbone can't be divided."""
        return Bilateral(backbone, self.ctx.num_classes, self.params["own"])

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """Images as they come, and rare classes above all."""
        return {"main": StreamSpec(), "reversed": StreamSpec(sampler=make_sampler("reverse", self.ctx))}

    def share(self, epoch: int) -> float:
        """The weight l of the first branch in an epoch, counted from 0."""
        t = epoch / self.ctx.epochs
        falls = {"parabolic": 1 - t**2, "linear": 1 - t, "cosine": float(np.cos(np.pi * t / 2)), "constant": 0.5}
        return falls[self.params["decay"]]

    def training_step(self, model: Any, batch: Batch) -> LossOut:
        """l times the loss for the labels of the first stream, 1 - l times that for those of the second."""
        other, share = batch.aux["reversed"], self.share(batch.epoch)
        output = model.classify(model.features(batch.x, 0), model.features(other.x, 1), share)
        losses = self.batch_loss(output, batch), self.batch_loss(output, other)
        return LossOut(total=share * losses[0] + (1 - share) * losses[1], output=output)

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(output.logits, target)
