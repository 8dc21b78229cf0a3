"""Fixtures: a throw-away home with a tiny data set, written from strings so that each test shows its world."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two cores: tests of small models lose time to thread switching
os.environ.setdefault("MPLBACKEND", "Agg")

TINY_DATASET = '''
"""Seven classes of bright bars on noise: learnable in seconds."""
import numpy as np
from fer_bench import Chunk, Dataset, DatasetCard, Protocol, Reading

card = DatasetCard(
    name="tiny",
    title="bars on noise",
    classes=("c0", "c1", "c2", "c3"),
    protocols=(Protocol(name="official", train=("train",), val=("val",), test=("test",)),),
    built_in=True,
)
COUNTS = {"train": (48, 24, 16, 8), "val": (10, 10, 10, 10), "test": (12, 12, 12, 12)}


class Tiny(Dataset):
    card = card

    def read(self, source):
        return Reading(layout="drawn", said="bars on noise", files=[], chunks=self.chunks)

    def chunks(self):
        rng = np.random.default_rng(5)
        for split, counts in COUNTS.items():
            labels = np.repeat(np.arange(4), counts)
            labels = labels[rng.permutation(len(labels))]
            images = rng.integers(0, 90, (len(labels), 1, 16, 16))
            for k, label in enumerate(labels):
                images[k, 0, 4 * label : 4 * label + 3, 2:14] += 110
            yield Chunk(images=images.astype(np.uint8), labels=labels, split=[split] * len(labels),
                        source=[f"{split}/{k}" for k in range(len(labels))])
'''


@pytest.fixture(scope="session")
def plugin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plug-in folder that holds the data set `tiny`."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "tiny.py").write_text(TINY_DATASET)
    return folder


@pytest.fixture
def workplace(tmp_path: Path, plugin_folder: Path):
    """A fresh home with the store of `tiny` prepared, and all plug-ins."""
    import torch

    from fer_bench.executor import Workplace
    from fer_bench.fit import Runtime
    from fer_bench.home import Home
    from fer_bench.plugins import plugins
    from fer_bench.prepare import prepare

    torch.set_num_threads(1)
    home = Home(tmp_path)
    found = plugins([plugin_folder])
    prepare(home, found.dataset("tiny"), None, say=lambda line: None)
    return Workplace(home=home, plugins=found, runtime=Runtime(device="cpu", checkpoint_seconds=0.0))


@pytest.fixture
def tiny_run():
    """Make a RunSpec on `tiny`: fast, float32, three epochs unless said otherwise."""
    from fer_bench.recipe import Recipe
    from fer_bench.spec import RunSpec

    def make(method: str = "baseline_resnet", *, recipe: dict | None = None, **fields) -> RunSpec:
        base = {"epochs": 3, "batch_size": 16, "optimizer": "adamw", "lr": 4e-3, "precision": "fp32", "shift": 1.0}
        chosen = Recipe.build(base, recipe or {})
        fields = {"dataset": "tiny", "protocol": "official", "backbone": "resnet10_tiny", **fields}
        return RunSpec(method=method, recipe=chosen, **fields)

    return make
