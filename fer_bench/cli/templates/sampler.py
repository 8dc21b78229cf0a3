"""Another choice of the images that an epoch visits: rare classes more often, but not as often as frequent ones."""

from __future__ import annotations

import numpy as np

from fer_bench import Float, Method, MethodCard, Param, Stage, StreamSpec, TrainView

card = MethodCard(
    name="new_method",
    title="New method",
    paper="Mahajan et al., Exploring the limits of weakly supervised pretraining, ECCV 2018",
    year=2018,
    url="https://arxiv.org/abs/1805.00932",
    family="resampling",
    changes="a class with n images is drawn with a probability proportional to n^power",
    params={
        "power": Param(
            0.5, "0: all classes alike, 1: as in the data; 0.5 is the paper's", low=0.0, high=1.0, space=Float(0.0, 1.0)
        )
    },
)


class NewMethod(Method):
    """Plain cross-entropy on a resampled stream."""

    card = card

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """The stream "main" sets the length of an epoch. Others run beside it and arrive in ``batch.aux``."""
        return {"main": StreamSpec(sampler=self.draw)}

    def draw(self, view: TrainView, epoch: int, rng: np.random.Generator) -> np.ndarray:
        """Positions in the training fold, as many as there are images [N], with replacement."""
        counts = view.counts[view.labels].astype(float)
        weights = counts ** self.params["power"] / counts
        return rng.choice(len(view), size=len(view), p=weights / weights.sum())
