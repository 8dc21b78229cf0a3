"""Hand-made features of grey images: histograms of oriented gradients, and of local binary patterns.

Both count over square cells of the image. Neither depends on the brightness or contrast of an image, but for rounding,
so they may be taken of normalised images. Computed in float32, image by image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))  # clockwise from the upper left


def grey(x: Tensor) -> Tensor:
    """Images [B, C, H, W] with one or three channels as grey ones, float32 [B, H, W]."""
    x = x.float()
    return x[:, 0] if x.shape[1] == 1 else (x * x.new_tensor(LUMA)[:, None, None]).sum(1)


def hog(images: Tensor, cell: int = 8, block: int = 2, bins: int = 9) -> Tensor:
    """Histograms of oriented gradients of grey images [B, H, W] (Dalal & Triggs 2005), float32 [B, D].

    Central differences, none at the border; unsigned orientations, each pixel's gradient length in one bin; mean over
    cells of `cell` x `cell` pixels; overlapping blocks of `block` x `block` cells, each divided by its length, clipped
    at 0.2 and divided by its length again (L2-Hys). D = blocks x block² x bins, ordered as in scikit-image. Pixels
    beyond the last whole cell are left out.
    """
    down, right = torch.zeros_like(images), torch.zeros_like(images)
    down[:, 1:-1] = images[:, 2:] - images[:, :-2]
    right[:, :, 1:-1] = images[:, :, 2:] - images[:, :, :-2]
    turn = torch.where((down < 0) | ((down == 0) & (right < 0)), -1.0, 1.0)
    place = (torch.atan2(down * turn, right * turn) * (bins / math.pi)).long().clamp(0, bins - 1)
    votes = images.new_zeros(len(images), bins, *images.shape[1:])
    votes.scatter_(1, place[:, None], torch.sqrt(down**2 + right**2)[:, None])
    cells = F.avg_pool2d(votes, cell)
    blocks = cells.unfold(2, block, 1).unfold(3, block, 1).permute(0, 2, 3, 4, 5, 1)
    rows = blocks.reshape(*blocks.shape[:3], -1)
    return _unit(_unit(rows).clamp_max(0.2)).flatten(1)


def _unit(rows: Tensor) -> Tensor:
    return rows / torch.sqrt((rows**2).sum(-1, keepdim=True) + 1e-10)


def lbp(images: Tensor, cell: int = 8) -> Tensor:
    """Histograms of uniform local binary patterns of grey images [B, H, W], float32 [B, cells x 59].

    A pixel's pattern says which of its 8 neighbours on the square are at least as bright (Ojala et al. 1996); beyond
    the border the border's pixels are repeated. The 58 patterns with at most two changes around the circle have a bin
    each, all others share the last one (Ojala et al. 2002). Shares in each cell of `cell` x `cell` pixels.
    """
    height, width = images.shape[1:]
    padded = F.pad(images[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    code = torch.zeros_like(images, dtype=torch.long)
    for bit, (row, column) in enumerate(AROUND):
        neighbour = padded[:, 1 + row : 1 + row + height, 1 + column : 1 + column + width]
        code += (neighbour >= images).long() << bit
    place = torch.tensor(uniform_bins(), device=images.device)[code]
    votes = images.new_zeros(len(images), 59, height, width).scatter_(1, place[:, None], 1.0)
    return F.avg_pool2d(votes, cell).permute(0, 2, 3, 1).flatten(1)


def uniform_bins() -> list[int]:
    """The bin of each of the 256 patterns: 0 to 57 for uniform ones, in their order, 58 for the others."""
    bins, free = [], 0
    for code in range(256):
        turned = (code >> 1) | ((code & 1) << 7)
        uniform = bin(code ^ turned).count("1") <= 2
        bins.append(free if uniform else 58)
        free += uniform
    return bins
