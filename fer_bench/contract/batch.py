"""What a method is given and what it returns: the training fold, batches, outputs and losses.

All of it is plain data. A method sees its training through :class:`Context` and :class:`TrainView`; the harness makes
:class:`Batch` objects from the streams a method asks for (:class:`StreamSpec`); a model returns an :class:`Output`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fer_bench.contract.streamed import Images
from fer_bench.contract.transfer import constant
from fer_bench.rng import numpy_generator, torch_generator


class Params(Mapping):
    """Resolved parameters of a method; read as ``self.params["share.source"]``."""

    def __init__(self, values: Mapping[str, Any]):
        self._values = dict(values)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Params({self._values})"


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a method may know of its training: the training fold's facts and the recipe, nothing of other splits.

    `counts` are images per class in the training fold (int64, [C]); `image_shape` is (channels, height, width) of what
    the network gets, `stored_shape` that of the images before the recipe resizes them, in whose pixels
    :class:`Augment` shifts (None: the same); `epochs` and `steps_per_epoch` are those of the recipe. `recipe` is
    read-only.
    """

    classes: tuple[str, ...]
    counts: np.ndarray
    image_shape: tuple[int, int, int]
    stored_shape: tuple[int, int, int] | None = None
    seed: int
    epochs: int
    batch_size: int
    device: torch.device
    recipe: Mapping[str, Any]

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.classes)

    @property
    def size(self) -> int:
        """Number of training images N."""
        return int(self.counts.sum())

    @property
    def prior(self) -> Tensor:
        """Training prior π_c = n_c / N, float32 [C] on the device."""
        return constant(self.counts / self.counts.sum(), self.device)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one pass over the training fold (the last, smaller batch is dropped)."""
        return max(1, self.size // self.batch_size)

    def epoch_after(self, share: float) -> int:
        """The first epoch, counted from 0, after a share of the recipe's epochs."""
        return round(share * self.epochs)

    def generator(self, *names: str | int) -> torch.Generator:
        """A fresh CPU generator for a named stream of this run; the same names give the same numbers."""
        return torch_generator(self.seed, "method", *names)

    def numpy_rng(self, *names: str | int) -> np.random.Generator:
        """Like :meth:`generator`, for NumPy."""
        return numpy_generator(self.seed, "method", *names)


