"""Post-hoc logit adjustment: plain cross-entropy, decided as if all classes were equally frequent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from fer_bench import Method, MethodCard, Param, ValOutputs

from ._shared.priors import log_prior
from ._shared.readout import CRITERION, first_best

TAUS = tuple(k / 10 for k in range(21))
"""The strengths to choose from: 0, 0.1, ..., 2."""

card = MethodCard(
    name="logit_adjust_posthoc",
    title="Post-hoc logit adjustment of plain cross-entropy",
    paper="Menon et al., Long-tail learning via logit adjustment, ICLR 2021, section 4.2",
    year=2021,
    url="https://arxiv.org/abs/2007.07314",
    family="logit adjustment",
    changes="the logits of plain cross-entropy minus τ log π, with the class shares π of the training fold; "
    "the network stays as it is",
    deviations=(
        "τ is chosen on validation from 0, 0.1, ..., 2 (the smallest of equally good ones)",
        "the logit of a class without training images stays as it is: -τ log 0 would give this class every image",
    ),
    params={
        "tau": Param(
            "validation",
            "strength τ; validation: the best of 0, 0.1, ..., 2 by `criterion` on the validation images of each run. "
            "0 changes nothing, 1 is optimal for the mean-class accuracy if the softmax is calibrated",
            low=0.0,
            high=10.0,
            words=("validation",),
        ),
        "criterion": CRITERION,
    },
    tier="second reference",
    readout_of="baseline_resnet",
)


class LogitAdjustPosthoc(Method):
    """Reads the network of plain cross-entropy out at another operating point."""

    card = card
    tau: float | None = None

    def fit_posthoc(self, model: nn.Module, val: ValOutputs) -> None:
        """Choose τ on validation, unless it is given."""
        if self.params["tau"] != "validation":
            self.tau = float(self.params["tau"])
            return

        def predict(tau: float) -> np.ndarray:
            return adjusted(val.logits, self.ctx.counts, tau).argmax(1)

        self.tau = first_best(TAUS, predict, val.labels, self.params["criterion"], self.ctx.num_classes)

    def adjust(self, logits: np.ndarray, features: np.ndarray | None) -> np.ndarray:
        """Logits [n, C] minus τ log π."""
        assert self.tau is not None, "fit_posthoc comes first"
        return adjusted(logits, self.ctx.counts, self.tau)

    def state_dict(self) -> dict[str, Any]:
        """The chosen τ."""
        return {"tau": self.tau}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The same, restored."""
        self.tau = state["tau"]


def adjusted(logits: np.ndarray, counts: np.ndarray, tau: float) -> np.ndarray:
    """Logits [n, C] minus τ log(n_c / N), float32; that of a class without training images (n_c = 0) stays."""
    return (logits - tau * log_prior(counts)).astype(np.float32)
