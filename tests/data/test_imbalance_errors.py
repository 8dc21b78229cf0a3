"""Imbalance profiles that do not fit, and how they are written."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fer_bench.data.imbalance import NATURAL, Profile, describe, sizes, with_options
from fer_bench.errors import SpecError, UnknownNameError
from tests.data.conftest import FACES, TRAINING, counted, fits, names, profiles, proposals, quick


def test_a_ratio_that_needs_more_images_than_there_are_is_an_error_with_a_way_out():
    with pytest.raises(SpecError) as caught:
        counted("exp:10", TRAINING, FACES)
    assert caught.value.what.endswith("training fold: the profile needs 722 of disgust (available: 436)")
    assert "exp:10" in str(caught.value.where)
    # 4364 / 10 = 436.4 and 4365 / 10 = 436.5; 7215 / 16.6 = 434.6 and 7215 / 16.5 = 437.3
    assert proposals(caught.value) == ["exp:10,head=4364", "exp:16.6"]


def test_all_classes_that_lack_images_are_named():
    with pytest.raises(SpecError, match=re.escape("needs 9 of c1 (available: 8), 9 of c0 (available: 5)")) as caught:
        counted("balanced:9", [5, 8, 9])
    assert proposals(caught.value) == ["balanced:5"]


def test_a_proposal_with_an_order_is_quoted_for_the_shell():
    with pytest.raises(SpecError, match="--imbalance 'exp:2,head=6,order=c0>c1' "):  # 7 / 2 would go up to 4
        counted("exp:2,head=9,order=c0>c1", [9, 3])


def test_a_class_without_images_has_no_way_out():
    with pytest.raises(SpecError, match="only the natural profile fits, because there are no images of c1"):
        counted("exp:5", [9, 0, 3])


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(
    available=st.lists(st.integers(1, 30), min_size=2, max_size=5),
    start=st.sampled_from(["exp:{}", "step:{}", "step:{}:0.9"]),
    ratio=st.integers(10, 120).map(lambda tenths: tenths / 10),
    option=st.sampled_from(["", ",head={}", ",total={}"]),
    ordered=st.booleans(),
    data=st.data(),
)
def test_proposals_are_accepted_and_are_the_nearest(available, start, ratio, option, ordered, data):
    kind, classes = start.format(ratio), len(available)
    order = f",order={'>'.join(data.draw(st.permutations(names(classes))))}" if ordered else ""
    text = kind + option.format(data.draw(st.integers(classes, 150))) + order
    assume(not fits(text, available))
    with pytest.raises(SpecError) as caught:
        counted(text, available)
    result = [Profile.parse(proposal) for proposal in proposals(caught.value)]
    assert [str(p) for p in result if not fits(str(p), available)] == []
    if option == ",total={}":
        assert [n for n in range(classes, 151) if fits(f"{kind},total={n}{order}", available)][-1] == result[0].total
        return
    assert [n for n in range(1, 151) if fits(f"{kind},head={n}{order}", available)][-1] == result[0].head
    assert len(result) == (1 if option else 2)
    if not option:
        assert result[1].ratio > ratio
        assert not fits(f"{start.format(round(result[1].ratio - 0.1, 1))}{order}", available)


def test_the_largest_total_is_found_where_a_larger_total_takes_an_image_from_a_class():
    # 6 : 6 : 2 shared by 10 is 4.3, 4.3, 1.4, so 4, 4, 2; shared by 11 it is 4.7, 4.7, 1.6, so 5, 5, 1
    assert counted("step:3,total=10", [9, 9, 9]) == [4, 4, 2]
    assert counted("step:3,total=11", [9, 9, 9]) == [5, 5, 1]
    with pytest.raises(SpecError) as caught:
        counted("step:3,total=99", [5, 5, 1])
    assert proposals(caught.value) == ["step:3,total=11"]


@quick
@given(profiles())
def test_the_canonical_text_reads_as_the_same_profile(profile):
    assert Profile.parse(str(profile)) == profile
    assert hash(Profile.parse(str(profile))) == hash(profile)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("exp:50.0", "exp:50"),
        (" exp : 016.50 , head = 007 ", "exp:16.5,head=7"),
        ("step:10:.5", "step:10"),
        ("step:10:0.30", "step:10:0.3"),
        ("step:1000000:0.00001", "step:1000000:0.00001"),
        ("exp:2,order=b > a,total=9", "exp:2,total=9,order=b>a"),
        ("balanced:100", "balanced:100"),
        ("natural", "natural"),
    ],
)
def test_every_way_to_write_a_profile_has_one_canonical_text(text, canonical):
    assert str(Profile.parse(text)) == canonical


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("natur", "did you mean 'natural'"),
        ("Exp:50", "did you mean 'exp'"),
        ("", "known imbalance profiles: balanced, exp, natural, step"),
        ("exp", "'exp' needs a ratio"),
        ("balanced", "'balanced' needs a count"),
        ("exp:", "ratio must be a number from 1 to 1000000, not ''"),
        ("exp:fifty", "not 'fifty'"),
        ("exp:nan", "not 'nan'"),
        ("exp:inf", "not 'inf'"),
        ("exp:1e3", "not '1e3'"),
        ("exp:-5", "not '-5'"),
        ("exp:٣", "not '٣'"),
        ("exp:0.99", "ratio must be a number from 1 to 1000000, not 0.99"),
        ("exp:1000000.1", "not 1000000.1"),
        pytest.param("exp:" + "9" * 400, "not inf", id="400 digits"),
        ("exp:5:0.5", "'exp:5:0.5' has too many parts"),
        ("natural:2", "has too many parts"),
        ("step:5:0", "fraction must be a number between 0 and 1, both excluded, not 0.0"),
        ("step:5:1", "fraction must be a number between 0 and 1, both excluded, not 1.0"),
        ("balanced:0", "count must be a whole number from 1 to 1000000000, not 0"),
        ("balanced:2.5", "not '2.5'"),
        pytest.param("balanced:" + "9" * 5000, "count must be a whole number", id="5000 digits"),
        ("exp:5,total=0", "total must be a whole number from 1 to 1000000000, not 0"),
        ("exp:5,head=1000000001", "not 1000000001"),
        ("exp:5,head=", "head must be a whole number from 1 to 1000000000, not ''"),
        ("exp:5,totl=9", "did you mean 'total'"),
        ("exp:5,ratio=9", "unknown profile option 'ratio'"),
        ("exp:5,9", "'9' is not name=value"),
        ("exp:5,", "'' is not name=value"),
        ("exp:5,total=9,total=9", "total is given twice"),
        ("exp:5,total=9,head=5", "give total or head, not both"),
        ("natural,total=9", "'natural' does not take total"),
        ("balanced:9,head=9", "'balanced' does not take head"),
        ("balanced:9,order=a>b", "'balanced' does not take order"),
        ("exp:5,order=a>b>a", "class 'a' appears twice in the order"),
        ("exp:5,order=a>>b", "'' is not a valid class name in an order"),
    ],
)
def test_a_malformed_profile_says_what_is_wrong_where_and_what_would_be_accepted(text, message):
    with pytest.raises((SpecError, UnknownNameError), match=re.escape(message)) as caught:
        Profile.parse(text)
    assert str(caught.value.where).startswith("imbalance profile '")
    assert caught.value.hint


def test_a_profile_made_by_hand_is_checked_like_a_text():
    for wrong in (
        {"kind": "exp", "ratio": float("nan")},
        {"kind": "exp", "ratio": 5, "fraction": 0.3},
        {"kind": "exp", "ratio": 5, "count": 3},
        {"kind": "exp", "ratio": 5, "head": 2.5},
        {"kind": "exp", "ratio": 5, "order": ("a,b", "c")},
        {"kind": "exp", "ratio": 5, "order": (" a", "c")},
    ):
        with pytest.raises(SpecError):
            Profile(**wrong)
    with pytest.raises(UnknownNameError, match="did you mean 'step'"):
        Profile(kind="steps")


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("c0>c1>d2", "unknown class 'd2'"),
        ("c0>c2", "the order lacks c1"),
        ("c0>c1>c2>other", "unknown class 'other'"),
    ],
)
def test_an_order_names_every_class_of_the_data_set_once(order, message):
    with pytest.raises((SpecError, UnknownNameError), match=message):
        counted(f"exp:5,order={order}", [9, 9, 9])


def test_a_total_below_the_number_of_classes_is_refused():
    with pytest.raises(SpecError, match="the total must be at least the number of classes, 3 here"):
        counted("exp:5,total=2", [9, 9, 9])


def test_one_class_alone_has_no_imbalance():
    with pytest.raises(SpecError, match="needs at least two classes"):
        counted("step:5", [9])


def test_options_given_apart_become_part_of_the_text():
    assert with_options("exp:50.0") == "exp:50"
    assert with_options("exp:50", total=5000) == "exp:50,total=5000"
    assert with_options("step:5,head=9", order="b, a") == "step:5,head=9,order=b>a"
    assert with_options("exp:50,total=5000,order=a>b", total=5000, order="a,b") == "exp:50,total=5000,order=a>b"


@pytest.mark.parametrize(
    ("text", "given", "message"),
    [
        ("exp:50,total=10", {"total": 20}, "total is given twice"),
        ("exp:50,order=a>b", {"order": "b,a"}, "order is given twice"),
        ("exp:50,head=10", {"total": 20}, "give total or head, not both"),
        ("exp:50", {"total": 0}, "total must be a whole number"),
        ("exp:50", {"order": "a,,b"}, "is not a valid class name in an order"),
        ("exp:50", {"order": ""}, "is not a valid class name in an order"),
        ("natural", {"total": 20}, "'natural' does not take total"),
        ("balanced:5", {"order": "a,b"}, "'balanced' does not take order"),
    ],
)
def test_options_that_contradict_the_profile_are_refused(text, given, message):
    with pytest.raises(SpecError, match=message):
        with_options(text, **given)


@pytest.mark.parametrize(
    "line",
    [
        "exp:50: 7215 happy ... 144 disgust, 14905 images, ratio 50.1",
        "natural: 7215 happy ... 436 disgust, 28709 images, ratio 16.5",
        "balanced:400: 400 of each class, 2800 images",
    ],
)
def test_a_profile_is_told_in_one_line(line):
    profile = Profile.parse(line.split(": ")[0])
    assert describe(profile, sizes(profile, TRAINING, FACES), FACES) == line


def test_a_fold_that_lacks_a_class_is_told_without_a_ratio():
    assert describe(NATURAL, [3, 0], ["a", "b"]) == "natural: 3 a ... 0 b, 3 images, no ratio"


def test_profiles_import_no_torch():
    program = (
        "import sys, fer_bench.data.imbalance; print([m for m in ('torch', 'pandas', 'scipy') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout == "[]\n"
