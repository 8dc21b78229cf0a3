"""Images of a run, in memory and streamed: the same batches, the same record, and nothing of the test within reach."""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch

from fer_bench.base.memory import Free
from fer_bench.contract.batch import StreamSpec, TrainView
from fer_bench.data.store import Store
from fer_bench.errors import ChangedStoreError, OutOfMemoryError, SealError, SpecError, TrainingError
from fer_bench.runs import images as place
from fer_bench.runs.executor import execute
from fer_bench.runs.images import Choice, choose, load, stream
from fer_bench.training.dataplane import DataPlane
from fer_bench.training.job import Listener
from fer_bench.training.recipe import Recipe
from tests.runs.conftest import ATTEMPT, World
from tests.runs.test_seal_searches import SEARCHES

CPU = torch.device("cpu")
ROWS = np.array([63, 2, 3, 4, 40, 0, 17])


@pytest.fixture
def store(marked_home: World) -> Store:
    return Store.open(marked_home.home / "data/marked")


def streamed(store: Store, open_: ExitStack, **parts: np.ndarray):
    return stream(store, parts or {"train": ROWS}, CPU, open_)


def in_memory(store: Store, rows: np.ndarray = ROWS) -> torch.Tensor:
    return load(store, rows, CPU, Choice(False, 0, Free(0, "")))


def test_images_are_the_rows_of_the_file(store: Store):
    expected = np.load(store.path / "images.npy")[ROWS]
    assert np.array_equal(in_memory(store).numpy(), expected)
    with ExitStack() as open_:
        both = streamed(store, open_, train=ROWS[:4], val=ROWS[4:])
        assert np.array_equal(both["train"][:].numpy(), expected[:4])
        assert np.array_equal(both["val"][:].numpy(), expected[4:])


def batches(images, labels):
    recipe = Recipe(batch_size=8, flip=0.5, shift=3.0, rotate=15.0, erase=0.5, image_size=20)
    view = TrainView(images=images, labels=labels, num_classes=3)
    plane = DataPlane(view, recipe, seed=5)
    spec = {"main": StreamSpec(views=2), "rare": StreamSpec(sampler=lambda v, e, r: np.array([1, 1, 5]), batch_size=3)}
    for epoch in range(2):
        steps, found = plane.epoch(spec, "main", epoch)
        assert steps == 5
        yield from (part for batch in found for part in (batch, batch.aux["rare"]))
    yield from plane.clean()


def test_streamed_batches_are_bitwise_those_of_images_in_memory(store: Store):
    rows, labels = np.arange(40)[::-1].copy(), np.arange(40) % 3
    with ExitStack() as open_:
        ours = list(batches(streamed(store, open_, train=rows)["train"], labels))
    theirs = list(batches(in_memory(store, rows), labels))
    assert len(ours) == len(theirs) == 21
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one.index, other.index)
        assert torch.equal(one.y, other.y)
        for a, b in zip(one.views, other.views, strict=True):
            assert torch.equal(a, b)
            assert a.stride() == b.stride()


