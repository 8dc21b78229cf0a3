"""Imbalance profiles: exact, nested subsets of a training fold, described by one line of text.

==================================== ==================================================================================
``natural``                          the fold as it is
``exp:RATIO``                        n_k = head * RATIO ** (-k / (C - 1)) for the k-th of C classes, from head to tail
``step:RATIO[:FRACTION]``            the last floor(C * FRACTION) classes have head / RATIO images, the others head;
                                     FRACTION defaults to 0.5; at least one class is rare and at least one is not
``balanced:N``                       N images of every class
==================================== ==================================================================================

``exp`` and ``step`` take options after commas: ``total=N`` fixes the size of the whole subset, ``head=N`` that of its
largest class, and ``order=a>b>c`` names the classes from head to tail (by default the most frequent comes first; ties
go to the smaller label). Without ``total`` and ``head`` the head is as large as the fold allows, whatever the ratio:
the first class of the order in ``exp``, the smallest of the frequent classes in ``step``. Unless the total is fixed,
therefore, no class grows with the ratio: the subset of a larger ratio is contained in that of a smaller one.

Counts are computed in whole numbers and rounded half up, so they are the same on every machine. A class is never
clipped to the images available: a profile that needs more than the fold has is an error that names what would fit.

References
----------
Y. Cui, M. Jia, T.-Y. Lin, Y. Song, S. Belongie (2019), Class-balanced loss based on effective number of samples, CVPR.
K. Cao, C. Wei, A. Gaidon, N. Arechiga, T. Ma (2019), Learning imbalanced datasets with label-distribution-aware margin
loss, NeurIPS.
M. Buda, A. Maki, M. A. Mazurowski (2018), A systematic study of the class imbalance problem in convolutional neural
networks, Neural Networks 106.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shlex
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from typing import Any

import numpy as np

from fer_bench.base.names import shortened, slug
from fer_bench.errors import SpecError, unknown

OPTIONS = ("total", "head", "order")
MAX_RATIO = 10**6
MAX_COUNT = 10**9
DIGITS = 30  # decimals kept of a class's weight; roots that are whole numbers come out exact
ARITHMETIC = Context(prec=60)  # DIGITS decimals plus the digits of the largest ratio


@dataclass(frozen=True, kw_only=True)
class _Form:
    """Syntax of a kind of profile: the numbers after its name (all but the first are optional), and its options."""

    usage: str
    numbers: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


FORMS = {
    "natural": _Form(usage="natural"),
    "exp": _Form(usage="exp:RATIO[,total=N or head=N][,order=a>b>c]", numbers=("ratio",), options=OPTIONS),
    "step": _Form(
        usage="step:RATIO[:FRACTION][,total=N or head=N][,order=a>b>c]", numbers=("ratio", "fraction"), options=OPTIONS
    ),
    "balanced": _Form(usage="balanced:N", numbers=("count",)),
}


@dataclass(frozen=True, kw_only=True)
class _Number:
    """Which values a number of a profile may have: in words, as text, and as a check."""

    accepts: str
    convert: Callable[[str], float]
    pattern: str
    valid: Callable[[float], bool]


_COUNT = _Number(
    accepts=f"a whole number from 1 to {MAX_COUNT}",
    convert=int,
    pattern=r"[0-9]{1,10}",
    valid=lambda n: n == int(n) and 1 <= n <= MAX_COUNT,
)
_DECIMAL = r"[0-9]+(\.[0-9]+)?|\.[0-9]+"
_NUMBERS = {
    "ratio": _Number(
        accepts=f"a number from 1 to {MAX_RATIO}", convert=float, pattern=_DECIMAL, valid=lambda r: 1 <= r <= MAX_RATIO
    ),
    "fraction": _Number(
        accepts="a number between 0 and 1, both excluded", convert=float, pattern=_DECIMAL, valid=lambda f: 0 < f < 1
    ),
    "count": _COUNT,
    "total": _COUNT,
    "head": _COUNT,
}


@dataclass(frozen=True, kw_only=True)
class Profile:
    """An imbalance profile, validated on creation. ``str(profile)`` is its canonical text, which :meth:`parse` reads.

    Attributes
    ----------
    kind : str
        A key of :data:`FORMS`.
    ratio : float, optional
        Images in the largest class divided by images in the smallest, for ``exp`` and ``step``.
    fraction : float
        Fraction of the classes that are rare, for ``step``.
    count : int, optional
        Images in every class, for ``balanced``.
    total, head : int, optional
        Images in the whole subset, or in its largest class.
    order : tuple of str
        Class names from head to tail; empty: by frequency.

    Raises
    ------
    UnknownNameError
        The kind or one of the options does not exist.
    SpecError
        A value is missing, not allowed for this kind, out of range, or contradicts another.
    """

    kind: str
    ratio: float | None = None
    fraction: float = 0.5
    count: int | None = None
    total: int | None = None
    head: int | None = None
    order: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in FORMS:
            raise unknown("imbalance profile", self.kind, FORMS)
        form = FORMS[self.kind]
        given = self._given()
        if alien := [name for name in given if name not in form.numbers + form.options]:
            raise self._error(f"'{self.kind}' does not take {alien[0]}")
        if form.numbers and form.numbers[0] not in given:
            raise self._error(f"'{self.kind}' needs a {form.numbers[0]}")
        for name, value in given.items():
            if name in _NUMBERS and not (np.isfinite(value) and _NUMBERS[name].valid(value)):
                raise self._error(f"{name} must be {_NUMBERS[name].accepts}, not {value}")
        if self.total is not None and self.head is not None:
            raise self._error("give total or head, not both: each determines the other")
        if odd := [name for name in self.order if not name or name != name.strip() or re.search("[,>]", name)]:
            raise self._error(f"'{odd[0]}' is not a valid class name in an order")
        if twice := [name for k, name in enumerate(self.order) if name in self.order[:k]]:
            raise self._error(f"class '{twice[0]}' appears twice in the order")

    @classmethod
    def parse(cls, text: str) -> Profile:
        """Parse a profile's text, canonical or not; spaces around its parts are ignored.

        Raises
        ------
        UnknownNameError, SpecError
            As for the class; also if an option is given twice or is not ``name=value``.
        """
        where = f"imbalance profile '{text}'"
        body, *options = (part.strip() for part in text.split(","))
        kind, *numbers = (part.strip() for part in body.split(":"))
        if kind not in FORMS:
            raise unknown("imbalance profile", kind, FORMS, where=where, next="fer-bench run --help")
        form = FORMS[kind]
        if len(numbers) > len(form.numbers):
            raise SpecError(f"'{body}' has too many parts", where=where, hint=_usage(kind))
        given = dict(zip(form.numbers, numbers, strict=False))
        for option in options:
            name, sign, value = (part.strip() for part in option.partition("="))
            if not sign:
                raise SpecError(f"'{option}' is not name=value", where=where, hint=_usage(kind))
            if name not in OPTIONS:
                raise unknown("profile option", name, OPTIONS, where=where)
            if name in given:
                raise SpecError(f"{name} is given twice", where=where, hint=_usage(kind))
            given[name] = value
        values: dict[str, Any] = {name: _read(kind, name, value, where) for name, value in given.items()}
        return cls(kind=kind, **values)

    def __str__(self) -> str:
        form, given = FORMS[self.kind], self._given()
        parts = [":".join([self.kind, *(_plain(given[name]) for name in form.numbers if name in given)])]
        parts += [f"{name}={_plain(given[name])}" for name in ("total", "head") if name in given]
        if self.order:
            parts.append(f"order={'>'.join(self.order)}")
        return ",".join(parts)

    @property
    def natural(self) -> bool:
        """Whether the training fold stays unchanged."""
        return self.kind == "natural"

    def _given(self) -> dict[str, Any]:
        """The fields that differ from their defaults, except the kind."""
        fields = (f for f in dataclasses.fields(self) if f.name != "kind")
        return {f.name: getattr(self, f.name) for f in fields if getattr(self, f.name) != f.default}

    def _error(self, what: str) -> SpecError:
        return SpecError(what, where=f"imbalance profile '{self}'", hint=_usage(self.kind))


NATURAL = Profile(kind="natural")


def _usage(kind: str) -> str:
    return f"the syntax is {FORMS[kind].usage}"


def _read(kind: str, name: str, text: str, where: str) -> float | tuple[str, ...]:
    """The value of one part of a profile's text; its range is checked by the profile itself."""
    if name == "order":
        return tuple(part.strip() for part in text.split(">"))
    number = _NUMBERS[name]
    if not re.fullmatch(number.pattern, text):
        raise SpecError(f"{name} must be {number.accepts}, not '{text}'", where=where, hint=_usage(kind))
    return number.convert(text)


