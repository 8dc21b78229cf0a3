"""A home with a data set of image files of every kind, and finished runs on it, trained once for this room."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_bench.contract.plugins import Plugins, plugins
from fer_bench.data.prepare import prepare
from fer_bench.record.home import Home
from fer_bench.record.ledger import RunRecord
from fer_bench.runs.executor import Workplace, execute
from fer_bench.runs.spec import RunSpec
from fer_bench.training.job import Runtime
from fer_bench.training.recipe import Recipe

CLASSES = ("aa", "bb", "cc")
COUNTS = {"train": (24, 12, 6), "val": (6, 6, 6), "test": (8, 8, 8)}

LOOKING = '''
"""Looks at the brightest places, and draws on its classes as its probabilities say."""
import torch
from fer_bench import Insight, Method, MethodCard

card = MethodCard(name="looking", title="Looks at what is bright", changes="nothing")


class Looking(Method):
    card = card

    def insight(self, model, x):
        maps = {"bright": (x.mean(1) - x.amin((1, 2, 3))[:, None, None])[:, ::2, ::2]}
        return Insight(maps=maps, shares=model(x).logits.softmax(1), sources=self.ctx.classes)
'''


@dataclass(frozen=True)
class World:
    """The home, the folder of the images, and the runs by method."""

    home: Home
    images: Path
    own: Path
    available: Plugins
    runs: dict[str, RunRecord]

    def file(self, source: str) -> Path:
        """The image file of a row, by what the store calls it."""
        return self.images / source


def save_image(path: Path, label: int, number: int, rng: np.random.Generator) -> None:
    """A bright bar on noise; by number, it is square or not, grey, coloured, see-through, of 12 bits, or turned."""
    height, width = ((20, 20), (30, 20), (16, 16), (24, 40))[number % 4]
    pixels = rng.integers(0, 90, (height, width))
    third = height // 3
    pixels[label * third : (label + 1) * third, 2:-2] += 150
    grey = pixels.astype(np.uint8)
    kind = number % 6
    if kind == 1:
        Image.fromarray(np.stack([grey, grey // 2, grey], 2)).save(path.with_suffix(".png"))
    elif kind == 2:
        Image.fromarray(np.stack([grey, grey, grey, np.full_like(grey, 200)], 2)).save(path.with_suffix(".png"))
    elif kind == 3:
        Image.fromarray((pixels * 16).astype(np.uint16)).save(path.with_suffix(".png"))
    elif kind == 4:
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned clockwise, so it is stored turned the other way
        Image.fromarray(np.rot90(grey).copy()).save(path.with_suffix(".jpg"), exif=exif, quality=95)
    else:
        Image.fromarray(grey).save(path.with_suffix(".bmp"))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Class folders of pictures, prepared at 16 pixels, and three finished runs in float32."""
    root = tmp_path_factory.mktemp("inference")
    images, own, rng = root / "faces", root / "own", np.random.default_rng(3)
    for split, counts in COUNTS.items():
        for label, (name, count) in enumerate(zip(CLASSES, counts, strict=True)):
            folder = images / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                save_image(folder / f"im{k}", label, k, rng)
    own.mkdir()
    (own / "looking.py").write_text(LOOKING)
    home, available = Home(root / "home"), plugins([own])
    params = available.dataset_card("folder").resolve({"size": 16, "fit": "pad"})
    prepare(home, available.dataset("folder", params), images, say=lambda line: None)
    work = Workplace(home=home, plugins=available, runtime=Runtime(device="cpu", threads=1))
    recipe = Recipe.build({"epochs": 4, "batch_size": 8, "optimizer": "adamw", "lr": 4e-3, "precision": "fp32"}, {})
    spec = {"dataset": "folder", "dataset_params": params, "protocol": "given", "backbone": "resnet10_tiny"}
    runs = {}
    for name in ("baseline_resnet", "looking", "logit_adjust_posthoc"):
        params_of = available.method(name).card.resolve({})
        runs[name] = execute(RunSpec(method=name, recipe=recipe, params=params_of, **spec), work)
    return World(home=home, images=images, own=own, available=available, runs=runs)


@pytest.fixture
def copied(world: World, tmp_path: Path) -> World:
    """The world in a folder of its own, to be changed."""
    shutil.copytree(world.home.root, tmp_path / "home")
    home = Home(tmp_path / "home")
    return replace(world, home=home, runs={name: home.ledger.run(run.id) for name, run in world.runs.items()})
