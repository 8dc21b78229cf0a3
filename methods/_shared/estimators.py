"""What methods share that put an estimator in the place of the network's classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fer_bench import Context, Stage

LOWEST = -100.0
"""The score of a class without training images: as a log-probability, less than any other class ever gets."""


def all_classes(scores: np.ndarray, known: np.ndarray, num_classes: int) -> np.ndarray:
    """Scores [n, C] of the classes `known` to an estimator, the others at :data:`LOWEST`.

    Parameters
    ----------
    scores : float array [n, len(known)], or [n] of the second of two classes, as scikit-learn's decision functions give
    known : int array
        The classes that the estimator was fitted on.
    num_classes : int
        C.
    """
    if scores.ndim == 1:
        scores = np.stack([-scores, scores], axis=1)
    full = np.full((len(scores), num_classes), LOWEST)
    full[:, known] = np.maximum(scores, LOWEST)
    return full


class FittedLast:
    """The hooks of a method whose usual training is followed by an estimator, kept as ``self.estimator``."""

    params: dict
    ctx: Context
    estimator: Any = None

    def stages(self) -> list[Stage]:
        """The usual training, then the estimator on the features of the unaugmented training images."""
        return [Stage(), Stage(name="estimator", kind="estimator")]

    def seed_of(self, name: str) -> int:
        """A seed for scikit-learn and imbalanced-learn, the same for the same run and name."""
        return int(self.ctx.numpy_rng(name).integers(2**31 - 1))

    def state_dict(self) -> dict[str, Any]:
        """The fitted estimator."""
        return {"estimator": self.estimator}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The same, restored."""
        self.estimator = state["estimator"]
