"""Section "Seen and unseen images", on a test set whose copies in training are known one by one."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from fer_bench.base.files import write_array
from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.numbers import compute
from fer_bench.reports.facts.records import load_study
from fer_bench.reports.facts.seen import seen_by, unseen_gains
from fer_bench.reports.render.blocks import TableBlock, blocks
from fer_bench.reports.sections import Context, seen

BASE, BETTER = (
    (40, 8, 90),
    (40, 18, 90),
)  # correct: the first images of angry (0 to 49), disgust (50 to 69), happy (70 on)
NEAR, EXACT, OTHER = 1, 2, 4


def copies_of(*parts):
    """uint8 [170, 2] from parts (rows, value in training, value in validation)."""
    out = np.zeros((170, 2), np.uint8)
    for rows, train, val in parts:
        out[rows] = train, val
    return out


# Of 44 images with a copy in training, BASE answers 10 of 10 angry, 8 of 10 disgust and 4 of 4 and 10 of 20 happy ones
# correctly. Of 121 without any copy it has 30 of 35 angry, none of 10 disgust and all of 76 happy ones.
MET = copies_of(
    (slice(0, 10), EXACT, 0),
    (slice(70, 74), EXACT + OTHER, NEAR),
    (slice(50, 60), NEAR, 0),
    (slice(150, 170), NEAR + OTHER, 0),
    (slice(40, 45), 0, EXACT),
)
FACTS = {"near": True, "reason": "", "people": None}


def with_copies(met, facts=FACTS):
    def edit(writer):
        writer.put("test_copies", met)
        writer.put("copies", facts)

    return edit


@pytest.fixture
def study(bench):
    """``study({label: hits}, met=..., seeds=...)``, read from the ledger; `met` may be a function of the seed."""

    def make(methods=None, met=MET, seeds=1, facts=FACTS, reference="base"):
        runs = []
        methods = methods or {"base": BASE}
        for label, hits in methods.items():
            for seed in range(seeds):
                own = met(seed) if callable(met) else met
                runs.append(bench.run(label, seed, hits, edit=with_copies(own, facts) if own is not None else None))
        return load_study(bench.ledger, bench.study(runs, list(methods), reference))

    return make


def built(data):
    return blocks(seen.build(Context(compute(data, draws=20))))


def tables(data):
    return {b.id: b.table for b in built(data) if isinstance(b, TableBlock)}


def text(data):
    return " ".join(b.text for b in built(data) if not isinstance(b, TableBlock))


def test_accuracy_of_every_kind_of_image(study):
    rows = {r[0]: (r[1], r[2].partition(" ")[0]) for r in tables(study())["seen-accuracy"].rows}
    assert rows == {
        "all test images": ("170", "81.2"),  # 138 of 170
        "exact copy in training, same label": ("10", "100.0"),
        "exact copy in training, another label": ("4", "100.0"),
        "near copy in training, same label": ("10", "80.0"),
        "near copy in training, another label": ("20", "50.0"),
        "copy in validation alone": ("5", "0.0"),
        "no copy": ("121", "87.6"),  # 106 of 121
    }


def test_scores_on_seen_and_unseen_images(study):
    shown = tables(study())
    assert shown["seen-unseen"].rows == (
        ("accuracy", "44", "121", "72.7 / 87.6"),  # 32 of 44
        ("mean-class accuracy", "44", "121", "79.4 / 61.9"),  # (1 + 8/10 + 14/24) / 3; (30/35 + 0 + 1) / 3
        ("recall of disgust", "10", "10", "80.0 / 0.0"),
        ("recall of angry", "10", "35", "100.0 / 85.7"),
        ("recall of happy", "24", "76", "58.3 / 100.0"),
    )
    differences = {r[0]: r[1].partition(" ")[0] for r in shown["seen-differences"].rows}
    assert differences == {
        "accuracy": "−14.9", "mean-class accuracy": "+17.5", "recall of disgust": "+80.0", "recall of angry": "+14.3",
        "recall of happy": "−41.7",
    }  # fmt: skip


def test_the_text_counts_them(study):
    said = text(study())
    assert said.startswith(
        "Of 170 test images, 14 have an exact copy among the training images, and 30 more a near copy (another picture "
        "of the same photograph); 5 have a copy among the validation images alone. Of those with a copy in training, "
        "24 have one with another label."
    )


def left_out(data, right, which):
    """Accuracy on `which` images without each image in turn, as offsets from the mean of its class: [n]."""
    values = np.array([right[which & (np.arange(170) != k)].mean() for k in range(170)])
    return np.concatenate([values[data.labels == c] - values[data.labels == c].mean() for c in range(3)])


def test_the_interval_of_a_difference_against_a_calculation_of_our_own(study):
    """One seed: the jackknife within classes, Wilson's limits for the number of images that explains its variance, and
    Newcombe's combination of both sides, shortened or widened by their covariance."""
    data = study()
    right = data.predictions("base")[1][0] == data.labels
    sides = MET[:, 0] > 0, (MET == 0).all(1)
    off = [left_out(data, right, side) for side in sides]
    scale = np.repeat([49 / 50, 19 / 20, 99 / 100], [50, 20, 100])
    variance = [float((scale * o * o).sum()) for o in off]
    k = np.sqrt(float((scale * (off[0] - off[1]) ** 2).sum()) / sum(variance))
    limits = []
    for share, v in zip((32 / 44, 106 / 121), variance, strict=True):
        images = 1 + share * (1 - share) / v
        limits.append((share, *proportion_confint(share * images, images, method="wilson")))
    (p, p_low, p_high), (q, q_low, q_high) = limits
    low, high = p - q - k * np.hypot(p - p_low, q_high - q), p - q + k * np.hypot(p_high - p, q - q_low)
    compared = seen_by(data, "base").comparison["accuracy"]
    assert (compared.seen.low, compared.seen.high) == pytest.approx((p_low, p_high))
    assert (compared.difference.low, compared.difference.high) == pytest.approx((low, high))


