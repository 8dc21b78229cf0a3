"""Generalised cross-entropy: between cross-entropy and the mean absolute error, for noisy labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fer_bench import Float, Method, MethodCard, Output, Param

from ._shared.compose import COMPOSE, Composable
from ._shared.losses import expected_losses

card = MethodCard(
    name="generalized_cross_entropy",
    title="Generalised cross-entropy (GCE, L_q)",
    paper="Zhang and Sabuncu, Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels, "
    "NeurIPS 2018",
    year=2018,
    url="https://arxiv.org/abs/1805.07836",
    family="noisy labels",
    changes="loss (1 - p_y^q) / q: cross-entropy as q nears 0, half the mean absolute error at q = 1",
    deviations=(
        "the truncated form, which drops images of p_y below 0.5 and searches them anew every few epochs, is left out",
        "with label smoothing, votes or mixup: the expected loss over the labels of the target",
        "agrees with L_q in github.com/AlanChou/Truncated-Loss (fef5908), an unofficial implementation, without its "
        "truncation",
    ),
    calibration="the loss saturates for images it can't fit, so confidences are higher than under cross-entropy",
    params={
        **COMPOSE,
        "q": Param(
            0.7,
            "exponent q; 0.7 is the paper's. Images that the network finds unlikely get the factor p_y^q on their "
            "gradient",
            low=0.01,
            high=1.0,
            space=Float(0.1, 0.9),
        ),
    },
    also_known={"gce": ""},
)


class GeneralizedCrossEntropy(Composable, Method):
    """A bounded loss: a wrong label can only pull so hard."""

    card = card

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Loss of each image [B]; 1 - p^q by expm1, which keeps its digits as p nears 1."""
        q = self.params["q"]
        return expected_losses(-torch.expm1(q * F.log_softmax(output.logits.float(), dim=1)) / q, target)
