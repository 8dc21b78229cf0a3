"""τ-normalisation: the classifier's weights brought nearer to equal norms, after training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from fer_bench import Method, MethodCard, Param, ValOutputs

from ._shared.readout import CRITERION, first_best

TAUS = tuple(k / 10 for k in range(11))
"""The exponents to choose from: 0, 0.1, ..., 1."""

card = MethodCard(
    name="tau_norm",
    title="τ-normalised classifier",
    paper="Kang et al., Decoupling Representation and Classifier for Long-Tailed Recognition, ICLR 2020, section 4.2",
    year=2020,
    url="https://arxiv.org/abs/1910.09217",
    family="two-stage",
    changes="after the usual training, the weights w_c of the classifier become w_c / ||w_c||^τ and its bias is "
    "dropped; nothing is trained",
    deviations=(
        "τ is chosen on validation from 0, 0.1, ..., 1 (the smallest of equally good ones); the authors' code scans 0 "
        "to 2 and prints the test accuracy of each (facebookresearch/classifier-balancing f162ade, tau_norm.py)",
        "the bias is dropped as in that code, so τ = 0 is not quite plain cross-entropy",
    ),
    calibration="the scale of the logits changes with τ, and with it the confidences",
    params={
        "tau": Param(
            "validation",
            "exponent τ; validation: the best of 0, 0.1, ..., 1 by `criterion` on the validation images of each run. "
            "0 leaves the weights, 1 gives all of them norm 1",
            low=0.0,
            high=2.0,
            words=("validation",),
        ),
        "criterion": CRITERION,
    },
)


class TauNorm(Method):
    """The network of plain cross-entropy, its head read out with other norms."""

    card = card
    tau: float | None = None
    weights: np.ndarray | None = None

    def fit_posthoc(self, model: nn.Module, val: ValOutputs) -> None:
        """Choose τ on validation, unless it is given, and keep the weights."""
        weights = model.get_parameter("head.weight").detach().float().cpu().numpy()
        features, tau = val.features, self.params["tau"]
        assert features is not None, "a classifier gives features"
        if tau == "validation":

            def predict(tau: float) -> np.ndarray:
                return logits_of(features, normalised(weights, tau)).argmax(1)

            tau = first_best(TAUS, predict, val.labels, self.params["criterion"], self.ctx.num_classes)
        self.tau, self.weights = float(tau), normalised(weights, tau)

    def adjust(self, logits: np.ndarray, features: np.ndarray | None) -> np.ndarray:
        """Logits [n, C] of features [n, D] by the normalised weights; those of the trained head go unused."""
        assert self.weights is not None, "fit_posthoc comes first"
        assert features is not None, "a classifier gives features"
        return logits_of(features, self.weights)

    def state_dict(self) -> dict[str, Any]:
        """The chosen τ and the weights normalised by it."""
        return {"tau": self.tau, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The same, restored."""
        self.tau, self.weights = state["tau"], state["weights"]


def normalised(weights: np.ndarray, tau: float) -> np.ndarray:
    """Rows w / ||w||^τ of weights [C, D], float64; a row of zeros stays."""
    norms = np.linalg.norm(weights.astype(np.float64), axis=1, keepdims=True)
    return weights / np.where(norms > 0, norms, 1.0) ** tau


def logits_of(features: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Logits float32 [n, C] of features [n, D]: the sums are taken in float64, alike for any number of rows."""
    return np.einsum("nd,cd->nc", features.astype(np.float64), weights).astype(np.float32)
