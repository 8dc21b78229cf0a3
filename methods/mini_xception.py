"""mini-Xception: a network of 60,000 weights for small faces, in place of the backbone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import Method, MethodCard, Output, Trunk

from ._shared.compose import COMPOSE
from ._shared.cross_entropy import ComposableCrossEntropy

card = MethodCard(
    name="mini_xception",
    title="mini-Xception",
    paper="Arriaga et al., Real-time Convolutional Neural Networks for Emotion and Gender Classification, 2017",
    year=2017,
    url="https://arxiv.org/abs/1710.07557",
    family="architecture",
    changes="a small network of its own takes the place of the backbone, whatever that is: two convolutions, four "
    "residual blocks of depthwise separable convolutions, and a convolution whose averaged maps are the logits",
    deviations=(
        "layers and number of weights are those of oarriaga/face_classification's mini_XCEPTION for 64 pixels; other "
        "sizes go through the same layers",
        "weights start as PyTorch's convolutions do, where Keras has Glorot's rule; BatchNorm has PyTorch's ε of 1e-5 "
        "and momentum, where Keras has 1e-3 and 0.99",
        "the code penalises the first two convolutions and the separable ones by 0.01 of their squares; weight decay "
        "is the recipe's, for all",
        "64 pixels, Adam, and the code's augmentation (rotation, shift, zoom, flip) are the study's recipe",
    ),
    params={**COMPOSE},
)

WIDTHS = (16, 32, 64, 128)  # of the blocks


def _stem(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    """A 3x3 convolution of each channel, a 1x1 convolution over channels, BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Block(nn.Module):
    """Two separable convolutions and a maximum, beside a strided 1x1 convolution; the side is halved."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=2, bias=False), nn.BatchNorm2d(outputs))
        self.main = nn.Sequential(_separable(inputs, outputs), nn.ReLU(), _separable(outputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, outputs, ⌈h/2⌉, ⌈w/2⌉] of `x` [B, inputs, h, w]."""
        return same_max_pool(self.main(x)) + self.shortcut(x)


def same_max_pool(x: Tensor) -> Tensor:
    """Maximum over 3x3 cells with stride 2, padded as TensorFlow's "same": of an even side at its end alone."""
    down, right = (2 if side % 2 else 1 for side in x.shape[2:])
    padded = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2), value=float("-inf"))
    return F.max_pool2d(padded, 3, stride=2)


class MiniXception(nn.Module):
    """The network; `num_features` is the width of its last block."""

    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        blocks = [Block(i, o) for i, o in zip((8, *WIDTHS[:-1]), WIDTHS, strict=True)]
        self.body = nn.Sequential(_stem(channels, 8), _stem(8, 8), *blocks)
        self.head = nn.Conv2d(WIDTHS[-1], num_classes, 3, padding=1)
        self.num_features = WIDTHS[-1]

    def forward(self, x: Tensor) -> Output:
        """Logits [B, K], mean features [B, 128] and last map of images `x` [B, C, H, W]."""
        fmap = self.body(x)
        return Output(logits=self.classify(fmap), features=fmap.float().mean((2, 3)), fmap=fmap)

    def classify(self, fmap: Tensor) -> Tensor:
        """Logits [B, K] of a last map, in float32 under any autocast."""
        with torch.autocast(fmap.device.type, enabled=False):
            return self.head(fmap.float()).mean((2, 3))


class MiniXceptionMethod(ComposableCrossEntropy, Method):
    """Plain cross-entropy on another network."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """The network; the study's backbone is not made."""
        return MiniXception(self.ctx.image_shape[0], self.ctx.num_classes)
