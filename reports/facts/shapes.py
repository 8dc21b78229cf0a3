"""What the files of a record must look like, as far as a report reads them.

A description says what is wrong with a value, in a few words that name the place, and nothing where the value fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Fits = Callable[[Any], str]

MANY = 10_000_000  # images, epochs, seeds: more is not what fer-bench writes


def text(value: Any) -> str:
    """A string, or nothing."""
    return "" if value is None or isinstance(value, str) else "is not text"


def number(value: Any) -> str:
    """A number, or nothing."""
    return "" if value is None or _sized(value, math.inf) else "is not a number"


def whole(value: Any) -> str:
    """A whole number of a plausible size, or nothing."""
    return "" if value is None or (_sized(value, MANY) and value == int(value)) else "is not a plausible whole number"


def _sized(value: Any, most: float) -> bool:
    """Whether a value is a number no larger than `most` in size; NaN is not."""
    if not isinstance(value, (int, float)):
        return False
    return abs(value) <= most if most < math.inf else not isinstance(value, int) or abs(value) < 2**1000


def count(value: Any) -> str:
    """A whole number of images, never nothing."""
    return "is not a number of images" if value is None or whole(value) or value < 0 else ""


def real(value: Any) -> str:
    """A number, never nothing."""
    return "is not a number" if value is None else number(value)


def seed(value: Any) -> str:
    """A whole number of any size."""
    return "" if isinstance(value, int) and not isinstance(value, bool) else "is not a whole number"


def flag(value: Any) -> str:
    """Yes or no, or nothing."""
    return "" if value is None or isinstance(value, (bool, int)) else "is neither true nor false"


def year(value: Any) -> str:
    """A number or a text."""
    return "" if value is None or isinstance(value, (int, str)) else "is not a year"


def each(fits: Fits, fewest: int = 0) -> Fits:
    """A list, or nothing where it may be empty."""

    def check(value: Any) -> str:
        if value is None and not fewest:
            return ""
        if not isinstance(value, list):
            return "is not a list"
        if len(value) < fewest:
            return f"has fewer than {fewest} entries"
        return next((f"[{place}] {why}" for place, item in enumerate(value) if (why := fits(item))), "")

    return check


def names(value: Any) -> str:
    """A list of texts, no two of them alike."""
    wrong = each(lambda name: text(name) if name is not None else "is not text", fewest=1)(value)
    return wrong or ("contains the same name twice" if len(set(value)) < len(value) else "")


def table(*, needed: tuple[str, ...] = (), **fields: Fits) -> Fits:
    """A mapping from names to values, some of them described, some of those needed."""

    def check(value: Any) -> str:
        if not isinstance(value, dict):
            return "is not a mapping"
        for name in needed:
            if value.get(name) is None:
                return f"has no '{name}'"
        return next((f"'{name}' {why}" for name, fits in fields.items() if (why := fits(value.get(name)))), "")

    return check


def maybe(fits: Fits) -> Fits:
    """Something, or nothing."""
    return lambda value: "" if value is None else fits(value)


def values(fits: Fits) -> Fits:
    """A mapping whose values are all alike."""

    def check(value: Any) -> str:
        if not isinstance(value, dict):
            return "is not a mapping"
        return next((f"'{name}' {why}" for name, item in value.items() if (why := fits(item))), "")

    return check


_PROTOCOL = table(
    name=text, title=text, watermark=text, split_sha256=text, val_is_test=flag, folds=whole,
    train=each(text), val=each(text), test=each(text),
    clean=lambda value: table(needed=("sha256", "rows"), sha256=text, rows=whole)(value) if value else "",
)  # fmt: skip
_SPEC = table(
    needed=("seed",), method=text, params=maybe(table()), dataset=text, protocol=text, fold=whole, profile=text,
    subset=whole, backbone=text, pretrained=flag, seed=seed,
    selection=maybe(table(rule=text, metric=text)), recipe=maybe(table()),
    test=flag,
)  # fmt: skip

SPEC = table(needed=("label", "spec"), label=text, spec=_SPEC)
DATA = table(
    needed=("classes",), classes=names,
    dataset=text, fingerprint=text, layout=text, counts=maybe(values(maybe(each(count)))), protocol=maybe(_PROTOCOL),
)  # fmt: skip
FACTS: dict[str, Fits] = {
    "method": table(
        title=text, paper=text, year=year, url=text, changes=text, tier=text, parameters=number, transductive=flag,
        deviations=each(text), calibration=text,
    ),
    "selection": table(needed=("epoch",), rule=text, metric=text, epoch=whole, value=number, candidates=each(whole)),
    "history": each(table(needed=("epoch",), epoch=whole, train_loss=number, val_mean_recall=number)),
    "seal": table(needed=("count",), count=whole, openings=each(lambda entry: ""), blocked=each(lambda entry: "")),
    "probe": table(
        needed=("images",), transductive=flag, images=whole, tolerance=number,
        checks=each(table(name=text, max_difference=number, flipped=number)),
    ),
    "copies": table(near=flag, reason=text, people=text),
    "environment": table(versions=maybe(table())),
    "derived": table(needed=("run_id",), run_id=text, method=text, learned=maybe(table())),
    "timing": table(
        device=text, total_seconds=number, epoch_seconds=each(real), images_per_second=each(real), started=text,
        finished=text,
    ),
}  # fmt: skip
