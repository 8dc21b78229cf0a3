"""Where in an image the places of a network's last map lie, and maps stretched over an image accordingly.

A convolution of stride s with padding centres place i on pixel s·i, not on the middle of the i-th part of the image.
Maps that are stretched from edge to edge are then drawn half a place too far to the right and to the bottom, which of a
map of 4 x 4 places is an eighth of the image. So the centres are measured: a place lies where the pixels are that move
it most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fer_bench.inference.grad_cam import as_map
from fer_bench.inference.trained import Trained, blaming
from fer_bench.training.dataplane import prepare

MEASURED = 8  # images that the centres are measured on


@dataclass(frozen=True, eq=False)
class Places:
    """The centres of the rows [h] and columns [w] of a map, in pixels of the image, in rising order."""

    rows: np.ndarray
    columns: np.ndarray

    @classmethod
    def even(cls, shape: tuple[int, ...], size: tuple[int, ...]) -> Places:
        """Those of a map of h x w places that divides an image of H x W pixels evenly."""
        return cls(*(_even(parts, pixels) for parts, pixels in zip(shape, size, strict=True)))

    def fits(self, values: Tensor) -> bool:
        """Whether maps [n, h, w] have as many places."""
        return tuple(values.shape[1:]) == (len(self.rows), len(self.columns))

    def stretched(self, values: Tensor, size: tuple[int, ...]) -> np.ndarray:
        """Maps [n, h, w] as float32 [n, H, W]: linear between centres, constant beyond the outermost ones."""
        down, across = _weights(self.rows, size[0]), _weights(self.columns, size[1])
        drawn = np.einsum("yh,nhw,xw->nyx", down, values.double().numpy(), across)
        return np.maximum(drawn, 0).astype(np.float32)


def _even(parts: int, pixels: int) -> np.ndarray:
    return (np.arange(parts) + 0.5) * pixels / parts - 0.5


def _weights(centres: np.ndarray, pixels: int) -> np.ndarray:
    """What each place adds to each pixel of a line, [pixels, places]."""
    return np.stack([np.interp(np.arange(pixels), centres, one) for one in np.eye(len(centres))], axis=1)


def measured(trained: Trained, images: np.ndarray) -> Places | None:
    """The places of the network's last map, from the gradients of its rows and columns with respect to the pixels.

    A row's centre is the mean of what lies above half of the range of its squared gradient, summed over images,
    channels and columns. Where centres don't rise from row to row, as in a network that mixes all places, rows are
    taken as even parts of the image. The same holds for columns.

    Parameters
    ----------
    images : uint8 [n, C, H, W]
        The first of them are used.

    Returns
    -------
    Places or None
        None where the network gives no map that depends on the pixels.
    """
    size = images.shape[2:]
    trained.model.eval()
    with torch.enable_grad(), blaming(trained.plugin):
        some = next(iter(trained.batches(images[:MEASURED])))
        x = prepare(trained.on_device(some), trained.spec.recipe.image_size).float().requires_grad_()
        output = trained.method.predict(trained.model, x)
        fmap = None if output.fmap is None or not output.fmap.requires_grad else as_map(output.fmap.float())
        if fmap is None:
            return None
        rows = _centres(x, fmap.shape[2], lambda k: fmap[:, :, k].sum(), (0, 1, 3))
        columns = _centres(x, fmap.shape[3], lambda k: fmap[:, :, :, k].sum(), (0, 1, 2))
    seen = x.shape[2:]  # the network may see images of another size
    scaled = [
        None if of is None else (of + 0.5) * pixels / inside - 0.5
        for of, pixels, inside in zip((rows, columns), size, seen, strict=True)
    ]
    even = Places.even(tuple(fmap.shape[2:]), size)
    return Places(*(known if of is None else of for of, known in zip(scaled, (even.rows, even.columns), strict=True)))


def _centres(x: Tensor, parts: int, part: Callable[[int], Tensor], others: tuple[int, ...]) -> np.ndarray | None:
    """The centre of each part of a map along one axis of the pixels; None where they don't rise."""
    found = []
    for k in range(parts):
        (gradient,) = torch.autograd.grad(part(k), x, retain_graph=True, allow_unused=True)
        if gradient is None:
            return None
        profile = gradient.double().square().sum(others).cpu().numpy()
        above = np.maximum(profile - (profile.min() + profile.max()) / 2, 0)
        if not (np.isfinite(above).all() and above.sum() > 0):
            return None
        found.append(float(above @ np.arange(len(above)) / above.sum()))
    return np.array(found) if (np.diff(found) > 0).all() else None
