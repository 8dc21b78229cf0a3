"""Label-aware smoothing: frequent classes are smoothed more."""

from __future__ import annotations

from torch import Tensor, nn

from fer_bench import Batch, Choice, Float, LossOut, Method, MethodCard, Output, Param

from ._shared.compose import COMPOSE, Composable
from ._shared.losses import row_of
from ._shared.smoothing import label_aware_losses, label_aware_shares

card = MethodCard(
    name="label_aware_smoothing",
    title="Label-aware smoothing (LAS)",
    paper="Zhong et al., Improving Calibration for Long-Tailed Recognition, CVPR 2021, section 3.2",
    year=2021,
    url="https://arxiv.org/abs/2104.00466",
    family="loss",
    changes="label smoothing by class: ε_head for the largest class, falling to ε_tail for the smallest. It takes the "
    "place of the recipe's label smoothing, which does nothing here",
    deviations=(
        "the paper uses it in the second stage of MiSLAS (mislas); here it is the loss of one stage",
        "a share ε/C goes to each of the C classes, the label's among them, as in the released code and as in the "
        "recipe's own smoothing; the paper writes ε/(C - 1) for the others",
        "votes and mixed labels: the expected loss over their labels, each with its own smoothing",
        "classes of one size all have ε_tail, and so has a class without training images",
        "agrees with github.com/dvlab-research/MiSLAS (0fc381e) and with github.com/zhangyongshun/BagofTricks-LT "
        "(ce7859a)",
    ),
    calibration="smoothing lowers confidences by design, more for frequent classes",
    params={
        **COMPOSE,
        "head": Param(
            0.1,
            "smoothing ε of the largest class; 0.1 to 0.4 in the authors' settings. At 0.1 it is what most recipes "
            "give to all classes",
            low=0.0,
            high=0.9,
            space=Float(0.05, 0.4),
        ),
        "tail": Param(0.0, "smoothing ε of the smallest class; 0 in the authors' settings", low=0.0, high=0.9),
        "shape": Param(
            "concave",
            "how ε rises with the class's size; concave, the authors' choice, smooths all but the rarest classes",
            choices=("concave", "linear", "convex"),
            space=Choice(("concave", "linear", "convex")),
        ),
    },
    also_known={"las": ""},
)


class LabelAwareSmoothing(Composable, Method):
    """Smoothing where there are many images, hard labels where there are few."""

    card = card

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """The usual step, on targets that the recipe has not smoothed."""
        return super().training_step(model, batch.with_(smoothing=0.0))

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy of each image [B] with its label smoothed by class."""
        p = self.params
        shares = label_aware_shares(self.ctx.counts, p["head"], p["tail"], p["shape"])
        return label_aware_losses(output.logits, target, row_of(shares, output.logits))
