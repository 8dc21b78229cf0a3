"""A section of the report: the pair of classes that each method confuses most."""

from __future__ import annotations

import numpy as np

from fer_bench.reports.render.blocks import Bullets
from fer_bench.reports.sections import Context, Section


def most_confused(context: Context) -> Bullets:
    """One line per method; all seeds count."""
    study, lines = context.study, []
    for method in study.methods:
        _, predicted = study.predictions(method.label)
        seen = predicted >= 0  # -1: a seed without this image's fold
        truth = np.broadcast_to(study.labels, predicted.shape)
        pairs = np.zeros((len(study.classes), len(study.classes)), dtype=int)
        np.add.at(pairs, (truth[seen], predicted[seen]), 1)
        np.fill_diagonal(pairs, 0)
        true, answer = np.unravel_index(pairs.argmax(), pairs.shape)
        share = pairs[true, answer] / max(1, pairs.sum())
        pair = f"*{study.classes[true]}* taken for *{study.classes[answer]}*, {100 * share:.0f} % of its errors"
        lines.append(f"`{method.label}`: {pair if pairs.any() else 'no errors'}.")
    return Bullets(tuple(lines))


section = Section("confused", "The commonest confusion", most_confused, after="confusion")
