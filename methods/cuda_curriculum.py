"""CUDA: a curriculum of data augmentation, stronger for the classes that the network has learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fer_bench import Batch, Float, Int, LossOut, Method, MethodCard, Param, Stage, StreamSpec, evaluation_mode

from ._shared.compose import COMPOSE
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.curriculum import Probes, ProbeStrength, Strengthened, next_levels

card = MethodCard(
    name="cuda_curriculum",
    title="CUDA: curriculum of data augmentation",
    paper="Ahn et al., CUDA: Curriculum of Data Augmentation for Long-tailed Recognition, ICLR 2023",
    year=2023,
    url="https://arxiv.org/abs/2302.05499",
    family="augmentation",
    changes="half of the images of a class are augmented more strongly, by its level; a level rises after an epoch "
    "in which the class was recognised at all levels up to it, and falls otherwise",
    deviations=(
        "levels, probes and the rule agree with sumyeongahn/CUDA_LTR (f4c8d35), which stores a level for each image "
        "but keeps those of a class equal",
        "level l multiplies the ranges of the recipe's augmentation by 1 + (strength-1) l/10; the paper applies l "
        "random ones of 22 operations at magnitude l, most of them on colour and contrast. A recipe that neither "
        "shifts, rotates, scales nor erases leaves plain cross-entropy",
        "with ten levels and ten probes, up to 660 images of each class are looked at once more in an epoch, without "
        "gradients",
        "probes are spread over an epoch and set the levels of the next one; the code tests them all before it",
        "the threshold is that of the code for CIFAR (the paper names 0.6 and 0.4)",
    ),
    params={
        **COMPOSE,
        "p": Param(
            0.5,
            "probability that an image is augmented by its class's level, otherwise as the recipe says: 0.5 in the "
            "code",
            low=0.0,
            high=1.0,
            space=Float(0.2, 0.9),
        ),
        "strength": Param(
            3.0,
            "factor on the recipe's ranges of shift, rotation, scaling and erasing at the highest level; 3 takes a "
            "rotation of 10 degrees to the 30 of the paper",
            low=1.1,
            high=10.0,
            space=Float(1.5, 5.0),
        ),
        "levels": Param(10, "highest level: 10 in the code", low=1, high=30),
        "probes": Param(
            10, "images that test a class at level l, times l+1: 10 in the code", low=1, high=100, space=Int(3, 30)
        ),
        "threshold": Param(
            0.6,
            "share of a level's probes that must be exceeded for it to count as learned: 0.6 in the code for CIFAR, "
            "0.4 for ImageNet",
            low=0.0,
            high=1.0,
            space=Float(0.3, 0.9),
        ),
    },
)


class CudaCurriculum(ComposableCrossEntropy, Method):
    """Cross-entropy under a curriculum."""

    card = card
    levels: tuple[int, ...] = ()
    right: Tensor
    tried: Tensor

    def on_fit_start(self, model: nn.Module, view: object) -> None:
        """Every class starts at level 0."""
        self.levels = (0,) * self.ctx.num_classes
        self.reset()

    def reset(self) -> None:
        """Forget the probes."""
        shape = (self.ctx.num_classes, self.params["levels"] + 1)
        self.right, self.tried = (torch.zeros(shape, dtype=torch.int64, device=self.ctx.device) for _ in range(2))

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """The main stream, strengthened by level, and probes of all levels, as many a step as the epoch needs."""
        levels = self.levels or (0,) * self.ctx.num_classes
        probes, step = Probes(levels=levels, each=self.params["probes"]), self.step
        strengthened = Strengthened(levels=levels, step=step, probability=self.params["p"])
        each = -(-len(probes.plan(self.ctx.counts, 0)[0]) // self.ctx.steps_per_epoch)
        return {
            "main": StreamSpec(sampler=self.sampler(), strength=strengthened),
            "probes": StreamSpec(sampler=probes, strength=ProbeStrength(probes=probes, step=step), batch_size=each),
        }

    @property
    def step(self) -> float:
        """What one level adds to the factor on the augmentation."""
        return (self.params["strength"] - 1) / self.params["levels"]

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """Loss of the main stream; beside it the probes are predicted."""
        self.probe(model, batch.aux["probes"])
        return Method.training_step(self, model, batch)

    @torch.no_grad()
    def probe(self, model: nn.Module, batch: Batch) -> None:
        """Count right predictions by class and level, in evaluation mode: no statistics move, no dropout is drawn."""
        with evaluation_mode(model):
            predicted = self.predict(model, batch.x).logits.argmax(1)
        assert batch.strength is not None
        level = ((batch.strength - 1) / self.step).round().long()
        one = torch.ones_like(level)
        self.tried.index_put_((batch.y, level), one, accumulate=True)
        self.right.index_put_((batch.y, level), (predicted == batch.y).long(), accumulate=True)

    def on_epoch_end(self, epoch: int, stats: Mapping[str, float]) -> None:
        """Each class one level up or down."""
        right, tried = (np.asarray(counted.cpu()) for counted in (self.right, self.tried))
        self.levels = next_levels(self.levels, right, tried, self.params["threshold"], self.params["levels"])
        self.reset()

    def state_dict(self) -> dict[str, Any]:
        """The levels, and the probes of an epoch that is not over."""
        return {"levels": self.levels, "right": self.right, "tried": self.tried} if self.levels else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The same, restored."""
        if state:
            self.levels = tuple(state["levels"])
            self.right, self.tried = (state[name].to(self.ctx.device) for name in ("right", "tried"))
