"""Mixing of images and their labels, for `on_batch`.

Every view of an image is mixed alike, with the same view of its partner. A batch is mixed with one share λ, as in the
authors' code; `y` keeps the label of the image itself. Draws come from the batch's generator.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fer_bench import Batch, constant, to_device

MIXES = ("mixup", "cutmix", "remix", "mamix")
"""What `mix` may be. cutmix changes half of the batches; remix has κ = 3 and τ = 0.5, mamix the exponent -1/4."""

CUTMIX_P = 0.5
KAPPA = 3.0
TAU = 0.5
EXPONENT = -0.25


def mixed(kind: str, batch: Batch, counts: np.ndarray, alpha: float) -> Batch:
    """The batch with every view mixed with another image of the batch, and `soft` targets to match.

    Parameters
    ----------
    kind : str
        One of :data:`MIXES`.
    batch : Batch
    counts : int array [C]
        Images per class in the training fold.
    alpha : float
        The share λ of an image itself is drawn from Beta(α, α), once a batch.
    """
    if kind == "cutmix":
        return cutmix(batch, len(counts), alpha, CUTMIX_P)
    share, other = beta(alpha, alpha, batch.generator), partner(batch)
    if kind == "mixup":
        return blended(batch, other, len(counts), share, share)
    own, others = class_sizes(batch.y, counts), class_sizes(other.y, counts)
    if kind == "remix":
        return blended(batch, other, len(counts), share, remix_share(share, own, others, KAPPA, TAU))
    return blended(batch, other, len(counts), share, mamix_share(share, own, others, EXPONENT))


def cutmix(batch: Batch, num_classes: int, alpha: float, probability: float) -> Batch:
    """The batch after CutMix (Yun et al. 2019) with a probability; as it is otherwise."""
    chance = float(torch.rand((), generator=batch.generator))
    share, other = beta(alpha, alpha, batch.generator), partner(batch)
    return pasted(batch, other, num_classes, share) if chance < probability else batch


def partner(batch: Batch) -> Batch:
    """The same images in random order."""
    return reordered(batch, torch.randperm(len(batch.y), generator=batch.generator))


def reordered(batch: Batch, order: Tensor) -> Batch:
    """The images of a batch at positions `order`: their views, labels and soft targets."""
    order = to_device(order, batch.y.device)
    soft = None if batch.soft is None else batch.soft[order]
    return batch.with_(
        views=[view[order] for view in batch.views], y=batch.y[order], index=batch.index[order], soft=soft
    )


def cut_to(batch: Batch, size: int) -> Batch:
    """As many images of a batch as another one has, repeated from the start where there are fewer."""
    return reordered(batch, torch.arange(size) % len(batch.y))


def blended(batch: Batch, other: Batch, num_classes: int, image: float | Tensor, label: float | Tensor) -> Batch:
    """Views λ x + (1 - λ) x' and targets μ q + (1 - μ) q', where x' and q' are those of `other`.

    Parameters
    ----------
    batch, other : Batch
        Batches of the same size.
    num_classes : int
    image, label : float or tensor [B]
        λ, the share of the image itself, and μ, that of its label.
    """
    views = [_between(a, b, image) for a, b in zip(batch.views, other.views, strict=True)]
    return batch.with_(views=views, soft=blended_target(batch, other, num_classes, label))


def blended_target(batch: Batch, other: Batch, num_classes: int, label: float | Tensor) -> Tensor:
    """Targets μ q + (1 - μ) q', float32 [B, C], before smoothing."""
    return _between(batch.soft_target(num_classes), other.soft_target(num_classes), label)


def _between(a: Tensor, b: Tensor, share: float | Tensor) -> Tensor:
    if isinstance(share, Tensor):
        share = to_device(share.to(a.dtype), a.device).reshape(-1, *[1] * (a.ndim - 1))
    return share * a + (1 - share) * b


def pasted(batch: Batch, other: Batch, num_classes: int, share: float) -> Batch:
    """A rectangle of every view of `other` pasted onto the batch; the label's share is exactly that of the pixels.

    Parameters
    ----------
    batch, other : Batch
        Batches of the same size.
    num_classes : int
    share : float
        About the share of pixels that stay: the rectangle has sides √(1 - share) of the image's before it is cut off
        at the border.
    """
    height, width = batch.x.shape[2:]
    top, bottom, left, right = rectangle(height, width, share, batch.generator)
    views = []
    for a, b in zip(batch.views, other.views, strict=True):
        view = a.clone()
        view[:, :, top:bottom, left:right] = b[:, :, top:bottom, left:right]
        views.append(view)
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    return batch.with_(views=views, soft=blended_target(batch, other, num_classes, kept))


def rectangle(height: int, width: int, share: float, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of a rectangle around a uniform point, cut off at the border (Yun et al. 2019, eq. 2).

    As in the authors' code it extends half of its whole-numbered side, rounded down, to both sides of the point.
    """
    ratio = math.sqrt(1 - share)
    ends = []
    for side in (height, width):
        centre = int(torch.randint(side, (), generator=generator))
        half = int(side * ratio) // 2
        ends += [max(centre - half, 0), min(centre + half, side)]
    return ends[0], ends[1], ends[2], ends[3]


def class_sizes(y: Tensor, counts: np.ndarray) -> Tensor:
    """Images in the class of each label, float32 [B], at least 1."""
    return constant(np.maximum(counts, 1), y.device)[y]


def remix_share(share: float, own: Tensor, other: Tensor, kappa: float, tau: float) -> Tensor:
    """Share of the image's own label [B] (Chou et al. 2020, eq. 10).

    The label of the rarer class takes all where the other class is at least κ times as large and the rarer image's
    share exceeds 1 - τ; otherwise labels are shared as images are.

    Parameters
    ----------
    share : float
        λ, the share of the image itself.
    own, other : float tensor [B]
        Images in the class of the image and of its partner.
    """
    labels = torch.full_like(own, share)
    if share < tau:
        labels[own >= kappa * other] = 0.0
    if 1 - share < tau:
        labels[own * kappa <= other] = 1.0
    return labels


def mamix_share(share: float, own: Tensor, other: Tensor, exponent: float) -> Tensor:
    """Share of the image's own label [B] (Cheng et al. 2023, margin-aware mixup).

    With k = n^exponent and κ = k / (k + k') it is 1/2 where the partner's share 1 - λ is κ, and linear on both sides of
    it: the boundary between two classes lies nearer to the larger one.

    Parameters
    ----------
    share : float
        λ, the share of the image itself.
    own, other : float tensor [B]
        Images in the class of the image and of its partner.
    """
    k, k_other = own**exponent, other**exponent
    middle, rest = k / (k + k_other), k_other / (k + k_other)
    return torch.where(1 - share <= middle, 1 - (1 - share) / (2 * middle), share / (2 * rest))


def beta(a: float, b: float, generator: torch.Generator) -> float:
    """One draw from Beta(a, b)."""
    return float(betas(a, b, 1, generator))


def betas(a: float, b: float, size: int, generator: torch.Generator) -> Tensor:
    """Draws from Beta(a, b), float64 [size], by NumPy: torch's own takes no generator."""
    seed = int(torch.randint(2**31, (), generator=generator))
    return torch.from_numpy(np.random.default_rng(seed).beta(a, b, size))
