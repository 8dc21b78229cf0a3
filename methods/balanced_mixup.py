"""Balanced mixup: images of the natural stream mixed with images of a class-balanced one."""

from __future__ import annotations

from fer_bench import Batch, Float, Method, MethodCard, Param, Stage, StreamSpec

from ._shared.compose import SAMPLER, WEIGHTS
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.mixing import beta, blended, cut_to
from ._shared.samplers import Power

card = MethodCard(
    name="balanced_mixup",
    title="Balanced-MixUp",
    paper="Galdran et al., Balanced-MixUp for Highly Imbalanced Medical Image Classification, MICCAI 2021",
    year=2021,
    url="https://arxiv.org/abs/2109.09850",
    family="mixing",
    changes="each image is mixed with one of a class-balanced stream, (1-λ)x + λx', and so are their labels; "
    "λ ~ Beta(α, 1)",
    deviations=(
        "agrees with agaldran/balanced_mixup (c9e053b), which draws one λ a batch",
        "the network sees 2N images an epoch, in N mixtures",
        "with weights, a mixed image has the expected weight of its labels",
    ),
    params={
        **SAMPLER,
        **WEIGHTS,
        "alpha": Param(
            0.1,
            "parameter α of Beta(α, 1), the share of the balanced image, with mean α/(1+α): 0.1 to 0.3 in the paper",
            low=0.01,
            high=10.0,
            space=Float(0.05, 1.0, log=True),
        ),
    },
)


class BalancedMixup(ComposableCrossEntropy, Method):
    """Cross-entropy on mixtures of two streams."""

    card = card

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """The main stream, and one that draws every class alike."""
        return {"main": StreamSpec(sampler=self.sampler()), "balanced": StreamSpec(sampler=Power(q=0.0))}

    def on_batch(self, batch: Batch) -> Batch:
        """The main batch, mixed with the balanced one."""
        share = 1 - beta(self.params["alpha"], 1.0, batch.generator)
        other = cut_to(batch.aux["balanced"], len(batch.y))
        return blended(batch, other, self.ctx.num_classes, share, share).with_(aux={})
