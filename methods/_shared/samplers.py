"""Index-stream samplers shared by methods: callables (view, epoch, rng) -> positions to visit, picklable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fer_bench import TrainView, missing_library, shuffle

if TYPE_CHECKING:
    from imblearn.over_sampling import RandomOverSampler


@dataclass(frozen=True, kw_only=True)
class Oversample:
    """Random oversampling of every class to the size of the largest, by imbalanced-learn, drawn afresh each epoch.

    `epoch_length` "full" visits all C * n_max positions, so every image at least once; "train" visits N of them, so
    that a run takes as many steps as one without oversampling (class shares are then 1/C in expectation).
    """

    epoch_length: str = "train"

    def __call__(self, view: TrainView, epoch: int, rng: np.random.Generator) -> np.ndarray:
        """Positions int64 [N] or [C * n_max], shuffled."""
        sampler = _random_over_sampler(random_state=int(rng.integers(2**31 - 1)))
        sampler.fit_resample(np.arange(len(view))[:, None], view.labels)
        order = rng.permutation(sampler.sample_indices_).astype(np.int64)
        return order[: len(view)] if self.epoch_length == "train" else order


def _random_over_sampler(random_state: int) -> RandomOverSampler:
    try:
        from imblearn.over_sampling import RandomOverSampler  # here, so that other methods do without it
    except ImportError as error:
        raise missing_library(
            "oversampling needs imbalanced-learn", error, install="'imbalanced-learn>=0.14'"
        ) from error
    return RandomOverSampler(random_state=random_state)


@dataclass(frozen=True, kw_only=True)
class BalancedCapped:
    """N positions with N/C of each class (±1): larger classes are capped, smaller ones repeated as evenly as possible.

    A reading of ARM's minimal random resampling, which has no public code [I]: its author speaks of class-probability
    oversampling with a cap per class, redrawn each epoch, so that each epoch is balanced.
    """

    def __call__(self, view: TrainView, epoch: int, rng: np.random.Generator) -> np.ndarray:
        """Positions int64 [N], shuffled."""
        present = np.flatnonzero(view.counts)
        quota = np.full(len(present), len(view) // len(present))
        quota[rng.permutation(len(present))[: len(view) - quota.sum()]] += 1
        draws = [_even_draw(np.flatnonzero(view.labels == c), k, rng) for c, k in zip(present, quota, strict=True)]
        return rng.permutation(np.concatenate(draws)).astype(np.int64)


def _even_draw(members: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """`size` of `members`: whole rounds, then a random rest without replacement."""
    rounds, rest = divmod(size, len(members))
    return np.concatenate([np.tile(members, rounds), rng.permutation(members)[:rest]])


SAMPLERS = ("shuffle", "oversample", "capped")
"""What `sampler` may be."""


def make_sampler(kind: str, epochs: int) -> Callable[[TrainView, int, np.random.Generator], np.ndarray]:
    """The sampler called `kind`, one of :data:`SAMPLERS`; `epochs` are those of the recipe, for those that change."""
    return {"shuffle": shuffle, "oversample": Oversample(), "capped": BalancedCapped()}[kind]
