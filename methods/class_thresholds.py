"""Thresholds by class: each class's logit shifted so that validation is decided best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from fer_bench import Method, MethodCard, Param, ValOutputs

card = MethodCard(
    name="class_thresholds",
    title="Thresholds by class on plain cross-entropy",
    paper="Lachiche and Flach, Improving Accuracy and Cost of Two-class and Multi-class Probabilistic Classifiers "
    "Using ROC Curves, ICML 2003",
    year=2003,
    url="https://dblp.org/rec/conf/icml/LachicheF03",
    family="logit adjustment",
    changes="a number b_c is added to the logit of each class (its probability is multiplied by a weight), chosen on "
    "validation class by class; the network stays as it is",
    deviations=(
        "classes are taken from the largest to the smallest of the training fold, in rounds until none gains; the "
        "paper, as recalled, goes through a fixed order once",
        "mean-class accuracy by default, which asks for balanced decisions; the paper raises accuracy or lowers cost",
        "of equally good thresholds the one nearest to the present is kept, midway between images",
        "b_c of a class without validation images stays 0",
    ),
    calibration="probabilities are those of other class shares, which the chosen thresholds imply",
    params={
        "criterion": Param(
            "mean_recall",
            "what is raised on validation: mean-class accuracy or accuracy",
            choices=("mean_recall", "accuracy"),
        ),
        "rounds": Param(10, "largest number of rounds through the classes", low=1, high=100),
    },
    readout_of="baseline_resnet",
)  # fmt: skip


class ClassThresholds(Method):
    """Reads the network of plain cross-entropy out at an operating point of its own for each class."""

    card = card
    shift: np.ndarray | None = None

    def fit_posthoc(self, model: nn.Module, val: ValOutputs) -> None:
        """Choose the shifts on validation."""
        counts = np.bincount(val.labels, minlength=self.ctx.num_classes)
        worth = np.ones(len(counts)) if self.params["criterion"] == "accuracy" else 1 / counts.clip(min=1)
        order = [c for c in np.argsort(-self.ctx.counts, kind="stable") if counts[c]]
        self.shift = np.zeros(self.ctx.num_classes)
        for _ in range(self.params["rounds"]):
            gains = [self.move(c, val.logits.astype(np.float64), val.labels, worth) for c in order]
            if not any(gains):
                break

    def move(self, c: int, logits: np.ndarray, labels: np.ndarray, worth: np.ndarray) -> bool:
        """Move the threshold of class `c` to the best place; whether anything was gained.

        An image goes to `c` once b_c exceeds its lead, the best other shifted logit minus z_c. Going up from below all
        leads, image by image, `worth` of the label is gained where it is `c`, and lost where the other was right.
        """
        assert self.shift is not None
        others = logits + self.shift
        others[:, c] = -np.inf
        lead, rival = others.max(1) - logits[:, c], others.argmax(1)
        order = np.argsort(lead, kind="stable")
        lead = lead[order]
        change = np.where(labels == c, worth[c], 0.0) - np.where(rival == labels, worth[labels], 0.0)
        value = np.concatenate([[0.0], change[order].cumsum()])
        possible = np.concatenate([[True], lead[1:] > lead[:-1], [True]])
        between = np.concatenate([[lead[0] - 1], (lead[1:] + lead[:-1]) / 2, [lead[-1] + 1]])
        now = value[np.searchsorted(lead, self.shift[c], side="left")]
        best = value[possible].max()
        if best <= now + 1e-12:
            return False
        good = between[possible & (value >= best - 1e-12)]
        self.shift[c] = good[np.abs(good - self.shift[c]).argmin()]
        return True

    def adjust(self, logits: np.ndarray, features: np.ndarray | None) -> np.ndarray:
        """Shifted logits [n, C]."""
        assert self.shift is not None, "fit_posthoc comes first"
        return (logits + self.shift).astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        """The shift of each class."""
        return {"shift": self.shift}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The same, restored."""
        self.shift = state["shift"]
