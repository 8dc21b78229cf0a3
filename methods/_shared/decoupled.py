"""Decoupled training: the usual training first, then another classifier on the frozen trunk.

The first stage bears the name and the draws of the usual training. So with equal seeds it ends in the weights of plain
cross-entropy, bit for bit, and the second stage is all that sets two such methods apart.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fer_bench import Classifier, Context, Param, Stage, StreamSpec, Trunk

from .samplers import SAMPLERS, make_sampler

FIRST, SECOND = "train", "classifier"

SECOND_STAGE = {
    "second.epochs": Param(
        0.1,
        "length of the second stage as a share of the recipe's epochs; about 10 of 90 in Kang et al.'s ImageNet-LT "
        "recipe. It comes on top of the recipe's epochs",
        low=0.01,
        high=1.0,
    ),
    "second.lr": Param(1.0, "factor on the recipe's learning rate in the second stage", low=0.001, high=10.0),
}
BALANCED = {
    "second.sampler": Param(
        "capped",
        "how the second stage draws its images (methods/_shared/samplers.py); capped: the same number of each class. "
        "progressive is balanced by then",
        choices=SAMPLERS,
    ),
}
STAGES_DEVIATION = (
    "the recipe is the study's in both stages: optimiser, decay (biases and other vectors have none), cosine schedule, "
    "and a warm-up of at most a fifth of the second stage"
)
SAMPLER_DEVIATION = (
    "an epoch of the second stage has N images, N/C of each class; one of the authors' class-aware sampler has C n_max"
)


class Decoupled:
    """The hooks of two stages; a method sets what is frozen and what starts afresh in the second."""

    params: dict
    ctx: Context
    frozen: tuple[str, ...] = ("trunk",)
    fresh: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()
    """Parts that do not learn in the first stage."""

    def stages(self) -> list[Stage]:
        """The usual training, and a shorter one of the classifier."""
        return [
            Stage(name=FIRST, freeze=self.waits),
            Stage(
                name=SECOND,
                epochs=self.params["second.epochs"],
                freeze=self.frozen,
                reinit=self.fresh,
                lr_scale=self.params["second.lr"],
            ),
        ]

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """Every image once in the first stage; in the second as `second.sampler` says, where there is one."""
        kind = self.params.get("second.sampler", "shuffle") if stage.name == SECOND else "shuffle"
        return {"main": StreamSpec(sampler=make_sampler(kind, self.ctx))}


class AdjustedHead(nn.Module):
    """A linear layer `linear`, whose logits a module `adjust` changes: (features, logits, weights [C, D]) -> logits.

    Where `adjust` leaves logits as they are until it learns, and draws no random numbers, the first stage is that of
    plain cross-entropy.
    """

    def __init__(self, linear: nn.Linear, adjust: nn.Module):
        super().__init__()
        self.linear, self.adjust = linear, adjust

    def forward(self, features: Tensor) -> Tensor:
        """Logits [B, C] of features [B, D]."""
        return self.adjust(features, self.linear(features), self.linear.weight)


class AdjustedClassifier(Classifier):
    """A trunk with an :class:`AdjustedHead`, in float32 as every head is."""

    def __init__(self, trunk: Trunk, num_classes: int, adjust: nn.Module):
        super().__init__(trunk, num_classes)
        linear: Any = self.head
        self.head: nn.Module = AdjustedHead(linear, adjust)


class Scales(nn.Module):
    """One factor a class, 1 at first."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(num_classes))

    def forward(self, features: Tensor, logits: Tensor, weights: Tensor) -> Tensor:
        """Scaled logits [B, C]."""
        return self.scale * logits
