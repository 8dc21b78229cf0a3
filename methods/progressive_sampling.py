"""Progressively balanced sampling: instances first, classes in the end."""

from __future__ import annotations

from fer_bench import Method, MethodCard

from ._shared.compose import MIX, WEIGHTS
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.samplers import Progressive, Sampler

card = MethodCard(
    name="progressive_sampling",
    title="Progressively balanced sampling",
    paper="Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020, eq. 2",
    year=2020,
    url="https://arxiv.org/abs/1910.09217",
    family="resampling",
    changes="N draws an epoch with replacement: a class with p_c = (1-s) n_c/N + s/C, then one of its images; s grows "
    "from 0 in the first epoch to 1 in the last",
    deviations=(
        "s = (e-1)/(E-1) in epoch e of E, as in the authors' code (facebookresearch/classifier-balancing, f162ade); "
        "the paper writes t/T",
        "the images of a class are drawn with replacement; the authors' code goes through a class before it repeats "
        "one",
    ),
    params={**MIX, **WEIGHTS},
)


class ProgressiveSampling(ComposableCrossEntropy, Method):
    """Plain cross-entropy on classes drawn more and more alike."""

    card = card

    def sampler(self) -> Sampler:
        """From instances to classes over the recipe's epochs."""
        return Progressive(epochs=self.ctx.epochs)
