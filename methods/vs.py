"""Vector-scaling loss: temperatures and shifts of classes."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from fer_bench import Float, Method, MethodCard, Output, Param

from ._shared.compose import COMPOSE, Composable
from ._shared.losses import row_of
from ._shared.priors import log_prior, shifted_losses

card = MethodCard(
    name="vs",
    title="Vector-scaling loss",
    paper="Kini et al., Label-Imbalanced and Group-Sensitive Classification under Overparameterization, NeurIPS 2021",
    year=2021,
    url="https://arxiv.org/abs/2103.01550",
    family="logit adjustment",
    changes="cross-entropy of z_c / Δ_c + τ log π_c with Δ_c = (n_max / n_c)^γ; predictions take z. γ = 0 is "
    "logit_adjust; τ = 0 is the loss with class-dependent temperatures (CDT, Ye et al. 2020, arXiv 2001.01385)",
    deviations=(
        "a class without training images has Δ = 1 and no shift; Δ would be infinite",
        "the defaults are those of the authors' class; for CIFAR-10-LT at ratio 100 their page has γ = 0.2, τ = 1.2",
        "π is that of the training fold whatever the sampler draws: a balanced one balances the classes twice",
        "agrees with github.com/orparask/VS-Loss (7ade9c9), and at τ = 0 with the CDT loss of github.com/zhangyongshun/"
        "BagofTricks-LT (ce7859a)",
    ),
    calibration="training divides and shifts the logits by class, the read-out does not: confidences are not those of "
    "the natural class frequencies",
    params={
        **COMPOSE,
        "gamma": Param(
            0.3,
            "exponent γ of the temperatures; 0 leaves the logits' scale",
            low=0.0,
            high=2.0,
            space=Float(0.0, 0.5),
        ),
        "tau": Param(
            1.0,
            "strength τ of the shift by log π; 0 leaves the logits' place",
            low=0.0,
            high=10.0,
            space=Float(0.0, 2.0),
        ),
    },
    also_known={"cdt": "tau=0"},
)


class VectorScaling(Composable, Method):
    """Rare classes have their logits damped and lowered in training, and must grow larger ones."""

    card = card

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy of the scaled and shifted logits of each image [B]."""
        scaled = output.logits.float() / row_of(temperatures(self.ctx.counts, self.params["gamma"]), output.logits)
        return shifted_losses(scaled, target, self.params["tau"] * log_prior(self.ctx.counts))


def temperatures(counts: np.ndarray, gamma: float) -> np.ndarray:
    """Δ_c = (n_max / n_c)^γ, float64 [C]; 1 for a class without training images."""
    counts = np.asarray(counts, dtype=np.float64)
    return np.where(counts > 0, counts.max() / np.maximum(counts, 1.0), 1.0) ** gamma
