"""Cross-entropy weighted by inverse class frequency."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from fer_bench import Batch, Choice, Float, Method, MethodCard, Output, Param

from ._shared.losses import inverse_weights, relative

card = MethodCard(
    name="baseline_weighted",
    title="Inverse-frequency weighted cross-entropy",
    paper='King and Zeng, Logistic Regression in Rare Events Data, 2001 (scikit-learn\'s class_weight="balanced")',
    year=2001,
    url="https://doi.org/10.1093/oxfordjournals.pan.a004868",
    family="reweighting",
    changes="each image's cross-entropy has the weight of its class, w_c = N/(C n_c), counted on the training fold",
    deviations=(
        "label smoothing comes after the weights: an image has the weight of its label, whatever smoothing adds to its "
        "target. PyTorch's weight argument would also multiply the smoothed share of rare classes in every image",
        "an image with soft labels (votes, mixup) has their expected weight",
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
        """Cross-entropy of each image [B]."""
        return F.cross_entropy(output.logits, target, reduction="none")

    def image_weights(self, batch: Batch) -> Tensor:
        """The weight of each image's class [B]; for votes and mixed labels its expected value."""
        weights = inverse_weights(self.ctx.counts, self.params["power"], self.params["normalise"])
        images = batch.expected(weights)
        return relative(images) if self.params["reduction"] == "weights" else images
