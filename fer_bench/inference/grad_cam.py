"""Grad-CAM: the places of a network's last map that raise the score of a class.

Written here, since libraries (pytorch-grad-cam, Captum) hook the output of a module. What a method promises is a value,
the map in its :class:`fer_bench.Output`, and several methods compute that without calling the module that would be
hooked. pytorch-grad-cam also installs OpenCV.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fer_bench.inference.trained import Trained, blaming
from fer_bench.training.dataplane import prepare

PREFIX = 8  # most tokens of a transformer that stand for no place: class, distillation and register tokens


def grad_cam(trained: Trained, images: np.ndarray, classes: np.ndarray) -> Tensor | None:
    """Grad-CAM of one class for each image (Selvaraju et al., ICCV 2017, equations 1 and 2), in float32.

    The map is ReLU(Σ_d α_d F_d), with α_d the mean over places of the gradient of the class's logit with respect to
    channel d of the last map F. The logit is the network's, before any adjustment.

    Parameters
    ----------
    images : uint8 [n, C, H, W]
    classes : int [n]
        The class whose logit is meant, for each image.

    Returns
    -------
    Tensor or None
        float32 [n, h, w] on the CPU; None where the network gives no map, or its logits don't depend on it.
    """
    parts: list[Tensor] = []
    start = 0
    for some in trained.batches(images):
        part = _of_batch(trained, some, classes[start : start + len(some)])
        if part is None:
            return None
        parts.append(part)
        start += len(some)
    return torch.cat(parts)


def _of_batch(trained: Trained, images: np.ndarray, classes: np.ndarray) -> Tensor | None:
    trained.model.eval()
    with torch.enable_grad(), blaming(trained.plugin):
        x = prepare(trained.on_device(images), trained.spec.recipe.image_size).requires_grad_()
        output = trained.method.predict(trained.model, x)
        if output.fmap is None or not output.logits.requires_grad or not output.fmap.requires_grad:
            return None
        chosen = output.logits.gather(1, torch.as_tensor(classes, device=x.device)[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, output.fmap, allow_unused=True)
    if gradient is None:
        return None
    maps, slopes = as_map(output.fmap.detach().float()), as_map(gradient.float())
    if maps is None or slopes is None:
        return None
    return (slopes.mean((2, 3), keepdim=True) * maps).sum(1).relu().cpu()


def as_map(values: Tensor) -> Tensor | None:
    """The last map of any family of networks as [n, D, h, w]; None where it has no places.

    Convolutional networks give [n, D, h, w], Swin transformers [n, h, w, D], and vision transformers tokens [n, N, D],
    of which the first few may stand for no place.
    """
    if values.ndim == 4:
        channels_last = values.shape[1] == values.shape[2] != values.shape[3]
        return values.permute(0, 3, 1, 2) if channels_last else values
    if values.ndim != 3:
        return None
    tokens = values.shape[1]
    for prefix in range(PREFIX + 1):
        side = math.isqrt(max(tokens - prefix, 0))
        if side and side * side == tokens - prefix:
            return values[:, prefix:].transpose(1, 2).unflatten(2, (side, side))
    return None
