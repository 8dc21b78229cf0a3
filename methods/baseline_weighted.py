"""Cross-entropy weighted by inverse class frequency."""

from __future__ import annotations

from torch import Tensor

from fer_bench import Choice, Float, Method, MethodCard, Output, Param

from ._shared.losses import inverse_weights, weighted_cross_entropy

card = MethodCard(
    name="baseline_weighted",
    title="Inverse-frequency weighted cross-entropy",
    paper='King and Zeng, Logistic Regression in Rare Events Data, 2001 (scikit-learn\'s class_weight="balanced")',
    year=2001,
    url="https://doi.org/10.1093/oxfordjournals.pan.a004868",
    family="reweighting",
    changes="class weights w_c = N/(C n_c) on the cross-entropy, counted on the training fold",
    deviations=(
        "soft targets weight each class by its share, and both reductions agree with hard labels on one-hot rows",
        "a class without training images gets weight 0, not infinity",
    ),
    params={
        "power": Param(
            1.0,
            "w_c ∝ n_c^(-power): 1 is inverse frequency, 0.5 its square root (milder), 0 plain cross-entropy",
            low=0.0,
            high=2.0,
            space=Float(0.0, 1.5),
        ),
        "normalise": Param(
            "images",
            "scale of the weights; images: mean 1 over training images, N/(C n_c) exactly at power 1; "
            "classes: mean 1 over classes. No effect with reduction=weights",
            choices=("images", "classes"),
        ),
        "reduction": Param(
            "weights",
            "divisor of the batch's loss; weights: sum of the weights in the batch (PyTorch's default), batch: B. "
            "With weights, the step's size doesn't depend on how many rare images the batch drew",
            choices=("weights", "batch"),
            space=Choice(("weights", "batch")),
        ),
    },
    tier="baseline",
)


class BaselineWeighted(Method):
    """Weights in the loss; everything else as in plain cross-entropy."""

    card = card

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Weighted cross-entropy of the batch."""
        weights = inverse_weights(self.ctx.counts, self.params["power"], self.params["normalise"])
        return weighted_cross_entropy(output.logits, target, weights, self.params["reduction"])
