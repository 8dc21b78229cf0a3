"""Rare-class sample generator: rare features with the variety of frequent ones, inside the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fer_bench import Batch, Branches, Float, LossOut, Method, MethodCard, Output, Param, SpecError, Trunk

from ._shared.rare_features import Generator, largest_classes, pairs

card = MethodCard(
    name="rsg",
    title="Rare-class sample generator (RSG)",
    paper="Wang et al., RSG: A Simple but Effective Module for Learning Imbalanced Datasets, CVPR 2021",
    year=2021,
    url="https://arxiv.org/abs/2106.09859",
    family="generative",
    changes="before the last stage of the network, class centres are learned. In the last epochs, deviations of "
    "frequent images from their centres are transformed and added to the maps of rare images of the batch, and these "
    "new maps are trained on like images of the rare class. Nothing of it is left at test time",
    deviations=(
        "plain cross-entropy; the paper combines it with LDAM-DRW, focal loss and others",
        "losses of maps are means over positions: in the authors' code (Jianf-Wang/RSG 3c50745) they are sums, whose "
        "gradients would take up the whole norm that the recipe clips gradients to",
        "vectors are the channels of one position, as in the paper; the code reshapes maps so that a vector mixes "
        "positions, and sums |a_d b_d - 1| over channels where the paper has |cosine - 1|",
        "the judge of pairs is trained until generation starts and stands afterwards, as in the code",
        "it sits before the last of four stages; in the code, for ResNet-32, before the last of three",
        "the batch's first image pairs with the first of its second half; of an odd batch one image is left out",
    ),
    params={
        "from": Param(
            0.8,
            "share of the epochs after which maps are generated; 160 of 200 in the code",
            low=0.0,
            high=1.0,
            space=Float(0.0, 0.9),
        ),
        "heads": Param(
            0.3, "share of the classes, the largest, that count as frequent; 0.3 in the code: 2 of 7", low=0.0, high=1.0
        ),
        "strength": Param(1.0, "generated maps over those of the larger group; 1 in the code", low=0.01, high=10.0),
        "centres": Param(15, "centres a class; 15 in the code for CIFAR", low=1, high=100),
        "width": Param(256, "channels of the judge; 256 in the code", low=1, high=512),
        "centre_weight": Param(0.1, "weight of the centres' loss; 0.1 in the code", low=0.0, high=10.0),
        "transfer_weight": Param(0.01, "weight of the transformation's loss; 0.01 in the code", low=0.0, high=10.0),
    },
    needs=("feature map", "stages"),
)


class RsgClassifier(nn.Module):
    """A network that can be entered before its last stage, with a generator beside it."""

    def __init__(
        self, backbone: Callable[[], Trunk], num_classes: int, image_shape: tuple[int, int, int], **sizes: int
    ):
        super().__init__()
        self.trunk = Branches(backbone, 1)
        self.head = nn.Linear(self.trunk.num_features, num_classes)
        channels = _channels(self.trunk.shared, image_shape)
        self.generator = Generator(channels, num_classes, **sizes)

    def hidden(self, x: Tensor) -> Tensor:
        """Maps [B, D, h, w] before the last stage."""
        return self.trunk.shared.body.forward_features(x)

    def classify(self, hidden: Tensor) -> Output:
        """Output of maps before the last stage; the head works in float32."""
        fmap, features = self.trunk.trunks[0](hidden)
        with torch.autocast(features.device.type, enabled=False):
            return Output(logits=self.head(features.float()), features=features, fmap=fmap)

    def forward(self, x: Tensor) -> Output:
        """Output of images `x` [B, C, H, W]."""
        return self.classify(self.hidden(x))


@torch.no_grad()
def _channels(shared: Trunk, image_shape: tuple[int, int, int]) -> int:
    was = shared.training
    shape = shared.eval().body.forward_features(torch.zeros(1, *image_shape)).shape
    shared.train(was)
    if len(shape) != 4:
        what = f"rsg needs a backbone with maps [B, D, h, w]; {type(shared.body).__name__} has {tuple(shape[1:])}"
        raise SpecError(what, where="method rsg", hint="a convolutional backbone, such as resnet18_small or resnet18")
    return shape[1]


class Rsg(Method):
    """One stage; the generator learns beside the network, and feeds it in the last epochs."""

    card = card
    generating = False

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A network with a generator."""
        sizes = {"centres": self.params["centres"], "width": self.params["width"]}
        return RsgClassifier(backbone, self.ctx.num_classes, self.ctx.image_shape, **sizes)

    def on_epoch_start(self, epoch: int, model: nn.Module) -> None:
        """Once maps are generated, the judge no longer learns."""
        self.generating = epoch >= self.ctx.epoch_after(self.params["from"])
        model.get_submodule("generator.judge").requires_grad_(not self.generating)

    def frequent(self) -> np.ndarray:
        """Positions of the largest classes, at least one and not all."""
        return largest_classes(self.ctx.counts, self.params["heads"])

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """Cross-entropy of the batch and what was generated, the centres' loss, and that of judge or transformation."""
        network: Any = model
        hidden, y, extra = network.hidden(batch.x), batch.y, batch
        with torch.autocast(y.device.type, enabled=False):
            maps, generator = hidden.detach().float(), network.generator
            parts = {"centres": generator.centre_loss(maps, y)}
            if not self.generating and len(y) > 1:
                parts["centres"] = parts["centres"] + generator.pair_loss(maps, y)
            head, tail = self.groups(y) if self.generating else (y[:0], y[:0])
            if len(head):
                new, parts["transfer"] = generator.lend(maps[head], y[head], maps[tail], y[tail])
                hidden = torch.cat([hidden, new.to(hidden.dtype)])
                soft = None if batch.soft is None else torch.cat([batch.soft, batch.soft[tail]])
                extra = batch.with_(y=torch.cat([y, y[tail]]), soft=soft)
        output = network.classify(hidden)
        parts["ce"] = self.batch_loss(output, extra)
        total = parts["ce"] + self.params["centre_weight"] * parts["centres"]
        if "transfer" in parts:
            total = total + self.params["transfer_weight"] * parts["transfer"]
        return LossOut(total=total, parts=parts, output=Output(logits=output.logits[: len(y)]))

    def groups(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Positions in the batch of paired frequent and rare images."""
        large = torch.isin(y, torch.as_tensor(self.frequent(), device=y.device))
        head, tail = large.nonzero()[:, 0], (~large).nonzero()[:, 0]
        first, second = pairs(len(head), len(tail), self.params["strength"])
        return head[first], tail[second]