def test_runs_may_have_seen_different_images(study):
    """Seed 0 has seen angry 0 to 9 (all correct), seed 1 angry 35 to 44 (five of ten correct)."""
    data = study(met=lambda seed: copies_of((slice(35 * seed, 35 * seed + 10), EXACT, 0)), seeds=2)
    own = seen_by(data, "base")
    assert own.seen.sum(1).tolist() == [10, 10]
    assert own._accuracy(own.seen).value == pytest.approx((1.0 + 0.5) / 2)
    assert own._accuracy(own.unseen).value == pytest.approx((128 / 160 + 133 / 160) / 2)


def test_a_range_is_given_where_runs_differ_in_what_they_have_seen(study):
    data = study(met=lambda seed: copies_of((slice(0, 10 + seed), EXACT, 0)), seeds=2)
    assert "10 to 11 have an exact copy" in text(data)


def test_a_class_without_seen_images_is_left_out_of_the_comparison(study):
    shown = tables(study(met=copies_of((slice(0, 10), EXACT, 0), (slice(70, 90), NEAR, 0))))["seen-unseen"]
    assert [r[0] for r in shown.rows] == ["accuracy", "mean-class accuracy", "recall of angry", "recall of happy"]
    assert shown.rows[1][3] == "100.0 / 81.2"  # unseen: (30/40 + 70/80) / 2
    assert "the 2 classes with both kinds" in shown.caption


def test_gains_on_unseen_images(study):
    """BETTER has ten more disgust images correct: 58 and 59, whose copies it has seen, and 60 to 67."""
    data = study({"better": BETTER, "base": BASE}, seeds=2)
    gains = unseen_gains(data, "better")
    assert gains["accuracy"].value == pytest.approx(8 / 121)
    assert gains["recall:disgust"].value == pytest.approx(8 / 10)
    assert gains["mean_recall"].value == pytest.approx(8 / 30)
    rows = {r[1]: (r[2].partition(" ")[0], r[3].partition(" ")[0]) for r in tables(data)["unseen-gains"].rows}
    assert rows == {
        "accuracy": ("+5.9", "+6.6"), "mean-class accuracy": ("+16.7", "+26.7"), "recall of disgust": ("+50.0", "+80.0")
    }  # fmt: skip


def test_no_gains_without_a_reference(study):
    assert "unseen-gains" not in tables(study(reference=None))


def test_records_of_earlier_versions_cost_the_section_and_leave_a_sentence(study):
    shown = built(study(met=None))
    assert [type(b).__name__ for b in shown] == ["Paragraph"]
    assert "records of these runs do not say which test images have copies in training" in shown[0].text


def test_methods_whose_records_say_nothing_are_named(bench):
    runs = [bench.run("base", 0, BASE, edit=with_copies(MET)), bench.run("old", 0, BETTER)]
    data = load_study(bench.ledger, bench.study(runs, ["old", "base"]))
    assert "The records of runs of `old` do not say" in text(data)
    assert tables(data)["seen-accuracy"].titles[2:] == ("`base`",)
    assert "unseen-gains" not in tables(data)


def test_a_test_without_copies_has_no_tables(study):
    data = study(met=copies_of())
    assert text(data) == "No test image has a copy among the training or validation images."
    assert tables(data) == {}


def test_why_near_copies_were_not_looked_for(study):
    facts = {"near": False, "reason": "the store has more than 100,000 images", "people": None}
    assert "Only identical images count as copies here: the store has more than 100,000 images." in text(
        study(facts=facts)
    )


@pytest.mark.parametrize(
    "met",
    [np.zeros(170, np.uint8), np.zeros((169, 2), np.uint8), np.zeros((170, 2), np.float32)],
    ids=["one column", "another number of images", "no whole numbers"],
)
def test_an_array_of_another_form_says_nothing(study, met):
    assert seen_by(study(met=met), "base") is None


def test_an_array_that_was_changed_says_nothing_and_is_noted(bench):
    run = bench.run("base", 0, BASE, edit=with_copies(MET))
    write_array(bench.ledger.run(run).path / "test_copies.npy", copies_of())
    data = load_study(bench.ledger, bench.study([run], ["base"]))
    assert seen_by(data, "base") is None
    assert any("test_copies.npy has changed since the run" in note for note in data.notes)


@pytest.mark.parametrize(
    ("facts", "together"),
    [
        (FACTS, "Copies of one photograph with the same label form one sampling unit"),
        ({**FACTS, "near": False, "reason": "drawn"}, "Identical images with the same label form one sampling unit"),
        (
            {**FACTS, "people": "subject"},
            "Images of the same person (or sequence, where no person is named), and copies of one photograph, form one",
        ),
        (None, "Images of the same person (or sequence, where no person is named) form one sampling unit"),
    ],
    ids=["near", "exact", "people", "earlier versions"],
)
def test_the_report_says_which_images_form_one_sampling_unit(bench, facts, together):
    groups = np.arange(170)
    groups[1] = 0
    run = bench.run("base", 0, BASE, groups=groups, edit=with_copies(MET, facts) if facts else None)
    said = phrases.sampling(load_study(bench.ledger, bench.study([run], ["base"])))
    assert said.startswith(together)
    assert "169 units, not 170 images" in said
