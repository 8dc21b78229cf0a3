"""What raises the recall of the tail: a better ranking of the images, or a shift of the decision?

Two measurements speak: the area under the ROC curve of the tail, which a shift hardly moves, and the gain of the second
reference, which is nothing but a shift. Where they don't decide, that is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.minority import TAIL
from fer_bench.reports.facts.numbers import Numbers
from fer_bench.stats.intervals import Interval


class Rise(Enum):
    """What a rise in recall of the tail is."""

    RANKING = "AUROC rises"
    SHIFT = "a shift of the decision"
    UNDECIDED = "not decided"


def gain_of_shift(numbers: Numbers) -> Interval | None:
    """What the second reference gains in recall of the tail over the reference; None without a second reference."""
    return numbers.method(numbers.second).gains.get(TAIL) if numbers.second else None


def rise_of(numbers: Numbers, gains: Mapping[str, Interval], area: Interval | None) -> Rise | None:
    """What a difference in recall of the tail is; None where its unadjusted interval does not lie above 0.

    It is a better ranking if the interval of the difference in area (`area`) lies above 0. It is a shift if that is not
    so, the second reference is shown to gain, and it gains as much within the interval of its gain.
    """
    gain, shift = gains.get(TAIL), gain_of_shift(numbers)
    if gain is None or not gain.low > 0:
        return None
    if area is None or not area.known:
        return Rise.UNDECIDED
    if area.low > 0:
        return Rise.RANKING
    shown = shift is not None and shift.low > 0 and shift.high >= gain.value
    return Rise.SHIFT if shown else Rise.UNDECIDED


def rise_in_words(numbers: Numbers, gains: Mapping[str, Interval], area: Interval | None) -> str:
    """What :func:`rise_of` finds, with the numbers that it rests on; empty where it finds nothing."""
    rise = rise_of(numbers, gains, area)
    if rise is None:
        return ""
    if area is None or not area.known:
        return "Whether this is a shift of the decision is unknown, because the AUROC can't be computed."
    if rise is Rise.RANKING:
        return f"AUROC of the tail rises too ({phrases.gain_with_interval(area)} points), so it ranks images better."
    fixed = f"AUROC of the tail is not shown to rise ({phrases.gain_with_interval(area)} points)"
    second, shift = numbers.second, gain_of_shift(numbers)
    if second is None or shift is None or not shift.known:
        return f"{fixed}, and without a second reference it is unknown whether a shift of the decision gives as much."
    against = phrases.code(str(numbers.study.reference))
    compared = (
        f"the second reference {phrases.code(second)} gains {phrases.gain_with_interval(shift)} points over {against} "
        "without training"
    )
    if rise is Rise.SHIFT:
        return f"{fixed}, and {compared}, which is as much: **a shift of the decision**, not a gain."
    if shift.high < gains[TAIL].value:
        return f"{fixed}, but {compared}, which is less. So it is **not decided** whether this is more than a shift."
    return (
        f"{fixed}, and {compared}, which may be as much or nothing. So it is **not decided** whether this is a shift "
        "of the decision."
    )
