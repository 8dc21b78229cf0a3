"""Mixup: images and labels mixed with those of another image."""

from __future__ import annotations

from fer_bench import Batch, Float, Method, MethodCard, Param

from ._shared.compose import SAMPLER, WEIGHTS
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.mixing import mixed

card = MethodCard(
    name="mixup",
    title="Mixup",
    paper="Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018",
    year=2018,
    url="https://arxiv.org/abs/1710.09412",
    family="mixing",
    changes="each image is mixed with another one of its batch, λx + (1-λ)x', and so are their labels; λ ~ Beta(α, α)",
    deviations=(
        "one λ a batch, as in the authors' code (facebookresearch/mixup-cifar10)",
        "with weights, a mixed image has the expected weight of its labels; DRW code weighs each label's loss by "
        "itself",
    ),
    calibration="training on mixed labels keeps confidences low; on images that are not mixed they can be too low",
    params={
        **SAMPLER,
        **WEIGHTS,
        "alpha": Param(
            0.2,
            "both parameters α of the Beta distribution: the paper takes 0.1 to 0.4 on ImageNet and 1 on CIFAR; near 0 "
            "hardly anything is mixed, 1 is uniform",
            low=0.01,
            high=10.0,
            space=Float(0.1, 2.0, log=True),
        ),
    },
)


class Mixup(ComposableCrossEntropy, Method):
    """Cross-entropy on mixed images."""

    card = card

    def on_batch(self, batch: Batch) -> Batch:
        """The mixed batch."""
        return mixed("mixup", batch, self.ctx.counts, self.params["alpha"])
