"""The built-in faces, drawn without a store."""

from __future__ import annotations

import numpy as np

from fer_bench.datasets.synthetic import Synthetic


def drawn(**params):
    """Every column of a drawing: images, labels, split, subject and the extra ones; a small one unless `params` say."""
    chunks = list(Synthetic({"least_test": 0, **params}).read(None).chunks())
    columns = {name: np.concatenate([c.extra[name] for c in chunks]) for name in chunks[0].extra}
    for name in ("images", "labels", "split", "source", "subject"):
        columns[name] = np.concatenate([np.asarray(getattr(c, name)) for c in chunks])
    return columns
