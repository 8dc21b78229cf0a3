"""The clean manifest: which rows go, which stay, and a file that is the same each time."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_bench import DataError
from fer_bench.data.clean_manifest import conflicting, grouped, has_clean, load_clean, rows_to_drop, save_clean


def drop(near, labels=None, *, exact=None, flat=(), rank=None):
    n = len(near)
    mask = np.zeros(n, dtype=bool)
    mask[list(flat)] = True
    near = np.asarray(near)
    return rows_to_drop(
        mask,
        np.arange(n) if exact is None else np.asarray(exact),
        near,
        np.zeros(n, int) if labels is None else np.asarray(labels),
        np.zeros(n, int) if rank is None else np.asarray(rank),
    )


def test_of_copies_the_first_row_is_kept():
    assert drop([0, 1, 0, 0], exact=[0, 1, 0, 2]) == [(2, "duplicate of row 0", 0), (3, "near-duplicate of row 0", 0)]


def test_of_copies_the_row_of_the_lowest_rank_is_kept():
    assert drop([0, 0, 0], rank=[2, 0, 0]) == [(0, "near-duplicate of row 1", 1), (2, "near-duplicate of row 1", 1)]


def test_all_copies_with_conflicting_labels_go():
    assert drop([0, 0, 1, 0], labels=[4, 4, 5, 6]) == [(k, "conflicting labels", None) for k in (0, 1, 3)]


def test_a_missing_label_conflicts_with_nothing():
    assert drop([0, 0], labels=[-1, 3]) == [(1, "near-duplicate of row 0", 0)]
    assert not conflicting(np.array([-1, 2, 2]))
    assert conflicting(np.array([-1, 2, 0]))


def test_flat_images_go_as_constant_whatever_their_labels():
    assert drop([0, 0, 2], labels=[1, 2, 0], flat=[0, 1]) == [(0, "constant", None), (1, "constant", None)]


def test_single_images_stay():
    assert drop([3, 1, 2]) == []


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 2), st.integers(0, 3), st.booleans()), max_size=30))
def test_every_kept_row_stays_and_each_row_is_named_once(rows):
    near, labels, rank, flat = (np.array([r[k] for r in rows]) for k in range(4))
    dropped = drop(near, labels, flat=np.flatnonzero(flat), rank=rank)
    gone = [row for row, _, _ in dropped]
    assert gone == sorted(set(gone))
    assert not {kept for _, _, kept in dropped if kept is not None} & set(gone)
    stay = np.setdiff1d(np.arange(len(rows)), gone)
    assert len(set(near[stay].tolist())) == len(stay)


def test_groups_come_by_their_first_row_with_rows_ascending():
    groups = grouped(np.array([5, 1, 5, 9, 1, 5]))
    assert [g.tolist() for g in groups] == [[0, 2, 5], [1, 4]]
    assert [g.tolist() for g in grouped(np.array([5, 1, 5, 9, 1, 5]), np.array([0, 1, 1, 1, 1, 0], bool))] == [[1, 4]]
    assert grouped(np.empty(0, int)) == []


def test_file_is_read_as_it_was_written(tmp_path):
    path = save_clean(tmp_path, [(7, "near-duplicate of row 2", 2), (3, "constant", None)])
    text = "row,reason,kept\n3,constant,\n7,near-duplicate of row 2,2\n"
    assert path.read_text() == text
    clean = load_clean(tmp_path)
    assert clean.rows.tolist() == [3, 7]
    assert clean.rows.dtype == np.int64
    assert clean.reasons == ("constant", "near-duplicate of row 2")
    assert clean.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_nothing_to_drop_is_a_manifest_too(tmp_path):
    save_clean(tmp_path, [])
    assert load_clean(tmp_path).rows.tolist() == []


def test_missing_manifest_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(DataError, match=r"(?s)no clean manifest.*fer-bench data check my-set"):
        load_clean(tmp_path / "my-set-0123456789abcdef")


def test_an_edited_manifest_is_refused_and_the_doctors_own_is_taken_again(tmp_path):
    path = save_clean(tmp_path / "toy-0123", [(3, "constant", None)])
    sound = path.read_text()
    path.write_text(sound.replace("3", "4"))
    with pytest.raises(DataError, match=r"(?s)has changed since the doctor wrote it.*fer-bench data check toy"):
        load_clean(path.parent)
    path.write_text(sound)
    assert load_clean(path.parent).rows.tolist() == [3]


def test_the_manifest_of_another_state_of_the_data_is_refused(tmp_path):
    path = save_clean(tmp_path / "toy-0123", [(3, "constant", None)])
    path.parent.rename(tmp_path / "toy-4567")
    with pytest.raises(DataError, match="belongs to another version of the data, toy-0123"):
        load_clean(tmp_path / "toy-4567")


def test_a_manifest_without_its_hash_counts_as_none(tmp_path):
    save_clean(tmp_path, [(3, "constant", None)])
    assert has_clean(tmp_path)
    (tmp_path / "clean.json").unlink()
    assert not has_clean(tmp_path)
    with pytest.raises(DataError, match="has no clean manifest yet"):
        load_clean(tmp_path)


@pytest.mark.parametrize("text", ["", "row,why\n1,2\n", "row,reason,kept\nx,constant,\n"])
def test_damaged_manifest_is_refused(tmp_path, text):
    folder = tmp_path / "toy-0123"
    folder.mkdir()
    (folder / "clean.csv").write_text(text)
    proof = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "folder": "toy-0123"}
    (folder / "clean.json").write_text(json.dumps(proof))
    with pytest.raises(DataError, match=r"(?s)fer-bench data check toy"):
        load_clean(folder)
