"""A store that is not what was written is refused, by name of file and change; one that is costs a look."""

import dataclasses
import json
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from fer_bench import Chunk, DatasetCard, Param, Protocol, Reading
from fer_bench.cli import cli
from fer_bench.data import soundness
from fer_bench.data.store import Store, prepare_command, write_store
from fer_bench.errors import ChangedStoreError, FerBenchError
from fer_bench.record.home import Home

CARD = DatasetCard(
    name="toy",
    title="Toy",
    classes=("a", "b", "c"),
    protocols=(Protocol(name="p", train=("x",), val=("y",), test=("z",)),),
    params={"size": Param(0, "side"), "subject": Param("", "expression")},
)
LABELS, SPLITS = [0, 1, 2, 0, 1, 0], ["x", "x", "x", "y", "y", "z"]


def toy(folder: Path, *, params: dict | None = None, add: int = 0, **notes) -> Store:
    """Six images in three splits; the subjects are p0, p0, p1, p1, p2, p2."""
    images = np.arange(6 * 12, dtype=np.uint8).reshape(6, 1, 3, 4) + np.uint8(add)
    subjects = [f"p{k // 2}" for k in range(6)]
    chunk = Chunk(
        images=images, labels=np.array(LABELS), split=SPLITS, source=[f"f{k}" for k in range(6)], subject=subjects
    )
    reading = Reading(layout="l", summary="a toy", files=[], chunks=lambda: iter([chunk]))
    return write_store(folder, CARD, reading, CARD.resolve(params or {}), notes)


def rewrite(path: Path, change) -> None:
    """Change a file's bytes in place, and put its time of change back."""
    times = path.stat()
    path.write_bytes(change(path.read_bytes()))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_mtime_ns == times.st_mtime_ns


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    """A store that has been opened once, and whose files count as settled at once."""
    monkeypatch.setattr(soundness, "SETTLED", 0)
    return Store.open(toy(tmp_path).path)


def refused(store: Store) -> FerBenchError:
    with pytest.raises(ChangedStoreError) as error:
        Store.open(store.path)
    return error.value


def test_an_edited_label_is_told_with_the_counts_it_changes(store):
    rewrite(store.path / "table.csv", lambda text: text.replace(b"0,0,x,", b"0,2,x,"))
    error = refused(store)
    assert error.what == "table.csv of 'toy' has changed since the store was prepared: its labels differ"
    assert error.hint == "x/a: 0 images in the table, 1 in the manifest; x/c: 2 images in the table, 1 in the manifest"
    assert error.where == str(store.path / "table.csv")


def test_labels_that_were_exchanged_are_told_though_the_counts_are_as_before(store):
    rewrite(store.path / "table.csv", lambda text: text.replace(b"0,0,x,", b"0,1,x,").replace(b"1,1,x,", b"1,0,x,"))
    assert "its labels differ" in refused(store).what
    assert refused(store).hint is None


def test_an_edited_split_is_told(store):
    rewrite(store.path / "table.csv", lambda text: text.replace(b"5,0,z,", b"5,0,x,"))
    assert "table.csv of 'toy' has changed since the store was prepared: its splits differ" in refused(store).what
    assert "z/a: 0 images in the table, 1 in the manifest" in refused(store).hint


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (b",p1,", b",p7,", "a column other than labels and splits differs"),
        (b"5,0,z", b"5,x,z", "its labels and splits can't be read"),
        (b"label", b"lebal", "its labels and splits can't be read"),
        (b"5,0,z", b"\xff,0,z", "its labels and splits can't be read"),
    ],
)
def test_other_edits_of_the_table_are_told(store, old, new, what):
    rewrite(store.path / "table.csv", lambda text: text.replace(old, new))
    assert refused(store).what == f"table.csv of 'toy' has changed since the store was prepared: {what}"


def test_zeroed_pixels_are_told(store):
    rewrite(store.path / "images.npy", lambda data: data[:-20] + bytes(20))
    assert refused(store).what.endswith("images.npy of 'toy' has changed since the store was prepared: its pixels"
                                        " differ from those that were prepared")  # fmt: skip


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"x", lambda d: b"", lambda d: b"x" + d[1:]])
def test_an_array_of_another_form_is_told(store, change):
    rewrite(store.path / "images.npy", change)
    assert refused(store).what.startswith("images.npy of 'toy' has changed")


def test_a_shape_in_the_header_that_fits_no_pixels_is_told(store):
    rewrite(store.path / "images.npy", lambda d: d.replace(b"(6, 1, 3, 4)", b"(6, 1, 4, 3)"))
    assert "its shape differs from the files" in refused(store).what


@pytest.mark.parametrize("name", ["images.npy", "table.csv"])
def test_a_missing_file_is_told(store, name):
    (store.path / name).unlink()
    assert refused(store).what == f"{name} of 'toy' is missing"


