"""A method: cross-entropy with a margin that grows with the rarity of the true class."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from fer_bench import Float, Method, MethodCard, Output, Param

card = MethodCard(
    name="soft_margin",
    title="Label-dependent margin",
    paper="Cao et al., Learning imbalanced datasets with label-distribution-aware margin loss, NeurIPS 2019",
    year=2019,
    url="https://arxiv.org/abs/1906.07413",
    family="loss",
    changes="the logit of the true class is lowered by a margin proportional to n_c^(-1/4)",
    deviations=("logits are not normalised, and there is no deferred re-weighting",),
    params={"margin": Param(0.5, "margin of the rarest class", low=0.0, high=10.0, space=Float(0.1, 1.0))},
)


class SoftMargin(Method):
    """The largest margin belongs to the rarest class."""

    card = card

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy of the lowered logits; soft targets lower each logit by its share."""
        rarity = self.ctx.prior.clamp_min(1e-12) ** -0.25
        margins = self.params["margin"] * rarity / rarity.max()
        shares = target if target.ndim == 2 else F.one_hot(target, len(margins)).float()
        return F.cross_entropy(output.logits - margins * shares, target)
