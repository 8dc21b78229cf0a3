"""Class-balanced batches by random oversampling."""

from __future__ import annotations

from fer_bench import Method, MethodCard, Param, Stage, StreamSpec

from ._shared.samplers import Oversample

card = MethodCard(
    name="baseline_oversample",
    title="Random oversampling (imbalanced-learn)",
    paper="Lemaître et al., Imbalanced-learn, JMLR 18(17), 2017",
    year=2017,
    url="https://jmlr.org/papers/v18/16-365.html",
    family="resampling",
    changes="each epoch visits every class equally often: rare images are repeated, with new augmentation each time",
    deviations=(
        "drawn anew each epoch; RandomOverSampler would be applied once to the training set",
        "epoch_length=train visits N of the C n_max positions, so that every method takes the same number of steps",
    ),
    params={
        "epoch_length": Param(
            "train",
            "images an epoch; train: N, as without oversampling (fair at equal epochs), full: C n_max",
            choices=("train", "full"),
        ),
    },
    tier="baseline",
)


class BaselineOversample(Method):
    """Plain cross-entropy on an oversampled stream."""

    card = card

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """The main stream, balanced over classes."""
        return {"main": StreamSpec(sampler=Oversample(epoch_length=self.params["epoch_length"]))}
