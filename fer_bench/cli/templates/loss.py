"""Cross-entropy in which frequent classes must win by a larger margin."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from fer_bench import Float, Method, MethodCard, Output, Param

card = MethodCard(
    name="new_method",
    title="New method",
    paper="Menon et al., Long-tail learning via logit adjustment, ICLR 2021",
    year=2021,
    url="https://arxiv.org/abs/2007.07314",
    family="logit adjustment",
    changes="cross-entropy of the logits plus τ log π, with the class shares π of the training fold",
    deviations=("the share of a class without training images counts as 1e-12",),
    params={
        "tau": Param(1.0, "strength τ; 0: cross-entropy, 1: as in the paper", low=0.0, high=5.0, space=Float(0.25, 2.0))
    },
)


class NewMethod(Method):
    """Everything that is not overridden here stays as in plain cross-entropy."""

    card = card

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """The mean loss of a batch. Targets are labels [B] or distributions [B, K]."""
        shift = self.params["tau"] * self.ctx.prior.clamp_min(1e-12).log()
        return F.cross_entropy(output.logits.float() + shift, target)
