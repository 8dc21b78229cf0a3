"""How the labels of a source were read, and whether the class frequencies suggest another order.

A source that numbers its classes does not say in which order, and copies of a data set circulate with several orders. A
wrong order trains without any error and reports wrong numbers. The order is therefore always printed and checked: if
classes differ in frequency, the counts reveal a wrong order.

A sample from the known frequencies is ``exp(t)`` times likelier under one given other order with a probability below
``exp(-t)`` (Markov's inequality), and there are C! orders. :data:`SURE` therefore limits false alarms on any true
sample, whatever its size, to one in ten thousand. The same holds for samples from equally frequent classes, which the
better order must beat as well. Sets that are no sample of the known one (capped, oversampled) fit no order and raise no
alarm: the better order must fit (:data:`CLOSE`), and fit much better (:data:`CLEAR`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import lgamma, log, pi
from typing import Any

import numpy as np

from fer_bench.contract.cards import DatasetCard

PARAMETER = "classes"  # the data set parameter that sets the order of a source's numbers
SURE = log(1e4)  # added to the logarithm of the number of orders
CLOSE = 0.02  # share of images by which a set may differ from the known shares, apart from chance, and still match
CLEAR = 4  # factor by which an order must fit better than the card's, apart from chance
NOISE = 1.5  # factor by which a sample's difference may exceed its expectation
FEW = 16  # a total difference below this many images is a slip, even if another order fits exactly
OWN = "the card's"
LISTED = 24  # classes in a line


@dataclass(frozen=True)
class Order:
    """The class order that fits a store's counts.

    Attributes
    ----------
    positions : tuple of int
        Label k of the store is as frequent as class ``positions[k]`` of the card.
    name : str
        "the card's", "alphabetical", "reversed", a numbering that the card names, or "" for any other order.
    misfit, card_misfit : float
        Share of the images in other classes than expected, under this order and under the card's.
    exact : bool
        Every count matches exactly.
    """

    positions: tuple[int, ...]
    name: str
    misfit: float
    card_misfit: float
    exact: bool

    @property
    def is_cards(self) -> bool:
        """Whether it is the card's own order."""
        return self.name == OWN


def label_order(
    observed: np.ndarray, known: np.ndarray, classes: Sequence[str], orders: Mapping[str, Sequence[str]] | None = None
) -> Order:
    """Find the class order under which the counts of all splits together are likeliest.

    Parameters
    ----------
    observed, known : int [splits, classes]
    classes : sequence of str
        The card's class names; they also define the alphabetical order.
    orders : mapping of name to sequence of str
        Other numberings in circulation: the same names, in order.

    Returns
    -------
    Order
        The card's order unless another one fits clearly better; a named one among those that fit equally well.
    """
    fits = _Fits(np.asarray(observed, dtype=np.float64), np.asarray(known, dtype=np.float64))
    own = np.arange(len(classes))
    from scipy.optimize import linear_sum_assignment  # half a second that a misspelt command should not cost

    best = linear_sum_assignment(fits.cost)[1]
    named = _named(tuple(classes), orders or {})
    if fits.off(best) == 0 and fits.off(own) >= FEW:
        name, order = next(((n, o) for n, o in named.items() if fits.off(o) == 0), ("", best))
        return fits.order(order, name)
    sure = SURE + lgamma(len(classes) + 1)
    if not fits.total or not fits.speaks_for(best, sure):
        return fits.order(own, OWN)
    likely = [(fits.gain(order), name) for name, order in named.items() if fits.speaks_for(order, sure)]
    name = max(likely)[1] if likely and fits.gain(best) - max(likely)[0] < sure else ""
    return fits.order(named.get(name, best), name)


