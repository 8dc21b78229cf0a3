"""The small folds that plug-ins are tried on: pictures that tell their class, drawn from named streams."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fer_bench.contract.batch import TrainView
from fer_bench.rng import numpy_generator
from fer_bench.training.job import Fold

SIDE = 24  # pixels; the last map of the kit's ResNet is 2x2, so that BatchNorm can take a batch of one image
COUNTS = (24, 12, 8, 4)
"""Images a class of the usual training fold: four classes, three batches of 16, a rarest class of four images."""
PEOPLE = 8


def training(counts: Sequence[int] = COUNTS, *, side: int = SIDE, name: str = "train", votes: bool = False,
             groups: bool = True) -> TrainView:  # fmt: skip
    """A training fold with `counts` images a class, in mixed order.

    Parameters
    ----------
    name : str
        Folds of other names hold other pictures of the same classes.
    votes : bool
        Add the shares of ten votes as soft labels: most go to the label, the others to the next class.
    groups : bool
        Add the number of a person to each image.
    """
    rng = numpy_generator(0, "conformance", name, "order")
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)
    soft = None
    if votes:
        share = rng.integers(6, 11, size=len(labels)) / 10
        soft = np.zeros((len(labels), len(counts)), dtype=np.float32)
        soft[np.arange(len(labels)), labels] = share
        soft[np.arange(len(labels)), (labels + 1) % len(counts)] += 1 - share
    return TrainView(
        images=pictures(labels, len(counts), side=side, name=name),
        labels=labels,
        groups=np.arange(len(labels)) % PEOPLE if groups else None,
        soft=soft,
        num_classes=len(counts),
    )


def validation(classes: int, *, side: int = SIDE, name: str = "val", labels: np.ndarray | None = None) -> Fold:
    """Two validation images a class, or images of the given labels."""
    labels = np.tile(np.arange(classes), 2) if labels is None else labels
    return Fold(images=pictures(labels, classes, side=side, name=name), labels=labels)


def repeated(view: TrainView, times: int) -> TrainView:
    """The fold with every image `times` times, so that one epoch has that many times the steps."""
    index = np.tile(np.arange(len(view)), times)
    return TrainView(
        images=view.images[index],
        labels=view.labels[index],
        groups=None if view.groups is None else view.groups[index],
        soft=None if view.soft is None else view.soft[index],
        num_classes=view.num_classes,
    )


def pictures(labels: np.ndarray, classes: int, *, side: int, name: str) -> torch.Tensor:
    """Pictures uint8 [n, 1, side, side]: a pattern of 4x4 tiles for each class, under noise and at its own contrast."""
    patterns = numpy_generator(0, "conformance", "patterns").choice([-1.0, 1.0], size=(classes, 4, 4))
    rng = numpy_generator(0, "conformance", name, "pictures")
    tiles = np.repeat(np.repeat(patterns, -(-side // 4), axis=1), -(-side // 4), axis=2)[:, :side, :side]
    contrast = rng.uniform(30, 60, size=(len(labels), 1, 1))
    noise = rng.normal(0, 20, size=(len(labels), side, side))
    grey = np.clip(128 + contrast * tiles[labels] + noise, 0, 255).astype(np.uint8)
    return torch.from_numpy(grey[:, None])
