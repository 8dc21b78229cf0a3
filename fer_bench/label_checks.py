"""Whether the labels of a store mean what its card says, judged by counts and by copies: exchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

STRAY = 0.2  # share of an exchange that other changes may have
SURE = 4  # a share is told of classes whose sizes differ by this many square roots of their sum: to about 0.1
NOISY, FEW = 0.10, 5  # share and number of groups of copies with two labels that are more than slips


@dataclass(frozen=True)
class Exchange:
    """Two classes, by position, that seem to have exchanged labels in one split.

    `moved` images more than known are in `gained`, as many less in `lost`; `share` is the part of both classes whose
    labels would have been exchanged at random to give that, None where none does or chance is too large to tell it.
    """

    split: str
    gained: int
    lost: int
    moved: int
    share: float | None


def exchanges(observed: np.ndarray, known: np.ndarray, splits: Sequence[str]) -> list[Exchange]:
    """Splits in which one class has gained about what one other has lost, and the rest is as known.

    If a share f of the labels of A and of B is exchanged, A has ``n_A (1 - f) + f n_B`` images afterwards.
    """
    found = []
    for split, have, expected in zip(splits, observed, known, strict=True):
        change = have - expected
        gained, lost = int(change.argmax()), int(change.argmin())
        moved = int(min(change[gained], -change[lost]))
        if moved <= 0 or np.abs(change).sum() - 2 * moved > STRAY * 2 * moved:
            continue
        gap = int(expected[lost] - expected[gained])
        telling = gap >= SURE * np.sqrt(expected[gained] + expected[lost])
        share = moved / gap if telling and moved <= gap else None
        found.append(Exchange(split, gained, lost, moved, share))
    return found


@dataclass(frozen=True)
class Disagreement:
    """Two classes, by position, between which equal images disagree: `torn` of `groups` have both labels.

    `share` is the part of both classes whose labels would have been exchanged at random to give that.
    """

    classes: tuple[int, int]
    torn: int
    groups: int
    share: float


def disagreements(groups: Iterable[np.ndarray], labels: np.ndarray) -> list[Disagreement]:
    """Pairs of classes whose copies disagree too often, though the counts may be as known.

    Of two copies one alone is exchanged in ``2 f (1 - f)`` of the cases, if a share f is. Published labels of faces
    disagree on 4 % of the copies of the two classes that are confused most, or less (FER2013, counted).

    Parameters
    ----------
    groups : iterable of int arrays
        Rows of equal images.
    labels : int64 [n]
    """
    torn, whole = Counter[tuple[int, int]](), Counter[int]()
    for rows in groups:
        seen = sorted({k for k in labels[rows].tolist() if k >= 0})
        if len(seen) == 1:
            whole[seen[0]] += 1
        elif len(seen) == 2:
            torn[seen[0], seen[1]] += 1
    found = []
    for (a, b), n in sorted(torn.items()):
        total = n + whole[a] + whole[b]
        if n >= FEW and n >= NOISY * total:
            found.append(Disagreement((a, b), n, total, (1 - max(0.0, 1 - 2 * n / total) ** 0.5) / 2))
    return found
