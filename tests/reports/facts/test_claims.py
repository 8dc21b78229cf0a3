"""What a study claims: one family, three seeds, the agreement of verdicts with intervals and p-values, and power."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from scipy import stats as scipy_stats

from fer_bench.record.ledger import Ledger, RunRecord
from fer_bench.reports.facts import answer
from fer_bench.reports.facts.minority import detectable
from fer_bench.reports.facts.numbers import Numbers, compute, family_of
from fer_bench.reports.facts.records import MethodRuns, StudyData, load_study
from fer_bench.reports.facts.runs import Run
from fer_bench.reports.facts.verdicts import Verdict
from fer_bench.reports.render.blocks import TableBlock
from fer_bench.reports.sections import Context, minority

TINY = Path(__file__).parents[3] / "docs" / "results" / "fer2013-tiny" / "ledger"
NAMES = ("angry", "disgust", "fear", "happy")
TRAIN, TEST = (300, 40, 60, 900), (50, 20, 25, 60)  # the tail is fear and disgust


def study_of(predictions: dict[str, np.ndarray], labels: np.ndarray, names=NAMES, train=TRAIN) -> StudyData:
    """A study of predictions [S, n] by method; the reference is called base."""
    data = {"classes": list(names), "counts": {"train": list(train)}}
    rows, nowhere = np.arange(len(labels)), RunRecord(Path("no-record"))
    methods = tuple(
        MethodRuns(label, tuple(Run(nowhere, label, s, 0, {}, data, rows, labels, of[s]) for s in range(len(of))))
        for label, of in predictions.items()
    )
    return StudyData(
        name="x", command="", kind="run", dataset="toy", protocol={}, classes=tuple(names), fingerprint="",
        reference="base", methods=methods, folds=(0,), labels=labels, notes=(),
    )  # fmt: skip


def drawn(rng, recalls: dict[str, tuple], seeds: int) -> StudyData:
    """Methods with these recalls by class; images differ in how hard they are, and trainings a little."""
    labels = np.repeat(np.arange(len(TEST)), TEST)
    hard = rng.normal(size=len(labels))
    predictions = {}
    for label, of in recalls.items():
        z = scipy_stats.norm.ppf(np.clip(of, 0.01, 0.99))[labels] + 0.1 * rng.normal(size=(seeds, len(TEST)))[:, labels]
        correct = 1.4 * z + hard + rng.normal(size=(seeds, len(labels))) > 0
        predictions[label] = np.where(correct, labels, (labels + 1) % len(TEST))
    return study_of(predictions, labels)


# -- the family ------------------------------------------------------------------------------------------------------

BASE, BETTER = (0.8, 0.4, 0.5, 0.9), (0.8, 0.9, 0.9, 0.7)


def test_a_study_tests_one_family(bench):
    study = drawn(np.random.default_rng(0), {"one": BETTER, "two": BASE, "base": BASE}, 3)
    family = family_of(study)
    assert family.methods == ("one", "two")
    assert family.primary == "group:tail"
    assert family.secondary == ("recall:disgust", "recall:fear", "recall:angry", "recall:happy", "mean_recall")
    assert (family.alpha("group:tail"), family.alpha("recall:happy"), family.alpha("accuracy")) == (0.025, 0.005, None)
    text = answer.family_in_words(compute(study, draws=20))
    assert "Claims form one family: 2 methods. The primary endpoint of each is the mean recall of the tail" in text
    assert "tested at α = 0.05 / 2 = 0.025" in text
    assert "5 secondary endpoints tested (recall of each of 4 classes and mean-class accuracy)" in text
    assert "each at 0.025 / 5 = 0.005" in text


def test_the_only_class_of_the_tail_is_the_primary_endpoint(bench):
    family = family_of(load_study(bench.ledger, bench.study_of({"a": (40, 18, 90), "base": (40, 8, 90)}, 2)))
    assert family.primary == "group:tail"
    assert family.secondary == ("recall:angry", "recall:happy", "mean_recall")
    assert family.alpha("recall:disgust") == family.alpha("group:tail") == 0.05


def test_without_groups_mean_class_accuracy_comes_first(bench):
    bench.train = (100, 100, 100)
    family = family_of(load_study(bench.ledger, bench.study_of({"a": (40, 18, 90), "base": (40, 8, 90)}, 2)))
    assert family.primary == "mean_recall"
    assert set(family.secondary) == {"recall:angry", "recall:disgust", "recall:happy"}


def test_methods_without_a_verdict_take_no_share_of_alpha(bench):
    runs = [bench.run(m, s, (40, 12, 90)) for m in ("a", "base") for s in range(3)]
    runs += [bench.run("reader", s, (40, 12, 90), transductive=True) for s in range(3)]
    runs += [bench.run("once", 0, (40, 12, 90))]
    study = load_study(bench.ledger, bench.study(runs, ["a", "reader", "once", "base"]))
    assert family_of(study).methods == ("a",)


def test_behind_a_primary_endpoint_that_shows_nothing_no_class_is_claimed():
    # disgust gains what fear loses: the mean of the tail stays, so neither is a finding, however clear.
    recalls = {"swap": (0.8, 0.98, 0.02, 0.9), "base": (0.8, 0.5, 0.5, 0.9)}
    numbers = compute(drawn(np.random.default_rng(1), recalls, 5), draws=20)
    judged = numbers.method("swap").judged
    assert judged["group:tail"].verdict is Verdict.NOISE
    assert judged["recall:disgust"].verdict is judged["recall:fear"].verdict is Verdict.BEHIND
    assert 5 * judged["recall:disgust"].raw < 0.01  # of five secondary endpoints
    assert judged["recall:disgust"].p == judged["group:tail"].p > 0.05
    assert judged["recall:disgust"].interval.low > 0


# -- verdict, interval and p-value agree -----------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 6),
    st.lists(st.floats(0.05, 0.95), min_size=4, max_size=4),
    st.integers(1, 3),
)
def test_a_claim_is_an_open_gate_a_simultaneous_interval_without_zero_and_a_small_adjusted_p(seed, seeds, of, methods):
    recalls = {f"m{i}": tuple(of) for i in range(methods)} | {"base": BASE}
    numbers = compute(drawn(np.random.default_rng(seed), recalls, seeds), draws=20)
    for method in numbers.compared:
        primary = method.judged["group:tail"]
        for key, judgement in method.judged.items():
            excludes = not judgement.interval.covers(0.0)
            gate = key == "group:tail" or not primary.interval.covers(0.0)
            claimed = judgement.verdict in (Verdict.GAIN, Verdict.LOSS)
            assert (excludes and gate) == (judgement.p < 0.05)
            assert (claimed or judgement.verdict is Verdict.CHANCE) >= (judgement.p < 0.05) >= claimed
            if claimed:
                assert (judgement.verdict is Verdict.GAIN) == (judgement.interval.low > 0)
            assert judgement.interval.low <= method.gains[key].low
            assert method.gains[key].high <= judgement.interval.high


# -- few seeds -------------------------------------------------------------------------------------------------------


def test_three_seeds_of_a_real_study_claim_its_gain_of_73_points():
    study = load_study(Ledger(TINY), "fer2013-tiny")
    kept = [m for m in study.methods if m.label in ("baseline_weighted", "baseline_oversample", study.reference)]
    for seeds in itertools.combinations(range(5), 3):
        methods = tuple(replace(m, runs=tuple(r for r in m.runs if r.seed in seeds)) for m in kept)
        numbers = compute(replace(study, methods=methods), draws=20)
        judged = numbers.method("baseline_weighted").judged
        assert judged["group:tail"].verdict is judged["recall:disgust"].verdict is Verdict.GAIN
        assert judged["recall:disgust"].p < 0.001


def test_one_seed_says_that_nothing_is_claimed(bench):
    numbers = bench.numbers(bench.study_of({"better": (40, 18, 60), "base": (40, 8, 90)}, seeds=1))
    assert numbers.family.methods == ()
    assert numbers.method("better").verdicts["recall:disgust"] is Verdict.ONE_SEED
    assert "one seed: nothing is claimed" in answer.headline(numbers, numbers.method("better"))
    assert answer.family_in_words(numbers) == answer.detectable_in_words(numbers) == ""


# -- the detectable gain ---------------------------------------------------------------------------------------------


def parts(hits: list[np.ndarray]) -> tuple[float, float, float, list[float]]:
    """Variances of the mean over two classes, from hits or differences [S, n] by class.

    They are that between trainings, the part of it that images do not explain, and that due to images common to all
    trainings, in total and by class. Of every class, v is the variance of one training's mean due to images and c its
    part that all trainings share.
    """
    seeds, classes = len(hits[0]), len(hits)
    v = [of.var(axis=1, ddof=1).mean() / of.shape[1] / classes**2 for of in hits]
    shared = [of.mean(0).var(ddof=1) / of.shape[1] / classes**2 for of in hits]
    c = [(seeds * t - one) / (seeds - 1) for t, one in zip(shared, v, strict=True)]
    spread = np.mean([of.mean(1) for of in hits], axis=0).var(ddof=1)
    excess = max(spread - (sum(v) - sum(c)), 0.0)
    return max(spread, sum(v) - sum(c)), excess, max(sum(c), 0.0), c


def by_hand(study: StudyData, seeds: int, alpha: float) -> float:
    """The gain in the mean recall of disgust and fear that `seeds` seeds detect four times out of five."""
    _, ours, theirs = study.paired("ours", "base")
    sides = [[(side == i)[:, study.labels == i].astype(float) for i in (1, 2)] for side in (ours, theirs)]
    difference = [a - b for a, b in zip(*sides, strict=True)]
    trainings, _, common, c = parts(difference)
    counted = max(trainings, np.hypot(*(parts(side)[1] for side in sides)))
    counted = min(counted, trainings + len(ours) * common)
    variance = trainings / seeds + common
    terms = sum(of**2 / (n - 1) for of, n in zip(c, (20, 25), strict=True))
    df = variance**2 / ((counted / seeds) ** 2 / (seeds - 1) + terms)
    critical = scipy_stats.f.isf(alpha, 1, df)

    def missing(gain: float) -> float:
        return scipy_stats.ncf.sf(critical, 1, df, gain**2 / variance) - 0.8

    return optimize.brentq(missing, 1e-6, 2.0)


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_detectable_gain_of_the_answer_is_that_of_the_studys_own_design(seeds):
    study = drawn(np.random.default_rng(7), {"ours": (0.8, 0.5, 0.6, 0.9), "base": BASE}, seeds)
    numbers = compute(study, draws=20)
    text = answer.detectable_in_words(numbers)
    own, five = (by_hand(study, of, 0.05) for of in (seeds, 5))
    assert f"{seeds} seeds and 45 test images detect a true gain in mean recall of the tail (disgust and fear)" in text
    assert f"of {100 * own:.1f} points with probability 0.8, at α = 0.05" in text
    assert (f"5 seeds would detect {100 * five:.1f} points" in text) == (seeds < 5)


def test_the_level_of_the_detectable_gain_is_that_of_the_endpoint():
    recalls = {"ours": (0.8, 0.5, 0.6, 0.9), "other": BASE, "base": BASE}
    study = drawn(np.random.default_rng(7), recalls, 4)
    numbers = compute(study, draws=20)
    assert detectable(numbers, numbers.method("ours"), "group:tail") == pytest.approx(
        by_hand(study, 4, 0.025), rel=1e-4
    )
    assert detectable(numbers, numbers.method("ours"), "group:head") is None
    assert detectable(numbers, numbers.method("ours"), "recall:disgust") > detectable(
        compute(replace(study, methods=tuple(m for m in study.methods if m.label != "other")), draws=20),
        numbers.method("ours"),
        "recall:disgust",
    )


# -- the second reference --------------------------------------------------------------------------------------------


def with_second(bench, hits: dict[str, tuple], seeds: int = 5) -> Numbers:
    study = bench.study_of(hits, seeds)
    return bench.numbers(bench.study(study["runs"], list(hits), second_reference="shifted"))


def test_a_method_that_only_shifts_its_decisions_does_not_beat_the_second_reference(bench):
    # `learned` knows more of every class; `moved` has the recalls of the adjusted reference.
    hits = {"learned": (46, 18, 88), "moved": (36, 18, 70), "base": (40, 8, 90), "shifted": (36, 18, 70)}
    numbers = with_second(bench, hits)
    assert numbers.second == "shifted"
    assert numbers.family.methods == ("learned", "moved")
    assert numbers.family.secondary[-1] == "beyond:mean_recall"
    learned, moved = (answer.headline(numbers, numbers.method(m)) for m in ("learned", "moved"))
    assert re.search(r"It beats the second reference `shifted`: mean-class accuracy \+12\.7 \[[^]]+\] points;", learned)
    assert re.search(r"beside it, recall of the tail 0\.0 \[[^]]+\], accuracy \+16\.5 \[[^]]+\] points\.", learned)
    assert "It is not shown to beat the second reference `shifted`: mean-class accuracy 0.0 [" in moved
    text = answer.summary(numbers)
    assert "1 of 2 methods (`learned`) beats the second reference `shifted` in mean-class accuracy." in text
    assert "1 of 3" not in text
    shifted = numbers.method("shifted")
    assert set(shifted.verdicts.values()) == {Verdict.NOT_RANKED}
    assert "the second reference, of which nothing is claimed" in answer.headline(numbers, shifted)


def test_worse_than_the_second_reference_is_told(bench):
    hits = {"poor": (30, 18, 60), "base": (40, 8, 90), "shifted": (45, 17, 85)}
    numbers = with_second(bench, hits)
    assert "It does worse than the second reference `shifted`" in answer.headline(numbers, numbers.method("poor"))
    assert numbers.method("poor").judged["beyond:mean_recall"].verdict is Verdict.LOSS
    assert "`poor` does worse than the second reference `shifted` in mean-class accuracy." in answer.summary(numbers)


def test_the_second_reference_has_a_table_with_its_tests(bench):
    numbers = with_second(bench, {"learned": (46, 18, 88), "base": (40, 8, 90), "shifted": (36, 18, 70)})
    blocks = [b for b in minority.build(Context(numbers)) if isinstance(b, TableBlock)]
    table = next(b for b in blocks if b.id == "second-reference").table
    (row,) = [dict(zip(table.titles, row, strict=True)) for row in table.rows]
    assert row["Mean-class accuracy"].startswith("**+12.7 [")
    assert row["Adjusted p"] == "< 0.001"
    assert "tested at α = 0.0125" in table.caption  # .05 / 4: two classes, two means
