"""Groups of classes by their numbers of training images, and class shares of shifted test sets.

*Head, middle, tail* suit any number of classes. Sorted by training images, the head is the smallest set of classes that
together hold at least half of the images, the tail the largest set that together holds at most 15 %, the middle the
rest. None of the three is empty: the rarest class always belongs to the tail, and the head shrinks where it would leave
no class for the middle. Classes with equal counts stay together. So two distinct counts, as of two classes or of a step
profile, make a head and a tail but no middle, and equal counts make no groups. A class without test images belongs to
none, since its recall is unknown. On FER2013 the head is happy, neutral and sad (59 %), the tail surprise and disgust
(13 %).

*Many, medium, few* are those of the long-tail literature: more than 100 training images, 20 to 100, fewer than 20 (Liu
et al., 2019, Large-scale long-tailed recognition in an open world, CVPR). All classes of an expression data set mostly
fall in one of them, and then there is nothing to compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

HEAD_SHARE = 0.5  # the head holds at least this share of the training images
TAIL_SHARE = 0.15  # the tail holds at most this share
MANY, FEW = 100, 20  # more than MANY images: many; fewer than FEW: few


@dataclass(frozen=True, kw_only=True)
class Groups:
    """Groups of class indices, or the reason why there are none.

    Attributes
    ----------
    members : mapping
        Group name to its classes, the most frequent first; only groups that are not empty.
    ranges : mapping
        Group name to its range of training images in words.
    reason : str
        Why there are no groups; empty if there are some.
    """

    members: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: MappingProxyType({}))
    ranges: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    reason: str = ""


def head_middle_tail(counts: np.ndarray, tested: np.ndarray | None = None) -> Groups:
    """Head, middle and tail by cumulative share of the training images `counts` [C], of the `tested` classes only."""
    tested = np.ones(len(counts), dtype=bool) if tested is None else np.asarray(tested, dtype=bool)
    levels, classes = np.unique(counts[tested], return_counts=True)  # of equal counts: one level
    levels, classes = levels[::-1], classes[::-1]
    if len(levels) < 2:
        return Groups(reason=_reason_for_none(int(tested.sum()), len(counts)))
    shares = levels * classes / counts[tested].sum()
    middle = len(levels) > 2  # the least number of levels between head and tail
    head = min(int(np.searchsorted(shares.cumsum(), HEAD_SHARE - 1e-12)) + 1, len(levels) - 1 - middle)
    tail = int(np.searchsorted(shares[::-1].cumsum(), TAIL_SHARE + 1e-12, side="right"))
    tail = min(max(tail, 1), len(levels) - head - 1) if middle else len(levels) - head
    parts = {"head": levels[:head], "middle": levels[head : len(levels) - tail], "tail": levels[len(levels) - tail :]}
    return _grouped(counts, {name: tested & np.isin(counts, part) for name, part in parts.items() if len(part)})


def _reason_for_none(tested: int, classes: int) -> str:
    """Why the `tested` classes form no groups."""
    if tested < 2:
        return f"{'no class has' if tested == 0 else 'only one class has'} test images"
    which = "classes" if tested == classes else "classes with test images"
    return f"all {which} have the same number of training images"


def many_medium_few(counts: np.ndarray) -> Groups:
    """Many, medium and few by number of training images; none where all classes fall in one of them."""
    parts = {"many": counts > MANY, "medium": (counts >= FEW) & (counts <= MANY), "few": counts < FEW}
    filled = {name: inside for name, inside in parts.items() if inside.any()}
    if len(filled) < 2:
        return Groups(reason=f"every class is one of '{next(iter(filled))}' (limits: {MANY} and {FEW} training images)")
    return _grouped(counts, filled)


def _grouped(counts: np.ndarray, inside: Mapping[str, np.ndarray]) -> Groups:
    order = np.argsort(-counts, kind="stable")
    members = {name: tuple(int(i) for i in order if mask[i]) for name, mask in inside.items()}
    return Groups(
        members=MappingProxyType(members),
        ranges=MappingProxyType({name: _range(counts[mask]) for name, mask in inside.items()}),
    )


def _range(counts: np.ndarray) -> str:
    low, high = int(counts.min()), int(counts.max())
    span = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{span} training images"


def shifted_prior(counts: np.ndarray, ratio: float) -> np.ndarray:
    """Class shares [C] that fall exponentially from the most to the least frequent training class by `ratio`.

    A ``ratio`` above 1 gives a test set that is long-tailed like the training set ("forward"), below 1 the reverse
    ("backward"), 1 a uniform one; the r-th of C classes has a share proportional to ``ratio ** (-r / (C - 1))``. Among
    classes with equal counts, the first is the more frequent.

    Y. Zhang et al. (2022), Self-supervised aggregation of diverse experts for test-agnostic long-tailed recognition,
    NeurIPS; Y. Hong et al. (2021), Disentangling label distribution for long-tailed visual recognition, CVPR.
    """
    rank = np.argsort(np.argsort(-counts, kind="stable"), kind="stable")
    shares = float(ratio) ** (-rank / max(1, len(counts) - 1))
    return shares / shares.sum()