@dataclass(frozen=True, kw_only=True)
class TrainView:
    """The training fold, and nothing else.

    Attributes
    ----------
    images : uint8 tensor [N, C, H, W] on the device, or :class:`fer_bench.contract.streamed.StreamedImages`
        Streamed images stay on disk; both can be indexed and split. A method that needs all of them in one tensor says
        so on its card, ``needs=("memory",)``.
    labels : int64 array [N]
    groups : int64 array [N] or None
        Subject (or sequence) of each image, where the data set has them.
    num_classes : int
    """

    images: Images
    labels: np.ndarray
    groups: np.ndarray | None = None
    soft: np.ndarray | None = None
    num_classes: int

    @property
    def counts(self) -> np.ndarray:
        """Images per class, int64 [C]."""
        return np.bincount(self.labels, minlength=self.num_classes)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random changes of a training image; all zero means none. Drawn from the run's `augment` stream.

    `shift` is in pixels, `rotate` in degrees, `scale` a relative range (0.1: 0.9 to 1.1), `erase` the probability of
    one erased rectangle that covers `erase_area` of the image.
    """

    flip: float = 0.0
    shift: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    erase: float = 0.0
    erase_area: tuple[float, float] = (0.02, 0.2)


# (view of the training fold, epoch counted from 0, generator of this stream and epoch) -> positions to visit, int64
Sampler = Callable[[TrainView, int, np.random.Generator], np.ndarray]


def shuffle(view: TrainView, epoch: int, rng: np.random.Generator) -> np.ndarray:
    """Every image once, in random order: the default sampler."""
    return rng.permutation(len(view))


# (view of the training fold, positions [n] drawn for an epoch, epoch, generator) -> strength of each, float [n]
Strength = Callable[[TrainView, np.ndarray, int, np.random.Generator], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class StreamSpec:
    """One stream of batches.

    `views` is how many independently augmented copies of each image a batch holds. `augment` replaces the recipe's
    augmentation (None keeps it). It may hold one for each view. `batch_size` replaces the recipe's.

    `strength` gives each drawn image a factor on its augmentation, 0 for none: the ranges of shift, rotation and
    scaling and the probability of an erased rectangle are multiplied by it (a flip is not: it has no strength). The
    factors arrive in ``batch.strength``.
    """

    sampler: Sampler = shuffle
    views: int = 1
    augment: Augment | Sequence[Augment | None] | None = None
    batch_size: int | None = None
    strength: Strength | None = None


@dataclass(kw_only=True)
class Batch:
    """One training batch on the device.

    Attributes
    ----------
    views : list of float32 tensors [B, C, H, W], normalised
    y : int64 tensor [B]
        Hard labels.
    soft : float32 tensor [B, K] or None
        Soft targets before label smoothing; they replace `y` as target when set (mixup, votes).
    smoothing : float
        Share ε of label smoothing. The harness sets it after :meth:`fer_bench.contract.method.Method.on_batch`, and
        `soft` with it where that was None. Only `target` is smoothed: what is known of an image's label stays readable
        in `y` and `soft`.
    index : int64 tensor [B]
        Positions in the training view, stable over epochs.
    groups : int64 tensor [B] or None
    strength : float32 tensor [B] or None
        Factor on each image's augmentation, where the stream sets one (:class:`StreamSpec`).
    aux : dict of Batch
        Batches of the other streams of this step.
    generator : torch.Generator
        CPU generator of this very step, for draws in `on_batch`; resuming replays it.
    epoch, step : int
        Epoch within the whole fit and step within the epoch, both from 0.
    """

    views: list[Tensor]
    y: Tensor
    index: Tensor
    generator: torch.Generator
    epoch: int = 0
    step: int = 0
    soft: Tensor | None = None
    smoothing: float = 0.0
    groups: Tensor | None = None
    strength: Tensor | None = None
    aux: dict[str, Batch] = field(default_factory=dict)

    @property
    def x(self) -> Tensor:
        """The first view."""
        return self.views[0]

    @property
    def target(self) -> Tensor:
        """What the loss compares with: soft targets [B, K] where set, smoothed, otherwise hard labels [B].

        Smoothing takes q to (1 - ε) q + ε / K (Szegedy et al. 2016, section 7).
        """
        if self.soft is None or not self.smoothing:
            return self.y if self.soft is None else self.soft
        return self.soft * (1 - self.smoothing) + self.smoothing / self.soft.shape[1]

    def soft_target(self, num_classes: int) -> Tensor:
        """Targets before smoothing as distributions, float32 [B, K]: the soft ones, or hard labels one-hot."""
        return F.one_hot(self.y, num_classes).float() if self.soft is None else self.soft

    def expected(self, values: np.ndarray | Tensor) -> Tensor:
        """Expected value of a quantity of classes under each image's label: Σ_c q_ic v_c, float32 [B].

        q is the target before smoothing. A hard label gives v_y, votes and mixed labels give the mean over them.

        Parameters
        ----------
        values : array or tensor [K]
            One value a class, such as a class weight.
        """
        row = constant(values, self.y.device) if isinstance(values, np.ndarray) else values.to(self.y.device).float()
        return row[self.y] if self.soft is None else (self.soft * row).sum(1)

    def with_(self, **changes: Any) -> Batch:
        """A copy with some fields replaced."""
        return replace(self, **changes)


@dataclass(kw_only=True)
class Output:
    """What a model's forward pass returns: logits [B, K] and, where known, features [B, D] and map [B, D, H, W]."""

    logits: Tensor
    features: Tensor | None = None
    fmap: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)


@dataclass(kw_only=True)
class LossOut:
    """A scalar loss, its named parts for the log, and the logits that training accuracy is counted on."""

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    output: Output | None = None


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """A replacement for the training fold: either `index` into it, or new uint8 `images` [M, C, H, W] and `labels`."""

    index: np.ndarray | None = None
    images: Tensor | None = None
    labels: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class ValOutputs:
    """What :meth:`fer_bench.contract.method.Method.fit_posthoc` may use.

    These are validation logits [n, K], features [n, D] and labels [n].
    """

    logits: np.ndarray
    labels: np.ndarray
    features: np.ndarray | None = None
