"""Imbalance profiles: exact counts, nested subsets, and errors whose proposals are accepted."""

from __future__ import annotations

import math
import re
import shlex
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fer_bench.data.imbalance import NATURAL, Profile, describe, pick, sizes, with_options
from fer_bench.errors import SpecError, UnknownNameError

FACES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
TRAINING = (3995, 436, 4097, 7215, 4830, 3171, 4965)  # of FER2013, in label order

quick = settings(max_examples=60, deadline=None)
ratios = st.integers(10, 2000).map(lambda tenths: tenths / 10)


def names(count: int) -> list[str]:
    return [f"c{k}" for k in range(count)]


def counted(text: str, available, classes=None) -> list[int]:
    return sizes(Profile.parse(text), available, classes or names(len(available))).tolist()


def exponential(head: int, ratio: float, classes: int) -> list[int]:
    """Counts by the formula, without roots: n is at most x + 1/2 just if (2n - 1)^(C-1) r^k is at most (2h)^(C-1)."""
    exact, power = Fraction(str(ratio)), classes - 1

    def enough(n: int, k: int) -> bool:
        return Fraction(2 * n - 1) ** power * exact**k <= Fraction(2 * head) ** power

    near = [max(1, math.floor(head * ratio ** (-k / power)) - 1) for k in range(classes)]
    return [max([n, *(m for m in range(n, n + 4) if enough(m, k))]) for k, n in enumerate(near)]


def apportioned(weights: list[Fraction], total: int) -> list[int]:
    """Largest remainders in fractions; classes whose share is below one are given one, and the rest is shared anew."""
    lifted: set[int] = set()
    while True:
        pool = sum(w for k, w in enumerate(weights) if k not in lifted)
        share = {k: w * (total - len(lifted)) / pool for k, w in enumerate(weights) if k not in lifted}
        below = {k for k, q in share.items() if q < 1}
        if not below:
            break
        lifted |= below
    counts = [1 if k in lifted else math.floor(share[k]) for k in range(len(weights))]
    for _ in range(total - sum(counts)):
        k = max(share, key=lambda k: (share[k] - counts[k], -k))
        counts[k] += 1
    return counts


@st.composite
def feasible_folds(draw):
    """Available images per class, shuffled, for which exp:RATIO fits with the whole head; and that ratio."""
    head, ratio, classes = draw(st.integers(1, 60)), draw(ratios), draw(st.integers(2, 6))
    spare = draw(st.lists(st.integers(0, 20), min_size=classes, max_size=classes))
    enough = [min(head, n + s) for n, s in zip(exponential(head, ratio, classes), spare, strict=True)]
    return draw(st.permutations(enough)), ratio


def shuffled_labels(available) -> np.ndarray:
    labels = np.repeat(np.arange(len(available)), available)
    return np.random.default_rng(3).permutation(labels)


# ---- counts ----


def test_the_long_tailed_cifar_of_ldam_comes_out_rounded():
    # 5000 * 100 ** (-k / 9) = 5000, 2997.4, 1796.9, 1077.2, 645.8, 387.1, 232.1, 139.1, 83.4, 50: LDAM-DRW's code cuts
    # the decimals off (1796 and 645 images), here they are rounded (1797 and 646)
    assert counted("exp:100", [5000] * 10) == [5000, 2997, 1797, 1077, 646, 387, 232, 139, 83, 50]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # in the order happy, neutral, sad, fear, angry, surprise, disgust
        ("exp:50", (7215, 3759, 1958, 1020, 532, 277, 144)),  # 7215 / 50 = 144.3
        ("exp:100", (7215, 3349, 1554, 722, 335, 155, 72)),  # 7215 / 10 = 721.5, half goes up
        ("step:10", (4097, 4097, 4097, 4097, 410, 410, 410)),  # fear is the smallest of the four frequent ones
        ("step:20:0.2", (3171, 3171, 3171, 3171, 3171, 3171, 159)),  # one class of seven; 3171 / 20 = 158.55
        ("balanced:436", (436,) * 7),
        ("natural", (7215, 4965, 4830, 4097, 3995, 3171, 436)),
    ],
)
def test_counts_of_fer2013(text, expected):
    by_frequency = ("happy", "neutral", "sad", "fear", "angry", "surprise", "disgust")
    result = dict(zip(FACES, counted(text, TRAINING, FACES), strict=True))
    assert tuple(result[name] for name in by_frequency) == expected


