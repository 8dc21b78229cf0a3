"""H2T: channels of class-balanced images replaced by those of natural ones, when the classifier is adjusted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fer_bench import Batch, Float, LossOut, Method, MethodCard, Output, Param, Stage, StreamSpec, to_device

from ._shared.compose import MIX
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.decoupled import BALANCED, SAMPLER_DEVIATION, SECOND, SECOND_STAGE, STAGES_DEVIATION, Decoupled
from ._shared.mixing import cut_to

card = MethodCard(
    name="h2t",
    title="Head-to-tail feature fusion (H2T)",
    paper="Li et al., Feature Fusion from Head to Tail for Long-Tailed Visual Recognition, AAAI 2024",
    year=2024,
    url="https://arxiv.org/abs/2306.06963",
    family="two-stage",
    changes="after the usual training the classifier goes on learning on the frozen trunk, from class-balanced "
    "images in whose last map a share of the channels is that of images from the natural stream; labels are the "
    "balanced images'",
    deviations=(
        "fusion agrees with Keke921/H2T (3dafa70), which draws the channels once a batch",
        "the code's settings train the first stage with mixup, which is mix=mixup here, and the second for 10 of 200 "
        "epochs",
        "BatchNorm's statistics stay; the code's settings for CIFAR100 let them follow the balanced images (shift_bn)",
        STAGES_DEVIATION,
        SAMPLER_DEVIATION,
    ),
    params={
        **MIX,
        **SECOND_STAGE,
        **BALANCED,
        "share": Param(
            0.25,
            "share of the channels that is replaced: 0.25 in the code's settings for CIFAR100, 0.3 its default; 0 only "
            "adjusts the classifier on balanced images",
            low=0.0,
            high=1.0,
            space=Float(0.05, 0.5),
        ),
    },
)


class H2T(Decoupled, ComposableCrossEntropy, Method):
    """Two stages; the second one sees fused maps."""

    card = card

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """Balanced images and, beside them, natural ones in the second stage."""
        streams = Decoupled.streams(self, stage)
        return {**streams, "natural": StreamSpec()} if stage.name == SECOND else streams

    def on_batch(self, batch: Batch) -> Batch:
        """Mixed in the first stage, if so chosen."""
        return batch if "natural" in batch.aux else ComposableCrossEntropy.on_batch(self, batch)

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """The usual loss, in the second stage that of fused maps."""
        if "natural" not in batch.aux:
            return Method.training_step(self, model, batch)
        network: Any = model
        trunk, natural = network.trunk, cut_to(batch.aux["natural"], len(batch.y))
        with torch.no_grad():
            own, other = (trunk(x)[0] for x in (batch.x, natural.x))
            g, channels = self.generator("channels"), trunk.body.num_features
            features = trunk.pool(fused(own, other, self.params["share"], channels, g))
        output = Output(logits=network.classify(features), features=features)
        return LossOut(total=self.batch_loss(output, batch), output=output)


def fused(fmap: Tensor, other: Tensor, share: float, channels: int, generator: torch.Generator) -> Tensor:
    """A map of whose channels floor(share * channels), drawn once, are those of another one.

    Parameters
    ----------
    fmap, other : tensors of the same shape
        [B, D, h, w], or with the D channels last.
    channels : int
        D.
    """
    replaced = torch.zeros(channels, dtype=torch.bool)
    replaced[torch.randperm(channels, generator=generator)[: int(share * channels)]] = True
    first = fmap.ndim == 4 and fmap.shape[1] == channels
    return torch.where(to_device(replaced, fmap.device).reshape(-1, *[1] * (2 if first else 0)), other, fmap)
