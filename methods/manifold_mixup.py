"""Manifold mixup: hidden states mixed instead of pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fer_bench import Batch, Branches, Float, LossOut, Method, MethodCard, Output, Param, Trunk, to_device

from ._shared.compose import SAMPLER, WEIGHTS
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.mixing import beta, blended_target, reordered

card = MethodCard(
    name="manifold_mixup",
    title="Manifold mixup",
    paper="Verma et al., Manifold Mixup: Better Representations by Interpolating Hidden States, ICML 2019",
    year=2019,
    url="https://arxiv.org/abs/1806.05236",
    family="mixing",
    changes="hidden states behind a stage of the network (in a share of the batches the pixels) are mixed with those "
    "of another image of the batch, and so are the labels; λ ~ Beta(α, α)",
    deviations=(
        "one hidden layer, behind stage `layer`, and the pixels; the paper draws from pixels and the first two stages",
        "one λ a batch, as in the authors' code",
        "the hidden layers exist for ResNets, RegNets, ConvNeXts, EfficientNets and vision transformers; layer=pooled "
        "for any network",
    ),
    params={
        **SAMPLER,
        **WEIGHTS,
        "alpha": Param(
            2.0,
            "both parameters α of the Beta distribution: 2 in the paper",
            low=0.01,
            high=10.0,
            space=Float(0.1, 4.0, log=True),
        ),
        "layer": Param(
            "2",
            "what is mixed: the state behind stage 1, 2 or 3 of four, or the pooled features",
            choices=("1", "2", "3", "pooled"),
        ),
        "pixels": Param(
            1 / 3,
            "share of the batches whose pixels are mixed instead: one of three layers in the paper",
            low=0.0,
            high=1.0,
            space=Float(0.0, 1.0),
        ),
    },
)


class DividedClassifier(nn.Module):
    """A network in two parts, whose hidden state in between can be mixed; `own` stages lie behind it, 0 for none."""

    def __init__(self, backbone: Callable[[], Trunk], num_classes: int, own: int):
        super().__init__()
        self.parts = Branches(backbone, 1, own=own) if own else None
        self.trunk = None if own else backbone()
        width = self.parts.num_features if self.parts is not None else self.trunk.num_features  # type: ignore[union-attr]
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor, order: Tensor | None = None, share: float = 1.0) -> Output:
        """Logits [B, K] of images [B, C, H, W], whose hidden states are mixed with those at `order` [B], if given."""

        def mix(hidden: Tensor) -> Tensor:
            return hidden if order is None else share * hidden + (1 - share) * hidden[order]

        if self.parts is not None:
            hidden = mix(self.parts.shared.body.forward_features(x))
            fmap, features = self.parts.trunks[0](hidden)
        else:
            assert self.trunk is not None
            fmap, features = self.trunk(x)
            features = mix(features)
        with torch.autocast(features.device.type, enabled=False):
            return Output(logits=self.head(features.float()), features=features, fmap=fmap)


class ManifoldMixup(ComposableCrossEntropy, Method):
    """Cross-entropy on mixed hidden states."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A network divided behind the chosen stage."""
        layer = self.params["layer"]
        return DividedClassifier(backbone, self.ctx.num_classes, 0 if layer == "pooled" else 4 - int(layer))

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """Loss of one batch, its hidden states or its pixels mixed."""
        g, alpha = self.generator("mix"), self.params["alpha"]
        share, order = beta(alpha, alpha, g), torch.randperm(len(batch.y), generator=g)
        order = to_device(order, batch.y.device)
        target = blended_target(batch, reordered(batch, order), self.ctx.num_classes, share)
        if float(torch.rand((), generator=g)) < self.params["pixels"]:
            output = model(share * batch.x + (1 - share) * batch.x[order])
        else:
            output = model(batch.x, order, share)
        return LossOut(total=self.batch_loss(output, batch.with_(soft=target)), output=output)
