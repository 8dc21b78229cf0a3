"""Deep ensemble: several networks, trained apart and averaged. It is what experts must beat at equal cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fer_bench import Batch, LossOut, Method, MethodCard, Param, Stage, StreamSpec, Trunk

from ._shared.compose import COMPOSE
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.experts import Experts, each

card = MethodCard(
    name="deep_ensemble",
    title="Deep ensemble",
    paper="Lakshminarayanan et al., Simple and scalable predictive uncertainty estimation using deep ensembles, "
    "NeurIPS 2017",
    year=2017,
    url="https://arxiv.org/abs/1612.01474",
    family="ensemble",
    changes="several networks from different initial weights, each on its own order of the images; the mean of their "
    "probabilities is the answer. A control: it has the cost of the multi-expert methods, and no idea of classes",
    deviations=(
        "the networks are trained side by side, so the largest gradient norm of the recipe is that of all together",
        "an epoch is selected for all together",
        "adversarial examples, an option of the paper, are left out",
        "the loss in the log is the sum over networks, the training accuracy that of the first",
    ),
    params={
        **COMPOSE,
        "networks": Param(3, "number of networks M; 5 in the paper, 3 as the experts of RIDE and SADE", low=2, high=20),
        "average": Param(
            "probabilities",
            "what is averaged; probabilities in the paper, log_probabilities is the geometric mean",
            choices=("probabilities", "log_probabilities"),
        ),
    },
)


class DeepEnsemble(ComposableCrossEntropy, Method):
    """Cross-entropy of each network on a stream of its own."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """M networks from different initial weights; the first starts as a plain network of the same seed does."""
        n, classes = self.params["networks"], self.ctx.num_classes
        return Experts(backbone, n, 4, lambda d: nn.Linear(d, classes), self.params["average"])

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """A stream for each network: the main one for the first."""
        spec = super().streams(stage)["main"]
        return {"main": spec, **{f"network{k}": spec for k in range(1, self.params["networks"])}}

    def on_batch(self, batch: Batch) -> Batch:
        """All batches of the step, each mixed by itself."""
        return (
            super()
            .on_batch(batch)
            .with_(aux={name: super(DeepEnsemble, self).on_batch(b) for name, b in batch.aux.items()})
        )

    def training_step(self, model: Any, batch: Batch) -> LossOut:
        """The sum of the networks' losses, so that each learns as fast as it would alone."""
        batches = [batch, *batch.aux.values()]
        outputs = each(model.apart([b.x for b in batches]))
        losses = [self.batch_loss(output, b) for output, b in zip(outputs, batches, strict=True)]
        return LossOut(total=torch.stack(losses).sum(), output=outputs[0])
