"""Samplers shared by methods: frozen, picklable callables (view, epoch, rng) -> positions to visit, int64.

All counts are those of the view, which is the training fold. A class without images is never drawn. Unless said
otherwise an epoch has N positions, as many as the fold has images, so that a method takes as many steps with any of
them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fer_bench import Context, TrainView, missing_library, shuffle

from .losses import EFFECTIVE_BETA

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


@dataclass(frozen=True, kw_only=True)
class Undersample:
    """Rounds over a random subset with equally many images of every class.

    Parameters
    ----------
    redraw : bool
        Whether every round draws its own subset (minimal random resampling); otherwise one subset serves the whole run,
        and the other images are never seen.
    cap : int
        Most images of a class in a subset; smaller classes give all they have. 0: the size of the smallest class.
    epoch_length : {"train", "full"}
        "full": an epoch is one round. "train": rounds follow one another until N positions are full, so that a run
        takes as many steps as one without undersampling.
    seed : int
        Chooses the subset that serves the whole run; no effect with `redraw`.
    """

    redraw: bool = False
    cap: int = 0
    epoch_length: str = "train"
    seed: int = 0

    def __call__(self, view: TrainView, epoch: int, rng: np.random.Generator) -> np.ndarray:
        """Positions int64 [N] or [Σ_c min(n_c, cap)]; every round is shuffled by itself."""
        members = [np.flatnonzero(view.labels == c) for c in np.flatnonzero(view.counts)]
        cap = self.cap or min(map(len, members))

        def subset(rng: np.random.Generator) -> np.ndarray:
            return np.concatenate([of[rng.choice(len(of), min(cap, len(of)), replace=False)] for of in members])

        kept = None if self.redraw else subset(np.random.default_rng(self.seed))
        size = sum(min(cap, len(of)) for of in members)
        rounds = -(-len(view) // size) if self.epoch_length == "train" else 1
        order = [rng.permutation(subset(rng) if kept is None else kept) for _ in range(rounds)]
        positions = np.concatenate(order).astype(np.int64)
        return positions[: len(view)] if self.epoch_length == "train" else positions


@dataclass(frozen=True, kw_only=True)
class Power:
    """N draws with replacement: a class with p_c ∝ n_c^q, then one of its images (Kang et al. 2020, eq. 1).

    q = 1 draws every image alike, 0.5 is square-root sampling, 0 class-balanced sampling, -1 reversed sampling.
    """

    q: float

    def __call__(self, view: TrainView, epoch: int, rng: np.random.Generator) -> np.ndarray:
        """Positions int64 [N]."""
        return draw_classes(view, self.probabilities(view.counts), rng)

    def probabilities(self, counts: np.ndarray) -> np.ndarray:
        """p_c, float64 [C]; 0 for a class without images."""
        raw = np.where(counts > 0, np.maximum(counts, 1).astype(np.float64) ** self.q, 0.0)
        return raw / raw.sum()


@dataclass(frozen=True, kw_only=True)
class Progressive:
    """From drawing every image alike to class-balanced sampling (Kang et al. 2020, eq. 2), N draws with replacement.

    p_c = (1 - s) n_c / N + s / C with s = epoch / (epochs - 1), as in the authors' code: the first epoch is not
    balanced at all, the last one fully. Epochs of a later stage stay balanced.
    """

    epochs: int

    def __call__(self, view: TrainView, epoch: int, rng: np.random.Generator) -> np.ndarray:
        """Positions int64 [N]."""
        return draw_classes(view, self.probabilities(view.counts, epoch), rng)

    def probabilities(self, counts: np.ndarray, epoch: int) -> np.ndarray:
        """p_c in an epoch counted from 0, float64 [C]."""
        share = min(epoch / max(self.epochs - 1, 1), 1.0)
        return (1 - share) * counts / counts.sum() + share * Power(q=0.0).probabilities(counts)


@dataclass(frozen=True, kw_only=True)
class Effective:
    """N draws with replacement, each image with weight 1 / E(n_c), where E(n) = (1 - β^n) / (1 - β) (Cui et al. 2019).

    So p_c ∝ n_c / E(n_c): β = 0 draws every image alike, β -> 1 balances the classes.
    """

    beta: float = EFFECTIVE_BETA

    def __call__(self, view: TrainView, epoch: int, rng: np.random.Generator) -> np.ndarray:
        """Positions int64 [N]."""
        return draw_classes(view, self.probabilities(view.counts), rng)

    def probabilities(self, counts: np.ndarray) -> np.ndarray:
        """p_c, float64 [C]."""
        n = counts.astype(np.float64)
        raw = n * (1 - self.beta) / (1 - self.beta ** np.maximum(n, 1))
        return raw / raw.sum()


@dataclass(frozen=True, kw_only=True)
class RepeatFactor:
    """Every image floor(r_c) times, and once more with probability r_c - floor(r_c), where r_c = max(1, √(t / π_c)).

    Gupta et al. 2019 (LVIS), for images of one class each. `threshold` is t; None stands for 1 / C, with the C classes
    that have images. `epoch_length` "full" visits all Σ_c r_c n_c of them (in expectation), "train" a random N.
    """

    threshold: float | None = None
    epoch_length: str = "train"

    def __call__(self, view: TrainView, epoch: int, rng: np.random.Generator) -> np.ndarray:
        """Positions int64 [N] or about [Σ_c r_c n_c], shuffled."""
        each = self.factors(view.counts)[view.labels]
        times = np.floor(each).astype(np.int64)
        times += rng.random(len(view)) < each - times
        order = rng.permutation(np.repeat(np.arange(len(view)), times))
        return order[: len(view)] if self.epoch_length == "train" else order

    def factors(self, counts: np.ndarray) -> np.ndarray:
        """r_c, float64 [C]; 1 for a class without images."""
        threshold = 1 / np.count_nonzero(counts) if self.threshold is None else self.threshold
        shares = np.where(counts > 0, counts / counts.sum(), 1.0)
        return np.maximum(1.0, np.sqrt(threshold / shares))


@dataclass(frozen=True, kw_only=True)
class ClassesPerBatch:
    """Batches of P classes with K images each (PK sampling), for losses that compare the images of a batch.

    Parameters
    ----------
    batch_size : int
        P * K, the batch size of the stream. Where P does not divide it, some classes give one image more. 0: P.
    classes : int
        P, a random choice for each batch; 0, or more than there are: all classes that have images.

    Notes
    -----
    A class goes through its images in random order and begins anew at their end. So the images of a batch differ, as
    long as their class has K of them. An epoch has as many batches as one without this sampler, and at least one.
    """

    batch_size: int = 0
    classes: int = 0

    def __call__(self, view: TrainView, epoch: int, rng: np.random.Generator) -> np.ndarray:
        """Positions int64, batch by batch; shuffled within each batch."""
        present = np.flatnonzero(view.counts)
        width = min(self.classes or len(present), len(present))
        size = self.batch_size or width
        batches = max(1, len(view) // size)
        chosen = [rng.permutation(present)[:width] for _ in range(batches)]
        drawn = np.concatenate([rng.permutation(np.resize(classes, size)) for classes in chosen])
        positions = np.empty(len(drawn), dtype=np.int64)
        for c in present:
            where = np.flatnonzero(drawn == c)
            members = np.flatnonzero(view.labels == c)
            rounds = [rng.permutation(members) for _ in range(-(-len(where) // len(members)))]
            positions[where] = np.concatenate([*rounds, members[:0]])[: len(where)]
        return positions


def draw_classes(view: TrainView, probabilities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """N draws with replacement, int64 [N]: a class by `probabilities` [C], then one of its images, all alike."""
    return images_of(view, rng.choice(len(probabilities), size=len(view), p=probabilities), rng)


def images_of(view: TrainView, classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random image, int64 [n], of each class in `classes` [n], with replacement."""
    order = np.argsort(view.labels, kind="stable")
    first = np.cumsum(view.counts) - view.counts
    within = (rng.random(len(classes)) * view.counts[classes]).astype(np.int64)
    return order[first[classes] + within].astype(np.int64)


