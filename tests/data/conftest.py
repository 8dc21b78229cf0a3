"""Independent counts of thinned training sets, and strategies that draw them."""

from __future__ import annotations

import math
import re
import shlex
from fractions import Fraction

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from fer_bench.data.imbalance import NATURAL, Profile, sizes
from fer_bench.errors import SpecError

FACES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
TRAINING = (3995, 436, 4097, 7215, 4830, 3171, 4965)  # of FER2013, in label order

quick = settings(max_examples=60, deadline=None)
ratios = st.integers(10, 2000).map(lambda tenths: tenths / 10)


def names(count: int) -> list[str]:
    return [f"c{k}" for k in range(count)]


def counted(text: str, available, classes=None) -> list[int]:
    return sizes(Profile.parse(text), available, classes or names(len(available))).tolist()


def exponential(head: int, ratio: float, classes: int) -> list[int]:
    """Counts by the formula, without roots: n is at most x + 1/2 just if (2n - 1)^(C-1) r^k is at most (2h)^(C-1)."""
    exact, power = Fraction(str(ratio)), classes - 1

    def enough(n: int, k: int) -> bool:
        return Fraction(2 * n - 1) ** power * exact**k <= Fraction(2 * head) ** power

    near = [max(1, math.floor(head * ratio ** (-k / power)) - 1) for k in range(classes)]
    return [max([n, *(m for m in range(n, n + 4) if enough(m, k))]) for k, n in enumerate(near)]


def apportioned(weights: list[Fraction], total: int) -> list[int]:
    """Largest remainders in fractions; classes whose share is below one are given one, and the rest is shared anew."""
    lifted: set[int] = set()
    while True:
        pool = sum(w for k, w in enumerate(weights) if k not in lifted)
        share = {k: w * (total - len(lifted)) / pool for k, w in enumerate(weights) if k not in lifted}
        below = {k for k, q in share.items() if q < 1}
        if not below:
            break
        lifted |= below
    counts = [1 if k in lifted else math.floor(share[k]) for k in range(len(weights))]
    for _ in range(total - sum(counts)):
        k = max(share, key=lambda k: (share[k] - counts[k], -k))
        counts[k] += 1
    return counts


@st.composite
def feasible_folds(draw):
    """Available images per class, shuffled, for which exp:RATIO fits with the whole head; and that ratio."""
    head, ratio, classes = draw(st.integers(1, 60)), draw(ratios), draw(st.integers(2, 6))
    spare = draw(st.lists(st.integers(0, 20), min_size=classes, max_size=classes))
    enough = [min(head, n + s) for n, s in zip(exponential(head, ratio, classes), spare, strict=True)]
    return draw(st.permutations(enough)), ratio


def shuffled_labels(available) -> np.ndarray:
    labels = np.repeat(np.arange(len(available)), available)
    return np.random.default_rng(3).permutation(labels)


# ---- too few images ----


def fits(text: str, available: list[int]) -> bool:
    try:
        counted(text, available)
    except SpecError:
        return False
    return True


def proposals(error: SpecError) -> list[str]:
    """The profiles' texts, as a shell would pass them on."""
    assert error.hint
    return [shlex.split(result)[1] for result in re.findall(r"--imbalance (?:'[^']*'|\S+)", error.hint)]


# ---- text ----


numbers = st.decimals(1, 10**6, places=3).map(float)
class_names = st.lists(st.sampled_from(["happy", "a b", "über", "0", "x=y", "p:q"]), unique=True, max_size=6)


@st.composite
def profiles(draw):
    kind = draw(st.sampled_from(["natural", "exp", "step", "balanced"]))
    if kind == "natural":
        return NATURAL
    if kind == "balanced":
        return Profile(kind=kind, count=draw(st.integers(1, 10**9)))
    size = draw(st.sampled_from([None, "total", "head"]))
    more = {size: draw(st.integers(1, 10**9))} if size else {}
    if kind == "step":
        more["fraction"] = draw(st.floats(0, 1, exclude_min=True, exclude_max=True))
    return Profile(kind=kind, ratio=draw(numbers), order=tuple(draw(class_names)), **more)
