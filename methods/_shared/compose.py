"""Pieces that compose: any loss with any sampler, any mixing of images, and class weights from any epoch on.

A method takes part by its card, ``params={**COMPOSE, ...}``, and its class, ``class Ldam(Composable, Method)``.
"""

from __future__ import annotations

from torch import Tensor

from fer_bench import Batch, Choice, Context, Param, Stage, StreamSpec

from .losses import class_weights
from .mixing import MIXES, mixed
from .samplers import SAMPLERS, Sampler, make_sampler

SAMPLER = {
    "sampler": Param(
        "shuffle",
        "how the N images of an epoch are drawn; shuffle: each once, oversample: to n_max, undersample: one subset of "
        "n_min a class, minimal: n_min a class redrawn each round, capped: N/C a class, balanced, sqrt, reverse: "
        "classes ∝ n_c^q with q 0, 0.5, -1, progressive: from instances to classes, effective: β=0.9999, "
        "repeat_factor: t=1/C, pk: each batch with equally many images of every class. A loss that shifts logits by "
        "log π balances the classes itself, and a balanced sampler does so once more",
        choices=SAMPLERS,
    ),
}
MIX = {
    "mix": Param(
        "none",
        "images and labels mixed in the batch: mixup, cutmix (half of the batches), remix (κ=3, τ=0.5) or mamix "
        "(exponent -0.25)",
        choices=("none", *MIXES),
    ),
    "mix.alpha": Param(
        1.0, "both parameters of the Beta distribution of the share; no effect with mix=none", low=0.01, high=10.0
    ),
}
WEIGHTS = {
    "weights": Param(
        "none",
        "weight of each image by its class: inverse is N/(C n_c); sqrt is ∝ n_c^(-1/2), mean 1 over classes; effective "
        "is Cui et al. 2019 with β=0.9999, sum C. The weighted sum is divided by B. Further terms of a loss (centres, "
        "consistency) have no weights",
        choices=("none", "inverse", "sqrt", "effective"),
        space=Choice(("none", "inverse", "sqrt", "effective")),
    ),
    "weights.from": Param(
        0.0,
        "share of the epochs after which the weights count: 0 from the start; 0.8 is the deferred re-weighting (DRW) "
        "of Cao et al. 2019 (160 of 200 epochs). No effect with weights=none",
        low=0.0,
        high=1.0,
    ),
}
COMPOSE = {**SAMPLER, **MIX, **WEIGHTS}
"""Parameters of a loss that composes with everything."""


class Composable:
    """The hooks of :data:`COMPOSE`; a method that has only some of its parameters has only their effect."""

    params: dict
    ctx: Context

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """The main stream, drawn by the chosen sampler."""
        return {"main": StreamSpec(sampler=self.sampler())}

    def sampler(self) -> Sampler:
        """The chosen sampler, for streams of one's own."""
        return make_sampler(self.params.get("sampler", "shuffle"), self.ctx)

    def on_batch(self, batch: Batch) -> Batch:
        """The batch, its images and targets mixed."""
        kind = self.params.get("mix", "none")
        return batch if kind == "none" else mixed(kind, batch, self.ctx.counts, self.params["mix.alpha"])

    def image_weights(self, batch: Batch) -> Tensor | None:
        """The weight of each image's class [B], from the chosen epoch on; for soft labels its expected value."""
        weights = class_weights(self.params.get("weights", "none"), self.ctx.counts)
        if weights is None or batch.epoch < self.ctx.epoch_after(self.params["weights.from"]):
            return None
        return batch.expected(weights)
