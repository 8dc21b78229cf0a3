"""Preparing: sources are found or asked for, nothing is done twice, and no accident costs the old store."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from fer_bench import Chunk, DataError, Dataset, DatasetCard, FerBenchError, Param, Protocol, Reading
from fer_bench.cli.data import data as cli
from fer_bench.data.contact_sheet import contact_sheet
from fer_bench.data.prepare import ensure_store, prepare
from fer_bench.data.store import Store, write_store
from fer_bench.errors import StoreError
from fer_bench.record.home import Home

CARD = DatasetCard(
    name="toy",
    title="Toy",
    classes=("a", "b"),
    protocols=(Protocol(name="p", train=("x",), val=("y",), test=("z",)),),
    counts={"x": (3, 3)},
    get="ask the owner of the toys",
    params={"add": Param(0, "added to every pixel")},
)


class Toy(Dataset):
    """Images of one grey value each, read from a text file of numbers."""

    card = CARD

    def read(self, source: Path | None) -> Reading:
        file = source / "toy.txt" if source.is_dir() else source
        values = [int(v) for v in file.read_text().split()]

        def chunks():
            for k, value in enumerate(values):
                images = np.full((1, 1, 8, 8), value + self.params["add"], np.uint8)
                yield Chunk(images=images, labels=np.array([k % 2]), split=["x"], source=[str(k)])

        return Reading(layout="text", summary=str(file), files=[file], chunks=chunks)


class Drawn(Toy):
    """A set that is built in: it has no source."""

    card = dataclasses.replace(CARD, name="drawn", built_in=True, counts={})

    def read(self, source: Path | None) -> Reading:
        assert source is None
        chunk = Chunk(
            images=np.zeros((2, 1, 8, 8), np.uint8), labels=np.array([0, 1]), split=["x"] * 2, source=["", ""]
        )
        return Reading(layout="drawn", summary="drawn", files=[], chunks=lambda: iter([chunk]))


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def raw(home) -> Path:
    """The place where a person puts the files, filled."""
    folder = home.raw("toy")
    folder.mkdir(parents=True)
    (folder / "toy.txt").write_text("1 2 3 4 5 6")
    return folder


def first_pixels(store: Store) -> list[int]:
    return store.images(np.arange(len(store)))[:, 0, 0, 0].tolist()


def names(home: Home) -> list[str]:
    return sorted(p.name for p in home.data.iterdir() if p.name != "raw")


def test_source_is_found_where_people_put_it(home, raw):
    lines = []
    store = prepare(home, Toy(), None, say=lines.append)
    assert first_pixels(store) == [1, 2, 3, 4, 5, 6]
    assert any("recognised text" in line for line in lines)
    assert lines[-1] == "toy: the image counts of every split and class match its card"
    assert names(home) == [".toy.lock", "toy"]


def test_unchanged_source_is_not_read_again(home, raw):
    lines = []
    before = (prepare(home, Toy(), None, say=lines.append).path / "images.npy").stat().st_mtime_ns
    after = prepare(home, Toy(), raw / "toy.txt", say=lines.append)
    assert "up to date" in lines[-1]
    assert (after.path / "images.npy").stat().st_mtime_ns == before


def test_source_that_was_edited_and_given_its_old_time_is_read_again(home, raw):
    prepare(home, Toy(), None)
    times = (raw / "toy.txt").stat()
    (raw / "toy.txt").write_text((raw / "toy.txt").read_text().replace("1", "9", 1))
    os.utime(raw / "toy.txt", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert first_pixels(prepare(home, Toy(), None)) == [9, 2, 3, 4, 5, 6]


def test_force_writes_anew(home, raw):
    before = prepare(home, Toy(), None).path.stat().st_ino
    assert prepare(home, Toy(), None, force=True).path.stat().st_ino != before


def test_changed_source_and_changed_parameters_are_noticed(home, raw):
    lines = []
    prepare(home, Toy(), None)
    (raw / "toy.txt").write_text("1 2 3 4 5 7")
    assert first_pixels(prepare(home, Toy(), None, say=lines.append))[-1] == 7
    assert any("the data have changed" in line for line in lines)
    assert first_pixels(prepare(home, Toy({"add": 10}), None)) == [11, 12, 13, 14, 15, 17]


def test_counts_that_differ_warn_and_are_recorded(home, raw):
    lines = []
    (raw / "toy.txt").write_text("1 2 3")
    store = prepare(home, Toy(), None, say=lines.append)
    assert "WARNING" in lines[-1]
    assert "x/b: 1, expected 3" in lines[-1]
    assert store.manifest["checks"]["differences"] == ["x/a: 2, expected 3", "x/b: 1, expected 3"]


def test_missing_source_says_what_to_get_and_where_to_put_it(home):
    with pytest.raises(DataError) as error:
        prepare(home, Toy(), None)
    for part in ("ask the owner", str(home.raw("toy")), "fer-bench data prepare toy --from PATH"):
        assert part in str(error.value)


def test_given_source_that_does_not_exist_is_an_error(home, raw):
    with pytest.raises(DataError, match="the source does not exist"):
        prepare(home, Toy(), home.root / "nowhere")


def test_store_outlives_its_source(home, raw):
    lines = []
    prepare(home, Toy(), None)
    (raw / "toy.txt").unlink()
    assert len(prepare(home, Toy(), None, say=lines.append)) == 6
    assert "source files are no longer there" in lines[-1]
    with pytest.raises(DataError, match="no source files"):
        prepare(home, Toy({"add": 1}), None)


def test_source_of_the_present_store_is_remembered(home, tmp_path):
    (tmp_path / "elsewhere.txt").write_text("7 8")
    prepare(home, Toy(), tmp_path / "elsewhere.txt")
    assert first_pixels(prepare(home, Toy({"add": 1}), None)) == [8, 9]


def test_damaged_store_is_written_anew(home, raw):
    lines = []
    store = prepare(home, Toy(), None)
    (store.path / "images.npy").write_bytes(b"")
    assert len(prepare(home, Toy(), None, say=lines.append)) == 6
    assert "can't be used" in lines[0]


def test_ensure_store_prepares_what_needs_no_question(home, raw):
    assert len(ensure_store(home, Drawn(), say=lambda _: None)) == 2
    assert len(ensure_store(home, Toy(), say=lambda _: None)) == 6
    lines = []
    assert len(ensure_store(home, Toy(), say=lines.append)) == 6
    assert lines == []


def test_ensure_store_without_source_tells_how_to_get_it(home):
    with pytest.raises(DataError, match="ask the owner of the toys"):
        ensure_store(home, Toy())


def test_full_disk_keeps_the_old_store(home, raw, monkeypatch):
    old = prepare(home, Toy(), None)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fer_bench.data.store.write_text", full)
    with pytest.raises(FerBenchError, match="the disk is full"):
        prepare(home, Toy({"add": 1}), None)
    assert names(home) == [".toy.lock", "toy"]
    assert first_pixels(Store.open(old.path)) == [1, 2, 3, 4, 5, 6]


def test_interrupt_leaves_nothing_behind(home, raw, monkeypatch):
    old = prepare(home, Toy(), None)

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("fer_bench.data.store.write_json", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(home, Toy(), None, force=True)
    assert names(home) == [".toy.lock", "toy"]
    Store.open(old.path).verify()


def test_home_that_can_not_be_written_is_a_clear_error(home):
    home.root.mkdir()
    home.data.write_text("a file where the folder should be")
    with pytest.raises(StoreError, match=r"File exists\n  where: .*/home/data"):
        prepare(home, Drawn(), None)


def test_source_that_can_not_be_opened_is_a_clear_error(home, raw):
    (raw / "toy.txt").rename(raw / "other.txt")
    with pytest.raises(StoreError, match=r"No such file or directory\n  where: .*toy\.txt"):
        prepare(home, Toy(), None)


PROGRAM = """
import os, resource, shutil, signal, sys, time
from pathlib import Path
import numpy as np
from fer_bench import Chunk, Dataset, DatasetCard, FerBenchError, Reading
from fer_bench.record.home import Home
from fer_bench.data.prepare import prepare

