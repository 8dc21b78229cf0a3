"""Facial action units and the expressions they make up.

The units are those of the Facial Action Coding System (Ekman & Friesen 1978; Ekman, Friesen & Hager 2002); which units
make an emotional expression follows EMFACS (Friesen & Ekman 1983) and its widely used prototypes (Ekman et al. 2002,
Investigator's Guide, table 10-1). How often and how strongly a unit takes part is this project's choice: it makes
expressions overlap, as they do in photographs.
"""

from __future__ import annotations

import numpy as np

UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 16, 17, 20, 23, 24, 25, 26)
"""AU numbers: 1 inner brow raiser, 2 outer brow raiser, 4 brow lowerer, 5 upper lid raiser, 6 cheek raiser, 7 lid
tightener, 9 nose wrinkler, 10 upper lip raiser, 12 lip corner puller, 15 lip corner depressor, 16 lower lip depressor,
17 chin raiser, 20 lip stretcher, 23 lip tightener, 24 lip pressor, 25 lips part, 26 jaw drop."""

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


def draw_units(expressions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Action unit intensities of faces showing the given expressions.

    Parameters
    ----------
    expressions : int [n]
        Positions in ``EXPRESSIONS``.
    rng : Generator
        Row i uses its own draws, so it does not depend on the number of rows.

    Returns
    -------
    int64 [n, units]
        0 (absent) to 100 (FACS intensity E), columns in the order of ``UNITS``.
    """
    table = np.asarray([[made.get(unit, (0.0, 0.0)) for unit in UNITS] for made in EXPRESSIONS.values()])
    probability, mean = np.moveaxis(table[expressions], -1, 0)
    draws = rng.random((len(expressions), 1 + 2 * len(UNITS)))
    strength = WEAKEST + (1 - WEAKEST) * draws[:, :1]
    happens, amount = draws[:, 1 : 1 + len(UNITS)], draws[:, 1 + len(UNITS) :]
    own = (happens < probability) * mean * strength * (0.7 + 0.6 * amount)
    spurious = ((probability == 0) & (happens < SPURIOUS)) * (0.15 + 0.4 * amount)
    return np.rint(100 * np.clip(own + spurious, 0, 1)).astype(np.int64)
