"""SADE: three experts, for the training's class shares, for equal ones, and for the reversed ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from fer_bench import Batch, Float, LossOut, Method, MethodCard, Param, Trunk

from ._shared.compose import MIX, SAMPLER, Composable
from ._shared.experts import OWN, Experts, each
from ._shared.heads import CosineLinear
from ._shared.priors import log_prior, shifted_losses

card = MethodCard(
    name="sade",
    title="Self-supervised aggregation of diverse experts (SADE), without test-time training",
    paper="Zhang et al., Self-supervised aggregation of diverse experts for test-agnostic long-tailed recognition, "
    "NeurIPS 2022",
    year=2022,
    url="https://arxiv.org/abs/2107.09249",
    family="multi-expert",
    changes="three experts with cosine heads: cross-entropy of z, of z + log π, and of z + log π - τ log π', where π' "
    "has the class shares in reverse; the mean of their logits is the answer",
    deviations=(
        "the experts have equal weights at test; learning the weights on the test images reads them together, so the "
        "paper's second half is left out",
        "experts have the backbone's full width; the authors' have fewer channels in their own stages",
        "the losses agree with Vanint/SADE-AgnosticLT at cba11b8, which adds 1e-9 to the shares",
        "a class without training images is not shifted, and takes no part in the reversal",
    ),
    params={
        **SAMPLER,
        **MIX,
        **OWN,
        "tau": Param(2.0, "τ of the third expert; 2 in the authors' code", low=0.0, high=5.0, space=Float(1.0, 3.0)),
        "scale": Param(30.0, "scale of the cosine heads; 30 in the authors' code", low=1.0, high=128.0),
    },
    needs=("stages",),
)


class Sade(Composable, Method):
    """The same images to three experts with three losses."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """Three experts that share their first stages."""
        classes, scale = self.ctx.num_classes, self.params["scale"]
        return Experts(backbone, 3, self.params["own"], lambda d: CosineLinear(d, classes, scale))

    @property
    def shifts(self) -> list[np.ndarray]:
        """What is added to the logits of each expert [C]."""
        prior = log_prior(self.ctx.counts)
        return [0 * prior, prior, prior - self.params["tau"] * log_prior(reversed_counts(self.ctx.counts))]

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """The sum of the experts' losses."""
        output = model(batch.x)
        losses = [
            shifted_losses(one.logits, batch.target, shift).mean()
            for one, shift in zip(each(output), self.shifts, strict=True)
        ]
        parts = dict(zip(("plain", "balanced", "reversed"), losses, strict=True))
        return LossOut(total=torch.stack(losses).sum(), parts=parts, output=output)


def reversed_counts(counts: np.ndarray) -> np.ndarray:
    """The counts in reverse: the most frequent class gets the least frequent one's, and so on [C].

    Classes without images stay without. Of equally frequent classes the first counts as the rarer one.
    """
    counts = np.asarray(counts)
    order = np.argsort(counts, kind="stable")
    order = order[counts[order] > 0]
    out = np.zeros_like(counts)
    out[order] = counts[order[::-1]]
    return out