root, stage = sys.argv[1:]

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def after(function, calls):
    done = []
    def wrapped(*args, **kwargs):
        done.append(1)
        return die() if len(done) > calls else function(*args, **kwargs)
    return wrapped

class Toy(Dataset):
    card = DatasetCard(name="toy", title="Toy", classes=("a", "b"), protocols=())
    def read(self, source):
        def chunks():
            for k in range(2000):
                images = np.full((1, 1, 32, 32), 9, np.uint8)
                yield Chunk(images=images, labels=np.array([0]), split=["x"], source=["s"])
                if stage == "chunk" and k == 1000:
                    die()
                if stage == "slow" and k % 100 == 0:
                    time.sleep(0.02)
        return Reading(layout="text", summary="", files=[source], chunks=chunks)

if stage == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
if stage == "manifest":
    import fer_bench.data.store
    fer_bench.data.store.write_json = die
if stage == "swap":
    os.rename = after(os.rename, 1)
if stage == "cleaning":
    import fer_bench.data.store
    swap, shutil_rmtree = fer_bench.data.store._swap, shutil.rmtree
    def swap_and_die(aside, target):
        shutil.rmtree = after(shutil_rmtree, 1)
        swap(aside, target)
    fer_bench.data.store._swap = swap_and_die
try:
    print(len(prepare(Home(Path(root)), Toy(), Path(root, "data", "raw", "toy"))))
except FerBenchError as error:
    sys.exit(str(error))
