"""The last map of a trunk: its shape, and class activation maps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fer_bench import Classifier, SpecError, Trunk, evaluation_mode


@torch.no_grad()
def shape_of(trunk: Trunk, image_shape: tuple[int, int, int], of: Callable[[Tensor], Tensor]) -> tuple[int, ...]:
    """Shape for one image of `image_shape` of what `of` makes of images with the trunk, in evaluation mode."""
    image = torch.zeros(1, *image_shape, device=next(trunk.parameters()).device)
    with evaluation_mode(trunk):
        return tuple(of(image).shape[1:])


def map_shape(trunk: Trunk, image_shape: tuple[int, int, int], owner: str) -> tuple[int, int, int]:
    """(D, h, w) of the trunk's last map for images of `image_shape`.

    Raises
    ------
    SpecError
        It has no such map; `owner` is the method that needs it.
    """
    shape = shape_of(trunk, image_shape, trunk.body.forward_features)
    if len(shape) != 3 or shape[0] != trunk.body.num_features:
        raise SpecError(
            f"{owner} needs a backbone with a last map [B, D, h, w]; {type(trunk.body).__name__} gives {shape} an "
            "image",
            where=f"method {owner}",
            hint="a convolutional backbone, such as resnet18_small or resnet18",
        )
    return shape


def build_cam_classifier(trunk: Trunk, num_classes: int, image_shape: tuple[int, int, int], owner: str) -> Classifier:
    """A plain classifier whose head can read single positions of its last map.

    Raises
    ------
    SpecError
        The last map is not [B, D, h, w] with the D of the pooled features.
    """
    channels, _, _ = map_shape(trunk, image_shape, owner)
    if channels != trunk.num_features:
        raise SpecError(
            f"{owner} needs a head right behind the pooled map; {type(trunk.body).__name__} has layers between its map "
            f"of {channels} channels and its {trunk.num_features} features",
            where=f"method {owner}",
            hint="a ResNet, such as resnet18_small or resnet18",
        )
    return Classifier(trunk, num_classes)


def activation_maps(fmap: Tensor, head: nn.Linear) -> Tensor:
    """Class activation maps Σ_d W_cd F_d(h, w) of a map [B, D, h, w], float32 [B, K, h, w] (Zhou et al., CVPR 2016).

    The weights get no gradient from the maps, and biases have no part in them.
    """
    with torch.autocast(fmap.device.type, enabled=False):
        return torch.einsum("bdhw,kd->bkhw", fmap.float(), head.weight.detach().float())
