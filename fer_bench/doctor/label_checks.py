"""Whether the labels of a store mean what its card says, judged by counts and by copies: exchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtrc

STRAY = 0.2  # share of an exchange that other changes may have
SURE = 4  # a share is told of classes whose sizes differ by this many square roots of their sum: to about 0.1
SINGLE = 0.02  # share of two classes that may have moved between them by corrections of single labels
SLIPS = 0.10  # share of the groups of copies that may have two labels without anything being exchanged
ENOUGH = 30  # groups from which their share is judged; a handful are not copies picked at random
LEVEL = 0.01  # of the test, for all pairs of classes together


@dataclass(frozen=True)
class Exchange:
    """Two classes, by position, between which labels have moved in one split.

    `moved` images more than known are in `gained`, as many less in `lost`. Counts can't tell whether labels were
    exchanged or changed one way; `share` is the part of both classes whose exchange at random would give these counts,
    None where none does or chance is too large to tell it. `slips`: so few that single corrections explain them.
    """

    split: str
    gained: int
    lost: int
    moved: int
    share: float | None
    slips: bool


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
        slips = moved <= SINGLE * (expected[gained] + expected[lost])
        found.append(Exchange(split, gained, lost, moved, share, bool(slips)))
    return found


@dataclass(frozen=True)
class Disagreement:
    """Two classes, by position, between which equal images disagree: `torn` of `groups` have both labels.

    `share` is the part of both classes whose labels would have been exchanged at random to give that. `p` is the
    probability of so many torn groups or more if slips tear SLIPS of them, times the number of `pairs` of classes.
    """

    classes: tuple[int, int]
    torn: int
    groups: int
    share: float
    p: float
    pairs: int


def disagreements(groups: Iterable[np.ndarray], labels: np.ndarray, classes: int) -> list[Disagreement]:
    """Pairs of classes whose copies disagree too often, though the counts may be as known.

    Of two copies one alone is exchanged in ``2 f (1 - f)`` of the cases, if a share f is. Published labels of faces
    disagree on 4 % of the copies of the two classes that are confused most, or less (FER2013, counted); SLIPS allows
    for more. A binomial test says whether a pair of classes goes beyond, corrected for all pairs of the data set
    (Bonferroni). Fewer than ENOUGH groups are not judged: who has removed the copies within each class leaves those
    between classes, so that five of seven are torn and nothing is exchanged.

    Parameters
    ----------
    groups : iterable of int arrays
        Rows of equal images.
    labels : int64 [n]
    classes : int
        How many the data set has.
    """
    torn, whole = Counter[tuple[int, int]](), Counter[int]()
    for rows in groups:
        seen = sorted({k for k in labels[rows].tolist() if k >= 0})
        if len(seen) == 1:
            whole[seen[0]] += 1
        elif len(seen) == 2:
            torn[seen[0], seen[1]] += 1
    found, pairs = [], classes * (classes - 1) // 2
    for (a, b), n in sorted(torn.items()):
        total = n + whole[a] + whole[b]
        p = min(1.0, pairs * float(bdtrc(n - 1, total, SLIPS)))
        if total >= ENOUGH and p <= LEVEL:
            share = (1 - max(0.0, 1 - 2 * n / total) ** 0.5) / 2
            found.append(Disagreement((a, b), n, total, share, p, pairs))
    return found