def _decimal(value: float) -> Decimal:
    """The shortest decimal that represents a number, which is the one that was typed."""
    return Decimal(str(float(value)))


def _plain(value: float) -> str:
    """A number as text without exponent and trailing zeros."""
    return f"{_decimal(value).normalize():f}"


def with_options(profile_text: str, total: int | None = None, order: str | None = None) -> str:
    """Merge a total and a class order, given separately, into a profile's text.

    Parameters
    ----------
    profile_text : str
    total : int, optional
        As in ``total=N``.
    order : str, optional
        Class names from head to tail, separated by commas.

    Returns
    -------
    str
        Canonical text.

    Raises
    ------
    UnknownNameError, SpecError
        As for :meth:`Profile.parse`; also if the text contains a different total or order.
    """
    profile = Profile.parse(profile_text)
    given: dict[str, Any] = {}
    if total is not None:
        given["total"] = total
    if order is not None:
        given["order"] = tuple(name.strip() for name in order.split(","))
    for name, value in given.items():
        if getattr(profile, name) not in (None, (), value):
            where = f"imbalance profile '{profile_text}'"
            raise SpecError(f"{name} is given twice, with different values", where=where, hint="give it once")
    return str(dataclasses.replace(profile, **given))


def file_name(text: str) -> str:
    """A profile's text without characters that a file name should not contain: ``exp_50_total=5000``."""
    return shortened(slug(text), 80)