class Notes(Listener):
    """Keeps what it is told to note."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def note(self, text: str) -> None:
        self.heard.append(text)


def record_of(world: World, images: str) -> tuple[dict[str, object], str, list[str]]:
    """What a run leaves, but for times; where its images were, and what was said of them."""
    world.images, notes = images, Notes()
    work = replace(world.workplace(), listener=lambda spec, label: notes)
    record = execute(world.spec("baseline_resnet", seed=7), work)
    left = {name: record.array(name).tolist() for name in ("val_logits", "val_epochs", "test_logits", "test_epochs")}
    left |= {name: record.json(name) for name in ("history", "selection", "probe", "seal")}
    left["weights"] = (record.path / "model.pt").read_bytes()
    where = record.json("environment")["images"]
    shutil.rmtree(record.path)
    return left, where, notes.heard


def test_a_streamed_run_leaves_bitwise_the_record_of_one_in_memory(world: World):
    ours, theirs = record_of(world, "stream"), record_of(world, "memory")
    assert (ours[1], theirs[1]) == ("stream", "memory")
    of = [re.match(r"images of (.*) are streamed from disk: they take \d+ kB, ", text)[1] for text in ours[2]]
    assert of == ["train and val", "test", "probe", "probe"]
    assert theirs[2] == []
    assert ours[0] == theirs[0]


# -- the choice ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "size", "expected"),
    [("auto", 50, False), ("auto", 51, True), ("memory", 999, False), ("stream", 1, True)],
)
def test_images_are_streamed_that_would_take_over_half_of_what_is_free(monkeypatch, asked, size, expected):
    monkeypatch.setattr(place, "free_memory", lambda: Free(100, "under `ulimit -v`"))
    choice = choose(asked, size, CPU)
    assert choice.streamed is expected
    assert choice.reason == f"they take {size} B, 100 B are free under `ulimit -v`"


@pytest.mark.parametrize(("size", "share", "expected"), [(15, 30, False), (16, 30, True), (50, 200, False)])
def test_beside_other_runs_images_may_take_half_of_a_share_and_no_more_than_is_free(monkeypatch, size, share, expected):
    monkeypatch.setattr(place, "free_memory", lambda: Free(100, "in main memory"))
    choice = choose("auto", size, CPU, beside=3, memory=share)
    assert choice.streamed is expected
    free = "30 B are free in main memory for each of 3 runs at once" if share == 30 else "100 B are free in main memory"
    assert choice.reason == f"they take {size} B, {free}"
    assert not choose("memory", 99, CPU, beside=3, memory=share).streamed, "as it is asked"


@pytest.mark.parametrize(("now", "size", "expected"), [(900, 125, False), (900, 126, True), (100, 51, True)])
def test_runs_on_one_gpu_share_its_memory_equally(monkeypatch, now, size, expected):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (now, 1000))
    assert choose("auto", size, torch.device("cuda", 0), beside=4, memory=1).streamed is expected


def test_too_little_memory_is_an_error_that_says_what_to_type(store: Store, monkeypatch):
    def full(*size, **kwargs):
        raise RuntimeError(f"[enforce fail at alloc_cpu.cpp:121] err == 0. {place.NO_MEMORY}: you tried ...")

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(OutOfMemoryError, match=r"they take 44\.0 GB, 2\.0 GB are free in main memory") as error:
        load(store, ROWS, CPU, Choice(False, 44 * 10**9, Free(2 * 10**9, "in main memory")))
    assert error.value.next == "the same command with --images stream"


def test_a_method_that_needs_all_images_in_memory_is_refused(world: World):
    world.images = "stream"
    with pytest.raises(SpecError, match="'imblearn_pixels' needs all training images in memory") as error:
        execute(world.spec("imblearn_pixels"), world.workplace())
    assert error.value.next == "the same command with --images memory"


# -- what the program that reads may do --------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [[len(ROWS)], [-1], [0, 64]])
def test_no_position_leads_beyond_the_rows_that_were_given(store: Store, places: list[int], capfd):
    with ExitStack() as open_:
        reader = streamed(store, open_)["train"]._reader
        pixels = np.full((len(places), 576), 7, np.uint8)
        with pytest.raises(TrainingError, match="the program that reads the images has ended"):
            reader.read(np.array(places), memoryview(pixels.reshape(-1)))
    assert (pixels == 7).all()
    assert "of 7 were asked for" in capfd.readouterr().err


def test_the_program_ends_with_the_process(store: Store):
    with ExitStack() as open_:
        program = streamed(store, open_)["train"]._reader._program
        assert program.poll() is None
    assert program.returncode == 0


def test_images_that_are_overwritten_while_they_are_streamed_are_refused(store: Store, tmp_path):
    copy = tmp_path / "marked"
    shutil.copytree(store.path, copy)
    with ExitStack() as open_:
        images = streamed(Store.open(copy), open_)["train"]
        os.utime(copy / "images.npy", ns=(0, 10**18))
        with pytest.raises(ChangedStoreError, match=r"images\.npy changed while it was in use"):
            images[0]


def test_a_store_that_is_prepared_again_while_it_is_streamed_goes_on(store: Store, tmp_path):
    copy, expected = tmp_path / "marked", in_memory(store)
    shutil.copytree(store.path, copy)
    with ExitStack() as open_:
        images = streamed(Store.open(copy), open_)["train"]
        shutil.rmtree(copy)
        assert torch.equal(images[:], expected)


# -- the seal --------------------------------------------------------------------------------------------------------


def attempt(world: World, body: str):
    world.images = "stream"
    world.write(ATTEMPT.replace("{body}", textwrap.indent(textwrap.dedent(body), "    ")))
    return world.run()


def test_a_method_whose_images_are_streamed_finds_nothing_of_the_test(world: World):
    searches = [SEARCHES[name] for name in ("everything the collector knows", "open files and mappings")]
    names = [f"one_{k}" for k in range(len(searches))]
    inner = "".join(
        f"\ndef {n}():\n" + textwrap.indent(textwrap.dedent(s), "    ") for n, s in zip(names, searches, strict=True)
    )
    run = attempt(world, inner + "\nheld = view.images[:], view.images\nreturn " + " or ".join(f"{n}()" for n in names))

    assert run.error is None
    assert run.record.json("environment")["images"] == "stream"
    assert not world.loot.exists(), world.loot.read_text()
    assert run.blocked == []


@pytest.mark.skipif(sys.platform != "linux", reason="descriptors of another process are files on Linux alone")
def test_the_open_file_of_the_program_that_reads_is_refused(world: World):
    run = attempt(world, """
        folder = Path(f"/proc/{view.images._reader._program.pid}/fd")
        (number,) = (n for n in os.listdir(folder) if os.readlink(folder / n) == str(IMAGES))
        return (folder / number).read_bytes()
    """)  # fmt: skip

    assert isinstance(run.error, SealError)
    assert [entry["event"] for entry in run.blocked] == ["open"]
    assert not world.loot.exists()
