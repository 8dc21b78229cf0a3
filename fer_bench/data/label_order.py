"""What the labels of a source were read as, and whether the known frequencies of the classes speak for another order.

A source that numbers its classes says nothing of their order, and sets are handed on with numbers in several orders. A
wrong one trains without a fault and reports wrong numbers. So what was read is always told, and compared: classes of
unequal frequency give away an order that is not theirs.

A sample from the known frequencies is ``exp(t)`` times likelier under one other order with a chance below ``exp(-t)``
(Markov's inequality), and there are C! orders. :data:`SURE` therefore bounds false alarms on any true sample, whatever
its size, by one in ten thousand; and those on samples from equally frequent classes, which the better order must beat
as well. Other sets that are no sample of the known one (capped, oversampled) fit no order, so they give no alarm: the
better order must fit (:data:`CLOSE`), and much better (:data:`CLEAR`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import lgamma, log, pi
from typing import Any

import numpy as np

from fer_bench.contract.cards import DatasetCard

PARAMETER = "classes"  # of a data set that takes the order of a source's numbers
SURE = log(1e4)  # beyond the logarithm of the number of orders
CLOSE = 0.02  # share of all images by which a set may differ from known shares, beside chance, and still be that set
CLEAR = 4  # times that an order must fit better than the card's, apart from chance
NOISE = 1.5  # times its expectation that the difference of a sample may be
FEW = 16  # counts off by fewer images than this are slips, even where they are another order's exactly
OWN = "the card's"
SHOWN = 24  # classes in a line


@dataclass(frozen=True)
class Order:
    """The order of classes that fits a store's counts.

    Attributes
    ----------
    positions : tuple of int
        Label k of the store counts like class ``positions[k]`` of the card.
    name : str
        "the card's", "alphabetical", "reversed", a numbering that the card names, or "" for another one.
    misfit, card_misfit : float
        Share of the images that lie in other classes than expected, under this order and under the card's.
    exact : bool
        Every count is the expected one.
    """

    positions: tuple[int, ...]
    name: str
    misfit: float
    card_misfit: float
    exact: bool

    @property
    def is_cards(self) -> bool:
        """Whether nothing speaks against the card's order."""
        return self.name == OWN


def label_order(
    observed: np.ndarray, known: np.ndarray, classes: Sequence[str], orders: Mapping[str, Sequence[str]] | None = None
) -> Order:
    """Find the order of classes under which the counts are likeliest, over all splits together.

    Parameters
    ----------
    observed, known : int [splits, classes]
    classes : sequence of str
        The card's names, which decide what is alphabetical.
    orders : mapping of name to sequence of str
        Further numberings in circulation: the same names, in order.

    Returns
    -------
    Order
        The card's order unless another one fits clearly better; among those that can't be told apart a named one.
    """
    fits = _Fits(np.asarray(observed, dtype=np.float64), np.asarray(known, dtype=np.float64))
    own = np.arange(len(classes))
    from scipy.optimize import linear_sum_assignment  # half a second, which a misspelt command need not wait for

    best = linear_sum_assignment(fits.cost)[1]
    named = _named(tuple(classes), orders or {})
    if fits.off(best) == 0 and fits.off(own) >= FEW:
        name, found = next(((n, o) for n, o in named.items() if fits.off(o) == 0), ("", best))
        return fits.order(found, name)
    sure = SURE + lgamma(len(classes) + 1)
    if not fits.total or not fits.speaks_for(best, sure):
        return fits.order(own, OWN)
    likely = [(fits.gain(order), name) for name, order in named.items() if fits.speaks_for(order, sure)]
    name = max(likely)[1] if likely and fits.gain(best) - max(likely)[0] < sure else ""
    return fits.order(named.get(name, best), name)