def sizes(profile: Profile, available: Sequence[int] | np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Number of images per class in the subset.

    With ``total``, the classes receive their exact shares by largest remainder: ties go to the class nearer the head,
    and a class whose share is below one image gets one. Otherwise counts are rounded half up, with a minimum of one.
    Counts never increase from head to tail.

    Parameters
    ----------
    available : int [C]
        Images per class in the training fold, in label order.
    classes : sequence of str
        Their names.

    Returns
    -------
    int64 [C]
        In label order.

    Raises
    ------
    UnknownNameError
        The order names a class that does not exist.
    SpecError
        The order lacks a class, the total is below the number of classes, or a class has too few images; in that case
        the error names the nearest profiles that fit.
    """
    counts = np.array(available, dtype=np.int64)
    if profile.natural:
        return counts
    order = _class_order(profile, counts, classes)
    there = counts[order].tolist()
    wanted = _wanted(profile, there)
    if not _fits(wanted, there):
        raise _shortage(profile, [classes[k] for k in order], wanted, there)
    result = np.empty_like(counts)
    result[order] = wanted
    return result


def pick(profile: Profile, labels: np.ndarray, classes: Sequence[str], key: str) -> np.ndarray:
    """Choose the subset: positions in the training fold.

    The positions of each class are ordered by the BLAKE2b hashes of ``key/position``, and a profile takes the first n_k
    of them. All subsets with the same key are therefore nested whenever their counts are.

    Parameters
    ----------
    labels : int64 [n]
        Labels of the training fold; none may be missing (-1).
    classes : sequence of str
        Class names in label order.
    key : str
        What the order of images depends on: data set, protocol and fold, and the number of the draw
        (:func:`fer_bench.data.fold_rows.draw_key`).

    Returns
    -------
    int64 [m]
        Ascending positions in `labels`.

    Raises
    ------
    UnknownNameError, SpecError
        As for :func:`sizes`.
    """
    if profile.natural:
        return np.arange(len(labels), dtype=np.int64)
    wanted = sizes(profile, np.bincount(labels, minlength=len(classes)), classes)
    chosen: list[int] = []
    for label, count in enumerate(wanted.tolist()):
        positions = np.flatnonzero(labels == label).tolist()
        chosen += sorted(positions, key=lambda p: hashlib.blake2b(f"{key}/{p}".encode()).digest())[:count]
    return np.array(sorted(chosen), dtype=np.int64)


def describe(profile: Profile, sizes: Sequence[int] | np.ndarray, classes: Sequence[str]) -> str:
    """One line for people: the profile, its largest and smallest class, total images, and the resulting ratio.

    Parameters
    ----------
    sizes : int [C]
        Images per class, from :func:`sizes`.
    classes : sequence of str
        Their names.
    """
    counts = np.asarray(sizes)
    most, least = int(counts.argmax()), int(counts.argmin())
    images = f"{counts.sum()} images"
    if counts[most] == counts[least]:
        return f"{profile}: {counts[most]} of each class, {images}"
    ratio = f"ratio {counts[most] / counts[least]:.1f}" if counts[least] else "no ratio"
    return f"{profile}: {counts[most]} {classes[most]} ... {counts[least]} {classes[least]}, {images}, {ratio}"


# ---- counts; all lists below run from head to tail ----


def _class_order(profile: Profile, have: np.ndarray, classes: Sequence[str]) -> list[int]:
    """Labels from head to tail."""
    if not profile.order:
        return np.argsort(-have, kind="stable").tolist()
    where = f"imbalance profile '{profile}'"
    for name in profile.order:
        if name not in classes:
            raise unknown("class", name, classes, where=where)
    if missing := [name for name in classes if name not in profile.order]:
        raise SpecError(f"the order lacks {', '.join(missing)}", where=where, hint="name every class once")
    return [list(classes).index(name) for name in profile.order]


def _wanted(profile: Profile, there: Sequence[int]) -> list[int]:
    """Images that the profile needs of every class, whether they exist or not."""
    if profile.count is not None:
        return [profile.count] * len(there)
    weights = _weights(profile, len(there))
    if profile.total is not None:
        if profile.total < len(there):
            hint = f"the total must be at least the number of classes, {len(there)} here"
            where = f"imbalance profile '{profile}'"
            raise SpecError("the total leaves a class without images", where=where, hint=hint)
        return _apportion(weights, profile.total)
    full = there[: len(there) - _rare(profile, len(there))] if profile.kind == "step" else there[:1]
    head = min(full) if profile.head is None else profile.head
    return [max(1, (2 * head * weight + weights[0]) // (2 * weights[0])) for weight in weights]


def _weights(profile: Profile, classes: int) -> list[int]:
    """What the classes' counts are proportional to, in units of 10 ** -DIGITS; the last is one."""
    if classes < 2:
        raise SpecError(f"'{profile.kind}' needs at least two classes", where=f"imbalance profile '{profile}'")
    with localcontext(ARITHMETIC):
        ratio = _decimal(profile.ratio or 1)
        if profile.kind == "step":
            rare = _rare(profile, classes)
            exact = [ratio] * (classes - rare) + [Decimal(1)] * rare
        else:
            exact = [ratio ** (Decimal(classes - 1 - k) / (classes - 1)) for k in range(classes)]
        return [int(weight.scaleb(DIGITS).to_integral_value()) for weight in exact]


def _rare(profile: Profile, classes: int) -> int:
    """How many classes of a step profile are rare."""
    return max(1, int(_decimal(profile.fraction) * classes))


def _apportion(weights: Sequence[int], total: int) -> list[int]:
    """Whole counts that sum to `total`, by largest remainder."""
    shares = _shares(weights, total)
    counts = [whole for whole, _ in shares]
    by_remainder = sorted(range(len(shares)), key=lambda k: (-shares[k][1], k))
    for k in by_remainder[: total - sum(counts)]:
        counts[k] += 1
    return counts


def _shares(weights: Sequence[int], total: int) -> list[tuple[int, int]]:
    """Whole part and remainder of every class's share of `total`; a class due less than one image gets one."""
    left, sharing = total, len(weights)
    while weights[sharing - 1] * left < sum(weights[:sharing]):
        left, sharing = left - 1, sharing - 1
    whole = sum(weights[:sharing])
    return [divmod(weight * left, whole) for weight in weights[:sharing]] + [(1, -1)] * (len(weights) - sharing)


# ---- the error if a class has too few images ----


def _fits(wanted: Sequence[int], there: Sequence[int]) -> bool:
    return all(n <= t for n, t in zip(wanted, there, strict=True))


def _shortage(profile: Profile, names: Sequence[str], wanted: Sequence[int], there: Sequence[int]) -> SpecError:
    """The error for a profile that needs more images than the fold has."""
    short = [f"{n} of {name} (available: {t})" for name, n, t in zip(names, wanted, there, strict=True) if n > t]
    if empty := [name for name, t in zip(names, there, strict=True) if t == 0]:
        hint = f"only the natural profile fits, because there are no images of {', '.join(empty)}"
    else:
        fitting = [f"--imbalance {shlex.quote(str(p))} ({why})" for p, why in _fitting(profile, there)]
        hint = "these fit: " + " or ".join(fitting)
    what = f"too few images in the training fold: the profile needs {', '.join(short)}"
    return SpecError(what, where=f"imbalance profile '{profile}'", hint=hint)


def _fitting(profile: Profile, there: Sequence[int]) -> Iterator[tuple[Profile, str]]:
    """The nearest profiles that fit, each with a description; no class may be empty."""
    if profile.count is not None:
        yield dataclasses.replace(profile, count=min(there)), "the largest"
        return
    if profile.total is not None:
        yield dataclasses.replace(profile, total=_largest_total(profile, there)), "the largest total"
        return

    def with_head(head: int) -> Profile:
        return dataclasses.replace(profile, head=head)

    def with_tenths(tenths: int) -> Profile:
        return dataclasses.replace(profile, ratio=tenths / 10)

    def asks_too_much(changed: Profile) -> bool:
        return not _fits(_wanted(changed, there), there)

    # counts grow with the head and shrink with the ratio, so both can be found by bisection
    heads = range(1, there[0] + 1)
    yield with_head(bisect_left(heads, True, key=lambda n: asks_too_much(with_head(n)))), "the largest head"
    if profile.head is None:
        tenths = range(10, 10 * MAX_RATIO + 1)
        smallest = bisect_left(tenths, True, key=lambda n: not asks_too_much(with_tenths(n)))
        if smallest < len(tenths):
            yield with_tenths(tenths[smallest]), "the smallest ratio with a full head, to one decimal"


def _largest_total(profile: Profile, there: Sequence[int]) -> int:
    """The largest total that fits; one image per class always fits.

    With largest remainders a class may lose an image while the total grows, so bisection works on the whole parts of
    the shares only; from there the search goes down one by one.
    """
    weights = _weights(profile, len(there))
    totals = range(len(there), sum(there) + 1)

    def too_large(total: int) -> bool:
        return not _fits([whole for whole, _ in _shares(weights, total)], there)

    bound = bisect_left(totals, True, key=too_large)
    return next(total for total in reversed(totals[:bound]) if _fits(_apportion(weights, total), there))