Sampler = Callable[[TrainView, int, np.random.Generator], np.ndarray]
SAMPLERS = (
    "shuffle",
    "oversample",
    "undersample",
    "minimal",
    "capped",
    "balanced",
    "sqrt",
    "reverse",
    "progressive",
    "effective",
    "repeat_factor",
    "pk",
)
"""What `sampler` may be: shuffle (each image once); oversample (to n_max); undersample (one subset of n_min a class for
the whole run); minimal (n_min a class, redrawn: minimal random resampling); capped (N/C a class); balanced, sqrt,
reverse (p_c ∝ n_c^q with q = 0, 0.5, -1); progressive (from instances to classes); effective (β = 0.9999);
repeat_factor (t = 1/C); pk (each batch has equally many images of every class)."""


def make_sampler(kind: str, ctx: Context) -> Sampler:
    """The sampler called `kind`, one of :data:`SAMPLERS`, with N positions an epoch.

    It takes the recipe's epochs ("progressive") and batch size ("pk") and the run's seed ("undersample") from `ctx`.
    """
    return {
        "shuffle": shuffle,
        "oversample": Oversample(),
        "undersample": Undersample(seed=ctx.seed),
        "minimal": Undersample(redraw=True),
        "capped": BalancedCapped(),
        "balanced": Power(q=0.0),
        "sqrt": Power(q=0.5),
        "reverse": Power(q=-1.0),
        "progressive": Progressive(epochs=ctx.epochs),
        "effective": Effective(),
        "repeat_factor": RepeatFactor(),
        "pk": ClassesPerBatch(batch_size=ctx.batch_size),
    }[kind]
