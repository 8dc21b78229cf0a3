"""Repeat factor sampling: images of rare classes are repeated, those of frequent ones kept."""

from __future__ import annotations

from fer_bench import Float, Method, MethodCard, Param

from ._shared.compose import MIX, WEIGHTS
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.samplers import RepeatFactor, Sampler

card = MethodCard(
    name="repeat_factor",
    title="Repeat factor sampling",
    paper="Gupta et al., LVIS: A Dataset for Large Vocabulary Instance Segmentation, CVPR 2019",
    year=2019,
    url="https://arxiv.org/abs/1908.03195",
    family="resampling",
    changes="each epoch holds every image r_c = max(1, √(t/π_c)) times (the fraction by chance), with the share π_c of "
    "its class in the training fold",
    deviations=(
        "an image has one class; in the paper it has several and takes the largest factor of them",
        "t is 1/C by default, a class's fair share; the paper's 0.001 for 1,200 classes would change nothing here",
        "epoch_length=train visits a random N of the repeated images, so that every method takes as many steps",
    ),
    params={
        **MIX,
        **WEIGHTS,
        "threshold": Param(
            "share",
            "share t of the images below which a class is repeated; share: 1/C, which gives FER2013's disgust 3.07",
            low=0.0,
            high=1.0,
            words=("share",),
            space=Float(0.05, 1.0),
        ),
        "epoch_length": Param(
            "train",
            "images an epoch; train: N, as without repeating (fair at equal epochs), full: all Σ_c r_c n_c",
            choices=("train", "full"),
        ),
    },
)


class RepeatFactorSampling(ComposableCrossEntropy, Method):
    """Plain cross-entropy on repeated images."""

    card = card

    def sampler(self) -> Sampler:
        """Images by their class's repeat factor."""
        given = self.params["threshold"]
        return RepeatFactor(
            threshold=None if given == "share" else given,
            epoch_length=self.params["epoch_length"],
        )
