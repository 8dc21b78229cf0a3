"""UniMix: mixup with shares and partners in favour of the rarer class, and a loss that knows the prior."""

from __future__ import annotations

import torch
from torch import Tensor

from fer_bench import Batch, Choice, Float, Method, MethodCard, Output, Param, to_device

from ._shared.compose import SAMPLER, WEIGHTS, Composable
from ._shared.mixing import betas, blended, class_sizes, reordered
from ._shared.priors import log_prior, shifted_losses

card = MethodCard(
    name="unimix",
    title="UniMix, with the Bayias loss",
    paper="Xu et al., Towards Calibrated Model for Long-Tailed Visual Recognition from Prior Perspective, NeurIPS 2021",
    year=2021,
    url="https://arxiv.org/abs/2111.03874",
    family="mixing",
    changes="mixup whose share of an image is b + n'/(n+n') (minus 1 above 1) with b ~ Beta(α, α), and whose partners "
    "are drawn from the batch with p ∝ n^τ; cross-entropy of the logits plus log π",
    deviations=(
        "agrees with XuZhengzhuo/Prior-LT (5f2298c); α and τ are those of its CIFAR settings, which its README says "
        "may differ from the paper's",
        "the logit of a class without training images is not shifted: log 0 would make smoothed targets infinite",
    ),
    params={
        **SAMPLER,
        **WEIGHTS,
        "alpha": Param(
            0.8,
            "both parameters α of the Beta distribution: 0.8 in the code's settings for CIFAR with ratio 100",
            low=0.01,
            high=10.0,
            space=Float(0.1, 2.0, log=True),
        ),
        "tau": Param(
            -0.1,
            "exponent τ of the class size in the choice of partners: -0.1 in the code; 0 draws them alike, -1 evens "
            "out the classes",
            low=-2.0,
            high=1.0,
            space=Float(-1.0, 0.0),
        ),
        "bayias": Param(
            True,
            "add log π to the logits in training (the paper's Bayias, logit adjustment with τ = 1); false: plain "
            "cross-entropy",
            choices=(True, False),
            space=Choice((True, False)),
        ),
    },
)


class UniMix(Composable, Method):
    """Mixed images each with its own share, under the logit-adjusted loss."""

    card = card

    def on_batch(self, batch: Batch) -> Batch:
        """The mixed batch."""
        counts, g = self.ctx.counts, batch.generator
        sizes = class_sizes(batch.y, counts)
        other = reordered(batch, torch.multinomial(sizes.cpu() ** self.params["tau"], len(sizes), True, generator=g))
        alpha = self.params["alpha"]
        drawn = to_device(betas(alpha, alpha, len(sizes), g).float(), sizes.device)
        share = unimix_share(drawn, sizes, class_sizes(other.y, counts))
        return blended(batch, other, len(counts), share, share)

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy of each image [B], of the logits plus log π."""
        return shifted_losses(output.logits, target, self.params["bayias"] * log_prior(self.ctx.counts))


def unimix_share(drawn: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """Share of the image itself [B] (eq. 5 and the code): b + n'/(n + n'), minus 1 where that is above 1.

    Parameters
    ----------
    drawn : float tensor [B]
        b.
    own, other : float tensor [B]
        n and n', images in the class of the image and of its partner.
    """
    share = drawn + other / (own + other)
    return torch.where(share > 1, share - 1, share)
