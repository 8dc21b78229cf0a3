"""Attention consistency under mirroring: an erased image and its mirror image should have mirrored attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fer_bench import Augment, Param

ERASE = {
    "erase": Param(
        0.5,
        "probability of one erased rectangle in a training image, which its mirror image has too; 0.5 is "
        "torchvision's default, which EAC's code uses. The recipe's own erasing has no effect",
        low=0.0,
        high=1.0,
    ),
}
AREA = (0.02, 0.25)  # of an image, EAC's code and paper


def erased_unmirrored(recipe: Mapping[str, Any], probability: float) -> Augment:
    """The recipe's augmentation with erased rectangles and without flips.

    The classification loss is to see each image one way round only; its mirror image comes in by the consistency.
    """
    kept = {name: recipe.get(name, 0.0) for name in ("shift", "rotate", "scale")}
    return Augment(**kept, erase=probability, erase_area=AREA)


def mirror_gaps(maps: Tensor, mirrored: Tensor) -> Tensor:
    """(M_k(x) - flip(M_k(flip x)))² of maps [B, K, h, w] and of mirrored images' maps, mean over h and w [B, K]."""
    return (maps - mirrored.flip(3)).square().mean((2, 3))
