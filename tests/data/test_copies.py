"""Copies: what a test image has among other images, and which images belong together."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fer_bench.data.copies import Copies, copies_among, first_of_each, joined, load_copies, save_copies

# Rows 0 to 3 train, 4 and 5 validate, 6 to 11 are the test. Rows 0, 6 and 7 are identical; row 1 shows the photograph
# of 8; row 2 is identical to 9, and shows the photograph of 3; 4 is identical to 10; 5 and 11 have no copy.
EXACT = np.array([0, 1, 2, 3, 4, 5, 0, 0, 8, 2, 4, 11])
NEAR = np.array([0, 1, 2, 2, 4, 5, 0, 0, 1, 2, 4, 11])
LABEL = np.array([1, 1, 0, 2, 0, 0, 1, 2, 2, 0, 0, 0])
TEST = np.arange(6, 12)


def among(others, copies=None, rows=TEST):
    copies = copies or Copies(EXACT, NEAR)
    return copies_among(copies, rows, LABEL[rows], np.array(others), LABEL[others]).tolist()


def test_what_each_test_image_has_in_training():
    # 6: exact, same label. 7: exact, label 2 against 1. 8: near, label 2 against 1. 9: exact, same label; the near one,
    # row 3, has another one, which does not count beside an exact copy. 10 and 11: nothing.
    assert among([0, 1, 2, 3]) == [2, 2 + 4, 1 + 4, 2, 0, 0]
    assert among([4, 5]) == [0, 0, 0, 0, 2, 0]


def test_a_thinned_training_set_holds_fewer_copies():
    assert among([1, 3]) == [0, 0, 5, 5, 0, 0]  # without rows 0 and 2; row 3 is a near copy of 9, with another label


def test_one_copy_with_another_label_among_several_is_told():
    assert among([7, 0], rows=np.array([6])) == [2 + 4]
    assert among([0], rows=np.array([6])) == [2]


def test_an_image_is_no_copy_of_itself():
    """Where validation is the test, every image is among the others."""
    assert among(TEST) == [6, 6, 0, 0, 0, 0]  # 6 and 7 are identical and differ in label
    assert among([6], rows=np.array([6])) == [0]


def test_no_rows_have_no_copies():
    assert copies_among(Copies(EXACT, NEAR), TEST, LABEL[TEST], np.empty(0, int), np.empty(0, int)).tolist() == [0] * 6


def test_groups_of_either_relation_are_joined_through_others():
    people = np.array([0, 0, 1, 1, 2, 3])
    copies = np.array([0, 1, 2, 0, 4, 4])  # rows 0 and 3 are copies, and so are 4 and 5
    groups = joined(people, copies)
    assert [set(np.flatnonzero(groups == g).tolist()) for g in dict.fromkeys(groups.tolist())] == [{0, 1, 2, 3}, {4, 5}]


def test_a_group_is_numbered_by_its_first_row():
    assert first_of_each(np.array([7, 3, 7, 3, 9])).tolist() == [0, 1, 0, 1, 4]


def test_copies_are_kept_in_a_file(tmp_path):
    save_copies(tmp_path, Copies(EXACT, NEAR))
    kept = load_copies(tmp_path, EXACT)
    # by hand: rows 0, 6 and 7; 1 and 8; 2, 3 and 9; 4 and 10
    assert kept.near.tolist() == [0, 1, 2, 2, 4, 5, 0, 0, 1, 2, 4, 11]
    assert kept.exact.tolist() == EXACT.tolist()
    assert kept.facts == {"near": True, "reason": ""}
    save_copies(tmp_path, Copies(EXACT, EXACT, "too many images"))
    assert load_copies(tmp_path, EXACT).facts == {"near": False, "reason": "too many images"}


def edited(content):
    content["groups"].append([5, 11])


def emptied(content):
    content.clear()


@pytest.mark.parametrize("change", [edited, emptied])
def test_a_file_that_was_edited_is_not_used(change, tmp_path):
    path = save_copies(tmp_path, Copies(EXACT, NEAR))
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    assert load_copies(tmp_path, EXACT) is None


def test_a_file_of_another_store_or_none_is_not_used(tmp_path):
    assert load_copies(tmp_path, EXACT) is None
    path = save_copies(tmp_path, Copies(EXACT, NEAR))
    assert load_copies(tmp_path, EXACT[:11]) is None
    other = EXACT.copy()
    other[11] = 5  # rows 5 and 11 are identical here, and the file keeps them apart
    assert load_copies(tmp_path, other) is None
    path.write_text("[1, 2")
    assert load_copies(tmp_path, EXACT) is None
