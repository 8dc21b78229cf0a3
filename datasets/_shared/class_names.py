"""What names of class folders and label numbers mean: names people give the expressions, and numbers in any order."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from fer_bench import SpecError

ALIASES = {
    "anger": ("angry",),
    "angry": ("anger",),
    "contempt": ("contemptuous",),
    "disgust": ("disgusted",),
    "fear": ("fearful", "afraid"),
    "happiness": ("happy", "joy", "happily"),
    "happy": ("happiness", "joy", "happily"),
    "neutral": ("neutrality",),
    "sad": ("sadness",),
    "sadness": ("sad",),
    "surprise": ("surprised", "surprize"),
}
ROLES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


def role_of(word: str) -> str | None:
    """ "train", "val" or "test" for a word that people use for such a part; None for another one."""
    return next((role for role, words in ROLES.items() if word in words), None)


@dataclass(frozen=True)
class NameParts:
    """A folder's name taken apart: ``0_angry``, ``1-happy``, ``happy_train``, ``train happy``.

    Attributes
    ----------
    words : str
        What is left of the name, in small letters; empty for a number alone.
    number : int or None
        A number before or behind the words.
    role : str or None
        "train", "val" or "test", where a word says so.
    """

    words: str
    number: int | None
    role: str | None


def parts_of(name: str) -> NameParts:
    """Take a folder's name apart; a name that is one such word alone (``test``) is left whole."""
    words = re.findall(r"[^\W\d_]+|\d+", name.strip().lower())
    numbers = [word for word in (words[:1] + words[1:][-1:]) if word.isdecimal()]
    kept = [word for word in words if word not in numbers[:1]]
    roles = {role_of(word) for word in kept} - {None}
    plain = [word for word in kept if not role_of(word)]
    if not plain or len(roles) > 1:
        roles, plain = set(), kept
    return NameParts(" ".join(plain), int(numbers[0]) if numbers else None, roles.pop() if roles else None)


def class_position(name: str, classes: Sequence[str]) -> int | None:
    """Position of the class a folder called `name` holds, by name or alias, case ignored; None for another name.

    A number or the word of a split before or behind the name does not count (``0_angry``, ``happy_train``).
    """
    for text in (name.strip().lower(), parts_of(name).words):
        for position, known in enumerate(classes):
            if text and (text == known.lower() or text in ALIASES.get(known, ())):
                return position
    return None


def nearest_class(name: str, classes: Sequence[str]) -> str | None:
    """The class whose name, or another name for it, looks most like `name`; None where none does."""
    spellings = {s: known for known in classes for s in (known.lower(), *ALIASES.get(known, ()))}
    close = difflib.get_close_matches(parts_of(name).words, list(spellings), n=1, cutoff=0.6)
    return spellings[close[0]] if close else None


def misplaced(name: str, role: str) -> str | None:
    """Why a class folder of this name can't lie in the folder of `role` ("" for none); None where it can."""
    named = parts_of(name).role
    if not named or not role or named == role:
        return None
    return f"the name '{name}' says {named}, but it lies in the {role} folder"


class Names(Protocol):
    """What reads the names of class folders."""

    def position(self, name: str) -> int | None:
        """Position of the class a folder called `name` holds; None where it names none."""

    def fault(self, name: str) -> str:
        """What is wrong with a class folder of an unknown name."""


@dataclass(frozen=True)
class ClassNames:
    """How a source may name the classes of a card.

    Attributes
    ----------
    classes : tuple of str
        The card's.
    numbered : tuple of str
        The class of each number, from `first` on.
    first : int
    """

    classes: tuple[str, ...]
    numbered: tuple[str, ...]
    first: int = 0

    @classmethod
    def of(
        cls, classes: Sequence[str], params: Mapping[str, Any], *, numbered: Sequence[str] = (), first: int = 0
    ) -> ClassNames:
        """The official numbers (the card's order unless `numbered` tells another), or those of the parameter `classes`.

        Raises
        ------
        SpecError
            The parameter does not name each class once.
        """
        official = tuple(numbered or classes)
        text = str(params.get("classes", ""))
        return cls(tuple(classes), _ordered(text, official) if text.strip() else official, first)

    @property
    def last(self) -> int:
        """The highest number."""
        return self.first + len(self.numbered) - 1

    @property
    def expected(self) -> str:
        """The accepted names of class folders, for a message."""
        return f"{self.first} .. {self.last} or {', '.join(self.classes)}"

    def counted_as(self, names: Iterable[str]) -> ClassNames:
        """The same classes, numbered from 0 or from 1, whichever fits all numbers among `names`."""
        numbers = {int(name) for name in names if name.strip().isdecimal()}
        starts = (self.first, 0, 1)
        count = len(self.numbered)
        return replace(self, first=next((s for s in starts if numbers <= set(range(s, s + count))), self.first))

    def position(self, name: str) -> int | None:
        """Position in the card of the class a folder called `name` holds; None where it names none."""
        if not name.strip().isdecimal():
            return class_position(name, self.classes)
        place = int(name) - self.first
        return self.classes.index(self.numbered[place]) if 0 <= place < len(self.numbered) else None

    def positions(self) -> np.ndarray:
        """Position in the card of each number, int64 [numbers + 1]; the last entry serves the label -1."""
        known = [self.classes.index(name) if name in self.classes else -1 for name in self.numbered]
        return np.array([*known, -1], dtype=np.int64)

    def fault(self, name: str) -> str:
        """What is wrong with a class folder called `name`, with the nearest class."""
        near = nearest_class(name, self.classes)
        advice = f"did you mean '{near}'? (rename the folder)" if near else f"expected {self.expected}"
        return f"unknown class folder: '{name}', {advice}"

    def by_number(self) -> dict[str, str]:
        """Each number, as a text, with its class."""
        return {str(number): name for number, name in enumerate(self.numbered, self.first)}

    def read_as(self, names: Iterable[str]) -> dict[str, str]:
        """What class folders of these names are read as: each word with its class; all numbers where there is one."""
        meanings: dict[str, str] = {}
        for name in dict.fromkeys(names):
            position = self.position(name)
            if position is not None and name.strip().isdecimal():
                meanings = {**self.by_number(), **meanings}
            elif position is not None:
                meanings[name] = self.classes[position]
        return meanings


def _ordered(text: str, official: tuple[str, ...]) -> tuple[str, ...]:
    """The official names in the order of a parameter's text."""
    where, wanted = f"classes={text}", ", ".join(official)
    order = []
    for word in text.split(","):
        position = class_position(word, official)
        if position is None:
            near = nearest_class(word, official)
            hint = f"did you mean '{near}'?" if near else f"known classes: {wanted}"
            raise SpecError(f"'{word.strip()}' is not a class of this data set", where=where, hint=hint)
        order.append(official[position])
    if sorted(order) != sorted(official):
        missing = [name for name in official if name not in order]
        twice = sorted({name for name in order if order.count(name) > 1})
        problem = f"{', '.join(missing)} missing" if missing else f"{', '.join(twice)} named twice"
        raise SpecError(f"classes must name each class once: {problem}", where=where, hint=f"the classes are {wanted}")
    return tuple(order)
