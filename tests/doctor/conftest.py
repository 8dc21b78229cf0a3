"""Small data sets with known faults."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy.ndimage import gaussian_filter

from fer_bench import Chunk, DatasetCard, Protocol, Reading
from fer_bench.cli.data_check import check
from fer_bench.data.store import write_store
from fer_bench.doctor.examine import Diagnosis, examine

CLASSES = ("sad", "happy", "angry", "neutral")
COUNTS = {"train": (20, 60, 35, 5), "val": (6, 16, 8, 3), "test": (8, 15, 9, 2)}
CARD = DatasetCard(
    name="toy",
    title="Toy faces",
    classes=CLASSES,
    protocols=(Protocol(name="official", train=("train",), val=("val",), test=("test",)),),
    counts=COUNTS,
    licence="toys are free",
)


@dataclasses.dataclass
class World:
    """A small data set, to be harmed before it is stored; rows are in order of split, then class."""

    images: np.ndarray
    labels: np.ndarray
    split: np.ndarray
    subject: list[str] | None = None
    extra: dict = dataclasses.field(default_factory=dict)

    @classmethod
    def sound(cls) -> World:
        labels = np.concatenate([np.repeat(np.arange(4), c) for c in COUNTS.values()])
        split = np.repeat(list(COUNTS), [sum(c) for c in COUNTS.values()])
        noise = np.random.default_rng(0).normal(size=(len(labels), 48, 48))
        smooth = sum(s * gaussian_filter(noise, (0, s, s)) for s in (1, 2, 4, 7))
        return cls(np.clip(128 + 45 * smooth / smooth.std(), 0, 255).astype(np.uint8)[:, None], labels, split)

    def without(self, rows: np.ndarray) -> World:
        keep = np.setdiff1d(np.arange(len(self.labels)), rows)
        return World(self.images[keep], self.labels[keep], self.split[keep])

    def store(self, folder: Path, card: DatasetCard = CARD, **survey):
        chunk = Chunk(
            images=self.images,
            labels=self.labels,
            split=self.split.tolist(),
            source=[str(k) for k in range(len(self.labels))],
            subject=self.subject,
            extra=self.extra,
        )
        reading = Reading(layout="drawn", summary="", files=[], chunks=lambda: iter([chunk]), survey=survey)
        return write_store(folder, card, reading, {}, {})

    def examined(self, folder: Path, card: DatasetCard = CARD, **options) -> Diagnosis:
        return examine(self.store(folder, card), card, **options)


def problems(diagnosis: Diagnosis) -> set[str]:
    """Kinds of the errors and warnings."""
    return {f.kind for f in diagnosis.findings if f.level != "note"}


def posed() -> World:
    """Nine people in one sitting each: the same picture again and again, a little lighter each time, a mouth apart."""
    world = World.sound()
    world.subject = [f"{s}{k % 9}" for k, s in enumerate(world.split)]
    for person in dict.fromkeys(world.subject):
        rows = [k for k, name in enumerate(world.subject) if name == person]
        for k, row in enumerate(rows[1:]):
            mouth = world.images[row, 0, 35:37, 22:25].copy()
            world.images[row] = np.clip(0.9 * world.images[rows[0]] + k, 0, 255)
            world.images[row, 0, 35:37, 22:25] = mouth
    return world


def harmed() -> World:
    world = World.sound()
    world.images[1] = world.images[0]
    world.images[100] = world.images[30]
    world.images[165, 0] = np.roll(world.images[3, 0], (2, -1), (0, 1))
    world.images[5] = 0
    return world


PLUGIN = """
import numpy as np
from PIL import Image
from fer_bench import Chunk, Dataset, DatasetCard, Param, Protocol, Reading

card = DatasetCard(
    name="files", title="Files", classes=("a", "b"), counts={"x": (6, 6)},
    protocols=(Protocol(name="p", train=("x",), test=("y",), holdout=0.1),),
    params={"fold": Param(0, "which one")},
)


class Files(Dataset):
    card = card

    def read(self, source):
        def chunks():
            problems = self.problems()
            for path in sorted(source.glob("*.png")):
                try:
                    with Image.open(path) as image:
                        pixels = np.asarray(image)[None, None]
                except OSError:
                    problems.add(path, None, "unreadable image")
                    continue
                label = np.array([int(path.stem) % 2])
                yield Chunk(images=pixels, labels=label, split=["x"], source=[path.name])
            problems.raise_if_any()

        return Reading(layout="png", summary=str(source), files=[], chunks=chunks)
"""


@pytest.fixture
def files(tmp_path) -> Path:
    """A folder of twelve images, and beside it the plug-in that reads them."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "files.py").write_text(PLUGIN)
    (tmp_path / "raw").mkdir()
    for k, image in enumerate(World.sound().images[:12, 0]):
        Image.fromarray(image).save(tmp_path / "raw" / f"{k}.png")
    return tmp_path


def run(folder: Path, *arguments: str, status: int = 0) -> str:
    options = ["--home", str(folder / "home"), "--plugins", str(folder / "plugins")]
    result = CliRunner().invoke(check, [*arguments, *options], catch_exceptions=False)
    assert result.exit_code == status, result.output
    return result.output
