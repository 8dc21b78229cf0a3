"""SAM: the step is taken with the gradient at the worst weights nearby, which looks for flat minima."""

from __future__ import annotations

from torch import Tensor, nn

from fer_bench import Batch, Float, LossOut, Method, MethodCard, Output, Param

from ._shared.compose import Composable
from ._shared.priors import log_prior, shifted_losses
from ._shared.sharpness import SHARPNESS, Shifted, ascent

card = MethodCard(
    name="sam",
    title="Sharpness-aware minimisation (SAM, ASAM)",
    paper="Foret et al., Sharpness-aware minimization for efficiently improving generalization, ICLR 2021; adaptive: "
    "Kwon et al., ASAM, ICML 2021",
    year=2021,
    url="https://arxiv.org/abs/2010.01412",
    family="optimisation",
    also_known={"asam": "adaptive=true, rho=0.5"},
    changes="the gradient of each step is that at w + ρ g/‖g‖, with the gradient g at the present weights w; two "
    "passes a step",
    deviations=(
        "a batch is one ascent; the paper takes one in each accelerator's part of the batch (m-sharpness)",
        "BatchNorm's running statistics and dropout masks are those of the first pass",
        "the shifts agree with those of davda54/sam at 3c3afdb (adaptive=false) and SamsungLabs/ASAM at f156a68 "
        "(adaptive=true, η = 0.01); their code meets fresh dropout masks in the second pass",
        "training accuracy and loss of the log are those of the first pass",
        "mixing, label smoothing and class weights are the study's choice",
    ),
    params={
        **SHARPNESS,
        "rho": Param(
            0.05,
            "radius ρ; 0.05 is the default of davda54/sam and, as recalled, the paper's. With adaptive=true the "
            "default of SamsungLabs/ASAM is 0.5",
            low=0.0,
            high=10.0,
            space=Float(0.01, 0.5, log=True),
        ),
        "adaptive": Param(
            False,
            "ASAM: weights move in proportion to their size, so that a rescaled network is as sharp as before",
            choices=(False, True),
        ),
    },
)


class Sam(Composable, Method):
    """Cross-entropy, minimised sharpness-aware."""

    card = card

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy of each image [B], of logits + τ log π."""
        return shifted_losses(output.logits, target, self.params["tau"] * log_prior(self.ctx.counts))

    def backward(self, model: nn.Module, batch: Batch, loss: LossOut, shifted: Shifted) -> None:
        """The gradient at the shifted weights."""
        loss.total.backward()
        shifts = ascent(model, self.params["rho"], adaptive=self.params["adaptive"])
        with shifted(shifts):
            model.zero_grad(set_to_none=True)
            self.training_step(model, batch).total.backward()
