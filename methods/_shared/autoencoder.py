"""A convolutional autoencoder of images, shared by methods that make new ones from codes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PIXELS = 2.0  # the darkest and the brightest pixel of a batch are -2 and 2: mean 0.5, deviation 0.25
FLOOR = 8  # an image's side over the side of the smallest map of the decoder


def _down(inner: int, outer: int, norm: bool = True) -> list[nn.Module]:
    convolution = nn.Conv2d(inner, outer, 4, stride=2, padding=1, bias=not norm)
    return [convolution, *([nn.BatchNorm2d(outer)] if norm else []), nn.LeakyReLU(0.2)]


def _up(inner: int, outer: int) -> list[nn.Module]:
    return [nn.ConvTranspose2d(inner, outer, 4, stride=2, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()]


class Autoencoder(nn.Module):
    """Images [B, C, H, W] of normalised pixels -> codes [B, Z] -> images again.

    Parameters
    ----------
    shape : (C, H, W)
    width : int
        Channels of the first layer; each further layer of the encoder has twice as many, up to 8 `width`.
    codes : int
        Z.
    """

    def __init__(self, shape: tuple[int, int, int], width: int, codes: int):
        super().__init__()
        channels, height, width_of_image = shape
        self.shape = shape
        self.start = (8 * width, -(-height // FLOOR), -(-width_of_image // FLOOR))
        inside = self.start[0] * self.start[1] * self.start[2]
        self.encoder = nn.Sequential(
            *_down(channels, width, norm=False), *_down(width, 2 * width), *_down(2 * width, 4 * width),
            nn.Conv2d(4 * width, 8 * width, 3, padding=1, bias=False), nn.BatchNorm2d(8 * width), nn.LeakyReLU(0.2),
            *self._pool(height, width_of_image), nn.Flatten(), nn.Linear(inside, codes),
        )  # fmt: skip
        self.grow = nn.Linear(codes, inside)
        self.decoder = nn.Sequential(
            *_up(8 * width, 4 * width), *_up(4 * width, 2 * width),
            nn.ConvTranspose2d(2 * width, channels, 4, stride=2, padding=1), nn.Tanh(),
        )  # fmt: skip

    def _pool(self, height: int, width: int) -> list[nn.Module]:
        """Nothing where the last map has its size already: the kernel has no deterministic gradient on a GPU."""
        if height % FLOOR == 0 and width % FLOOR == 0:
            return []
        return [nn.AdaptiveAvgPool2d(self.start[1:])]

    def encode(self, x: Tensor) -> Tensor:
        """Codes [B, Z] of images."""
        return self.encoder(x)

    def decode(self, codes: Tensor) -> Tensor:
        """Images [B, C, H, W] of codes, within -2 and 2."""
        maps = self.grow(codes).relu().unflatten(1, self.start)
        return PIXELS * self.decoder(maps)[:, :, : self.shape[1], : self.shape[2]]


def eight_bit(x: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def resized(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Images [B, C, H, W] at another size; as they are if they have it."""
    if tuple(x.shape[2:]) == tuple(shape):
        return x
    return F.interpolate(x, tuple(shape), mode="bilinear", antialias=True)
