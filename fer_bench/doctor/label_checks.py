"""Signs that labels of two classes were exchanged: from class counts, and from copies with different labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtrc

STRAY = 0.2  # other changes may amount to this share of an exchange
SURE = 4  # a share is given if class sizes differ by this many square roots of their sum; it is then good to about 0.1
SINGLE = 0.02  # share of two classes that corrections of single labels may have moved between them
SLIPS = 0.10  # share of the groups of copies that may have two labels although nothing was exchanged
ENOUGH = 30  # fewest groups for which the share is tested; a handful is no random sample of copies
LEVEL = 0.01  # significance level of the test, for all pairs of classes together


@dataclass(frozen=True)
class Exchange:
    """Two classes, by position, between which labels have moved in one split.

    `gained` has `moved` more images than expected, and `lost` as many fewer. Counts can't show whether labels were
    exchanged or changed in one direction; `share` is the fraction of both classes whose random exchange would give
    these counts, None if no fraction does or the estimate is too noisy. `slips`: so few that corrections of single
    labels explain them.
    """

    split: str
    gained: int
    lost: int
    moved: int
    share: float | None
    slips: bool


def exchanges(observed: np.ndarray, known: np.ndarray, splits: Sequence[str]) -> list[Exchange]:
    """Splits in which one class has gained about as many images as another has lost, and the rest is as expected.

    If a fraction f of the labels of A and of B is exchanged, A has ``n_A (1 - f) + f n_B`` images afterwards.
    """
    results = []
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
        results.append(Exchange(split, gained, lost, moved, share, bool(slips)))
    return results


@dataclass(frozen=True)
class Disagreement:
    """Two classes, by position, between which identical images disagree: `torn` of `groups` have both labels.

    `share` is the fraction of both classes whose random exchange would explain this. `p` is the probability of at least
    this many torn groups if slips tear a share SLIPS of them, times the number of `pairs` of classes.
    """

    classes: tuple[int, int]
    torn: int
    groups: int
    share: float
    p: float
    pairs: int


def disagreements(groups: Iterable[np.ndarray], labels: np.ndarray, classes: int) -> list[Disagreement]:
    """Pairs of classes whose copies disagree too often, even if the counts are as expected.

    If a fraction f of the labels is exchanged, exactly one of two copies is affected in ``2 f (1 - f)`` of the cases.
    Published face labels disagree on at most 4 % of the copies of the two most confused classes (counted in FER2013);
    SLIPS allows for more. A binomial test decides whether a pair of classes exceeds it, corrected for all pairs of
    classes (Bonferroni). Fewer than ENOUGH groups are not tested: if somebody has removed the copies within each class,
    only those between classes remain, so that five of seven may be torn although nothing was exchanged.

    Parameters
    ----------
    groups : iterable of int arrays
        Rows of identical images.
    labels : int64 [n]
    classes : int
        Number of classes of the data set.
    """
    torn, whole = Counter[tuple[int, int]](), Counter[int]()
    for rows in groups:
        seen = sorted({k for k in labels[rows].tolist() if k >= 0})
        if len(seen) == 1:
            whole[seen[0]] += 1
        elif len(seen) == 2:
            torn[seen[0], seen[1]] += 1
    results, pairs = [], classes * (classes - 1) // 2
    for (a, b), n in sorted(torn.items()):
        total = n + whole[a] + whole[b]
        p = min(1.0, pairs * float(bdtrc(n - 1, total, SLIPS)))
        if total >= ENOUGH and p <= LEVEL:
            share = (1 - max(0.0, 1 - 2 * n / total) ** 0.5) / 2
            results.append(Disagreement((a, b), n, total, share, p, pairs))
    return results
