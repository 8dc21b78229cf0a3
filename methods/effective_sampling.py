"""Sampling by the effective number of images."""

from __future__ import annotations

from fer_bench import Float, Method, MethodCard, Param

from ._shared.compose import MIX, WEIGHTS
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.losses import EFFECTIVE_BETA
from ._shared.samplers import Effective, Sampler

card = MethodCard(
    name="effective_sampling",
    title="Sampling by the effective number of images",
    paper="Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019",
    year=2019,
    url="https://arxiv.org/abs/1901.05555",
    family="resampling",
    changes="N draws an epoch with replacement, each image with weight (1-β)/(1-β^n_c) of its class",
    deviations=("the paper weighs the loss; drawing by the same weights is the rule 'Resample' of kaidic/LDAM-DRW",),
    params={
        **MIX,
        **WEIGHTS,
        "beta": Param(
            EFFECTIVE_BETA,
            "β: 0 draws every image alike, near 1 every class; 0.99 or less changes nothing on FER2013 or RAF-DB",
            low=0.0,
            high=0.999999,
            space=Float(0.999, 0.99999),
        ),
    },
)


class EffectiveSampling(ComposableCrossEntropy, Method):
    """Plain cross-entropy on images drawn by inverse effective number."""

    card = card

    def sampler(self) -> Sampler:
        """Images by 1 / E(n_c)."""
        return Effective(beta=self.params["beta"])
