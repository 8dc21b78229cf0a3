"""Sampling classes by a power of their size: instance, square-root, class-balanced and reversed sampling."""

from __future__ import annotations

from fer_bench import Float, Method, MethodCard, Param

from ._shared.compose import MIX, WEIGHTS
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.samplers import Power, Sampler

card = MethodCard(
    name="power_sampling",
    title="Sampling classes by a power of their size (class-balanced, square-root)",
    paper="Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020, section 3.1",
    year=2020,
    url="https://arxiv.org/abs/1910.09217",
    family="resampling",
    changes="N draws an epoch with replacement: a class with p_c ∝ n_c^q, then one of its images; q=0 is "
    "class-balanced sampling, q=0.5 square-root sampling, q=1 instance sampling, q=-1 reversed sampling",
    deviations=(
        "the images of a class are drawn with replacement; the authors' code goes through a class before it repeats "
        "one",
    ),
    also_known={"class_balanced_sampling": "q=0", "square_root_sampling": "q=0.5", "reversed_sampling": "q=-1"},
    params={
        **MIX,
        **WEIGHTS,
        "q": Param(
            0.0,
            "exponent q of the class size: 0 draws every class alike, 0.5 is square-root sampling, 1 draws every image "
            "alike, -1 the rarest class most",
            low=-2.0,
            high=1.0,
            space=Float(-0.5, 1.0),
        ),
    },
)


class PowerSampling(ComposableCrossEntropy, Method):
    """Plain cross-entropy on classes drawn by a power of their size."""

    card = card

    def sampler(self) -> Sampler:
        """Classes by n_c^q."""
        return Power(q=self.params["q"])
