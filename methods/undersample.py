"""Random undersampling: equally many images of every class, chosen once or again and again."""

from __future__ import annotations

from fer_bench import Int, Method, MethodCard, Param

from ._shared.compose import MIX, WEIGHTS
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.samplers import Sampler, Undersample

card = MethodCard(
    name="undersample",
    title="Random undersampling",
    paper="Lemaître et al., Imbalanced-learn, JMLR 18(17), 2017",
    year=2017,
    url="https://jmlr.org/papers/v18/16-365.html",
    family="resampling",
    changes="trained on equally many images of every class (those of the smallest class); with redraw=epoch it is "
    "minimal random resampling (MRR), which draws them anew each time",
    deviations=(
        "epoch_length=train goes over the subset until N images are seen, so that every method takes as many steps",
        "MRR is a reading of ARM (Shi et al. 2021, arXiv 2103.10189), which names it and has no code for it; its "
        "author speaks of a cap a class, which is the parameter cap",
    ),
    also_known={"minimal_random_resampling": "redraw=epoch"},
    params={
        **MIX,
        **WEIGHTS,
        "redraw": Param(
            "once",
            "when the subset is drawn; once: before training, the other images are never seen; epoch: anew for every "
            "pass over it",
            choices=("once", "epoch"),
        ),
        "cap": Param(
            0,
            "most images of a class; smaller classes give all they have. 0: the size of the smallest class, balanced",
            low=0,
            high=1_000_000,
            space=Int(0, 2000),
        ),
        "epoch_length": Param(
            "train",
            "images an epoch; train: N, as without undersampling (fair at equal epochs), full: one pass over a subset",
            choices=("train", "full"),
        ),
    },
)


class RandomUndersampling(ComposableCrossEntropy, Method):
    """Plain cross-entropy on a balanced subset."""

    card = card

    def sampler(self) -> Sampler:
        """Passes over a subset."""
        return Undersample(
            redraw=self.params["redraw"] == "epoch",
            cap=self.params["cap"],
            epoch_length=self.params["epoch_length"],
            seed=self.ctx.seed,
        )
