"""What the doctor's checks share: a store's columns, its copies and groups, and the numbers on its card."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from fer_bench.contract.cards import DatasetCard
from fer_bench.data.label_order import PARAMETER
from fer_bench.data.store import Store
from fer_bench.doctor.near_duplicates import Looks, Pairs, Progress, components, look, near_duplicates, no_progress

FLAT = 16  # an image with a smaller range of grey levels shows nothing
CROWDED = 0.4  # share of images with a near-duplicate; collections from the internet stay below it


class Patient:
    """A store with the columns and groups that several checks use; each is computed on first use."""

    def __init__(self, store: Store, card: DatasetCard, progress: Progress = no_progress):
        self.store, self.card, self.progress = store, card, progress
        table = store.columns()
        self.label, self.split, self.exact = table["label"], table["split"], table["duplicate"]
        nothing = np.full(len(store), "")
        self.subject, self.sequence = (table.get(c, nothing).astype(str) for c in ("subject", "sequence"))
        self.splits = [str(s) for s in dict.fromkeys(self.split.tolist())]
        self.first = np.unique(self.exact, return_index=True)[1]  # row of each distinct image

    @cached_property
    def counts(self) -> dict[str, np.ndarray]:
        """Number of images by split and class."""
        return {s: np.asarray(self.store.manifest["counts"][s]) for s in self.splits}

    @cached_property
    def as_stated(self) -> bool:
        """Whether the card's numbers apply: the store has its classes and was made with the default parameters."""
        given, default = self.store.manifest.get("params", {}), self.card.resolve({})
        if self.card.classes:  # the order of the source's numbers does not change the counts
            given, default = ({k: v for k, v in params.items() if k != PARAMETER} for params in (given, default))
        return given == default and self.card.classes == self.store.classes

    @cached_property
    def known(self) -> dict[str, tuple[int, ...]]:
        """The card's counts if they apply, otherwise nothing."""
        return dict(self.card.counts) if self.as_stated else {}

    @cached_property
    def looks(self) -> Looks:
        """Features of each distinct image."""
        return look(self.store, self.first, self.progress)

    @cached_property
    def flat(self) -> np.ndarray:
        """Rows whose image is (almost) constant, bool [n]."""
        return (self.looks.spread < FLAT)[self.exact]

    @cached_property
    def _all_pairs(self) -> tuple[Pairs, np.ndarray]:
        """All near-duplicates, as store rows, and a mask of those that show the same known person."""
        textured = np.flatnonzero(self.looks.spread >= FLAT)
        together = self._numbers(self.sequence)[textured]
        pairs = near_duplicates(self.looks.thumbs[textured], together, self.progress)
        first, second = textured[pairs.first], textured[pairs.second]
        person = self._numbers(self.subject)
        same = (person[first] == person[second]) & (person[first] >= 0)
        return Pairs(self.first[first], self.first[second], pairs.score), same

    @property
    def pairs(self) -> Pairs:
        """Near-duplicates as store rows, except pairs of the same person, whose pictures look alike anyway."""
        pairs, same = self._all_pairs
        return pairs.only(~same)

    @property
    def alike(self) -> Pairs:
        """Near-duplicates of the same known person, as store rows."""
        pairs, same = self._all_pairs
        return pairs.only(same)

    def _numbers(self, column: np.ndarray) -> np.ndarray:
        """A number for each distinct image's value in a column, int64; -1 if it has none, or its copies differ."""
        numbers = np.unique(column, return_inverse=True)[1]
        low, high = (np.full(len(self.first), fill) for fill in (len(numbers), -1))
        np.minimum.at(low, self.exact, numbers)
        np.maximum.at(high, self.exact, numbers)
        return np.where((low == high) & (column[self.first] != ""), low, -1)

    @cached_property
    def near(self) -> np.ndarray:
        """Group number of each row; copies share a number, identical or not."""
        first, second = self.exact[self.pairs.first], self.exact[self.pairs.second]
        return components(first, second, len(self.first))[self.exact]

    @cached_property
    def share_alike(self) -> float:
        """Share of the images that closely resemble another one."""
        return float((np.bincount(self.near)[self.near] > 1).mean())

    @property
    def crowded(self) -> bool:
        """Whether so many images look alike that they must have been posed, although no subjects are known."""
        return not (self.subject != "").any() and self.share_alike > CROWDED

    @cached_property
    def rank(self) -> np.ndarray:
        """Rank of each row: 0 in the default protocol's test set, 1 in validation, 2 in training, 3 elsewhere."""
        protocol = self.card.protocols[0] if self.card.protocols else None
        roles = (protocol.test, protocol.val, protocol.train) if protocol and protocol.scheme == "splits" else ()
        rank = np.full(len(self.split), 3)
        for k, splits in reversed(list(enumerate(roles))):
            rank[np.isin(self.split, splits)] = k
        return rank
