"""The promise that needs real processes: a run as ``fer-bench run`` makes it, with its seal and its probe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from fer_bench.conformance.images import COUNTS, training, validation
from fer_bench.conformance.promise import Broken, Promise
from fer_bench.conformance.world import ONE_STEP, World
from fer_bench.contract.cards import DatasetCard, Protocol
from fer_bench.contract.dataset import Chunk, Reading
from fer_bench.contract.plugins import Plugin, Plugins
from fer_bench.contract.sources import Tree
from fer_bench.data.store import write_store
from fer_bench.errors import FerBenchError
from fer_bench.record.home import Home
from fer_bench.runs.executor import Workplace, execute, identify
from fer_bench.runs.spec import RunSpec
from fer_bench.training.job import Runtime

NAME = "conformance"
CLASSES = ("class 0", "class 1", "class 2", "class 3")
CARD = DatasetCard(
    name=NAME,
    title="The pictures on which the kit tries methods",
    classes=CLASSES,
    protocols=(
        Protocol(name="official", train=("train",), val=("val",), test=("test",)),
        Protocol(
            name="votes", train=("train",), val=("val",), test=("test",), soft=tuple(f"vote {c}" for c in range(4))
        ),
    ),
    layouts={"drawn": "nothing to read"},
    built_in=True,
)


def _chunks(world: World) -> Iterator[Chunk]:
    view = training([n * world.times for n in COUNTS], side=world.side, votes=True)
    assert view.soft is not None
    assert view.groups is not None
    parts = [("train", view.images, view.labels, view.soft, view.groups)]
    for number, split in enumerate(("val", "test"), start=1):
        fold = validation(len(CLASSES), side=world.side, name=split, labels=np.arange(12) % len(CLASSES))
        people = 100 * number + np.arange(12)
        parts.append((split, fold.images, fold.labels, np.eye(len(CLASSES))[fold.labels], people))
    for split, images, labels, soft, people in parts:
        yield Chunk(
            images=images.numpy(),
            labels=np.asarray(labels, dtype=np.int64),
            split=[split] * len(labels),
            source=[f"{split} {k}" for k in range(len(labels))],
            subject=[str(p) for p in people],
            extra={f"vote {c}": np.round(10 * soft[:, c]).astype(np.int64) for c in range(len(CLASSES))},
        )


def workplace(world: World) -> Workplace:
    """A home with the kit's pictures, and the plug-ins with this data set among them."""
    home = Home(world.folder / "home")
    write_store(home.data, CARD, Reading(layout="drawn", summary="", files=[], chunks=lambda: _chunks(world)))
    here = Path(__file__)
    data = Plugin("datasets", CARD, here, __name__, "built in", Tree(here.parent, "fer_bench.conformance"))
    available = Plugins(methods=world.plugins.methods, datasets={NAME: data}, folders=world.plugins.folders)
    return Workplace(home=home, plugins=available, runtime=Runtime(device="cpu", threads=1, compile=False))


def check_run(world: World) -> str:
    """One epoch and the test, in processes of their own: nothing forbidden is opened, nothing is flagged."""
    work = workplace(world)
    spec = RunSpec(
        method=world.card.name,
        params=world.card.resolve({}),
        dataset=NAME,
        protocol="votes" if "votes" in world.card.needs else "official",
        backbone="resnet10_tiny",
        recipe=replace(ONE_STEP, warmup_epochs=0.2),
    )
    error: FerBenchError | None = None
    try:
        execute(spec, work)
    except FerBenchError as raised:
        error = raised
    record = work.home.ledger.run(identify(spec, work)[0])
    blocked = record.json("seal")["blocked"] if record.has("seal.json") else []
    if blocked:
        attempt = blocked[0]
        raise Broken(
            "it tried to open what is sealed while a method runs",
            example=f"{attempt['event']} of {Path(attempt['file']).name}; {len(blocked)} attempts in one run",
            look="whatever opens files: a method is given the training fold, and nothing else",
        )
    if error is not None:
        raise error
    probe = record.json("probe")
    if probe["transductive"] and not world.card.transductive:
        moved = max(probe["checks"], key=lambda c: c["max_difference"] or np.inf)
        raise Broken("the probe of a real run flags it", example=f"{moved['name']}: {moved}", look="predict, adjust")
    return f"{len(probe['checks'])} checks of the probe"


PROMISES: tuple[Promise[World], ...] = (
    Promise(
        name="seal",
        says="a real run finishes, and tries to open nothing that is sealed",
        check=check_run,
        after=("batches",),
        slow=True,
    ),
)