EDITS = {
    "fingerprint": lambda m: m.update(fingerprint="0" * 16),
    "classes": lambda m: m.update(classes=["c", "b", "a"]),
    "classes in both places": lambda m: (m.update(classes=["c", "b", "a"]), m["parts"].update(classes=m["classes"])),
    "labels": lambda m: m["parts"].update(labels=m["parts"]["splits"]),
    "labels and fingerprint": lambda m: (
        m["parts"].update(labels=m["parts"]["splits"]),
        m.update(fingerprint=soundness.fingerprint_of(m["parts"])),
    ),
    "counts": lambda m: m["counts"].update(x=[2, 0, 1]),
    "a split": lambda m: m["counts"].pop("z"),
    "shape": lambda m: m.update(shape=[5, 1, 3, 4]),
    "hash of the table": lambda m: m["sha256"].update({"table.csv": "0" * 64}),
    "hash of the images": lambda m: m["sha256"].update({"images.npy": "0" * 64}),
    "params": lambda m: m["params"].update(size=7),
    "sources": lambda m: m.update(sources=7),
    "hash of the sources": lambda m: m["sha256"].update({"sources.jsonl": "0" * 64}),
    "checks": lambda m: m["checks"].update(counts="match"),
    "parts of another kind": lambda m: m.update(parts=[]),
    "counts of another kind": lambda m: m.update(counts=7),
}


@pytest.mark.parametrize("edit", EDITS, ids=lambda name: name.replace(" ", "-"))
def test_an_edited_manifest_is_refused(store, edit):
    manifest = json.loads((store.path / "manifest.json").read_text())
    EDITS[edit](manifest)
    rewrite(store.path / "manifest.json", lambda _: json.dumps(manifest).encode())
    with pytest.raises(ChangedStoreError, match=r"has changed since the store was prepared"):
        Store.open(store.path)


def test_the_manifest_is_blamed_for_what_it_says_wrongly(store):
    manifest = json.loads((store.path / "manifest.json").read_text())
    manifest["counts"]["x"] = [2, 0, 1]
    (store.path / "manifest.json").write_text(json.dumps(manifest))
    assert refused(store).what == (
        "manifest.json of 'toy' has changed since the store was prepared: its counts differ from the files"
    )


def test_a_manifest_without_a_hash_of_itself_is_compared_all_the_same(store):
    manifest = json.loads((store.path / "manifest.json").read_text())
    del manifest["self"], manifest["given"]  # as an earlier version wrote it
    (store.path / "manifest.json").write_text(json.dumps(manifest))
    assert Store.open(store.path).fingerprint == store.fingerprint
    manifest["counts"]["z"] = [0, 1, 0]
    (store.path / "manifest.json").write_text(json.dumps(manifest))
    assert "its counts" in refused(store).what


@pytest.fixture
def reads(monkeypatch) -> list[str]:
    """The files that were measured."""
    seen: list[str] = []
    for name in ("measure_images", "measure_table"):
        measure = getattr(soundness, name)

        def watched(path, measure=measure):
            seen.append(path.name)
            return measure(path)

        monkeypatch.setattr(soundness, name, watched)
    return seen


def forget() -> None:
    """Be a new process."""
    soundness._MEASURED.clear()


def test_a_second_opening_reads_no_file(store, reads):
    forget()
    Store.open(store.path)
    assert reads == []


def test_what_was_just_prepared_is_known(tmp_path, monkeypatch, reads):
    monkeypatch.setattr(soundness, "SETTLED", 0)
    Store.open(toy(tmp_path).path)
    assert reads == []


def test_a_file_that_changed_moments_before_is_read_again(tmp_path, reads):
    path = toy(tmp_path).path  # settled only in two seconds: an edit at the same time of the clock would be missed
    for _ in range(2):
        forget()
        Store.open(path)
    assert reads == ["images.npy", "table.csv"] * 2


def test_a_file_that_was_touched_is_read_again_and_found_sound(store, reads):
    os.utime(store.path / "table.csv")
    forget()
    Store.open(store.path)
    Store.open(store.path)
    assert reads == ["table.csv"]


def test_a_copy_of_the_store_is_read_once(store, reads, tmp_path):
    shutil.copytree(store.path, tmp_path / "copy" / "toy")
    for _ in range(2):
        forget()
        Store.open(tmp_path / "copy" / "toy")
    assert reads == ["images.npy", "table.csv"]


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"images.npy": 3}', '{"images.npy": {"state": 1, "at": 5}}'])
def test_a_damaged_cache_is_replaced(store, text, reads):
    (store.path / soundness.CACHE).write_text(text)
    forget()
    Store.open(store.path)
    forget()
    Store.open(store.path)
    assert reads == ["images.npy", "table.csv"]


