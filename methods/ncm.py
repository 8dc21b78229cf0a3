"""Nearest class mean: no classifier, only the means of the features of each class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fer_bench import Method, MethodCard, Param, Stage

from ._shared.estimators import LOWEST

card = MethodCard(
    name="ncm",
    title="Nearest class mean (NCM)",
    paper="Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020, section 4.2",
    year=2020,
    url="https://arxiv.org/abs/1910.09217",
    family="two-stage",
    changes="after the usual training, an image goes to the class whose mean feature is nearest",
    deviations=(
        "means are taken of the unaugmented training images, by the network of the last epoch",
        "means of length-normalised features have their own length divided out for the cosine, which the authors' code "
        "does not (facebookresearch/classifier-balancing f162ade, models/KNNClassifier.py): there, a class whose "
        "features spread has a shorter mean and lower scores",
        "the code's default is the Euclidean distance of centred, normalised features (features=centred, "
        "distance=euclidean here); the paper says cosine or Euclidean",
        "a class without training images is never predicted",
    ),
    calibration="scores are cosines or squared distances of unit vectors, within a range of 2 or 4: as logits they "
    "give nearly equal probabilities",
    params={
        "features": Param(
            "normalised",
            "normalised: each feature vector divided by its length; centred: the mean of all training images is taken "
            "away first; raw: as they are",
            choices=("normalised", "centred", "raw"),
        ),
        "distance": Param(
            "cosine",
            "cosine of feature and class mean, or minus their squared Euclidean distance",
            choices=("cosine", "euclidean"),
        ),
    },
)


class Ncm(Method):
    """The features of plain cross-entropy, and a mean for each class."""

    card = card
    means: np.ndarray | None = None
    centre: np.ndarray | None = None

    def stages(self) -> list[Stage]:
        """The usual training, then the means."""
        return [Stage(), Stage(name="means", kind="estimator")]

    def fit_estimator(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Class means [C, D] of features [N, D]; those of classes without images are 0."""
        features = features.astype(np.float64)
        self.centre = features.mean(0) if self.params["features"] == "centred" else np.zeros(features.shape[1])
        rows = self.transformed(features)
        sums = np.zeros((self.ctx.num_classes, features.shape[1]))
        np.add.at(sums, labels, rows)
        self.means = sums / np.bincount(labels, minlength=self.ctx.num_classes).clip(min=1)[:, None]

    def transformed(self, features: np.ndarray) -> np.ndarray:
        """Features [n, D] as `features` asks for them, float64."""
        assert self.centre is not None, "fit_estimator comes first"
        rows = features.astype(np.float64) - self.centre
        return rows if self.params["features"] == "raw" else unit(rows)

    def predict_estimator(self, features: np.ndarray) -> np.ndarray:
        """Scores [n, C]: cosines, or minus squared distances."""
        assert self.means is not None, "fit_estimator comes first"
        rows = self.transformed(features)
        if self.params["distance"] == "cosine":
            scores = np.einsum("nd,cd->nc", unit(rows), unit(self.means))
        else:
            scores = -np.stack([((rows - mean) ** 2).sum(1) for mean in self.means], axis=1)
        absent = self.ctx.counts == 0
        scores[:, absent] = np.minimum(LOWEST, scores[:, ~absent].min(1, keepdims=True) - 1)
        return scores

    def state_dict(self) -> dict[str, Any]:
        """Class means and the centre of the features."""
        return {"means": self.means, "centre": self.centre}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The same, restored."""
        self.means, self.centre = state["means"], state["centre"]


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows [n, D] divided by their lengths; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)
