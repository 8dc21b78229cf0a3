"""Symmetric cross-entropy: cross-entropy and its reverse, for noisy labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fer_bench import Float, Method, MethodCard, Output, Param

from ._shared.compose import COMPOSE, Composable
from ._shared.losses import expected_losses

card = MethodCard(
    name="symmetric_cross_entropy",
    title="Symmetric cross-entropy (SL)",
    paper="Wang et al., Symmetric Cross Entropy for Robust Learning with Noisy Labels, ICCV 2019",
    year=2019,
    url="https://arxiv.org/abs/1908.06112",
    family="noisy labels",
    changes="α times cross-entropy plus β times the reverse one, -Σ_k p_k log q_k with log 0 read as A: -A (1 - p_y)",
    deviations=(
        "with label smoothing, votes or mixup: the expected loss over the labels of the target, so that A keeps its "
        "meaning where no share of the target is 0",
        "A = -4 is the paper's, as recalled; the authors' code (github.com/YisenWang/symmetric_cross_entropy_for_"
        "noisy_labels, 235d93b) clips labels at 1e-4, which makes it -9.2",
        "at A = log 1e-4 it agrees with github.com/HanxunH/SCELoss-Reproduce (c81fb33) in PyTorch, as long as p is "
        "above 1e-7",
    ),
    params={
        **COMPOSE,
        "alpha": Param(
            0.1,
            "weight α of cross-entropy; 0.1 is the paper's for 10 classes, 6 for 100",
            low=0.0,
            high=10.0,
            space=Float(0.01, 6.0, log=True),
        ),
        "beta": Param(1.0, "weight β of the reverse; 1 is the paper's for 10 classes, 0.1 for 100", low=0.0, high=10.0),
        "log_zero": Param(
            -4.0,
            "A, what log 0 is read as; -4 is the paper's as recalled, -9.2 in the authors' code",
            low=-100.0,
            high=0.0,
        ),
    },
    also_known={"sce": ""},
)


class SymmetricCrossEntropy(Composable, Method):
    """Cross-entropy, which learns, beside a term that tolerates wrong labels."""

    card = card

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Loss of each image [B]."""
        log_p = F.log_softmax(output.logits.float(), dim=1)
        reverse = self.params["log_zero"] * torch.expm1(log_p)  # -A (1 - p)
        return expected_losses(self.params["beta"] * reverse - self.params["alpha"] * log_p, target)
