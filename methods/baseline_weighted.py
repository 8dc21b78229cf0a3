"""Cross-entropy with weights of classes, by inverse frequency or effective number."""

from __future__ import annotations

from torch import Tensor

from fer_bench import Batch, Choice, Float, Method, MethodCard, Param

from ._shared.compose import MIX, SAMPLER
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.losses import effective_weights, inverse_weights, relative

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
        **SAMPLER,
        **MIX,
        "kind": Param(
            "power",
            "where the weights come from; power: w_c ∝ n_c^(-power). effective: ∝ (1 - β)/(1 - β^n_c), Σ_c w_c = C "
            "whatever `normalise` says (Cui et al. 2019)",
            choices=("power", "effective"),
        ),
        "power": Param(
            1.0,
            "w_c ∝ n_c^(-power): 1 is inverse frequency, 0.5 its square root (milder), 0 plain cross-entropy. No "
            "effect with kind=effective",
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
        "beta": Param(
            0.9999,
            "β of the effective number, from Cui et al. 2019. No effect with kind=power",
            low=0.0,
            high=0.999999,
        ),
        "weights.from": Param(
            0.0,
            "share of the epochs after which the weights count: 0 from the start; 0.8 with kind=effective is "
            "cross-entropy with the deferred re-weighting (DRW) of Cao et al. 2019",
            low=0.0,
            high=1.0,
        ),
        "reduction": Param(
            "weights",
            "divisor of the batch's loss; weights: sum of the weights in the batch (PyTorch's default), batch: B. "
            "With weights, the step's size doesn't depend on how many rare images the batch drew",
            choices=("weights", "batch"),
            space=Choice(("weights", "batch")),
        ),
    },
    also_known={"ce_drw": "kind=effective,weights.from=0.8"},
    tier="baseline",
)


class BaselineWeighted(ComposableCrossEntropy, Method):
    """Weights in the loss; everything else as in plain cross-entropy."""

    card = card

    def image_weights(self, batch: Batch) -> Tensor | None:
        """The weight of each image's class [B], from the chosen epoch on; for votes and mixed labels its expected
        value."""
        p = self.params
        if batch.epoch < self.ctx.epoch_after(p["weights.from"]):
            return None
        if p["kind"] == "effective":
            weights = effective_weights(self.ctx.counts, p["beta"])
        else:
            weights = inverse_weights(self.ctx.counts, p["power"], p["normalise"])
        images = batch.expected(weights)
        return relative(images) if p["reduction"] == "weights" else images