def _named(classes: tuple[str, ...], orders: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """Positions of each named order; label k of the store was number k of that order."""
    lists = {"alphabetical": tuple(sorted(classes)), **{n: tuple(o) for n, o in orders.items()}}
    lists |= {"reversed": classes[::-1], "shifted by one": (*classes[-1:], *classes[:-1])}
    return {name: np.array([classes.index(c) for c in order]) for name, order in lists.items() if order != classes}


class _Fits:
    """How well class orders fit the counts; splits are weighted by their images."""

    def __init__(self, observed: np.ndarray, known: np.ndarray):
        self.observed, self.known = observed, known
        self.total = observed.sum()
        self.labels = np.arange(observed.shape[1])
        self.shares = known / known.sum(1, keepdims=True)
        smooth = (known + 0.5) / (known + 0.5).sum(1, keepdims=True)  # keeps classes without images possible
        self.cost = -np.einsum("sk,sj->kj", observed, np.log(smooth))
        present = observed.any(0)  # a class that was left out does not count against the card's order
        without = np.log(smooth[:, present] / smooth[:, present].sum(1, keepdims=True))
        self.own_cost = -float((observed[:, present] * without).sum())
        sizes = observed.sum(1)
        # a sample of n has E|p' - p| = sqrt(2 p (1 - p) / (pi n)); half of the sum over classes is the misfit
        spread = np.sqrt(self.shares * (1 - self.shares)).sum(1)
        self.noise = NOISE * float((np.sqrt(sizes / (2 * pi)) * spread).sum()) / max(self.total, 1)

    def gain(self, order: np.ndarray) -> float:
        """Log-likelihood ratio of this order against the card's."""
        return self.own_cost - float(self.cost[self.labels, order].sum())

    def gain_over_balance(self, order: np.ndarray) -> float:
        """Log-likelihood ratio of this order against equally frequent classes."""
        return float(self.total * log(len(self.labels)) - self.cost[self.labels, order].sum())

    def off(self, order: np.ndarray) -> int:
        """Sum of the absolute differences from the known counts, in images."""
        return int(np.abs(self.observed - self.known[:, order]).sum())

    def misfit(self, order: np.ndarray) -> float:
        """Share of the images that are in other classes than the known shares imply."""
        expected = self.observed.sum(1, keepdims=True) * self.shares[:, order]
        return float(np.abs(self.observed - expected).sum() / 2 / max(self.total, 1))

    def speaks_for(self, order: np.ndarray, sure: float) -> bool:
        """Whether an order fits, fits much better than the card's, and does so beyond chance."""
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
    """The order that fits a store's manifest; None if the card has no frequencies for these classes.

    Additional classes after those of the card are ignored. If the store has splits that the card does not list, all
    images together are compared with all known counts together.
    """
    known, count = dict(card.shares or card.counts), len(card.classes)
    if not known or not card.classes or tuple(manifest["classes"][:count]) != tuple(card.classes):
        return None
    counts = {split: n[:count] for split, n in manifest["counts"].items() if sum(n)}
    if card.shares and any(split in known for split in counts):
        counts = {
            split: n for split, n in counts.items() if split in known
        }  # shares of the other splits are not published
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
    """A description of labels that seem to be in another order than the card's.

    Attributes
    ----------
    title : str
    lines : tuple of str
        Details, and finally how to fix it.
    order : str
        The value of the parameter `classes` that would fix it; "" if no parameter can.
    """

    title: str
    lines: tuple[str, ...]
    order: str


def suspicion(card: DatasetCard, manifest: Mapping[str, Any]) -> Suspicion | None:
    """A description if an order other than the card's fits the store's counts clearly better, otherwise None."""
    better = order_of(card, manifest)
    if better is None or better.is_cards:
        return None
    classes = card.classes
    fit = "exactly" if better.exact else f"up to {better.misfit:.1%} of the images"
    title = f"The labels look {better.name or 'permuted'}: the counts fit that order {fit}"
    if better.name not in ("", "alphabetical", "reversed", "shifted by one"):
        title = f"The labels look numbered as in {better.name}: the counts fit that order {fit}"
    moved = [(name, classes[p]) for name, p in zip(classes, better.positions, strict=True) if name != classes[p]]
    lines = [f"images labelled {name} are as many as expected for {like}" for name, like in moved]
    lines.append(f"under the card's own order, {better.card_misfit:.1%} of the images are in unexpected classes")
    order = _corrected(card, manifest, better)
    if order:
        lines.append(f"if so, prepare the data again with --dataset-set {PARAMETER}={order}")
    else:
        lines.append("the source itself names its classes: ask whoever made it, or get a copy from the owners")
    return Suspicion(title, tuple(lines), order)


def _corrected(card: DatasetCard, manifest: Mapping[str, Any], better: Order) -> str:
    """The classes in the order of the source's numbers under the better order; "" if the source names its classes."""
    names = {int(label): name for label, name in manifest.get("label_names", []) if label.isdecimal()}
    if PARAMETER not in card.params or len(names) < len(card.classes):
        return ""
    place = {name: card.classes[better.positions[k]] for k, name in enumerate(card.classes)}
    return ",".join(place.get(names[label], names[label]) for label in sorted(names))


def describe_mapping(manifest: Mapping[str, Any]) -> str:
    """How the source's labels were read, with image counts: ``0 = neutral (1,234 images), ...``.

    If the loader does not name the labels, the store's own numbers are used.
    """
    classes = manifest["classes"]
    together = [sum(column) for column in zip(*manifest["counts"].values(), strict=True)]
    labels: dict[str, list[str]] = {}
    for label, name in manifest.get("label_names") or [[str(k), name] for k, name in enumerate(classes)]:
        labels.setdefault(name, []).append(label)
    counts = dict(zip(classes, together, strict=True))
    parts = []
    for name in sorted(labels, key=lambda n: _natural(labels[n][0])):
        read = f"{' and '.join(labels[name])} = {name}" if labels[name] != [name] else name
        images = counts.get(name)
        number = "left out" if images is None else f"{images:,} image{'s' * (images != 1)}" if images else "no images"
        parts.append(f"{read} ({number})")
    parts += [f"{name} (no images)" for name in classes if name not in labels]
    more, blank = len(parts) - LISTED, manifest.get("shape", [0])[0] - sum(together)
    listed = ", ".join(parts[:LISTED]) + (f" and {more:,} more" if more > 0 else "")
    return listed + (f"; {blank:,} without a label" if blank > 0 else "")


def _natural(text: str) -> tuple[int, str]:
    digits = re.match(r"\d+", text)
    return (int(digits[0]) if digits else -1, text)
