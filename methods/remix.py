"""Remix: mixup whose labels favour the rarer class."""

from __future__ import annotations

from fer_bench import Batch, Float, Method, MethodCard, Param

from ._shared.compose import SAMPLER, WEIGHTS
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.mixing import KAPPA, TAU, beta, blended, class_sizes, partner, remix_share

card = MethodCard(
    name="remix",
    title="Remix: rebalanced mixup",
    paper="Chou et al., Remix: Rebalanced Mixup, ECCV workshops 2020, eq. 10",
    year=2020,
    url="https://arxiv.org/abs/2007.03943",
    family="mixing",
    changes="images as in mixup; the label is that of the rarer class alone where the other class is at least κ "
    "times as large and the rarer image's share exceeds 1-τ",
    deviations=(
        "agrees with ntucllab/imbalanced-DL (caa43d9) and zhangyongshun/BagofTricks-LT (ce7859a) for each share of a "
        "label",
        "the paper adds DRW, which is weights=effective, weights.from=0.8 here; a mixed image then has the expected "
        "weight of its labels, where the code weighs each label's loss by itself",
        "an image with votes counts as of its label's class; its votes are mixed",
    ),
    params={
        **SAMPLER,
        **WEIGHTS,
        "alpha": Param(
            1.0,
            "both parameters of the Beta distribution of the share: 1 (uniform), as in the paper",
            low=0.01,
            high=10.0,
            space=Float(0.1, 2.0, log=True),
        ),
        "kappa": Param(
            KAPPA,
            "ratio κ of class sizes from which the rarer label may take all: 3, as in the paper",
            low=1.0,
            high=1000.0,
            space=Float(1.0, 10.0, log=True),
        ),
        "tau": Param(
            TAU,
            "it takes all where the frequent image's share is below τ: 0.5, as in the paper; 0 is mixup",
            low=0.0,
            high=1.0,
            space=Float(0.1, 1.0),
        ),
    },
)


class Remix(ComposableCrossEntropy, Method):
    """Cross-entropy on mixed images with rebalanced labels."""

    card = card

    def on_batch(self, batch: Batch) -> Batch:
        """The mixed batch."""
        params, counts = self.params, self.ctx.counts
        share, other = beta(params["alpha"], params["alpha"], batch.generator), partner(batch)
        own, others = class_sizes(batch.y, counts), class_sizes(other.y, counts)
        labels = remix_share(share, own, others, params["kappa"], params["tau"])
        return blended(batch, other, len(counts), share, labels)