def test_where_nothing_can_be_written_one_process_reads_once(store, reads):
    (store.path / soundness.CACHE).unlink()
    (store.path / soundness.CACHE).mkdir()  # the tests' user may write everywhere, but not a file over a folder
    (store.path / soundness.CACHE / "x").touch()
    forget()
    for _ in range(3):
        Store.open(store.path)
    assert reads == ["images.npy", "table.csv"]


def test_a_store_that_is_exchanged_while_it_is_used_is_refused(store, tmp_path):
    toy(tmp_path, add=1)
    with pytest.raises(ChangedStoreError, match="changed while it was in use"):
        store.images(np.arange(2))
    with pytest.raises(ChangedStoreError, match="changed while it was in use"):
        store.columns("label")


def test_a_store_that_is_prepared_again_while_it_is_used_goes_on(store, tmp_path):
    toy(tmp_path, note="the same data")
    assert store.images(np.array([1]))[0, 0, 0].tolist() == [12, 13, 14, 15]
    assert store.columns("label")["label"].tolist() == LABELS


def test_a_process_at_work_refuses_a_store_that_is_not_the_one_its_driver_opened(store, tmp_path):
    import torch

    from fer_bench.runs.worker import Order

    facts = {"path": str(store.path), "fingerprint": store.fingerprint, "states": dict(store.states)}
    given = {"store": facts, "shape": store.shape, "runtime": {"images": "memory"}}
    order = Order(given=given, arrays={}, line=None)
    rows = {"train": np.array([1])}
    assert order.images(rows, torch.device("cpu"))["train"].flatten().tolist() == list(range(12, 24))
    toy(tmp_path, add=1)
    with pytest.raises(ChangedStoreError, match="changed while it was in use"):
        order.images(rows, torch.device("cpu"))


def test_the_next_command_names_source_parameters_and_home(tmp_path, monkeypatch):
    (tmp_path / "my faces").mkdir()
    store = toy(tmp_path / "data", params={"subject": r"^(s\d+)"}, **{"from": str(tmp_path / "my faces")})
    command = prepare_command(store.path, store.manifest)
    given = ["--from", str(tmp_path / "my faces"), "--dataset-set", r"subject=^(s\d+)", "--home", str(tmp_path)]
    assert shlex.split(command) == ["fer-bench", "data", "prepare", "toy", *given]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my faces").rmdir()
    store = dataclasses.replace(store, manifest={**store.manifest, "given": {}})
    assert prepare_command(store.path, store.manifest) == "fer-bench data prepare toy --from PATH"
    assert prepare_command(store.path, {"from": None}) == "fer-bench data prepare toy"


def run(*arguments: str, home: Path) -> FerBenchError | str:
    """A command's output, or the error that it ends with."""
    result = CliRunner().invoke(cli, [*arguments, "--home", str(home)])
    if isinstance(result.exception, FerBenchError):
        return result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_every_command_that_reads_data_refuses_them_and_the_command_it_prints_mends_them(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(16):
        folder = tmp_path / "faces" / ("calm", "cross")[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12), dtype=np.uint8)).save(folder / f"p{k // 4}_{k}.png")
    home, subject = tmp_path / "home", ["--dataset-set", r"subject=^(p\d+)"]
    run("data", "prepare", "folder:lab", "--from", str(tmp_path / "faces"), *subject, home=home)
    sound = Store.open(Home(home).store("folder:lab"))
    edited = (sound.path / "table.csv").read_text().replace("\n3,0,", "\n3,1,")
    (sound.path / "table.csv").write_text(edited)

    commands = (
        ("data", "check", "folder:lab"),
        ("data", "stats", "folder:lab"),
        ("data", "show", "folder:lab", "--out", str(tmp_path / "sheet.png")),
        ("run", "baseline_focal", "--dataset", "folder:lab", "--protocol", "random60-20-20", "--no-track"),
    )
    for command in commands:
        error = run(*command, home=home)
        assert isinstance(error, ChangedStoreError), (command, error)
        assert error.what.startswith("table.csv of 'folder:lab' has changed since the store was prepared: its labels")
    assert (sound.path / "table.csv").read_text() == edited  # nobody's edit is lost before it is asked for
    assert not (home / "data" / "splits").exists()

    program, *arguments = shlex.split(error.next)
    assert program == "fer-bench"
    result = CliRunner().invoke(cli, arguments)
    assert "has changed since the store was prepared" in result.output
    assert Store.open(sound.path).fingerprint == sound.fingerprint
    assert Store.open(sound.path).columns("subject")["subject"].tolist() == sound.columns("subject")["subject"].tolist()
    assert "folder:lab" in run("data", "stats", "folder:lab", home=home)
