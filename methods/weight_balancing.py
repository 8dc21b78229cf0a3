"""Weight balancing: strong decay, and norms of the classifier's weights that can't grow apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fer_bench import Batch, Float, Method, MethodCard, Param, Stage, TrainView

from ._shared.cross_entropy import CrossEntropyByImage
from ._shared.decoupled import FIRST, SECOND, SECOND_STAGE, Decoupled
from ._shared.losses import class_weights

card = MethodCard(
    name="weight_balancing",
    title="Weight balancing: weight decay and MaxNorm",
    paper="Alshammari et al., Long-Tailed Recognition via Weight Balancing, CVPR 2022",
    year=2022,
    url="https://arxiv.org/abs/2203.14197",
    family="two-stage",
    changes="the network is trained with a strong weight decay. Then only the classifier learns on, by class-balanced "
    "cross-entropy, with a still stronger decay and a bound on the norm of each class's weights",
    deviations=(
        "the first stage has the recipe's learning rate, 0.1 by default, and ten times the recipe's decay; the "
        "authors train at 0.01, so that their product of the two, which decides how norms settle under SGD with "
        "BatchNorm, is a tenth of it: first.lr=0.1 is their setting. In the second stage both are theirs",
        "the second stage is learned by softmax cross-entropy with class-balanced weights, as in the paper; the "
        "authors' code (ShadeAlsha/LTR-weight-balancing e89f292) takes a binary cross-entropy of softmax outputs",
        "biases and norm layers do not decay in the first stage, as in the recipe; in the code all parameters do",
        "norms are bounded after each epoch by default, as in the code; the paper projects after each step",
        "with AdamW in the recipe, decay is decoupled from the gradient",
    ),
    params={
        **SECOND_STAGE,
        "first.lr": Param(
            1.0,
            "factor on the recipe's learning rate in the first stage; 0.1 makes it 0.01, as in the authors' code",
            low=0.001,
            high=10.0,
            space=Float(0.05, 1.0, log=True),
        ),
        "second.lr": Param(
            0.1, "factor on the recipe's learning rate in the second stage; to 0.01, as there", low=0.001, high=10.0
        ),
        "first.decay": Param(
            10.0,
            "factor on the recipe's weight decay in the first stage; 10 makes the usual 5e-4 the 5e-3 of the authors' "
            "code for CIFAR100-LT",
            low=0.0,
            high=1000.0,
            space=Float(1.0, 40.0, log=True),
        ),
        "second.decay": Param(
            200.0,
            "factor on the recipe's weight decay for the classifier in the second stage; 200 makes it the 0.1 of that "
            "code",
            low=0.0,
            high=10000.0,
        ),
        "maxnorm": Param(
            0.1,
            "bound on the norm of a class's weights, as a place between the smallest (0) and the largest norm (1) of "
            "the first stage; 0.1 in that code",
            low=0.0,
            high=1.0,
        ),
        "project": Param(
            "epoch",
            "when weights beyond the bound are brought back to it: after each epoch or after each step",
            choices=("epoch", "step"),
        ),
    },
)


class WeightBalancing(CrossEntropyByImage, Decoupled, Method):
    """Two stages with decays of their own."""

    card = card
    bound: float | None = None

    def stages(self) -> list[Stage]:
        """Both stages have a factor on the learning rate."""
        return [Stage(name=FIRST, lr_scale=self.params["first.lr"]), Decoupled.stages(self)[1]]

    def on_stage_start(self, stage: Stage, model: nn.Module, view: TrainView) -> None:
        """Place the bound among the norms that the first stage left; a resumed stage then restores the stored one."""
        if stage.name == SECOND:
            norms = model.get_parameter("head.weight").detach().norm(dim=1)
            self.bound = float(norms.min() + self.params["maxnorm"] * (norms.max() - norms.min()))

    def param_groups(self, model: nn.Module, stage: Stage) -> list[dict] | None:
        """Weights with the decay of the stage; biases and norms decay with the classifier only."""
        learning = [p for p in model.parameters() if p.requires_grad]
        if stage.name == SECOND:
            return [{"params": learning, "weight_decay": self.decay("second.decay")}]
        return [
            {"params": [p for p in learning if p.ndim > 1], "weight_decay": self.decay("first.decay")},
            {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
        ]

    def decay(self, name: str) -> float:
        """The recipe's weight decay times a parameter's factor."""
        return self.params[name] * float(self.ctx.recipe["weight_decay"])

    def image_weights(self, batch: Batch) -> Tensor | None:
        """Class-balanced weights [B] (β = 0.9999) in the second stage."""
        weights: np.ndarray | None = class_weights("effective", self.ctx.counts)
        return batch.expected(weights) if self.moment[0] == SECOND and weights is not None else None

    def on_step_end(self, model: nn.Module, batch: Batch, loss: object) -> None:
        """Project, if after each step."""
        if self.params["project"] == "step":
            self.bring_back(model)

    def on_epoch_start(self, epoch: int, model: nn.Module) -> None:
        """Keep the model at hand for the end of the epoch."""
        self.model = model

    def on_epoch_end(self, epoch: int, stats: object) -> None:
        """Project, if after each epoch."""
        if self.params["project"] == "epoch":
            self.bring_back(self.model)

    def before_eval(self, model: nn.Module, batches: object) -> None:
        """Project what is evaluated too: the average of weights, where the recipe keeps one, lies beyond the bound."""
        self.bring_back(model)

    def state_dict(self) -> dict[str, Any]:
        """The bound."""
        return {"bound": self.bound}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The same, restored."""
        self.bound = state["bound"]

    @torch.no_grad()
    def bring_back(self, model: nn.Module) -> None:
        """Shorten the weights of classes whose norm is beyond the bound."""
        if self.bound is not None:
            weight = model.get_parameter("head.weight")
            norms = weight.norm(dim=1, keepdim=True)
            weight.mul_(torch.where(norms > self.bound, self.bound / norms, torch.ones_like(norms)))
