"""Runs scored against other labels of the same images, with every number worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fer_bench.record.relabelled import Relabelled, write_relabelled
from fer_bench.reports import build_report
from fer_bench.reports.facts.other_labels import OTHER, OWN, VOTES, rescore, same_images
from fer_bench.reports.facts.records import load_study
from fer_bench.reports.render.blocks import Bullets, Paragraph, TableBlock
from fer_bench.reports.sections import Context, other_labels
from fer_bench.stats.confusion import accuracy
from fer_bench.stats.crossed_errors import jackknife
from fer_bench.stats.intervals import score_intervals
from tests.reports.conftest import Bench

# Ten test images: own labels, and what the other data set says of them. -1: no label; 3: contempt, which no class here
# is. The votes are for angry, disgust, happy, contempt and unknown.
OWN_LABELS = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2, 2])
OTHERS = np.array([0, 0, 2, 1, 0, -1, 2, 2, 3, 1])
SHARES = np.array([
    [8, 2, 0, 0, 0], [5, 5, 0, 0, 0], [0, 0, 9, 1, 0], [1, 4, 0, 0, 5], [6, 4, 0, 0, 0],
    [3, 3, 3, 0, 1], [0, 0, 10, 0, 0], [1, 1, 8, 0, 0], [0, 0, 2, 8, 0], [0, 6, 4, 0, 0],
])  # fmt: skip
FOUND = Relabelled(
    name="second",
    title="Second",
    rule="by vote",
    classes=("angry", "disgust", "happy", "contempt"),
    answers=("angry", "disgust", "happy", "contempt", "unknown"),
    rows=np.arange(10),
    labels=OTHERS,
    votes=SHARES,
    images=10,
    source={},
)
PREDICTED = {"better": [0, 0, 2, 1, 0, 1, 2, 2, 2, 1], "base": [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]}  # base: the own labels


def logits(predicted) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[np.asarray(predicted)]


@pytest.fixture
def small(tmp_path):
    """A ledger with two methods and three seeds on the ten images, which have the rows 0 to 9."""
    bench = Bench(tmp_path / "ledger", test=(3, 3, 4))
    assert bench.labels.tolist() == OWN_LABELS.tolist()
    study = bench.study_of({name: lambda seed, p=p: logits(p) for name, p in PREDICTED.items()}, seeds=3)
    return bench, study


def scored(bench, study, found=FOUND):
    write_relabelled(bench.ledger.root, "f00d", found)
    images = same_images(load_study(bench.ledger, study), found)
    return images, {r.label: r for r in rescore(images)}


def test_images_without_a_label_or_with_another_class_are_not_scored(small):
    images, _ = scored(*small)
    assert images.own.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert images.other.labels.tolist() == [0, 0, 2, 1, 0, 2, 2, 1]
    assert (images.total, images.agreeing) == (10, 5)
    lost = images.lost
    assert (lost.unmatched, lost.undecided, lost.elsewhere, lost.classes_elsewhere) == (0, 1, 1, ("contempt",))


def test_scores_under_both_labels_are_of_the_same_images(small):
    _, by = scored(*small)
    # better is the other labels: recalls 2/3 (angry), 1/2 (disgust) and 2/3 (happy) under the own ones
    assert by["better"].scores[OTHER, "accuracy"].value == 1.0
    assert by["better"].scores[OWN, "accuracy"].value == pytest.approx(5 / 8)
    assert by["better"].scores[OWN, "recall:disgust"].value == pytest.approx(1 / 2)
    assert by["better"].scores[OWN, "mean_recall"].value == pytest.approx((2 / 3 + 1 / 2 + 2 / 3) / 3)
    assert by["base"].scores[OWN, "accuracy"].value == 1.0
    # base under the others: angry 2 of 3, disgust 1 of 2, happy 2 of 3
    assert by["base"].scores[OTHER, "recall:angry"].value == pytest.approx(2 / 3)
    assert by["base"].scores[OTHER, "mean_recall"].value == pytest.approx((2 / 3 + 1 / 2 + 2 / 3) / 3)


def test_expected_accuracy_is_the_mean_share_of_votes_among_the_classes(small):
    images, by = scored(*small)
    # images 0 1 2 3 4 6 7 9; votes for contempt and unknown do not count: image 2 has 9 of 9, image 3 has 4 of 5
    better = [0.8, 0.5, 1.0, 0.8, 0.6, 1.0, 0.8, 0.6]
    base = [0.8, 0.5, 0.0, 0.8, 0.4, 1.0, 0.8, 0.4]
    assert by["better"].scores[VOTES, "expected"].value == pytest.approx(np.mean(better))
    assert by["base"].scores[VOTES, "expected"].value == pytest.approx(np.mean(base))
    assert images.votes_kept == pytest.approx((8 * 10 - 6) / (8 * 10))
    assert images.votes.sum(1) == pytest.approx(1)


def test_gains_are_paired_and_change_sign_with_the_labels(small):
    _, by = scored(*small)
    assert by["base"].gains == {}
    gains = by["better"].gains
    assert gains[OWN, "accuracy"].value == pytest.approx(-3 / 8)
    assert gains[OTHER, "accuracy"].value == pytest.approx(3 / 8)
    assert gains[VOTES, "expected"].value == pytest.approx((1.0 + 0.2 + 0.2) / 8)
    assert all(gain.low <= gain.value <= gain.high for gain in gains.values())


def test_rows_are_matched_by_their_number_in_the_store(tmp_path):
    bench = Bench(tmp_path / "ledger", test=(3, 3, 4))
    rows = np.array([5, 105, 104, 103, 102, 101, 100, 99, 98, 97])
    runs = [bench.run("base", seed, logits=logits(PREDICTED["base"]), rows=rows) for seed in (0, 1)]
    order = np.argsort(rows)[1:]  # ascending, as they are kept; row 5, the first image, has no counterpart
    found = replace(FOUND, rows=rows[order], labels=OTHERS[order], votes=SHARES[order], images=200)
    images, by = scored(bench, bench.study(runs, ["base"], None), found)
    assert images.own.labels.tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert images.other.labels.tolist() == [0, 2, 1, 0, 2, 2, 1]
    assert images.lost.unmatched == 1
    assert by["base"].scores[OTHER, "accuracy"].value == pytest.approx(4 / 7)


def test_folds_are_pooled_and_people_stay_together(tmp_path):
    bench = Bench(tmp_path / "ledger", test=(3, 3, 4))
    runs = []
    for fold, part in enumerate([np.arange(5), np.arange(5, 10)]):
        runs.append(
            bench.run(
                "base", 0, logits=logits(np.array(PREDICTED["base"])[part]), labels=OWN_LABELS[part], rows=part,
                groups=part // 2, spec={"fold": fold},
            )
        )  # fmt: skip
    images, by = scored(bench, bench.study(runs, ["base"], None))
    assert images.own.labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert images.own.clusters.tolist() == [0, 0, 1, 1, 2, 3, 3, 4]
    assert by["base"].scores[OTHER, "accuracy"].value == pytest.approx(5 / 8)


def test_a_missing_fold_is_not_counted_as_wrong(tmp_path):
    bench = Bench(tmp_path / "ledger", test=(3, 3, 4))
    runs = []
    for seed, fold, part in ((0, 0, np.arange(5)), (0, 1, np.arange(5, 10)), (1, 0, np.arange(5))):
        own = logits(np.array(PREDICTED["base"])[part])
        runs.append(bench.run("base", seed, logits=own, labels=OWN_LABELS[part], rows=part, spec={"fold": fold}))
    _, by = scored(bench, bench.study(runs, ["base"], None))
    assert by["base"].scores[OTHER, "accuracy"].value == pytest.approx((5 / 8 + 3 / 5) / 2)
    first, both = np.mean([0.8, 0.5, 0.0, 0.8, 0.4]), np.mean([0.8, 0.5, 0.0, 0.8, 0.4, 1.0, 0.8, 0.4])
    assert by["base"].scores[VOTES, "expected"].value == pytest.approx((first + both) / 2)


def test_intervals_are_over_subsets_of_the_training_images_too(tmp_path):
    bench = Bench(tmp_path / "ledger", test=(3, 3, 4))
    runs, every = [], []
    for subset in (0, 1):
        for seed in (0, 1):
            every.append(PREDICTED["better" if subset else "base"])
            runs.append(bench.run("base", seed, logits=logits(every[-1]), spec={"subset": subset}))
    images, by = scored(bench, bench.study(runs, ["base"], None))
    kept = np.array(every)[:, [0, 1, 2, 3, 4, 6, 7, 9]]
    sample = jackknife(images.other.truth, kept, {"accuracy": accuracy}, np.array([0, 0, 1, 1]))
    assert by["base"].scores[OTHER, "accuracy"] == score_intervals(sample)["accuracy"]


def test_without_votes_there_is_no_expected_accuracy(small):
    found = replace(FOUND, answers=(), votes=np.zeros((10, 0), dtype=int))
    images, by = scored(*small, found)
    assert images.votes is None
    assert {kind for kind, _ in by["better"].scores} == {OWN, OTHER}


def test_an_image_whose_votes_are_all_for_other_classes_is_not_scored(small):
    votes = SHARES.copy()
    votes[0] = [0, 0, 0, 4, 6]
    images, _ = scored(*small, replace(FOUND, votes=votes))
    assert len(images.own.labels) == 7


# -- the section -----------------------------------------------------------------------------------------------------


def section_of(bench, study):
    return other_labels.build(Context(bench.numbers(study)))


def test_without_other_labels_there_is_no_section(small):
    bench, study = small
    assert section_of(bench, study) == []


def test_the_section_tells_coverage_agreement_and_scores(small):
    bench, study = small
    write_relabelled(bench.ledger.root, "f00d", FOUND)
    blocks = section_of(bench, study)
    coverage, agreement = [b.text for b in blocks if isinstance(b, Paragraph)]
    assert "about the 8 images of 10 in the test set that it assigns to a class of this study (by vote)" in coverage
    assert "1 image has no label and 1 image belongs to a class that this study lacks (*contempt*)" in coverage
    assert "the same for 5 of these images (62.5 %)" in agreement
    assert "92.5 % of all" in agreement
    assert "The own labels reach 58.8 %, the labels of Second 76.2 %" in agreement
    assert "nothing can reach more than 76.2 %" in agreement
    tables = {b.id: b.table for b in blocks if isinstance(b, TableBlock)}
    disgust = next(row for row in tables["other-labels"].rows if row[0] == "disgust")
    assert disgust == ("disgust", "2", "2", "1", "50.0", "angry 1")
    scores = [row for row in tables["rescored"].rows if row[0] == "accuracy"]
    assert [row[1:3] for row in scores] == [("own", "8"), ("Second", "8")]
    assert [row[3].split()[0] for row in scores] == ["62.5", "100.0"]
    gains = [row[3].split()[0] for row in tables["rescored-gains"].rows if row[0].startswith(("acc", "exp"))]
    assert gains == ["−37.5", "+37.5", "+17.5"]
    (sentences,) = [b.items for b in blocks if isinstance(b, Bullets)]
    assert len(sentences) == 1
    assert sentences[0].startswith("`better` vs `base`: mean-class accuracy −38.9 [")


def test_labels_of_no_test_image_are_told(small):
    bench, study = small
    write_relabelled(bench.ledger.root, "f00d", replace(FOUND, labels=np.full(10, 3)))
    assert [b.text for b in section_of(bench, study)] == [
        "Second labels none of the test images with a class of this study."
    ]


def test_damaged_labels_are_told_and_left_out(small):
    bench, study = small
    folder = write_relabelled(bench.ledger.root, "f00d", FOUND)
    (folder / "votes.npy").write_bytes(b"")
    numbers = bench.numbers(study)
    assert other_labels.build(Context(numbers)) == []
    (note,) = numbers.study.notes
    assert note.startswith("The labels of 'second' can't be read: votes.npy has changed since it was written.")
    assert "`fer-bench relabel --from second` renews them" in note


def test_labels_of_other_data_are_not_used(small):
    bench, study = small
    write_relabelled(bench.ledger.root, "beef", FOUND)
    assert load_study(bench.ledger, study).relabelled == ()


def test_a_fingerprint_that_is_a_path_is_no_reason_to_stop(tmp_path):
    bench = Bench(tmp_path / "ledger", test=(3, 3, 4))
    runs = [bench.run("base", 0, logits=logits(PREDICTED["base"]), data={"fingerprint": "../../../x"})]
    assert load_study(bench.ledger, bench.study(runs, ["base"], None)).relabelled == ()


def test_the_report_has_the_section_and_is_the_same_byte_for_byte(small, tmp_path):
    bench, study = small
    write_relabelled(bench.ledger.root, "f00d", FOUND)
    pages = []
    for name in ("one", "two"):
        build_report(bench.ledger, study, tmp_path / name, formats=["markdown", "csv", "latex"])
        pages.append((tmp_path / name / "report.md").read_bytes())
    assert pages[0] == pages[1]
    assert b"## Scored against other labels" in pages[0]
    assert (tmp_path / "one" / "tables" / "rescored-gains.csv").is_file()
