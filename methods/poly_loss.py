"""PolyLoss: the first term of the cross-entropy's series has a coefficient of its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fer_bench import Float, Method, MethodCard, Output, Param

from ._shared.compose import COMPOSE, Composable
from ._shared.losses import expected_losses

card = MethodCard(
    name="poly_loss",
    title="PolyLoss (Poly-1)",
    paper="Leng et al., PolyLoss: A Polynomial Expansion Perspective of Classification Loss Functions, ICLR 2022",
    year=2022,
    url="https://arxiv.org/abs/2204.12511",
    family="loss",
    changes="cross-entropy plus ε (1 - p_y); with γ > 0 the focal loss plus ε (1 - p_y)^(γ + 1)",
    deviations=(
        "softmax for both forms; the paper's focal form, for detection, has sigmoids",
        "soft targets give the expected loss over their labels, for ε (1 - p) as in the paper's label smoothing",
        "the formula is the paper's as recalled; at γ = 0 it agrees with github.com/abhuse/polyloss-pytorch (b9b2fb3)",
    ),
    calibration="a positive ε raises confidences, a negative one lowers them",
    params={
        **COMPOSE,
        "epsilon": Param(
            2.0,
            "coefficient ε of the first term; 2 is the paper's for ImageNet, -1 takes the term away, 0 is "
            "cross-entropy",
            low=-1.0,
            high=10.0,
            space=Float(-1.0, 5.0),
        ),
        "gamma": Param(0.0, "focusing exponent γ; 0 starts from cross-entropy", low=0.0, high=10.0),
    },
    also_known={"poly1_focal": "gamma=2"},
)


class PolyLoss(Composable, Method):
    """Cross-entropy with its leading term re-weighted."""

    card = card

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Loss of each image [B]."""
        return poly_losses(output.logits, target, self.params["epsilon"], self.params["gamma"])


def poly_losses(logits: Tensor, target: Tensor, epsilon: float, gamma: float) -> Tensor:
    """(1 - p_y)^γ (-log p_y) + ε (1 - p_y)^(γ + 1), float32 [B]."""
    log_p = F.log_softmax(logits.float(), dim=1)
    miss = (-torch.expm1(log_p)).clamp_min(torch.finfo(torch.float32).tiny)  # 0 to a power below 1 has no gradient
    return expected_losses(miss**gamma * (epsilon * miss - log_p), target)
