"""Influence-balanced loss: images that bend the decision boundary most count least."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fer_bench import Batch, Float, Method, MethodCard, Output, Param

from ._shared.compose import MIX, SAMPLER, Composable
from ._shared.losses import expected_losses, inverse_weights

EPSILON = 1e-3
"""What keeps the factor finite, as in the authors' code."""

card = MethodCard(
    name="influence_balanced",
    title="Influence-balanced loss (IB)",
    paper="Park et al., Influence-Balanced Loss for Imbalanced Visual Classification, ICCV 2021",
    year=2021,
    url="https://arxiv.org/abs/2110.02444",
    family="reweighting",
    changes="from the middle of the training on, an image's cross-entropy has the factor α / (‖p - e_y‖₁ ‖f‖₁ + "
    "0.001), with its features f, and the weight w_c ∝ 1/n_c of its class, Σ_c w_c = C. gamma=1 is IB with focal loss",
    deviations=(
        "with label smoothing, votes or mixup: the expected loss over the labels of the target. A smoothed target in "
        "place of e_y would give an image that fits it a factor of α/0.001",
        "the focal factor takes p from the softmax; the authors' code takes it from the weighted loss",
        "the gradient also goes through the factor unless detach is true, as in the authors' code; the paper derives "
        "the factor as a weight",
        "a class without training images gets weight 0",
        "agrees with github.com/pseulki/IB-Loss (b29b8b0) and with github.com/zhangyongshun/BagofTricks-LT (ce7859a)",
    ),
    params={
        **SAMPLER,
        **MIX,
        "alpha": Param(
            1000.0,
            "factor α; 1000 in the authors' training scripts. What suits depends on the number and size of features",
            low=0.1,
            high=1e5,
            space=Float(100.0, 10000.0, log=True),
        ),
        "gamma": Param(
            0.0, "γ of a focal factor (1 - p)^γ: 0 is IB, 1 the authors' IB with focal loss", low=0.0, high=10.0
        ),
        "from": Param(
            0.5,
            "share of the epochs with plain cross-entropy before; 0.5 is the authors' (100 of 200 epochs)",
            low=0.0,
            high=1.0,
            space=Float(0.3, 0.8),
        ),
        "detach": Param(False, "whether the factor is a constant for the gradient; false in the authors' code"),
    },
    also_known={"ib_loss": "", "ib_focal": "gamma=1"},
)


class InfluenceBalanced(Composable, Method):
    """Cross-entropy first; then each image is divided by its influence."""

    card = card
    balancing: bool = False

    def on_epoch_start(self, epoch: int, model: torch.nn.Module) -> None:
        """Plain cross-entropy until the chosen epoch."""
        self.balancing = epoch >= self.ctx.epoch_after(self.params["from"])

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Loss of each image [B]."""
        if not self.balancing:
            return F.cross_entropy(output.logits.float(), target, reduction="none")
        assert output.features is not None, "the model must give features"
        p = self.params
        return influence_losses(output.logits, output.features, target, p["alpha"], p["gamma"], p["detach"])

    def image_weights(self, batch: Batch) -> Tensor | None:
        """The weight of each image's class [B] once influence counts; for soft labels its expected value."""
        return batch.expected(inverse_weights(self.ctx.counts, 1.0, "classes")) if self.balancing else None


def influence_losses(
    logits: Tensor, features: Tensor, target: Tensor, alpha: float, gamma: float, detach: bool
) -> Tensor:
    """-log p_y (1 - p_y)^γ α / (‖p - e_y‖₁ ‖f‖₁ + 0.001), float32 [B]; ‖p - e_y‖₁ is 2 (1 - p_y)."""
    log_p = F.log_softmax(logits.float(), dim=1)
    miss = (-torch.expm1(log_p)).clamp_min(torch.finfo(torch.float32).tiny)  # 0 to a power has no gradient
    factor = alpha / (2 * miss * features.float().abs().sum(1, keepdim=True) + EPSILON)
    return expected_losses(-log_p * miss**gamma * (factor.detach() if detach else factor), target)
