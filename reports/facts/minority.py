"""The tail and the head of the classes, and how small a gain a study could have detected.

The tail and the head are those of the classes by training images
(:func:`fer_bench.stats.class_groups.head_middle_tail`).
"""

from __future__ import annotations

from fer_bench.reports.facts.numbers import MethodNumbers, Numbers, group_key, recall_key
from fer_bench.stats import power

HEAD, TAIL = group_key("head"), group_key("tail")


def tail_keys(numbers: Numbers) -> list[str]:
    """Keys of the gains of the minority table: every tail class (the rarest first), the tail and the head."""
    classes = [recall_key(numbers.study.classes[i]) for i in reversed(numbers.groups.members["tail"])]
    return [*classes, TAIL, HEAD]


def detectable(numbers: Numbers, method: MethodNumbers, key: str, seeds: int | None = None) -> float | None:
    """The smallest true gain, as a share, that would be claimed with probability :data:`power.POWER`.

    It is that of the study's own design: its test images, its seeds (or `seeds` instead), the spread of this method's
    gain, and the level at which this endpoint is tested. Infinity where even 100 points would be missed; None where
    nothing is tested or nothing varies.
    """
    alpha, spread = numbers.family.alpha(key), method.spread.get(key)
    if alpha is None or spread is None or method.label not in numbers.family.methods or not spread.standard_error > 0:
        return None
    return power.detectable_by_design(spread, seeds, alpha=alpha)
