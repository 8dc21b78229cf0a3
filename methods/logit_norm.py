"""LogitNorm: cross-entropy of logits of unit length."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from fer_bench import Float, Method, MethodCard, Output, Param

from ._shared.compose import COMPOSE, Composable

card = MethodCard(
    name="logit_norm",
    title="Logit normalisation (LogitNorm)",
    paper="Wei et al., Mitigating Neural Network Overconfidence with Logit Normalization, ICML 2022",
    year=2022,
    url="https://arxiv.org/abs/2205.09310",
    family="loss",
    changes="cross-entropy of z / (τ ‖z‖₂): the network learns the direction of the logits, not their length",
    deviations=(
        "agrees with github.com/hongxin001/logitnorm_ood (0a60eef), whose norm has 1e-7 added; predictions take the "
        "logits as they are, as there",
    ),
    calibration="the length of the logits is not trained, so confidences mean little before they are recalibrated",
    params={
        **COMPOSE,
        "tau": Param(
            0.04,
            "temperature τ; 0.04 is the paper's for CIFAR-10 as recalled, 0.01 the command's on the authors' page",
            low=0.001,
            high=10.0,
            space=Float(0.01, 0.2, log=True),
        ),
    },
)


class LogitNorm(Composable, Method):
    """No image can lower its loss by longer logits."""

    card = card

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy of the normalised logits of each image [B]; logits of zeros stay zeros."""
        z = output.logits.float()
        z = z / (z.norm(dim=1, keepdim=True) + 1e-7)
        return F.cross_entropy(z / self.params["tau"], target, reduction="none")