@quick
@given(head=st.integers(1, 5000), ratio=ratios, classes=st.integers(2, 9))
def test_exp_follows_its_formula_rounded_half_up(head, ratio, classes):
    expected = exponential(head, ratio, classes)
    assert counted(f"exp:{ratio}", [head] * classes) == expected
    assert counted(f"exp:{ratio},head={head}", [head + 5] * classes) == expected


@quick
@given(head=st.integers(1, 5000), ratio=ratios, classes=st.integers(2, 9), percent=st.integers(1, 99))
def test_step_follows_its_formula_rounded_half_up(head, ratio, classes, percent):
    rare = min(max(classes * percent // 100, 1), classes - 1)
    tail = max(1, math.floor(head / Fraction(str(ratio)) + Fraction(1, 2)))
    expected = [head] * (classes - rare) + [tail] * rare
    assert counted(f"step:{ratio}:{percent / 100},head={head}", [head + 5] * classes) == expected


def test_the_number_of_rare_classes_does_not_suffer_from_binary_fractions():
    assert 100 * 0.29 < 29
    assert counted("step:2:0.29", [10] * 100).count(5) == 29


@quick
@given(base=st.integers(1, 4), classes=st.integers(2, 6), extra=st.integers(0, 300))
def test_a_total_is_shared_by_largest_remainder(base, classes, extra):
    total = classes + extra
    weights = [Fraction(base) ** k for k in reversed(range(classes))]  # of the ratio base^(C-1), whose roots are whole
    result = counted(f"exp:{base ** (classes - 1)},total={total}", [total] * classes)
    assert result == apportioned(weights, total)


@quick
@given(ratio=ratios, classes=st.integers(2, 6), extra=st.integers(0, 300), percent=st.integers(1, 99))
def test_a_total_of_a_step_is_shared_by_largest_remainder(ratio, classes, extra, percent):
    total, rare = classes + extra, min(max(classes * percent // 100, 1), classes - 1)
    weights = [Fraction(str(ratio))] * (classes - rare) + [Fraction(1)] * rare
    result = counted(f"step:{ratio}:{percent / 100},total={total}", [total] * classes)
    assert result == apportioned(weights, total)


@quick
@given(ratio=ratios, classes=st.integers(2, 9), extra=st.integers(0, 1000), kind=st.sampled_from(["exp", "step"]))
def test_a_total_is_met_exactly_and_no_class_outgrows_the_one_before(ratio, classes, extra, kind):
    total = classes + extra
    result = counted(f"{kind}:{ratio},total={total}", [total] * classes)
    assert sum(result) == total
    assert result == sorted(result, reverse=True)
    assert result[-1] >= 1


def test_of_equal_remainders_the_class_nearer_to_the_head_wins():
    # six images at 1.4 to 1 are 3.5 and 2.5, though 1 / 1.4 has no end as a decimal
    assert counted("exp:1.4,total=6", [6, 6]) == [4, 2]
    assert counted("exp:1.4,total=6,order=c1>c0", [6, 6]) == [2, 4]
    assert counted("step:1:0.5,total=5", [9, 9, 9]) == [2, 2, 1]


def test_classes_stand_in_order_of_frequency_and_equal_ones_by_label():
    assert counted("exp:4,head=8", [10, 20, 30]) == [2, 4, 8]
    assert counted("exp:4,head=8", [30, 30, 30]) == [8, 4, 2]


def test_a_given_order_decides_which_class_is_the_head():
    assert counted("exp:4,order=c1>c2>c0", [10, 12, 30]) == [3, 12, 6]
    assert counted("step:3,order=c2>c0>c1", [12, 12, 30]) == [12, 4, 12]


@quick
@given(fold=feasible_folds(), larger=ratios)
def test_no_class_of_exp_grows_with_the_ratio_and_the_head_stays(fold, larger):
    available, ratio = fold
    before, after = (counted(f"exp:{r}", available) for r in (ratio, max(ratio, larger)))
    assert all(b >= a for b, a in zip(before, after, strict=True))
    assert max(before) == max(after) == max(available)


# ---- subsets ----


def test_images_are_taken_in_the_order_of_their_hashes():
    # for p in 0 1 2 3 4 5 6 7; do printf "k/$p" | b2sum; done     sorted by hash: 6 7 3 0 5 2 4 1
    labels, classes = np.array([0, 1, 0, 1, 0, 1, 0, 1]), ["a", "b"]
    assert pick(Profile.parse("balanced:1"), labels, classes, "k").tolist() == [6, 7]
    assert pick(Profile.parse("balanced:2"), labels, classes, "k").tolist() == [0, 3, 6, 7]
    assert pick(Profile.parse("exp:3,order=b>a,head=3"), labels, classes, "k").tolist() == [3, 5, 6, 7]


def test_another_key_takes_other_images():
    labels = np.zeros(200, np.int64)
    labels[100:] = 1
    one, other = (pick(Profile.parse("balanced:50"), labels, ["a", "b"], key).tolist() for key in ("x/0", "x/1"))
    assert len(one) == len(other) == 100
    assert one != other


def test_natural_is_every_image_and_every_count():
    assert pick(NATURAL, np.array([1, 0, 1]), ["a", "b"], "k").tolist() == [0, 1, 2]
    assert sizes(NATURAL, [1, 2], ["a", "b"]).tolist() == [1, 2]


@quick
@given(fold=feasible_folds(), larger=ratios)
def test_exp_subsets_have_their_counts_and_are_nested(fold, larger):
    available, ratio = fold
    labels, classes = shuffled_labels(available), names(len(available))
    subsets = []
    for profile in (Profile.parse(f"exp:{r}") for r in (ratio, max(ratio, larger))):
        rows = pick(profile, labels, classes, "toy/p/0")
        assert np.bincount(labels[rows], minlength=len(classes)).tolist() == counted(str(profile), available)
        assert (np.diff(rows) > 0).all()
        subsets.append(set(rows.tolist()))
    assert subsets[1] <= subsets[0]


@quick
@given(
    available=st.lists(st.integers(1, 40), min_size=2, max_size=6),
    smaller=ratios,
    larger=ratios,
    text=st.sampled_from(["exp:{},head={}", "step:{},head={}", "step:{}:0.2,head={}"]),
)
def test_subsets_with_one_head_are_nested_for_all_ratios(available, smaller, larger, text):
    labels, classes = shuffled_labels(available), names(len(available))
    smaller, larger = sorted((smaller, larger))
    inner, outer = (
        set(pick(Profile.parse(text.format(r, min(available))), labels, classes, "k").tolist())
        for r in (larger, smaller)
    )
    assert inner <= outer


@quick
@given(available=st.lists(st.integers(1, 40), min_size=2, max_size=6), extra=st.integers(0, 100), factor=ratios)
def test_step_subsets_are_nested_wherever_they_fit(available, extra, factor):
    smallest = math.ceil(max(available) / min(available))
    labels, classes = shuffled_labels(available), names(len(available))
    inner, outer = (
        set(pick(Profile.parse(f"step:{r}"), labels, classes, "k").tolist())
        for r in (round((smallest + extra) * factor, 1), smallest + extra)
    )
    assert inner <= outer


@quick
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.data())
def test_balanced_subsets_are_nested(available, data):
    labels, classes = shuffled_labels(available), names(len(available))
    more = data.draw(st.integers(1, min(available)))
    fewer = data.draw(st.integers(1, more))
    inner, outer = (pick(Profile.parse(f"balanced:{n}"), labels, classes, "k").tolist() for n in (fewer, more))
    assert set(inner) <= set(outer)
    assert (len(inner), len(outer)) == (fewer * len(classes), more * len(classes))


# ---- too few images ----


def fits(text: str, available: list[int]) -> bool:
    try:
        counted(text, available)
    except SpecError:
        return False
    return True


def proposals(error: SpecError) -> list[str]:
    """The profiles' texts, as a shell would pass them on."""
    assert error.hint
    return [shlex.split(result)[1] for result in re.findall(r"--imbalance (?:'[^']*'|\S+)", error.hint)]


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


# ---- text ----


numbers = st.decimals(1, 10**6, places=3).map(float)
class_names = st.lists(st.sampled_from(["happy", "a b", "über", "0", "x=y", "p:q"]), unique=True, max_size=6)


@st.composite
def profiles(draw):
    kind = draw(st.sampled_from(["natural", "exp", "step", "balanced"]))
    if kind == "natural":
        return NATURAL
    if kind == "balanced":
        return Profile(kind=kind, count=draw(st.integers(1, 10**9)))
    size = draw(st.sampled_from([None, "total", "head"]))
    more = {size: draw(st.integers(1, 10**9))} if size else {}
    if kind == "step":
        more["fraction"] = draw(st.floats(0, 1, exclude_min=True, exclude_max=True))
    return Profile(kind=kind, ratio=draw(numbers), order=tuple(draw(class_names)), **more)


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
