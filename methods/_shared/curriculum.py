"""A curriculum of augmentation: levels of classes, probes that test them, and the next levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fer_bench import TrainView

from .samplers import images_of


@dataclass(frozen=True, kw_only=True)
class Strengthened:
    """By chance an image of class c is augmented by the factor 1 + step * level_c, otherwise by 1.

    Parameters
    ----------
    levels : tuple of int [C]
    step : float
        What one level adds to the factor.
    probability : float
    """

    levels: tuple[int, ...]
    step: float
    probability: float

    def __call__(self, view: TrainView, positions: np.ndarray, epoch: int, rng: np.random.Generator) -> np.ndarray:
        """Factors float64 [n] of the images drawn for an epoch."""
        chosen = rng.random(len(positions)) < self.probability
        return 1.0 + self.step * np.array(self.levels)[view.labels[positions]] * chosen


@dataclass(frozen=True, kw_only=True)
class Probes:
    """Images that test levels 0 to level_c of every class c; level l gets `each` * (l + 1) of them.

    As a sampler it gives their positions. They come in an order that depends on the epoch alone, so that
    :class:`ProbeStrength` knows the level of each.
    """

    levels: tuple[int, ...]
    each: int

    def plan(self, counts: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Class and level of every probe, int64 [n]; classes without images have none."""
        pairs = [
            (c, level)
            for c in np.flatnonzero(counts)
            for level in range(self.levels[c] + 1)
            for _ in range(self.each * (level + 1))
        ]
        classes, levels = np.array(pairs, dtype=np.int64).T
        order = np.random.default_rng(epoch).permutation(len(pairs))
        return classes[order], levels[order]

    def __call__(self, view: TrainView, epoch: int, rng: np.random.Generator) -> np.ndarray:
        """Positions int64 [n]."""
        return images_of(view, self.plan(view.counts, epoch)[0], rng)


@dataclass(frozen=True, kw_only=True)
class ProbeStrength:
    """Factor 1 + step * level on the augmentation of each probe."""

    probes: Probes
    step: float

    def __call__(self, view: TrainView, positions: np.ndarray, epoch: int, rng: np.random.Generator) -> np.ndarray:
        """Factors float64 [n]; where the stream repeats the probes, their levels repeat with them."""
        return 1.0 + self.step * np.resize(self.probes.plan(view.counts, epoch)[1], len(positions))


def next_levels(
    levels: tuple[int, ...], right: np.ndarray, tried: np.ndarray, threshold: float, top: int
) -> tuple[int, ...]:
    """Levels after an epoch: one up where a class passes all its levels, otherwise one down, within 0 to `top`.

    Parameters
    ----------
    levels : tuple of int [C]
    right, tried : int arrays [C, top + 1]
        Probes of a class at a level that were predicted right, and all of them.
    threshold : float
        A level is passed if more than this share is right. A class that was not tested stays where it is.
    """
    after = []
    for c, level in enumerate(levels):
        seen, passed = tried[c, : level + 1], right[c, : level + 1] > threshold * tried[c, : level + 1]
        step = 0 if (seen == 0).any() else 1 if passed.all() else -1
        after.append(min(max(level + step, 0), top))
    return tuple(after)
