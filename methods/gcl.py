"""Gaussian clouded logits: noise that lowers the logits of rare classes, then a balanced classifier stage."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from fer_bench import Batch, Float, Method, MethodCard, Output, Param, Stage, StreamSpec, Trunk, to_device

from ._shared.compose import COMPOSE, Composable
from ._shared.heads import CosineClassifier
from ._shared.losses import expected_losses, losses_by_label, row_of
from ._shared.samplers import SAMPLERS, make_sampler

card = MethodCard(
    name="gcl",
    title="Gaussian clouded logit adjustment (GCL)",
    paper="Li et al., Long-tailed Visual Recognition via Gaussian Clouded Logit Adjustment, CVPR 2022",
    year=2022,
    url="https://arxiv.org/abs/2305.11733",
    family="logit adjustment",
    changes="a cosine head of scale s; each cosine loses |ε| times a cloud size that grows from 0 for the largest "
    "class to `noise` for the rarest, ∝ log n_max - log n_c, with ε ~ N(0, 1/3) clipped to ±1. Then the classifier is "
    "trained on, on a frozen trunk, with a balanced sampler",
    deviations=(
        "defaults are those of the authors' CIFAR scripts (github.com/Keke921/GCLLoss, c2a6233), with which the losses "
        "of both stages agree; but the scale is 30 in both (20 in their second)",
        "the scripts also use mixup in both stages: mix=mixup",
        "the balanced sampler is the scripts'; the paper samples by a class-wise effective number",
        "with label smoothing, votes or mixup: the expected loss over the labels of the target, the noise shared",
        "classes of one size and classes without training images have no noise, the latter no margin either",
    ),
    params={
        **COMPOSE,
        "scale": Param(30.0, "scale s of the cosine head; 30 in the authors' first stage", low=1.0, high=100.0),
        "noise": Param(
            0.5,
            "cloud size of the rarest class, in units of the cosine; 0.5 in the authors' scripts, 0 turns it off",
            low=0.0,
            high=5.0,
            space=Float(0.1, 1.0),
        ),
        "margin": Param(0.0, "margin of every label in the first stage; 0 in the authors' scripts", low=0.0, high=1.0),
        "head.epochs": Param(
            0.15,
            "length of the classifier stage as a share of the epochs; 0.15 is the authors' (30 of 200), 0 leaves it "
            "out",
            low=0.0,
            high=1.0,
        ),
        "head.sampler": Param("balanced", "how images of the classifier stage are drawn", choices=SAMPLERS),
        "head.lr": Param(
            0.02,
            "factor on the learning rate in the classifier stage; 0.02 in the authors' script",
            low=0.0001,
            high=1.0,
            space=Float(0.002, 0.2, log=True),
        ),
        "head.margin": Param(
            0.1, "margin of every label in the classifier stage; 0.1 in the authors' script", low=0.0, high=1.0
        ),
        "head.gamma": Param(
            1.0,
            "focal exponent in the classifier stage, on 1 - p without gradient; 1 in the authors' script, 0 for none",
            low=0.0,
            high=10.0,
        ),
    },
)


class Gcl(Composable, Method):
    """Noise in the logits, then a balanced classifier."""

    card = card

    def stages(self) -> list[Stage]:
        """The representation, and the classifier on a frozen trunk."""
        share = self.params["head.epochs"]
        head = Stage(name="classifier", epochs=share or None, freeze=("trunk",), lr_scale=self.params["head.lr"])
        return [Stage(name="representation"), *([head] if share else [])]

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """The classifier stage has a sampler of its own."""
        if stage.name != "classifier":
            return super().streams(stage)
        return {"main": StreamSpec(sampler=make_sampler(self.params["head.sampler"], self.ctx))}

    def image_weights(self, batch: Batch) -> Tensor | None:
        """The chosen weights; none in the classifier stage, whose sampler balances."""
        return None if self.moment[0] == "classifier" else super().image_weights(batch)

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A trunk with a cosine head."""
        return CosineClassifier(backbone(), self.ctx.num_classes, self.params["scale"])

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy of the clouded logits of each image [B]."""
        z, last = output.logits, self.moment[0] == "classifier"
        noise = torch.randn(z.shape, generator=self.generator("cloud")).div(3).clamp(-1, 1).abs()
        cloud = self.params["scale"] * self.params["noise"] * row_of(cloud_sizes(self.ctx.counts), z)
        margin = self.params["scale"] * self.params["head.margin" if last else "margin"]
        margins = row_of(margin * (self.ctx.counts > 0), z)
        losses = losses_by_label(z.float() - to_device(noise, z.device) * cloud, -torch.diag_embed(margins))
        gamma = self.params["head.gamma"] if last else 0.0
        return expected_losses(losses * (-torch.expm1(-losses.detach())) ** gamma, target)


def cloud_sizes(counts: np.ndarray) -> np.ndarray:
    """(log n_max - log n_c) / (log n_max - log n_min), float64 [C]; 0 where sizes are equal or there are no images."""
    counts = np.asarray(counts, dtype=np.float64)
    present = counts > 0
    depth = np.where(present, np.log(counts.max()) - np.log(np.where(present, counts, 1.0)), 0.0)
    return depth / depth.max() if depth.any() else depth
