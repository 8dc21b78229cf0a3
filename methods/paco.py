"""Parametric contrastive learning: class centres stand beside the images that an image is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fer_bench import Batch, Float, LossOut, Method, MethodCard, Param, Stage, StreamSpec, Trunk

from ._shared.compose import SAMPLER, Composable
from ._shared.contrastive import (
    AUGMENT,
    NEVER,
    ContrastiveClassifier,
    Projector,
    compared_view,
    contrast,
    not_self,
    similarities,
)
from ._shared.losses import row_of, soft_targets
from ._shared.momentum import MomentumCopy, Queue
from ._shared.priors import log_prior

card = MethodCard(
    name="paco",
    title="Parametric contrastive learning (PaCo)",
    paper="Cui et al., Parametric contrastive learning, ICCV 2021",
    year=2021,
    url="https://arxiv.org/abs/2107.12028",
    family="contrastive",
    changes="one softmax over the classes' logits + log π and the similarities with other images of the batch and of a "
    "queue; the label has weight 1 in it, each image of the label's class α. A second network, the moving average of "
    "the first, makes the images that are compared",
    deviations=(
        "the loss agrees with PaCoLoss of dvlab-research/Parametric-Contrastive-Learning at fe56535, which adds 1e-9 "
        "to the class shares",
        "the queue is empty at first; the code fills it with random vectors of random classes",
        "one device, so batches are not shuffled between devices for BatchNorm",
        "the compared view is moved, turned and erased in part, not cropped and coloured; the classifier's view has "
        "the recipe's augmentation instead of AutoAugment",
        "images are compared by their label; a soft label has its shares of the weight 1 of the centres",
        "α, τ and the number of queued images a class are those of the authors' script for ImageNet-LT: 8,192 images "
        "of 1,000 classes there, 64 of seven here. A queue of 1,024 would hold 146 positives of each class",
    ),
    params={
        **AUGMENT,
        **SAMPLER,
        "alpha": Param(
            0.05,
            "α, weight of each compared image of the label's class; 0.05 in the authors' script for ImageNet-LT, 0.01 "
            "for CIFAR-100-LT. 0: the images are in the denominator alone",
            low=0.0,
            high=1.0,
            space=Float(0.002, 0.1, log=True),
        ),
        "temperature": Param(
            0.2,
            "τ of similarities; 0.2 in the authors' script for ImageNet-LT, 0.05 for CIFAR-100-LT. At 0.05 the images "
            "outweigh the logits of few classes for long",
            low=0.005,
            high=10.0,
            space=Float(0.05, 0.5, log=True),
        ),
        "supt": Param(1.0, "temperature of the classes' logits; 1 in the authors' code", low=0.01, high=100.0),
        "tau": Param(1.0, "τ in logits + τ log π; 1 in the authors' code", low=0.0, high=4.0),
        "queue": Param(64, "images in the queue; the authors have eight to ten a class", low=1, high=65536),
        "momentum": Param(0.999, "m of the moving average of weights; MoCo's 0.999", low=0.0, high=0.99999),
        "dim": Param(128, "length of the embedding; 128 is the code's default", low=2, high=4096),
    },
)


class PacoClassifier(ContrastiveClassifier):
    """A classifier with a projector, their moving average, and a queue of its embeddings."""

    def __init__(self, trunk: Trunk, num_classes: int, dim: int, queue: int):
        super().__init__(trunk, num_classes, Projector(trunk.num_features, dim, normalised=True))
        self.key_trunk, self.key_projector = MomentumCopy(trunk), MomentumCopy(self.projector)
        self.queue = Queue(queue, dim)

    @torch.no_grad()
    def keys(self, x: Tensor) -> Tensor:
        """Embeddings [B, dim] of images by the moving average of the network."""
        return self.key_projector(self.key_trunk(x)[1])


class PaCo(Composable, Method):
    """Classify and compare in one softmax."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """The network, its moving average and the queue."""
        return PacoClassifier(backbone(), self.ctx.num_classes, self.params["dim"], self.params["queue"])

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """Two views: one to classify, one to compare with."""
        compared = compared_view(self.params["augment"], self.ctx)
        return {"main": StreamSpec(sampler=self.sampler(), views=2, augment=(None, compared))}

    def training_step(self, model: Any, batch: Batch) -> LossOut:
        """The loss of the first view, compared with the others of its batch, the second views and the queue."""
        output = model(batch.views[0])
        z, keys = model.projector(output.features), model.keys(batch.views[1])
        old, labels = model.queue.entries()
        others = torch.cat([batch.y, batch.y, labels])
        close = similarities(z, torch.cat([z, keys, old]), self.params["temperature"])
        losses = self.losses(output.logits, batch.target, close, batch.y, others)
        output.extra["keys"] = keys
        return LossOut(total=losses.mean(), output=output)

    def losses(self, logits: Tensor, target: Tensor, close: Tensor, y: Tensor, others: Tensor) -> Tensor:
        """PaCo's loss of each anchor, float32 [B].

        Parameters
        ----------
        logits : tensor [B, C]
        target : tensor [B] or [B, C]
        close : float tensor [B, M]
            Similarities over τ; member i is anchor i itself.
        y, others : int64 tensors [B], [M]
            Labels of anchors and members; -1 for empty places of the queue.
        """
        shift = self.params["tau"] * row_of(log_prior(self.ctx.counts), logits)
        centres = (logits.float() + shift) / self.params["supt"]
        member = not_self(len(y), len(others), y.device) & (others >= 0)
        positive = self.params["alpha"] * ((y[:, None] == others) & member)
        weights = torch.cat([soft_targets(target, centres.shape[1]), positive], dim=1)
        bias = torch.cat([torch.zeros_like(centres), torch.where(member, 0.0, NEVER)], dim=1)
        return contrast(torch.cat([centres, close], dim=1), weights, bias)

    def on_step_end(self, model: Any, batch: Batch, loss: LossOut) -> None:
        """Move the average on, and the step's embeddings into the queue."""
        assert loss.output is not None
        model.queue.add(loss.output.extra["keys"], batch.y)
        model.key_trunk.follow(model.trunk, self.params["momentum"])
        model.key_projector.follow(model.projector, self.params["momentum"])
