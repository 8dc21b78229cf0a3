"""Records that travel: whole or not at all, in the place of what an earlier attempt left."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from fer_bench.errors import LedgerError
from fer_bench.record.ledger import Ledger, RunWriter
from fer_bench.record.travel import install, install_unfinished, pack

RUN = "0123456789abcdef"


@pytest.fixture
def sent(tmp_path: Path) -> dict[str, np.ndarray]:
    """The files of a small finished record of another home."""
    writer = Ledger(tmp_path / "there").writer(RUN)
    writer.start()
    with writer.locked():
        writer.put("spec", {"run_id": RUN, "label": "a method"})
        writer.put("test_rows", np.arange(5))
        writer.put("timing", {"total_seconds": 1.5})
        writer.finish()
    return pack(writer)


@pytest.fixture
def here(tmp_path: Path) -> RunWriter:
    """The same run in this home, as a kill left it."""
    writer = Ledger(tmp_path / "here").writer(RUN)
    writer.start()
    writer.put("test_labels", np.zeros(2))
    (writer.path / ".half.json.part").write_text("{")
    (writer.work / "checkpoint.pt").write_bytes(b"old")
    writer.fail(ValueError("an earlier failure"))
    return writer


def test_a_record_arrives_as_it_was_sent_and_nothing_else_is_left(sent, here: RunWriter, tmp_path: Path):
    assert sorted(sent) == ["done.json", "spec.json", "test_rows.npy", "timing.json"]
    with here.locked():
        record = install(here, sent)
    record.verify()
    assert record.status == "finished"
    assert record.array("test_rows").tolist() == [0, 1, 2, 3, 4]
    assert sorted(os.listdir(record.path)) == sorted([*sent, "lock"])
    for name, content in sent.items():
        assert (record.path / name).read_bytes() == (tmp_path / "there" / RUN / name).read_bytes() == content.tobytes()
    assert os.listdir(here.path.parent) == [RUN]


def damaged(files: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**files, "test_rows.npy": files["test_rows.npy"][::-1]}


def cut(files: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: content for name, content in files.items() if name != "test_rows.npy"}


def unfinished(files: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: content for name, content in files.items() if name != "done.json"}


def outside(files: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**files, "../elsewhere.json": files["timing.json"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damaged, "test_rows.npy has changed since the run"),
        (cut, "has lost test_rows.npy"),
        (unfinished, f"not a finished record of run {RUN}"),
        (outside, "'../elsewhere.json' can't be the name of a record's file"),
    ],
)
def test_what_is_not_whole_is_refused_and_changes_nothing(sent, here: RunWriter, change, message):
    before = sorted(os.listdir(here.path))
    with pytest.raises(LedgerError, match=message):
        install(here, change(sent))
    assert sorted(os.listdir(here.path)) == before
    assert os.listdir(here.path.parent) == [RUN]


def test_the_record_of_another_run_is_refused(sent, tmp_path: Path):
    other = Ledger(tmp_path / "here").writer("f" * 16)
    other.start()
    with pytest.raises(LedgerError, match="not a finished record of run ffff"):
        install(other, sent)


def test_a_kill_before_the_last_file_leaves_an_unfinished_run(sent, here: RunWriter, monkeypatch):
    replace = os.replace

    def die_at_the_mark(old, new):
        if os.path.basename(new) == "done.json" and Path(new).parent == here.path:
            raise KeyboardInterrupt
        replace(old, new)

    monkeypatch.setattr(os, "replace", die_at_the_mark)
    with pytest.raises(KeyboardInterrupt):
        install(here, sent)
    assert here.status == "unfinished"
    assert here.has("test_rows.npy")
    monkeypatch.undo()
    assert install(here, sent).status == "finished"


def test_what_a_failed_attempt_left_arrives_without_a_mark(sent, here: RunWriter):
    install_unfinished(here, sent)
    here.fail(ValueError("a later failure"))
    assert here.status == "failed"
    assert here.json("spec")["label"] == "a method"
    assert "a later failure" in here.json("failed")["message"]
    assert "failed.json" not in pack(here)
