"""Logit adjustment in the loss; with τ = 1 balanced softmax."""

from __future__ import annotations

from torch import Tensor

from fer_bench import Float, Method, MethodCard, Output, Param

from ._shared.compose import COMPOSE, Composable
from ._shared.priors import log_prior, shifted_losses

card = MethodCard(
    name="logit_adjust",
    title="Logit-adjusted loss (τ = 1: balanced softmax)",
    paper="Menon et al., Long-tail learning via logit adjustment, ICLR 2021, section 5",
    year=2021,
    url="https://arxiv.org/abs/2007.07314",
    family="logit adjustment",
    changes="cross-entropy of the logits plus τ log π, with the class shares π of the training fold; predictions take "
    "the logits without the shift. τ = 1 is balanced softmax (Ren et al., Balanced Meta-Softmax, NeurIPS 2020)",
    deviations=(
        "the logit of a class without training images is not shifted, as in logit_adjust_posthoc: log 0 would take the "
        "class out of the loss, and label smoothing would then lift its logit above all others",
        "at τ = 1 it agrees with github.com/jiawei-ren/BalancedMetaSoftmax-Classification (34a61e4), which adds log n; "
        "google-research/logit_adjustment adds log(π^τ + 1e-12), the same unless π^τ is near 1e-12",
        "π is that of the training fold whatever the sampler draws: a balanced one balances the classes twice",
        "the sampler of Balanced Meta-Softmax, which learns how often to draw each class, is left out",
    ),
    calibration="the softmax of the logits at test estimates the posterior under equal class frequencies, not the "
    "natural ones",
    params={
        **COMPOSE,
        "tau": Param(
            1.0,
            "strength τ; 1 is the paper's and consistent for the mean-class accuracy, 0 is cross-entropy",
            low=0.0,
            high=10.0,
            space=Float(0.25, 2.0),
        ),
    },
    also_known={"balanced_softmax": "tau=1"},
)


class LogitAdjust(Composable, Method):
    """Cross-entropy in which frequent classes start with a lead."""

    card = card

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy of the shifted logits of each image [B]."""
        return shifted_losses(output.logits, target, self.params["tau"] * log_prior(self.ctx.counts))
