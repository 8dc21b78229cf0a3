"""Nested collaborative learning: networks that learn from one another, over all classes and over the hardest ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import Batch, Float, LossOut, Method, MethodCard, Output, Param, Stage, StreamSpec, Trunk

from ._shared.compose import SAMPLER, Composable
from ._shared.contrastive import NEVER
from ._shared.experts import COUNT, Experts, each
from ._shared.losses import row_of, soft_targets
from ._shared.priors import log_prior, shifted_losses

card = MethodCard(
    name="ncl",
    title="Nested collaborative learning (NCL), without its contrastive part",
    paper="Li et al., Nested collaborative learning for long-tailed visual recognition, CVPR 2022",
    year=2022,
    url="https://arxiv.org/abs/2203.15359",
    family="multi-expert",
    changes="whole networks, each on its own view of the images: balanced softmax over all classes and over the label "
    "and the classes most likely to be taken for it; on both, every network learns the others' probabilities; the mean "
    "of their logits is the answer",
    deviations=(
        "the contrastive part (momentum encoders, queues) is left out, as in the authors' configuration NCL for "
        "CIFAR-100-LT",
        "classes that are not among the hardest are out of that softmax; Bazinga699/NCL at f64fddb gives them the "
        "logit 0 there, which beside logits + log n weighs little. The other parts of the loss agree with that code",
        "the hardest classes are at least two, and 30 % of all, as 30 of 100 in that configuration",
        "of a soft label, the shares of the hardest classes count there, made to sum to 1",
    ),
    params={
        **SAMPLER,
        **COUNT,
        "hard": Param(0.3, "share of the classes that are hard for an image, its label included", low=0.01, high=1.0),
        "distill": Param(
            0.6,
            "factor on what networks learn from one another; 0.6 in the authors' configuration. 0: nothing",
            low=0.0,
            high=10.0,
            space=Float(0.1, 1.0),
        ),
        "hard_weight": Param(
            1.0, "factor on balanced softmax over the hardest classes; 1 in the authors' code", low=0.0, high=10.0
        ),
    },
)


class NCL(Composable, Method):
    """Each network learns the labels and the other networks."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """Whole networks with linear heads."""
        classes = self.ctx.num_classes
        return Experts(backbone, self.params["experts"], 4, lambda d: nn.Linear(d, classes))

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """A view of each image for each network."""
        return {"main": StreamSpec(sampler=self.sampler(), views=self.params["experts"])}

    def training_step(self, model: Any, batch: Batch) -> LossOut:
        """Labels and other networks, over all classes and over the hardest ones."""
        output = model.apart(batch.views)
        balanced = output.extra["experts"].float() + row_of(log_prior(self.ctx.counts), output.logits)
        hard = self.hard(output.extra["experts"][:, 0], batch.y)
        within = torch.where(hard[:, None], balanced, NEVER)
        q = soft_targets(batch.target, self.ctx.num_classes) * hard
        q = q / q.sum(1, keepdim=True)
        hardest = torch.stack([F.cross_entropy(z, q) for z in within.unbind(1)]).sum()
        parts = {
            "all": torch.stack([self.batch_loss(one, batch) for one in each(output)]).sum(),
            "hard": self.params["hard_weight"] * hardest,
            "others": self.params["distill"] * (mutual(balanced) + mutual(within)).mean(),
        }
        return LossOut(total=torch.stack(list(parts.values())).sum(), parts=parts, output=output)

    def hard(self, logits: Tensor, y: Tensor) -> Tensor:
        """Whether a class is among the hardest of an image, bool [B, C]: the label, and those of largest logits."""
        n = max(2, round(self.params["hard"] * self.ctx.num_classes))
        first = logits.detach().float().scatter(1, y[:, None], torch.inf)
        return torch.zeros_like(first, dtype=torch.bool).scatter(1, first.topk(n, dim=1).indices, True)

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Balanced softmax of each image [B] for one network."""
        return shifted_losses(output.logits, target, log_prior(self.ctx.counts))


def mutual(logits: Tensor) -> Tensor:
    """Σ_i Σ_{j≠i} KL(p_j, p_i) / (M - 1) of each image [B], over networks' logits [B, M, C]; both sides learn."""
    log_p = F.log_softmax(logits, dim=2)
    divergence = (log_p.exp()[:, :, None] * (log_p[:, :, None] - log_p[:, None])).sum(3)
    return divergence.sum((1, 2)) / (logits.shape[1] - 1)
