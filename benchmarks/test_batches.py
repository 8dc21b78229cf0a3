"""What the published sharing mechanism gains from the order of the test images: one network, many test batches.

ARM adds the mean of the test batch to each image's features, and RASN most likely did. Here finished runs of `rasn` or
`arm` (with a mean as ``share.source``) are read out again: with the stored mean, alone, and with the mean of test
batches of several sizes, whose images come shuffled, in the order of the files, or sorted by class. The weights are the
same throughout, and nothing is trained.

    python benchmarks/test_batches.py RUN... --home HOME --out test-batches
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from fer_bench.contract.plugins import plugins
from fer_bench.inference.explain import open_store
from fer_bench.inference.trained import Trained, load_trained
from fer_bench.methods._rasn.sources import MeanAffinity
from fer_bench.record.home import Home
from fer_bench.record.lookup import find_run
from fer_bench.runs.worker import raw_logits

SIZES = (16, 64, 256)
SHUFFLES = 5


def orders(labels: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Names and orders of n test images: shuffled several times, as in the files, and sorted by class."""
    for seed in range(SHUFFLES):
        yield "shuffled", np.random.default_rng(seed).permutation(len(labels))
    yield "order of the files", np.arange(len(labels))
    yield "sorted by class", np.argsort(labels, kind="stable")


def own_share(labels: np.ndarray, order: np.ndarray, size: int) -> float:
    """Mean share of an image's own class in its batch."""
    parts = [labels[order][k : k + size] for k in range(0, len(order), size)]
    return float(np.concatenate([(part[:, None] == part[None, :]).mean(1) for part in parts]).mean())


@torch.no_grad()
def answers(trained: Trained, images: np.ndarray, order: np.ndarray, size: int) -> np.ndarray:
    """Predicted classes [n], in the order of the store, of batches of `size` images taken in `order`."""
    found = np.empty(len(order), dtype=np.int64)
    for start in range(0, len(order), size):
        places = order[start : start + size]
        batch = trained.on_device(images[places])
        found[places] = raw_logits(trained.method, trained.model, batch, trained.spec.recipe, features=False)[0].argmax(
            1
        )
    return found


def scores(predicted: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, float]:
    """Accuracy, mean-class accuracy and recalls, in %."""
    right = predicted == labels
    recalls = {name: 100 * float(right[labels == k].mean()) for k, name in enumerate(classes)}
    return {"accuracy": 100 * float(right.mean()), "mean-class": float(np.mean(list(recalls.values()))), **recalls}


def study(run: str, home: Home) -> pd.DataFrame:
    """All readings of one run, a row each."""
    trained = load_trained(find_run(home.ledger, run), home, plugins())
    model: Any = trained.model
    source = getattr(model.sharing, "source", None)
    if not isinstance(source, MeanAffinity):
        raise SystemExit(f"run {run} shares no mean: choose a run of rasn or arm with share.source=batch_mean")
    record = trained.record
    store = open_store(trained, home)
    rows, labels = record.array("test_rows"), record.array("test_labels")
    images, classes = store.images(rows), trained.classes
    name = {"run": record.id, "data": record.data["dataset"], "network": record.json("spec")["label"]}
    found = []
    for order_name, affinity, size in (("any", "stored mean", 256), ("any", "mean of the image alone", 1)):
        source.evaluate = "frozen_ema" if affinity == "stored mean" else "test_batch"
        predicted = answers(trained, images, np.arange(len(rows)), size)
        row = {**name, "affinity": affinity, "order": order_name, "batch": size}
        share = float("nan") if affinity == "stored mean" else 1.0
        found.append({**row, "own class": share, **scores(predicted, labels, classes)})
    source.evaluate = "test_batch"
    for size in SIZES:
        for order_name, order in orders(labels):
            predicted = answers(trained, images, order, size)
            row = {**name, "affinity": "mean of the test batch", "order": order_name, "batch": size}
            share = own_share(labels, order, size)
            found.append({**row, "own class": share, **scores(predicted, labels, classes)})
    return pd.DataFrame(found)


def main() -> None:
    """Write a table of all readings, and the means over runs and shuffles as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--home", type=Path, default=Path("."))
    parser.add_argument("--out", type=Path, required=True, help="writes OUT.csv and OUT.table.md")
    given = parser.parse_args()
    frame = pd.concat([study(run, Home(given.home)) for run in given.runs], ignore_index=True)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(given.out.with_suffix(".csv"), index=False, float_format="%.3f")
    keys = ["data", "network", "affinity", "order", "batch"]
    groups = frame.groupby(keys, sort=False, dropna=False)[["own class", "accuracy", "mean-class"]]
    means = groups.mean().reset_index()
    means["own class"] = [("" if np.isnan(v) else f"{100 * v:.0f} %") for v in means["own class"]]
    text = means.to_markdown(index=False, floatfmt=".1f") + "\n"
    given.out.with_suffix(".table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
