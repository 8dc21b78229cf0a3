"""Other labels in the ledger: written whole, read back, and refused where they have changed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from fer_bench.base.files import sha256_file
from fer_bench.errors import LedgerError
from fer_bench.record.ledger import Ledger
from fer_bench.record.relabelled import (
    Relabelled,
    is_current,
    labels_folder,
    read_relabelled,
    relabelled_names,
    write_relabelled,
)

FOUND = Relabelled(
    name="second",
    title="Second",
    rule="by vote",
    classes=("angry", "contempt"),
    answers=("angry", "contempt", "unknown"),
    rows=np.array([0, 2, 40_000]),
    labels=np.array([1, -1, 0]),
    votes=np.array([[1, 9, 0], [3, 3, 4], [10, 0, 0]]),
    images=50_000,
    source={"fingerprint": "ab", "table": "cd"},
)


def test_what_is_written_is_read_back(tmp_path):
    folder = write_relabelled(tmp_path, "f00d", FOUND)
    again = read_relabelled(tmp_path, "f00d", "second")
    for name in ("name", "title", "rule", "classes", "answers", "images", "source"):
        assert getattr(again, name) == getattr(FOUND, name)
    for name in ("rows", "labels", "votes"):
        assert getattr(again, name).tolist() == getattr(FOUND, name).tolist()
        assert getattr(again, name).dtype == np.int64
    assert relabelled_names(tmp_path, "f00d") == ["second"]
    assert folder.is_relative_to(labels_folder(tmp_path))


def test_equal_labels_give_equal_bytes(tmp_path):
    one, other = (write_relabelled(tmp_path / k, "f00d", FOUND) for k in "ab")
    assert [sha256_file(p) for p in sorted(one.iterdir())] == [sha256_file(p) for p in sorted(other.iterdir())]


def test_labels_belong_to_one_state_of_the_data(tmp_path):
    write_relabelled(tmp_path, "f00d", FOUND)
    assert relabelled_names(tmp_path, "beef") == []
    with pytest.raises(LedgerError, match="can't be read") as error:
        read_relabelled(tmp_path, "beef", "second")
    assert error.value.next == "fer-bench relabel --from second"


def test_labels_are_current_until_their_source_changes(tmp_path):
    assert not is_current(tmp_path, "f00d", "second", FOUND.source)
    folder = write_relabelled(tmp_path, "f00d", FOUND)
    assert is_current(tmp_path, "f00d", "second", FOUND.source)
    assert not is_current(tmp_path, "f00d", "second", {**FOUND.source, "table": "other votes"})
    (folder / "votes.npy").unlink()
    assert not is_current(tmp_path, "f00d", "second", FOUND.source)


def test_labels_are_no_run_and_no_study(tmp_path):
    write_relabelled(tmp_path, "f00d", FOUND)
    assert Ledger(tmp_path).runs() == []
    assert Ledger(tmp_path).studies() == []


def edit(**entries):
    def do(folder):
        about = json.loads((folder / "about.json").read_text())
        (folder / "about.json").write_text(json.dumps({**about, **entries}))

    return do


def rewrite(**arrays):
    """Arrays that do not fit, with the hashes that they have."""

    def do(folder):
        write_relabelled(folder.parents[2], "f00d", replace(FOUND, **arrays))

    return do


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "labels.npy").write_bytes((folder / "rows.npy").read_bytes()),
        lambda folder: (folder / "rows.npy").unlink(),
        lambda folder: (folder / "about.json").write_text("[1]"),
        lambda folder: (folder / "about.json").write_text("[" * 100_000),
        edit(classes=[1, 2]),
        edit(format=9),
        edit(sha256=None),
        edit(source=3),
        rewrite(labels=np.array([0, 1])),
        rewrite(labels=np.array([0, 2, 0])),
        rewrite(labels=np.array([-2, 0, 0])),
        rewrite(rows=np.array([2, 0, 3])),
        rewrite(votes=np.array([[1, 9, 0], [3, 3, 4], [10, 0, -1]])),
        rewrite(votes=np.array([[1, 9], [3, 3], [10, 0]])),
    ],
)
def test_what_has_changed_or_does_not_fit_is_refused(tmp_path, damage):
    damage(write_relabelled(tmp_path, "f00d", FOUND))
    with pytest.raises(LedgerError, match="the labels of 'second' can't be read"):
        read_relabelled(tmp_path, "f00d", "second")


def test_a_link_is_not_followed(tmp_path):
    folder = write_relabelled(tmp_path / "ledger", "f00d", FOUND)
    (folder / "votes.npy").rename(tmp_path / "elsewhere.npy")
    (folder / "votes.npy").symlink_to(tmp_path / "elsewhere.npy")
    with pytest.raises(LedgerError, match="has changed"):
        read_relabelled(tmp_path / "ledger", "f00d", "second")


@pytest.mark.parametrize(("fingerprint", "name"), [("../../x", "second"), ("f00d", "../second"), ("f00d", "")])
def test_names_can_not_lead_out_of_the_ledger(tmp_path, fingerprint, name):
    with pytest.raises(LedgerError):
        read_relabelled(tmp_path, fingerprint, name)