"""


def started(home: Home, stage: str) -> subprocess.Popen:
    program = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(home.root), stage]
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("stage", ["chunk", "manifest", "swap"])
def test_killed_process_costs_nothing_but_its_own_work(home, raw, stage):
    prepare(home, Toy(), None)
    process = started(home, stage)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert any(name.endswith(".part") for name in names(home))
    lines = []
    store = prepare(home, Toy(), None, say=lines.append)
    store.verify()
    assert "up to date" in lines[-1]
    assert first_pixels(store) == [1, 2, 3, 4, 5, 6]
    assert names(home) == [".toy.lock", "toy"]


def test_kill_after_the_swap_leaves_the_new_store(home, raw):
    prepare(home, Toy(), None)
    process = started(home, "cleaning")
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert ".toy.old" in names(home)
    assert len(Store.open(home.data / "toy")) == 2000
    assert len(prepare(home, Toy(), None)) == 6
    assert names(home) == [".toy.lock", "toy"]


def test_kill_at_any_moment_leaves_a_whole_store(home, raw):
    prepare(home, Toy(), None)
    for delay in (0.0, 0.1, 0.25):
        process = started(home, "slow")
        while process.poll() is None and not any(n.endswith(".part") for n in names(home)):
            time.sleep(0.005)
        time.sleep(delay)
        process.kill()
        process.communicate(timeout=300)
        Store.open(home.data / "toy").verify()


def test_file_size_limit_is_a_clear_error_and_loses_nothing(home, raw):
    prepare(home, Toy(), None)
    process = started(home, "limit")
    _, error = process.communicate(timeout=300)
    assert process.returncode == 1
    assert error.startswith("the disk is full")
    assert names(home) == [".toy.lock", "toy"]
    assert first_pixels(Store.open(home.data / "toy")) == [1, 2, 3, 4, 5, 6]


def test_two_processes_at_once_take_turns(home, raw):
    both = [started(home, "slow"), started(home, "slow")]
    lines = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], lines
    assert sum("another process is preparing it" in out for out, _ in lines) <= 1
    assert sum("up to date" in out for out, _ in lines) == 1
    Store.open(home.data / "toy").verify()


def test_contact_sheet_has_the_same_bytes_each_time(home, raw, tmp_path):
    store = prepare(home, Toy(), None)
    rows = contact_sheet(store, tmp_path / "one.png", per_class=2)
    assert contact_sheet(store, tmp_path / "two.png", per_class=2) == rows
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert [r % 2 for r in rows] == [0, 0, 1, 1]
    with Image.open(tmp_path / "one.png") as sheet:
        tile = 8 * 12  # 8 pixels enlarged to 96
        assert [sheet.getpixel((110 + k * (tile + 6) + 1, 7))[0] for k in (0, 1)] == [r + 1 for r in rows[:2]]


def test_contact_sheet_other_seed_and_colour_and_unknown_split(tmp_path):
    def chunks():
        images = np.zeros((40, 3, 8, 8), np.uint8)
        images[:, 0] = 200
        yield Chunk(images=images, labels=np.zeros(40, int), split=["x"] * 40, source=[""] * 40)

    store = write_store(tmp_path, CARD, Reading(layout="l", summary="", files=[], chunks=chunks))
    one = contact_sheet(store, tmp_path / "a.png", per_class=5, seed=0)
    assert one != contact_sheet(store, tmp_path / "b.png", per_class=5, seed=1)
    with Image.open(tmp_path / "a.png") as sheet:
        assert sheet.getpixel((120, 20)) == (200, 0, 0)
    with pytest.raises(DataError, match="unknown split 'q'"):
        contact_sheet(store, tmp_path / "c.png", split="q")


@pytest.mark.slow
def test_command_line_prepares_tells_and_shows(home, tmp_path):
    plugin = tmp_path / "plugins"
    plugin.mkdir()
    (plugin / "stripes.py").write_text(
        textwrap.dedent("""
        import numpy as np
        from fer_bench import Chunk, Dataset, DatasetCard, Reading

        card = DatasetCard(name="stripes", title="Stripes", classes=("a", "b"), protocols=(), built_in=True)

        class Stripes(Dataset):
            card = card

            def read(self, source):
                images = np.zeros((3, 1, 8, 8), np.uint8)
                chunk = Chunk(images=images, labels=np.array([0, 1, 1]), split=["x", "x", "y"], source=["0", "1", "2"])
                return Reading(layout="drawn", summary="drawn", files=[], chunks=lambda: iter([chunk]))
        """)
    )
    runner, place = CliRunner(), ["--home", str(home.root)]
    prepared = runner.invoke(cli, ["prepare", "stripes", "--plugins", str(plugin), *place], catch_exceptions=False)
    assert "3 images of 1x8x8 written" in prepared.output
    stats = runner.invoke(cli, ["stats", "stripes", *place], catch_exceptions=False)
    for part in ("3, 1 distinct", "1 group, 1 of them with conflicting labels", "1 image of y also occurs in", "drawn"):
        assert part in stats.output
    out = tmp_path / "sheet.png"
    sheet_run = runner.invoke(cli, ["show", "stripes", "--out", str(out), *place], catch_exceptions=False)
    assert "3 images of 2 classes" in sheet_run.output
    assert out.is_file()
