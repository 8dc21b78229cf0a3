"""A classical estimator on the features of the trained network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from fer_bench import Float, Method, MethodCard, Param, Stage

LOWEST = -100.0  # the score of a class without training images, and the least of any

card = MethodCard(
    name="new_method",
    title="New method",
    family="classical",
    changes="the network's classifier is replaced by a logistic regression with balanced class weights",
    params={
        "strength": Param(
            1.0,
            "inverse strength of the penalty; scikit-learn's C and its default",
            low=1e-4,
            high=1e4,
            space=Float(0.01, 100.0, log=True),
        )
    },
)


class NewMethod(Method):
    """Training as usual, then scikit-learn."""

    card = card

    def stages(self) -> list[Stage]:
        """Features need a trained trunk, so the estimator comes second."""
        return [Stage(name="features"), Stage(name="readout", kind="estimator")]

    def fit_estimator(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Fit it on features [N, D] of the training fold."""
        self.readout = LogisticRegression(C=self.params["strength"], class_weight="balanced", max_iter=1000)
        self.readout.fit(features, labels)

    def predict_estimator(self, features: np.ndarray) -> np.ndarray:
        """Scores [n, K] in place of logits. A class without training images gets a very low one."""
        scores = np.full((len(features), self.ctx.num_classes), LOWEST)
        scores[:, self.readout.classes_] = np.maximum(self.readout.predict_log_proba(features), LOWEST)
        return scores

    def state_dict(self) -> dict[str, Any]:
        """What the scoring process needs. Hooks before the fit find nothing to keep."""
        return {"readout": getattr(self, "readout", None)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The same, restored."""
        self.readout = state["readout"]
