"""Label-distribution-aware margins, with deferred re-weighting."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from fer_bench import Float, Method, MethodCard, Output, Param, Trunk

from ._shared.compose import Composable
from ._shared.deferred import DEFERRED
from ._shared.heads import CosineClassifier
from ._shared.losses import ldam_margins, margin_losses, row_of

card = MethodCard(
    name="ldam",
    title="Label-distribution-aware margin loss (LDAM-DRW)",
    paper="Cao et al., Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss, NeurIPS 2019",
    year=2019,
    url="https://arxiv.org/abs/1906.07413",
    family="loss",
    changes="a cosine head of scale s; the cosine of the label loses a margin m_c ∝ n_c^(-1/4), M for the rarest "
    "class. By default with effective-number weights in the last fifth of the epochs (LDAM-DRW, the paper's main "
    "result); weights=none is LDAM alone",
    deviations=(
        "a weighted loss is divided by the number of images; the authors' code divides by the sum of the weights in "
        "the batch, so its steps after the switch are larger (about twice on FER2013)",
        "with label smoothing, votes or mixup: the expected loss over the labels of the target, each with its margin",
        "the recipe decays the learning rate as for every method; the paper also drops it where the weights set in",
        "a class without training images has no margin and weight 0",
        "loss and margins agree with github.com/kaidic/LDAM-DRW (2536330)",
    ),
    calibration="the margins are there in training and not in the read-out, so confidences are higher than those that "
    "were trained",
    params={
        **DEFERRED,
        "scale": Param(30.0, "scale s of the cosine head; 30 in the authors' code", low=1.0, high=100.0),
        "margin": Param(
            0.5,
            "margin M of the rarest class, in units of the cosine; 0.5 in the authors' code, 0 is a plain cosine head",
            low=0.0,
            high=2.0,
            space=Float(0.1, 1.0),
        ),
    },
    also_known={"ldam_drw": ""},
)


class Ldam(Composable, Method):
    """Rare classes must win by more."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A trunk with a cosine head."""
        return CosineClassifier(backbone(), self.ctx.num_classes, self.params["scale"])

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy of each image [B] with the margin of its label."""
        margins = self.params["scale"] * ldam_margins(self.ctx.counts, self.params["margin"])
        return margin_losses(output.logits, target, row_of(margins, output.logits))
