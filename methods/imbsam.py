"""ImbSAM: sharpness-aware for the rare classes alone."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from fer_bench import Batch, Float, LossOut, Method, MethodCard, Output, Param

from ._shared.compose import Composable
from ._shared.priors import log_prior, shifted_losses
from ._shared.sharpness import SHARPNESS, Shifted, split_backward, split_loss

card = MethodCard(
    name="imbsam",
    title="Imbalanced sharpness-aware minimisation (ImbSAM)",
    paper="Zhou et al., ImbSAM: A closer look at sharpness-aware minimization in class-imbalanced recognition, "
    "ICCV 2023",
    year=2023,
    url="https://arxiv.org/abs/2308.07815",
    family="optimisation",
    changes="the gradient of each step is that of the frequent classes at the present weights w, plus that of the rare "
    "classes at w + ρ g/‖g‖, with the rare classes' gradient g; two passes forwards and three back a step",
    deviations=(
        "a class is rare below a share of the mean class size; the paper takes those of fewer than 20 images of "
        "CIFAR-100-LT, which means nothing for seven classes of hundreds",
        "the gradient agrees with that of cool-xuan/Imbalanced_SAM at c65f41e for tail_weight=2, the factor in its "
        "code that the paper's objective lacks",
        "BatchNorm's running statistics and dropout masks are those of the first pass; the code lets both passes move "
        "the statistics",
        "a soft label belongs to the rare classes in part",
    ),
    params={
        **SHARPNESS,
        "rho": Param(0.05, "radius ρ; 0.05 in the authors' code", low=0.0, high=10.0, space=Float(0.01, 0.5, log=True)),
        "tail": Param(
            0.5,
            "a class is rare with fewer images than this share of the mean class size N/C. 0.5: disgust of FER2013; "
            "fear, anger and disgust of RAF-DB. 0: no class, which is plain training",
            low=0.0,
            high=10.0,
            space=Float(0.25, 1.0),
        ),
        "tail_weight": Param(
            1.0, "factor on the loss of the rare classes; 2 in the authors' code, 1 in the paper", low=0.0, high=10.0
        ),
    },
)


class ImbSam(Composable, Method):
    """Cross-entropy; flat minima are sought for the rare classes."""

    card = card

    @property
    def rare(self) -> np.ndarray:
        """1 for each rare class, 0 for the others [C]."""
        return (self.ctx.counts < self.params["tail"] * self.ctx.counts.mean()).astype(np.float64)

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy of each image [B], of logits + τ log π."""
        return shifted_losses(output.logits, target, self.params["tau"] * log_prior(self.ctx.counts))

    def image_weights(self, batch: Batch) -> Tensor:
        """The chosen weights, times that of the rare classes [B]."""
        chosen, factor = super().image_weights(batch), batch.expected(1 + self.rare * (self.params["tail_weight"] - 1))
        return factor if chosen is None else chosen * factor

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """The loss in two parts, frequent and rare classes."""
        return split_loss(self, model(batch.x), batch, self.rare)

    def backward(self, model: nn.Module, batch: Batch, loss: LossOut, shifted: Shifted) -> None:
        """The sum of both gradients; in plain training, where no class is rare, the first one."""
        if self.rare.any():
            split_backward(self, model, batch, loss, shifted, self.params["rho"])
        else:
            loss.total.backward()