def _named(classes: tuple[str, ...], orders: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """Positions of each order that has a name; label k of the store was number k of that order."""
    lists = {"alphabetical": tuple(sorted(classes)), **{n: tuple(o) for n, o in orders.items()}}
    lists |= {"reversed": classes[::-1], "shifted by one": (*classes[-1:], *classes[:-1])}
    return {name: np.array([classes.index(c) for c in order]) for name, order in lists.items() if order != classes}


class _Fits:
    """How well orders of the classes fit counts. Splits count by their images."""

    def __init__(self, observed: np.ndarray, known: np.ndarray):
        self.observed, self.known = observed, known
        self.total = observed.sum()
        self.labels = np.arange(observed.shape[1])
        self.shares = known / known.sum(1, keepdims=True)
        smooth = (known + 0.5) / (known + 0.5).sum(1, keepdims=True)  # a class without images is not impossible
        self.cost = -np.einsum("sk,sj->kj", observed, np.log(smooth))
        present = observed.any(0)  # the card's order is not to blame for a class that was left out
        without = np.log(smooth[:, present] / smooth[:, present].sum(1, keepdims=True))
        self.own_cost = -float((observed[:, present] * without).sum())
        sizes = observed.sum(1)
        # a sample of n has E|p' - p| = sqrt(2 p (1 - p) / (pi n)); half of the sum over classes is the misfit
        spread = np.sqrt(self.shares * (1 - self.shares)).sum(1)
        self.noise = NOISE * float((np.sqrt(sizes / (2 * pi)) * spread).sum()) / max(self.total, 1)

    def gain(self, order: np.ndarray) -> float:
        """Logarithm of how many times likelier the counts are than under the card's order."""
        return self.own_cost - float(self.cost[self.labels, order].sum())

    def gain_over_balance(self, order: np.ndarray) -> float:
        """Logarithm of how many times likelier the counts are than with equally frequent classes."""
        return float(self.total * log(len(self.labels)) - self.cost[self.labels, order].sum())

    def off(self, order: np.ndarray) -> int:
        """Sum of the differences from the known counts."""
        return int(np.abs(self.observed - self.known[:, order]).sum())

    def misfit(self, order: np.ndarray) -> float:
        """Share of the images that lie in another class than the known shares say."""
        expected = self.observed.sum(1, keepdims=True) * self.shares[:, order]
        return float(np.abs(self.observed - expected).sum() / 2 / max(self.total, 1))

    def speaks_for(self, order: np.ndarray, sure: float) -> bool:
        """Whether an order fits, fits much better than the card's, and not by chance."""
        misfit, own = self.misfit(order), self.misfit(self.labels)
        close = misfit <= CLOSE + self.noise and own > CLOSE
        clear = own >= CLEAR * (misfit - self.noise)
        return close and clear and self.gain(order) >= sure and self.gain_over_balance(order) >= sure

    def order(self, order: np.ndarray, name: str) -> Order:
        return Order(
            positions=tuple(map(int, order)),
            name=name,
            misfit=self.misfit(order),
            card_misfit=self.misfit(self.labels),
            exact=self.off(order) == 0,
        )


def order_of(card: DatasetCard, manifest: Mapping[str, Any]) -> Order | None:
    """The order that fits a store's manifest; None where the card knows no frequencies of these classes.

    A store may have further classes behind those of the card; they are left out. Where the store has splits that the
    card does not know, all images are compared with all known ones.
    """
    known, count = dict(card.shares or card.counts), len(card.classes)
    if not known or not card.classes or tuple(manifest["classes"][:count]) != tuple(card.classes):
        return None
    counts = {split: n[:count] for split, n in manifest["counts"].items() if sum(n)}
    if card.shares and any(split in known for split in counts):
        counts = {split: n for split, n in counts.items() if split in known}  # those of other splits are not published
    if counts and counts.keys() <= known.keys():
        pairs = [(n, known[split]) for split, n in counts.items()]
    elif not counts:
        return None
    else:
        pairs = [(np.sum(list(counts.values()), axis=0), np.sum(list(known.values()), axis=0))]
    observed, expected = (np.array(side) for side in zip(*pairs, strict=True))
    return label_order(observed, expected, card.classes, card.orders)


@dataclass(frozen=True)
class Suspicion:
    """That the labels are in another order than the card's, in words.

    Attributes
    ----------
    title : str
    lines : tuple of str
        Details, and at the end what would mend it.
    order : str
        The value of the parameter `classes` that would; "" where no parameter can.
    """

    title: str
    lines: tuple[str, ...]
    order: str


def suspicion(card: DatasetCard, manifest: Mapping[str, Any]) -> Suspicion | None:
    """What to say where another order than the card's fits the store's counts clearly better; None elsewhere."""
    found = order_of(card, manifest)
    if found is None or found.is_cards:
        return None
    classes = card.classes
    fit = "exactly" if found.exact else f"up to {found.misfit:.1%} of the images"
    title = f"The labels look {found.name or 'permuted'}: the counts fit that order {fit}"
    if found.name not in ("", "alphabetical", "reversed", "shifted by one"):
        title = f"The labels look numbered as {found.name} does: the counts fit that order {fit}"
    moved = [(name, classes[p]) for name, p in zip(classes, found.positions, strict=True) if name != classes[p]]
    lines = [f"what is labelled {name} counts like {like}" for name, like in moved]
    lines.append(f"the card's own order is off by {found.card_misfit:.1%} of the images")
    order = _mended(card, manifest, found)
    if order:
        lines.append(f"if that is so, prepare again with --dataset-set {PARAMETER}={order}")
    else:
        lines.append("the source names its classes itself: ask whoever made it, or take a copy from the owners")
    return Suspicion(title, tuple(lines), order)


def _mended(card: DatasetCard, manifest: Mapping[str, Any], found: Order) -> str:
    """The classes by the source's numbers under the better order; "" for a source that names its classes."""
    names = {int(label): name for label, name in manifest.get("label_names", []) if label.isdecimal()}
    if PARAMETER not in card.params or len(names) < len(card.classes):
        return ""
    place = {name: card.classes[found.positions[k]] for k, name in enumerate(card.classes)}
    return ",".join(place.get(names[label], names[label]) for label in sorted(names))


def mapping_told(manifest: Mapping[str, Any]) -> str:
    """What the source's labels were read as, with the images of each: ``0 = neutral (1,234 images), ...``.

    Where the loader names no labels, the store's own numbers stand for them.
    """
    classes = manifest["classes"]
    together = [sum(column) for column in zip(*manifest["counts"].values(), strict=True)]
    labels: dict[str, list[str]] = {}
    for label, name in manifest.get("label_names") or [[str(k), name] for k, name in enumerate(classes)]:
        labels.setdefault(name, []).append(label)
    counts = dict(zip(classes, together, strict=True))
    told = []
    for name in sorted(labels, key=lambda n: _natural(labels[n][0])):
        read = f"{' and '.join(labels[name])} = {name}" if labels[name] != [name] else name
        images = counts.get(name)
        number = "left out" if images is None else f"{images:,} image{'s' * (images != 1)}" if images else "no image"
        told.append(f"{read} ({number})")
    told += [f"{name} (no image)" for name in classes if name not in labels]
    more, blank = len(told) - SHOWN, manifest.get("shape", [0])[0] - sum(together)
    said = ", ".join(told[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
    return said + (f"; {blank:,} without a label" if blank > 0 else "")


def _natural(text: str) -> tuple[int, str]:
    found = re.match(r"\d+", text)
    return (int(found[0]) if found else -1, text)
