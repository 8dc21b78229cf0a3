"""Deep-Emotion: a small network that first learns where to look, in place of the backbone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import Insight, Method, MethodCard, Output, Param, SpecError, Trunk

from ._shared.compose import COMPOSE
from ._shared.cross_entropy import ComposableCrossEntropy

card = MethodCard(
    name="deep_emotion",
    title="Deep-Emotion: attention by a spatial transformer",
    paper="Minaee et al., Deep-Emotion: Facial Expression Recognition Using Attentional Convolutional Network, "
    "Sensors 21(9), 2021",
    year=2021,
    url="https://arxiv.org/abs/1902.01019",
    family="architecture",
    changes="a small network of its own takes the place of the backbone, whatever that is: an affine map of the image, "
    "predicted from it, then four convolutions and two linear layers",
    deviations=(
        "the paper's authors have published no code. Sizes of kernels and layers are those of the port that is in "
        "use, omarsayed7/Deep-Emotion (commit 0160ce9), whose output this network has on the same weights",
        "that port keeps its dropout on in evaluation, so its predictions are random; here it is off there",
        "the linear layers follow the size of the images, 640 and 810 inputs at 48 pixels",
        "the paper's penalty on weights, its sampling and Adam are the study's recipe",
    ),
    params={
        **COMPOSE,
        "dropout": Param(0.5, "dropout before the linear layers; 0.5 in the port", low=0.0, high=0.9),
    },
)

SMALLEST = 18  # pixels: below it, the localisation network has nothing left


def _side(side: int, shrinks: tuple[int, int]) -> int:
    """Pixels after two rounds of unpadded convolutions, which take `shrinks` away, and a halving."""
    for taken in shrinks:
        side = (side - taken) // 2
    return side


class DeepEmotion(nn.Module):
    """The network for images of `shape` (C, H, W)."""

    def __init__(self, shape: tuple[int, int, int], num_classes: int, dropout: float):
        super().__init__()
        channels, *sides = shape
        localised, read = (10 * _side(sides[0], t) * _side(sides[1], t) for t in ((6, 4), (4, 4)))
        self.localise = nn.Sequential(
            *(nn.Conv2d(channels, 8, 7), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Conv2d(8, 10, 5), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(localised, 32), nn.ReLU(), nn.Linear(32, 6)),
        )
        last = self.localise[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))  # the image as it is
        self.body = nn.Sequential(
            *(nn.Conv2d(channels, 10, 3), nn.ReLU(), nn.Conv2d(10, 10, 3), nn.MaxPool2d(2), nn.ReLU()),
            *(nn.Conv2d(10, 10, 3), nn.ReLU(), nn.Conv2d(10, 10, 3), nn.BatchNorm2d(10), nn.MaxPool2d(2), nn.ReLU()),
        )
        self.read = nn.Sequential(nn.Dropout(dropout), nn.Flatten(), nn.Linear(read, 50), nn.ReLU())
        self.head = nn.Linear(50, num_classes)

    def forward(self, x: Tensor) -> Output:
        """Logits [B, K], features [B, 50] and last map of images `x` [B, C, H, W]."""
        fmap = self.body(self.attended(x))
        with torch.autocast(x.device.type, enabled=False):
            features = self.read(fmap.float())
            return Output(logits=self.head(features), features=features, fmap=fmap)

    def attended(self, x: Tensor) -> Tensor:
        """The images, each moved by the affine map that the network reads from it."""
        with torch.autocast(x.device.type, enabled=False):  # positions would be off by whole pixels in bfloat16
            theta = self.theta(x)
            grid = F.affine_grid(theta, list(x.shape), align_corners=False)
            return F.grid_sample(x.float(), grid, align_corners=False)

    def theta(self, x: Tensor) -> Tensor:
        """The affine map of each image, [B, 2, 3]: from places in what is seen to places in the image."""
        return self.localise(x.float()).reshape(-1, 2, 3)

    def window(self, x: Tensor) -> Tensor:
        """The part of each image that is seen: 1 inside and 0 outside, [B, H, W]."""
        with torch.autocast(x.device.type, enabled=False):
            theta = self.theta(x)
            whole = F.affine_grid(
                torch.eye(2, 3, device=x.device).repeat(len(x), 1, 1), list(x.shape), align_corners=False
            )
            seen = (whole - theta[:, None, None, :, 2]) @ torch.linalg.pinv(theta[:, None, :, :2]).mT
            return (seen.abs() <= 1).all(3).float()


class DeepEmotionMethod(ComposableCrossEntropy, Method):
    """Plain cross-entropy on another network."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """The network; the study's backbone is not made. SpecError for images below 18 pixels."""
        if min(self.ctx.image_shape[1:]) < SMALLEST:
            raise SpecError(
                f"deep_emotion needs images of {SMALLEST} pixels or more, not {self.ctx.image_shape[1:]}",
                where=f"method {card.name}",
                next="the same command with --set image_size=48",
            )
        return DeepEmotion(self.ctx.image_shape, self.ctx.num_classes, self.params["dropout"])

    def insight(self, model: nn.Module, x: Tensor) -> Insight:
        """The part of each image that the spatial transformer shows to the network."""
        network: Any = model
        return Insight(maps={"window": network.window(x)})
