"""Facial action units and the expressions they make up.

The units are those of the Facial Action Coding System (Ekman & Friesen 1978; Ekman, Friesen & Hager 2002); which units
make an emotional expression follows EMFACS (Friesen & Ekman 1983) and its widely used prototypes (Ekman et al. 2002,
Investigator's Guide, table 10-1). How often and how strongly a unit takes part is this project's choice: it makes
expressions overlap, as they do in photographs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

PROTOTYPE_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 16, 17, 20, 23, 24, 25, 26)
"""AU numbers: 1 inner brow raiser, 2 outer brow raiser, 4 brow lowerer, 5 upper lid raiser, 6 cheek raiser, 7 lid
tightener, 9 nose wrinkler, 10 upper lip raiser, 12 lip corner puller, 15 lip corner depressor, 16 lower lip depressor,
17 chin raiser, 20 lip stretcher, 23 lip tightener, 24 lip pressor, 25 lips part, 26 jaw drop."""

UNITS = (*PROTOTYPE_UNITS, 14, 19, 38)
"""Those, and three of no prototype, which only low values of `shared` draw: 14 dimpler, 19 tongue show, 38 nostril
dilator."""

COLUMNS = tuple(f"au{unit:02d}" for unit in UNITS)

# Expression -> unit -> (probability that it takes part, its mean intensity at full expression).
EXPRESSIONS = {
    "angry": {4: (0.92, 0.9), 5: (0.55, 0.6), 7: (0.7, 0.7), 23: (0.6, 0.8), 24: (0.5, 0.8), 17: (0.2, 0.5)},
    "disgust": {9: (0.8, 0.9), 10: (0.7, 0.85), 15: (0.45, 0.6), 16: (0.4, 0.7), 17: (0.4, 0.6), 4: (0.35, 0.5)},
    "fear": {
        1: (0.85, 0.8),
        2: (0.7, 0.7),
        4: (0.65, 0.6),
        5: (0.75, 0.8),
        7: (0.35, 0.4),
        20: (0.65, 0.8),
        25: (0.6, 0.6),
        26: (0.5, 0.5),
    },
    "happy": {6: (0.75, 0.75), 12: (0.96, 0.85), 25: (0.6, 0.7), 26: (0.15, 0.35)},
    "sad": {1: (0.8, 0.8), 4: (0.6, 0.6), 15: (0.8, 0.85), 17: (0.4, 0.6)},
    "surprise": {1: (0.85, 0.85), 2: (0.9, 0.9), 5: (0.7, 0.7), 25: (0.5, 0.5), 26: (0.85, 0.85)},
    "neutral": {},
}

SPURIOUS = 0.04  # probability of a unit that does not belong to the expression: speech, habit, half a blink
WEAKEST = 0.5  # an expression's overall strength is uniform between this and 1

MINORITY = "disgust"
EMFACS_SHARE = 0.3  # of the minority's mass is on units 4, 15 and 17, which other expressions have too (0.3004)
# Unit of the minority -> the unit that stands in for it, in this order as the share moves away from EMFACS_SHARE. A
# small network reads both of a pair about equally well (benchmarks/shared_units.py). Least visible first: a unit
# that is replaced in a part of the faces is harder to learn than either of the two, which matters least for those.
EXCLUSIVE = {15: 14, 17: 38, 4: 19}
SHARED = {16: 20, 10: 5, 9: 6}

Prototypes = Mapping[str, Mapping[int, tuple[float, float]]]


def stand_ins(shared: float) -> dict[int, tuple[int, float]]:
    """Which units of the minority another one stands in for, and in what share of its faces.

    Parameters
    ----------
    shared : float
        Wanted share of the minority's mass on units of other expressions, 0 to 1.

    Returns
    -------
    dict of int to (int, float)
        Unit -> (the unit in its place, the share of faces in which it takes that place). Empty at ``EMFACS_SHARE``. At
        most one share lies between 0 and 1.
    """
    fewer = shared < EMFACS_SHARE
    pairs = EXCLUSIVE if fewer else SHARED
    mass = {unit: _mass(EXPRESSIONS[MINORITY][unit]) for unit in pairs}
    left = (shared - EMFACS_SHARE) / ((0 if fewer else 1) - EMFACS_SHARE) * sum(mass.values())
    places = {}
    for unit, other in pairs.items():
        share = round(min(max(left / mass[unit], 0), 1), 9)
        left -= mass[unit]
        if share > 0:
            places[unit] = (other, share)
    return places


def prototypes(shared: float = EMFACS_SHARE) -> dict[str, dict[int, tuple[float, float]]]:
    """``EXPRESSIONS`` with the minority's units replaced as `shared` asks; a pair shares its unit's probability."""
    own = dict(EXPRESSIONS[MINORITY])
    for unit, (other, share) in stand_ins(shared).items():
        probability, mean = own.pop(unit)
        own |= {
            u: (round(p, 9), mean) for u, p in ((unit, (1 - share) * probability), (other, share * probability)) if p
        }
    return {**EXPRESSIONS, MINORITY: own}


def shared_mass(expression: str, of: Prototypes) -> float:
    """Share of an expression's mass on units that at least one other expression has; nan where it has no unit.

    A unit's mass is the probability that it takes part times its mean intensity.
    """
    elsewhere = {unit for name, units in of.items() if name != expression for unit in units}
    total = sum(map(_mass, of[expression].values()))
    held = sum(_mass(entry) for unit, entry in of[expression].items() if unit in elsewhere)
    return held / total if total else float("nan")


def _mass(entry: tuple[float, float]) -> float:
    return entry[0] * entry[1]


def draw_units(expressions: np.ndarray, rng: np.random.Generator, shared: float = EMFACS_SHARE) -> np.ndarray:
    """Action unit intensities of faces showing the given expressions.

    Faces are drawn from ``EXPRESSIONS``. Then a unit of the minority and its stand-in change places in the share of the
    minority's faces that `shared` asks for: the stand-in occurs as often and as strongly as the unit would have.

    Parameters
    ----------
    expressions : int [n]
        Positions in ``EXPRESSIONS``.
    rng : Generator
        Row i uses its own draws, so it does not depend on the number of rows.
    shared : float
        Share of the minority's mass on units of other expressions, 0 to 1. Draws do not depend on it: other
        expressions' rows stay, but below ``EMFACS_SHARE`` the units of no prototype, too, occur in them by chance.

    Returns
    -------
    int64 [n, units]
        0 (absent) to 100 (FACS intensity E), columns in the order of ``UNITS``.
    """
    drawn = len(PROTOTYPE_UNITS)
    table = np.asarray([[made.get(unit, (0.0, 0.0)) for unit in PROTOTYPE_UNITS] for made in EXPRESSIONS.values()])
    probability, mean = np.moveaxis(table[expressions], -1, 0)
    draws = rng.random((len(expressions), 1 + 2 * drawn))
    strength = WEAKEST + (1 - WEAKEST) * draws[:, :1]
    happens, amount = draws[:, 1 : 1 + drawn], draws[:, 1 + drawn :]
    own = (happens < probability) * mean * strength * (0.7 + 0.6 * amount)
    spurious = ((probability == 0) & (happens < SPURIOUS)) * (0.15 + 0.4 * amount)
    units = np.zeros((len(expressions), len(UNITS)), np.int64)
    units[:, :drawn] = np.rint(100 * np.clip(own + spurious, 0, 1))
    # What is left of a draw once it has said whether the unit takes part: uniform, and independent of that.
    chance = np.where(probability == 0, SPURIOUS, probability)
    left = np.where(happens < chance, happens / chance, (happens - chance) / (1 - chance))
    for unit, (other, share) in stand_ins(shared).items():
        k, place = UNITS.index(unit), UNITS.index(other)
        if place >= drawn:  # a unit of no prototype, spurious as any other
            units[:, place] = np.rint(100 * _spurious(1 - left[:, k]))
        rows = np.flatnonzero((expressions == list(EXPRESSIONS).index(MINORITY)) & (left[:, k] < share))
        units[rows, k], units[rows, place] = units[rows, place], units[rows, k]
    return units


def _spurious(happens: np.ndarray) -> np.ndarray:
    """Intensities of a unit that does not belong to the expression, mostly 0, from one uniform draw each."""
    return (happens < SPURIOUS) * (0.15 + 0.4 * happens / SPURIOUS)
