"""LADE: balanced softmax, regularised so that logits carry no trace of the label distribution."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from fer_bench import Batch, Float, LossOut, Method, MethodCard, Output, Param

from ._shared.compose import COMPOSE, Composable
from ._shared.losses import row_of
from ._shared.priors import log_prior, shifted_losses

card = MethodCard(
    name="lade",
    title="Label distribution disentangling loss (LADE)",
    paper="Hong et al., Disentangling Label Distribution for Long-tailed Visual Recognition, CVPR 2021",
    year=2021,
    url="https://arxiv.org/abs/2012.00321",
    family="logit adjustment",
    changes="balanced softmax (logits plus log π in training) plus α Σ_c π_c R_c. R_c is the negative regularised "
    "Donsker-Varadhan bound of class c on the batch: -mean of z_c over its images + D_c + λ D_c², with "
    "D_c = log mean_i exp(z_ic - log(C π_c)) over all images",
    deviations=(
        "as in the authors' code (github.com/hyperconnect/LADE, 5db5d13), the importance weight in D_c is that of "
        "class c; the paper, as recalled, weighs each image by its own label. A class that the "
        "batch lacks has D_c alone",
        "the regulariser takes labels before smoothing, and shares of votes or mixed labels as parts of an image; "
        "class weights and samplers don't enter it",
        "a class without training images has no regulariser (π_c = 0) and no shift of its logit",
        "π is that of the training fold whatever the sampler draws: a balanced one balances the classes twice",
        "at test the authors add the log of the test's class shares to the logits; here no shares are assumed",
    ),
    calibration="the softmax of the logits at test estimates the posterior under equal class frequencies, not the "
    "natural ones",
    params={
        **COMPOSE,
        "alpha": Param(
            0.1,
            "weight α of the regulariser; 0.1 for CIFAR-100-LT, 0.05 and 0.005 for larger sets. 0 is balanced softmax",
            low=0.0,
            high=10.0,
            space=Float(0.005, 0.5, log=True),
        ),
        "lambda": Param(
            0.1,
            "weight λ of the squared term; 0.1 in the authors' settings files, 0.01 to 0.5 in their commands",
            low=0.0,
            high=10.0,
            space=Float(0.01, 0.5, log=True),
        ),
    },
)


class Lade(Composable, Method):
    """Balanced softmax and a regulariser over the batch."""

    card = card

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Balanced softmax of each image [B]."""
        return shifted_losses(output.logits, target, log_prior(self.ctx.counts))

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """The usual step and the regulariser."""
        step = super().training_step(model, batch)
        assert step.output is not None
        labels = batch.soft_target(self.ctx.num_classes)
        regulariser = lader(step.output.logits, labels, self.ctx.counts, self.params["lambda"])
        total = step.total + self.params["alpha"] * regulariser
        return LossOut(total=total, parts={"regulariser": regulariser.detach()}, output=step.output)


def lader(logits: Tensor, labels: Tensor, counts: np.ndarray, strength: float) -> Tensor:
    """Σ_c π_c (-mean_{i in c} z_ic + D_c + λ D_c²), a float32 scalar, from logits and labels [B, C]."""
    z = logits.float()
    own = (labels * z).sum(0) / (labels.sum(0) + 1e-8)
    shift = row_of(log_prior(counts), z) + math.log(len(counts))
    bound = torch.logsumexp(z - shift, dim=0) - math.log(len(z))
    return (row_of(counts / counts.sum(), z) * (bound - own + strength * bound.square())).sum()
