"""Temperature and vector scaling: logits of plain cross-entropy, rescaled so that confidences can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from fer_bench import Method, MethodCard, Param, ValOutputs

LARGEST = 100.0
"""Temperatures lie between its inverse and this: if validation is predicted without an error, none would be best."""

card = MethodCard(
    name="temperature_scaling",
    title="Temperature scaling of plain cross-entropy",
    paper="Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2",
    year=2017,
    url="https://arxiv.org/abs/1706.04599",
    family="logit adjustment",
    changes="the logits of plain cross-entropy are divided by one temperature T (kind=temperature: no decision "
    "changes), or scaled and shifted by class, w_c z_c + b_c (kind=vector), learned on validation by the "
    "log-likelihood; the network stays as it is",
    deviations=(
        "validation has already chosen the epoch; the paper's has too",
        "T lies between 0.01 and 100",
        "kind=vector: scale and shift of a class without validation images stay 1 and 0; at most 200 steps of L-BFGS",
    ),
    calibration="this is what the method is for; validation's class shares are those that confidences are right for",
    params={
        "kind": Param(
            "temperature",
            "what is learned: one temperature, or a scale and a shift of each class",
            choices=("temperature", "vector"),
        ),
    },
    also_known={"vector_scaling": "kind=vector"},
    readout_of="baseline_resnet",
)


class TemperatureScaling(Method):
    """Reads the network of plain cross-entropy out with other confidences."""

    card = card
    scale: np.ndarray | None = None
    shift: np.ndarray | None = None

    def fit_posthoc(self, model: nn.Module, val: ValOutputs) -> None:
        """Learn the scales on validation."""
        logits, classes = val.logits.astype(np.float64), self.ctx.num_classes
        if self.params["kind"] == "temperature":
            self.scale, self.shift = np.full(classes, 1 / temperature(logits, val.labels)), np.zeros(classes)
        else:
            self.scale, self.shift = scales_and_shifts(logits, val.labels)

    def adjust(self, logits: np.ndarray, features: np.ndarray | None) -> np.ndarray:
        """Scaled logits [n, C]."""
        assert self.scale is not None, "fit_posthoc comes first"
        return (logits * self.scale + self.shift).astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        """Scale and shift of each class."""
        return {"scale": self.scale, "shift": self.shift}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The same, restored."""
        self.scale, self.shift = state["scale"], state["shift"]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the softmax of rows [n, C]."""
    z = logits - logits.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T at which softmax(z / T) of logits float64 [n, C] gives labels [n] the highest likelihood."""
    from scipy.optimize import minimize_scalar

    def loss(log_t: float) -> float:
        return float(-log_softmax(logits / np.exp(log_t))[np.arange(len(labels)), labels].mean())

    ends = (-np.log(LARGEST), np.log(LARGEST))
    return float(np.exp(minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-6}).x))


def scales_and_shifts(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The w and b [C] at which softmax(w z + b) gives labels the highest likelihood, from 1 and 0 on."""
    from scipy.optimize import minimize

    n, classes = logits.shape
    truth = np.eye(classes)[labels]
    known = truth.any(axis=0)

    def loss(both: np.ndarray) -> tuple[float, np.ndarray]:
        scale, shift = both.reshape(2, classes)
        log_p = log_softmax(logits * scale + shift)
        error = (np.exp(log_p) - truth) / n
        gradient = np.stack([(error * logits).sum(0), error.sum(0)]) * known
        return float(-(truth * log_p).sum() / n), gradient.ravel()

    start = np.stack([np.ones(classes), np.zeros(classes)]).ravel()
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x.reshape(2, classes)
    return found[0], found[1]
