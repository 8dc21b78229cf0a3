"""Balanced contrastive learning: averages and prototypes give every class the same weight in the contrastive loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fer_bench import Batch, Float, LossOut, Method, MethodCard, Output, Param, Stage, StreamSpec, Trunk

from ._shared.compose import SAMPLER, Composable
from ._shared.contrastive import AUGMENT, ContrastiveClassifier, Projector, balanced_contrast, compared_view
from ._shared.heads import CosineLinear
from ._shared.priors import log_prior, shifted_losses

card = MethodCard(
    name="bcl",
    title="Balanced contrastive learning (BCL)",
    paper="Zhu et al., Balanced contrastive learning for long-tailed visual recognition, CVPR 2022",
    year=2022,
    url="https://arxiv.org/abs/2207.09052",
    family="contrastive",
    changes="cosine head and logit-adjusted loss on one view, plus a contrastive loss of two more views in which every "
    "class is averaged and has a prototype made of its head's weights; three views, one stage",
    deviations=(
        "the contrastive loss agrees with FlamieZhu/Balanced-Contrastive-Learning at f72d070",
        "the view of the classifier has the recipe's augmentation instead of RandAugment; the others are moved, turned "
        "and erased in part, not cropped and coloured",
        "embeddings have 128 dimensions, the authors' code for ImageNet-LT 1,024",
        "a class without training images keeps its prototype, and its logit is not shifted",
        "in the contrastive loss an image belongs to its label; soft labels count in the logit-adjusted loss alone",
    ),
    params={
        **AUGMENT,
        **SAMPLER,
        "alpha": Param(1.0, "factor on the logit-adjusted loss; 1 is the authors' default", low=0.0, high=10.0),
        "beta": Param(
            0.35,
            "factor on the contrastive loss; 0.35 is the authors' default, for ImageNet-LT",
            low=0.0,
            high=10.0,
            space=Float(0.1, 1.0),
        ),
        "tau": Param(1.0, "τ in logits + τ log π; 1 in the authors' code", low=0.0, high=4.0, space=Float(0.0, 2.0)),
        "temperature": Param(
            0.07,
            "of the contrastive loss; 0.07 is the authors' default",
            low=0.005,
            high=10.0,
            space=Float(0.05, 0.5, log=True),
        ),
        "dim": Param(128, "length of the embedding", low=2, high=4096),
        "scale": Param(30.0, "scale of the cosine head; 30 in the authors' code", low=1.0, high=128.0),
    },
)


class BalancedClassifier(ContrastiveClassifier):
    """A cosine classifier with a projector for features and another one that makes prototypes of the head's weights."""

    def __init__(self, trunk: Trunk, num_classes: int, dim: int, scale: float):
        width = trunk.num_features
        head = CosineLinear(width, num_classes, scale)
        super().__init__(trunk, num_classes, Projector(width, dim, normalised=True), head)
        self.prototypes = Projector(width, dim, normalised=True)


class BCL(Composable, Method):
    """Logit-adjusted cross-entropy and balanced contrast."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """The network with its two projectors."""
        return BalancedClassifier(backbone(), self.ctx.num_classes, self.params["dim"], self.params["scale"])

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """Three views of each image: one for the classifier, two to compare."""
        compared = compared_view(self.params["augment"], self.ctx)
        return {"main": StreamSpec(sampler=self.sampler(), views=3, augment=(None, compared, compared))}

    def training_step(self, model: Any, batch: Batch) -> LossOut:
        """α times the logit-adjusted loss of the first view, β times the contrastive loss of the others."""
        n, every = len(batch.y), model(torch.cat(batch.views))
        output = Output(logits=every.logits[:n], features=every.features[:n])
        z = model.projector(every.features)[n:]
        prototypes = model.prototypes(model.head.weight)
        classify = self.batch_loss(output, batch)
        pull = balanced_contrast(z, batch.y.repeat(2), prototypes, self.params["temperature"]).mean()
        total = self.params["alpha"] * classify + self.params["beta"] * pull
        return LossOut(total=total, parts={"classify": classify, "contrast": pull}, output=output)

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Logit-adjusted cross-entropy of each image [B]."""
        return shifted_losses(output.logits, target, self.params["tau"] * log_prior(self.ctx.counts))
