"""Probabilistic contrastive learning: an image is compared with the distributions of the classes, not with images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fer_bench import Batch, Float, LossOut, Method, MethodCard, Output, Param, Stage, StreamSpec, Trunk

from ._shared.compose import SAMPLER, Composable
from ._shared.contrastive import AUGMENT, ContrastiveClassifier, Projector, compared_view
from ._shared.directions import Directions
from ._shared.priors import log_prior, shifted_losses

card = MethodCard(
    name="proco",
    title="Probabilistic contrastive learning (ProCo)",
    paper="Du et al., Probabilistic contrastive learning for long-tailed visual recognition, TPAMI 2024",
    year=2024,
    url="https://arxiv.org/abs/2403.06726",
    family="contrastive",
    changes="logit-adjusted loss on one view, plus one on two more views whose logits are log E exp(z·x/τ) over the "
    "embeddings x of each class, in closed form for von Mises-Fisher distributions with running means; three views",
    deviations=(
        "the closed form agrees with LeapLabTHU/ProCo at af9e78e; Bessel functions are computed by Debye's expansion "
        "instead of Miller's recurrence",
        "the concentration is pR/(1 - R²), as in that code, at most 1e5",
        "a class that has not been seen yet has no direction; the code draws a random one",
        "the view of the classifier has the recipe's augmentation instead of AutoAugment; the others are moved, turned "
        "and erased in part, not cropped and coloured",
        "embeddings belong to the class of their label; soft labels count in both losses",
    ),
    params={
        **AUGMENT,
        **SAMPLER,
        "alpha": Param(
            1.0,
            "factor on the loss of the compared views; 1 in the authors' code",
            low=0.0,
            high=10.0,
            space=Float(0.25, 2.0),
        ),
        "tau": Param(1.0, "τ in logits + τ log π; 1 in the authors' code", low=0.0, high=4.0),
        "temperature": Param(
            0.1,
            "temperature of the compared views; 0.1 in the authors' code for CIFAR",
            low=0.01,
            high=10.0,
            space=Float(0.05, 0.5, log=True),
        ),
        "dim": Param(128, "length of the embedding; 128 in the authors' code for CIFAR", low=16, high=4096),
    },
)


class ProbabilisticClassifier(ContrastiveClassifier):
    """A classifier with a projector and the distributions of its embeddings."""

    def __init__(self, trunk: Trunk, num_classes: int, dim: int):
        super().__init__(trunk, num_classes, Projector(trunk.num_features, dim, normalised=True))
        self.directions = Directions(num_classes, dim)


class ProCo(Composable, Method):
    """Logit-adjusted cross-entropy of the head, and of the distances from the classes' distributions."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """The network and its distributions."""
        return ProbabilisticClassifier(backbone(), self.ctx.num_classes, self.params["dim"])

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """Three views of each image: one for the classifier, two to compare."""
        compared = compared_view(self.params["augment"], self.ctx)
        return {"main": StreamSpec(sampler=self.sampler(), views=3, augment=(None, compared, compared))}

    def on_epoch_start(self, epoch: int, model: Any) -> None:
        """The means of the last epoch are read from now on."""
        model.directions.turn()

    def training_step(self, model: Any, batch: Batch) -> LossOut:
        """The loss of the first view, and α times the mean of those of the others."""
        n, every = len(batch.y), model(torch.cat(batch.views))
        output = Output(logits=every.logits[:n], features=every.features[:n])
        classify = self.batch_loss(output, batch)
        compared = []
        for z in model.projector(every.features)[n:].split(n):
            model.directions.add(z, batch.y)
            logits = model.directions.log_expected(z, self.params["temperature"])
            compared.append(self.batch_loss(Output(logits=logits), batch))
        contrast = torch.stack(compared).mean()
        total = classify + self.params["alpha"] * contrast
        return LossOut(total=total, parts={"classify": classify, "contrast": contrast}, output=output)

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Logit-adjusted cross-entropy of each image [B]."""
        return shifted_losses(output.logits, target, self.params["tau"] * log_prior(self.ctx.counts))
