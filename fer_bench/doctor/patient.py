"""What the doctor's checks read of a store: columns, copies, groups, and what the card knows."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from fer_bench.contract.cards import DatasetCard
from fer_bench.data.label_order import PARAMETER
from fer_bench.data.store import Store
from fer_bench.doctor.near_duplicates import Looks, Pairs, Progress, components, look, near_duplicates, untold

FLAT = 16  # grey levels between the darkest and the brightest pixel below which an image shows nothing


class Patient:
    """A store with the columns and groups that several checks read; each is found out when it is first asked for."""

    def __init__(self, store: Store, card: DatasetCard, progress: Progress = untold):
        self.store, self.card, self.progress = store, card, progress
        table = store.columns()
        self.label, self.split, self.exact = table["label"], table["split"], table["duplicate"]
        nothing = np.full(len(store), "")
        self.subject, self.sequence = (table.get(c, nothing).astype(str) for c in ("subject", "sequence"))
        self.splits = [str(s) for s in dict.fromkeys(self.split.tolist())]
        self.first = np.unique(self.exact, return_index=True)[1]  # row of each distinct image

    @cached_property
    def counts(self) -> dict[str, np.ndarray]:
        """Images by split and class."""
        return {s: np.asarray(self.store.manifest["counts"][s]) for s in self.splits}

    @cached_property
    def as_stated(self) -> bool:
        """Whether the store was made with the parameters and has the classes that the card's numbers are about."""
        given, default = self.store.manifest.get("params", {}), self.card.resolve({})
        if self.card.classes:  # the order of the source's numbers leaves the numbers of images as they are
            given, default = ({k: v for k, v in params.items() if k != PARAMETER} for params in (given, default))
        return given == default and self.card.classes == self.store.classes

    @cached_property
    def known(self) -> dict[str, tuple[int, ...]]:
        """The card's counts, where they apply."""
        return dict(self.card.counts) if self.as_stated else {}

    @cached_property
    def looks(self) -> Looks:
        """What is kept of each distinct image."""
        return look(self.store, self.first, self.progress)

    @cached_property
    def flat(self) -> np.ndarray:
        """Which rows show nothing, bool [n]."""
        return (self.looks.spread < FLAT)[self.exact]

    @cached_property
    def _found(self) -> tuple[Pairs, np.ndarray]:
        """All near-duplicates, as store rows, and which of them show one known person."""
        told = np.flatnonzero(self.looks.spread >= FLAT)
        together = self._numbers(self.sequence)[told]
        found = near_duplicates(self.looks.thumbs[told], together, self.progress)
        first, second = told[found.first], told[found.second]
        person = self._numbers(self.subject)
        same = (person[first] == person[second]) & (person[first] >= 0)
        return Pairs(self.first[first], self.first[second], found.score), same

    @property
    def pairs(self) -> Pairs:
        """Near-duplicates as store rows. Not those of one person, who looks alike in all pictures of one sitting."""
        found, same = self._found
        return found.only(~same)

    @property
    def alike(self) -> Pairs:
        """Pairs of one known person, as store rows, that would be near-duplicates if nobody knew who is shown."""
        found, same = self._found
        return found.only(same)

    def _numbers(self, column: np.ndarray) -> np.ndarray:
        """A number for the value that each distinct image has in a column; -1 where none, or its copies differ."""
        numbers = np.unique(column, return_inverse=True)[1]
        low, high = (np.full(len(self.first), fill) for fill in (len(numbers), -1))
        np.minimum.at(low, self.exact, numbers)
        np.maximum.at(high, self.exact, numbers)
        return np.where((low == high) & (column[self.first] != ""), low, -1)

    @cached_property
    def near(self) -> np.ndarray:
        """Group number of each row: copies, pixel-equal or not."""
        first, second = self.exact[self.pairs.first], self.exact[self.pairs.second]
        return components(first, second, len(self.first))[self.exact]

    @cached_property
    def rank(self) -> np.ndarray:
        """0 for rows of the default protocol's test, 1 validation, 2 training, 3 others."""
        protocol = self.card.protocols[0] if self.card.protocols else None
        roles = (protocol.test, protocol.val, protocol.train) if protocol and protocol.scheme == "splits" else ()
        rank = np.full(len(self.split), 3)
        for k, splits in reversed(list(enumerate(roles))):
            rank[np.isin(self.split, splits)] = k
        return rank
