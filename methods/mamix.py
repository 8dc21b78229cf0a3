"""Margin-aware mixup: the boundary between two mixed classes lies nearer to the larger one."""

from __future__ import annotations

from fer_bench import Batch, Float, Method, MethodCard, Param

from ._shared.compose import SAMPLER, WEIGHTS
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.mixing import EXPONENT, beta, blended, class_sizes, mamix_share, partner

card = MethodCard(
    name="mamix",
    title="Margin-aware mixup (MAMix)",
    paper="Cheng et al., From SMOTE to Mixup for Deep Imbalanced Classification, TAAI 2023",
    year=2023,
    url="https://arxiv.org/abs/2308.15457",
    family="mixing",
    changes="images as in mixup; the label's share is 1/2 where the partner's share is κ = k/(k+k') with k = n^ω, and "
    "linear on both sides of it",
    deviations=(
        "agrees with ntucllab/imbalanced-DL (caa43d9) for each share of a label, except where the partner's share is "
        "exactly κ: the code raises, here it is 1/2",
        "the code always adds DRW, which is weights=effective, weights.from=0.8 here; a mixed image then has the "
        "expected weight of its labels, where the code weighs each label's loss by itself",
        "an image with votes counts as of its label's class; its votes are mixed",
    ),
    params={
        **SAMPLER,
        **WEIGHTS,
        "alpha": Param(
            1.0,
            "both parameters of the Beta distribution of the share: 1 (uniform), as in the code",
            low=0.01,
            high=10.0,
            space=Float(0.1, 2.0, log=True),
        ),
        "omega": Param(
            EXPONENT,
            "exponent ω of the class size: -0.25, as LDAM's margins and the code; 0 is mixup",
            low=-2.0,
            high=0.0,
            space=Float(-1.0, 0.0),
        ),
    },
)


class MAMix(ComposableCrossEntropy, Method):
    """Cross-entropy on mixed images with margin-aware labels."""

    card = card

    def on_batch(self, batch: Batch) -> Batch:
        """The mixed batch."""
        alpha, counts = self.params["alpha"], self.ctx.counts
        share, other = beta(alpha, alpha, batch.generator), partner(batch)
        own, others = class_sizes(batch.y, counts), class_sizes(other.y, counts)
        labels = mamix_share(share, own, others, self.params["omega"])
        return blended(batch, other, len(counts), share, labels)
