"""The headline on rare classes, further scores, calibration, single-epoch luck, and published numbers beside ours."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fer_bench.reports.facts.numbers import compute
from fer_bench.reports.facts.records import load_study
from fer_bench.reports.render.blocks import Bullets, Figure, Paragraph, TableBlock
from fer_bench.reports.sections import Context, calibration, further, minority, oracle, published_claims, significance
from fer_bench.stats.intervals import Interval

# toy data: angry 300 train / 50 test (middle), disgust 40 / 20 (tail), happy 900 / 100 (head)
BASE = (40, 8, 90)


def numbers_of(bench, hits: dict[str, tuple], seeds: int = 5, **study):
    """Every seed of a method gets the same hits, on other images of each class."""
    runs = []
    for label, of in hits.items():
        for seed in range(seeds):
            logits = None if isinstance(of, tuple) else of(seed)
            runs.append(bench.run(label, seed, of if logits is None else None, logits=logits))
    return compute(load_study(bench.ledger, bench.study(runs, list(hits), **study)), draws=200)


def rows_of(block: TableBlock) -> dict[str, dict[str, str]]:
    titles = block.table.titles
    return {row[0].strip("*"): dict(zip(titles[1:], row[1:], strict=True)) for row in block.table.rows}


def by_class(block: TableBlock) -> dict[str, dict[str, str]]:
    """Rows of the table of one method, by class or group."""
    return {row[1].strip("*"): dict(zip(block.table.titles, row, strict=True)) for row in block.table.rows}


def sentences(numbers) -> str:
    (bullets,) = [b for b in minority.build(Context(numbers)) if isinstance(b, Bullets)]
    return " ".join(bullets.items)


# -- rare classes ----------------------------------------------------------------------------------------------------


def test_a_sure_gain_of_the_tail_is_claimed_with_what_the_head_pays(bench):
    numbers = numbers_of(bench, {"better": (40, 18, 60), "base": BASE})
    assert sentences(numbers).startswith("`better` helps the rare expressions (disgust): +50.0 [")
    assert "Cost: recall of the frequent classes (happy) −30.0 [" in sentences(numbers)


def test_three_seeds_claim_what_their_interval_supports(bench):
    numbers = numbers_of(bench, {"better": (40, 18, 90), "base": BASE}, seeds=3)
    assert sentences(numbers).startswith("`better` helps the rare expressions (disgust): +50.0 [")


def test_one_seed_claims_nothing(bench):
    numbers = numbers_of(bench, {"better": (40, 18, 90), "base": BASE}, seeds=1)
    assert "is not shown to help the rare expressions (disgust): +50.0" in sentences(numbers)
    assert "but one seed does not show the variation between trainings" in sentences(numbers)


def test_a_loss_is_told_as_one(bench):
    assert "`worse` harms the rare expressions (disgust): −35.0" in sentences(
        numbers_of(bench, {"worse": (40, 1, 90), "base": BASE})
    )


def test_a_watermarked_study_claims_nothing(bench):
    protocol = bench.data()["protocol"] | {"watermark": "selects on test"}
    runs = [
        bench.run(label, seed, hits, data={"protocol": protocol})
        for label, hits in (("better", (40, 18, 90)), ("base", BASE))
        for seed in range(5)
    ]
    numbers = compute(load_study(bench.ledger, bench.study(runs, ["better", "base"])), draws=200)
    assert "It is not ranked, so nothing is claimed" in sentences(numbers)


def test_the_table_has_raw_and_adjusted_p_and_the_simultaneous_interval(bench):
    # Two methods; the tail is disgust alone, so the primary endpoint is its recall, tested at .05 / 2. Behind it come
    # angry, happy and the mean.
    numbers = numbers_of(bench, {"better": (40, 18, 90), "other": (40, 9, 90), "base": BASE})
    block = next(b for b in minority.build(Context(numbers)) if isinstance(b, TableBlock))
    rows = [dict(zip(block.table.titles, row, strict=True)) for row in block.table.rows]
    assert [row["Recall of"].strip("*") for row in rows] == ["disgust", "tail (mean)", "head (mean)"] * 2
    assert (rows[0]["Train"], rows[0]["Test"], rows[2]["Train"]) == ("40", "20", "900")
    gain = rows[0].pop("Gain")
    assert gain.startswith("**+50.0 [")
    assert {k: v for k, v in rows[0].items() if k != "Recall of"} == {
        k: v for k, v in rows[1].items() if k not in ("Recall of", "Gain")
    }
    assert (rows[2]["p"], rows[2]["Adjusted p"], rows[2]["Simultaneous interval"]) == ("–", "–", "–")
    method = numbers.method("other")
    p = method.gains["recall:disgust"].p
    assert (rows[3]["p"], rows[3]["Adjusted p"]) == (f"{p:.3f}", f"{min(1.0, 2 * p):.3f}")
    unadjusted, simultaneous = (re.findall(r"[+−]?[\d.]+", rows[3][k])[-2:] for k in ("Gain", "Simultaneous interval"))
    widths = [float(high.strip("+")) - float(low.replace("−", "-")) for low, high in (unadjusted, simultaneous)]
    assert widths[1] > widths[0]


def test_the_detectable_gain_falls_with_more_seeds(bench):
    make = np.random.default_rng(1)

    def noisy(shift):
        def of(seed):
            return (make.normal(size=(170, 3)) + shift * np.eye(3)[bench.labels]).astype(np.float32)

        return of

    result = []
    for seeds in (3, 8):
        numbers = numbers_of(bench, {f"x{seeds}": noisy(1.2), f"b{seeds}": noisy(1.2)}, seeds, reference=f"b{seeds}")
        block = next(b for b in minority.build(Context(numbers)) if isinstance(b, TableBlock))
        result.append(float(by_class(block)["disgust"]["Detectable"].replace("> ", "")))
    assert result[0] > result[1] > 5


def test_balanced_training_has_no_rare_classes(bench):
    bench.train = (100, 100, 100)
    blocks = minority.build(Context(numbers_of(bench, {"better": (40, 18, 90), "base": BASE}, seeds=2)))
    assert blocks == [
        Paragraph(
            "The classes can't be divided into rare and frequent ones: all classes have the same number of training "
            "images."
        )
    ]


def test_of_many_methods_only_those_with_a_claim_are_named_and_the_legend_covers_nothing(bench):
    hits = {"better": (40, 18, 90)} | {f"alike_{k}": (40, 8, 90) for k in range(17)} | {"base": BASE}
    drawn = minority.draw_tradeoff(numbers_of(bench, hits, seeds=2))
    (legend,) = drawn.legends
    assert [t.get_text() for t in legend.get_texts()] == ["17 others, no claim", "better"]
    few = minority.draw_tradeoff(numbers_of(bench, dict(list(hits.items())[-4:]), seeds=2))
    assert [t.get_text() for t in few.legends[0].get_texts()] == ["alike_14", "alike_15", "alike_16"]


def test_a_long_legend_makes_the_figure_higher_and_covers_no_axes(bench):
    hits = {f"a_method_with_a_name_of_some_length_{k}": (40, 8, 90) for k in range(16)} | {"base": BASE}
    drawn = minority.draw_tradeoff(numbers_of(bench, hits, seeds=2))
    drawn.canvas.draw()
    (legend,) = drawn.legends
    assert len(legend.get_texts()) == 16
    assert drawn.get_figheight() > 6
    covered = legend.get_window_extent()
    assert covered.y0 >= 0
    assert covered.y1 <= drawn.axes[0].get_window_extent().y0


def test_an_interval_that_leaves_out_its_value_can_be_drawn(bench):
    numbers = numbers_of(bench, {"better": (40, 18, 60), "base": BASE})
    numbers.method("better").gains["group:tail"] = Interval(0.5, 0.51, 0.6)
    assert minority.draw_tradeoff(numbers) is not None


def test_a_study_without_comparison_has_no_such_section(bench):
    assert minority.build(Context(numbers_of(bench, {"base": BASE}, 1))) == []


def test_the_tradeoff_is_drawn_at_the_gains(bench):
    drawn = minority.draw_tradeoff(numbers_of(bench, {"better": (40, 18, 60), "base": BASE}))
    x, y = drawn.axes[0].containers[0].lines[0].get_data()
    assert (float(x[0]), float(y[0])) == pytest.approx((-30.0, 50.0))


# -- further scores and calibration ----------------------------------------------------------------------------------


def test_further_scores_are_those_computed_by_hand(bench):
    numbers = numbers_of(bench, {"base": BASE}, 2)
    blocks = further.build(Context(numbers))
    scores = rows_of(next(b for b in blocks if isinstance(b, TableBlock)))
    assert scores["Geometric mean of recalls"]["`base`"] == f"{100 * (0.8 * 0.4 * 0.9) ** (1 / 3):.1f} ± 0.0"
    assert scores["Recall of the worst class"]["`base`"] == "40.0 ± 0.0"
    assert scores["Mean recall of the tail classes"]["`base`"] == "40.0 ± 0.0"
    precision = next(b for b in blocks if isinstance(b, TableBlock) and b.id == "further-precision")
    # 40 angry right and 10 happy taken for angry
    assert rows_of(precision)["angry"]["`base`"] == "80.0 ± 0.0"


def test_calibration_of_known_confidences(bench):
    numbers = numbers_of(bench, {"base": BASE}, 1)
    blocks = calibration.build(Context(numbers))
    scores = rows_of(next(b for b in blocks if isinstance(b, TableBlock)))
    confidence = np.exp(4) / (np.exp(4) + 2)  # every answer has logits 4, 0, 0
    assert scores["ECE ↓"]["`base`"] == f"{100 * (confidence - 138 / 170):.1f} ± –"
    (figure,) = [b for b in blocks if isinstance(b, Figure)]
    x, y = figure.drawn.axes[0].lines[1].get_data()
    assert (float(x[0]), float(y[0])) == pytest.approx((100 * confidence, 100 * 138 / 170))


def test_calibration_says_what_a_card_says_of_confidences(bench, monkeypatch):
    with_text = bench.card("other", "other", False) | {"calibration": "confidences are lower than the targets"}
    monkeypatch.setattr(bench, "card", lambda label, *_: with_text if label == "other" else {})
    blocks = calibration.build(Context(numbers_of(bench, {"base": BASE, "other": BASE}, 1)))
    assert blocks[-1] == Bullets(("`other`, by design: confidences are lower than the targets",))


def test_lost_logits_cost_the_calibration_only(bench):
    numbers = numbers_of(bench, {"base": BASE}, 1)
    (bench.ledger.run(numbers.study.runs[0].record.id).path / "test_logits.npy").unlink()
    (reasons,) = calibration.build(Context(numbers))
    assert "not computed. Reason: the logits were not kept" in reasons.items[0]


def test_luck_is_the_spread_over_the_last_epochs(bench):
    wrong = (bench.labels + 1) % 3
    epochs = np.stack([np.where(np.arange(170) < k, bench.labels, wrong) for k in (0, 100, 150, 170)]).astype(np.uint8)
    run = bench.run("base", 0, BASE, epochs=epochs)
    numbers = compute(load_study(bench.ledger, bench.study([run], ["base"])), draws=50)
    table = oracle.luck_table(numbers)
    cells = dict(zip(table.titles, table.rows[0], strict=False))
    accuracy = 100 * np.array([100, 150, 170]) / 170
    assert cells["Last epochs"] == "3"
    assert cells["Accuracy: sd over epochs"] == f"{accuracy.std(ddof=1):.2f}"
    assert table.rows[0][5] == f"{np.ptp(accuracy):.2f}"


def test_two_epochs_tell_nothing_of_luck(bench):
    assert oracle.luck_table(numbers_of(bench, {"base": BASE}, 1)) is None


# -- published numbers -----------------------------------------------------------------------------------------------


def on(bench, dataset: str, protocol: str, *, spec: dict | None = None, **more):
    named = bench.data()["protocol"] | {"name": protocol, "test": ["PrivateTest"]} | more
    spec = {"dataset": dataset} | (spec or {})
    run = bench.run("base", 0, BASE, spec=spec, data={"dataset": dataset, "protocol": named})
    return compute(load_study(bench.ledger, bench.study([run], ["base"], dataset=dataset)), draws=50)


def test_claims_under_the_same_protocol_are_compared_and_others_explained(bench):
    blocks = published_claims.build(Context(on(bench, "fer2013", "fer2013/official")))
    sound, others = (b for b in blocks if isinstance(b, TableBlock))
    row = rows_of(sound)["ResNet-34 (ResMaskingNet baseline)"]
    ours = 100 * 138 / 170
    assert (row["Theirs"], row["`base`"]) == ("72.42", f"+{ours - 72.42:.1f}")
    assert "ImageNet" in row["Notes"]
    lethesec = next(r for n, r in rows_of(others).items() if n.startswith("LetheSec"))
    assert "theirs was selected on the test set" in lethesec["Not comparable, because"]
    assert "`base`" not in lethesec


def test_quarantined_claims_are_counted_and_never_shown(bench):
    blocks = published_claims.build(Context(on(bench, "fer2013", "fer2013/official")))
    output = [cell for b in blocks if isinstance(b, TableBlock) for row in b.table.rows for cell in row]
    assert not [cell for cell in output if "ResEmoteNet" in cell]
    assert "quarantined results left out" in blocks[-1].text


def test_without_comparable_claims_the_section_says_so(bench):
    blocks = published_claims.build(Context(on(bench, "fer2013", "fer2013/folder7178x")))
    assert "No published result on record is comparable" in blocks[0].text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"spec": {"profile": "exp:50"}}, "ours is trained on a subset of the training images: exp:50"),
        ({"folds": 10}, "ours covers 1 of the 10 folds"),
    ],
)
def test_a_thinned_training_and_a_part_of_the_folds_are_compared_with_nothing(bench, changes, reason):
    text, others, _ = published_claims.build(Context(on(bench, "fer2013", "fer2013/official", **changes)))
    assert text.text.startswith("No published result on record is comparable")
    row = rows_of(others)["ResMaskingNet"]
    assert reason == row["Not comparable, because"]


def test_a_data_set_without_claims_has_no_such_section(bench):
    assert published_claims.build(Context(on(bench, "toy", "toy/official"))) == []


# -- further tests ---------------------------------------------------------------------------------------------------


def test_mcnemar_counts_the_images_on_which_one_network_is_right(bench):
    # `better` finds the base's 8 disgust images and 10 more; 2 ** -10 each way: p = 2 / 1024
    numbers = numbers_of(bench, {"better": (40, 18, 90), "base": BASE}, 2)
    block = next(b for b in significance.build(Context(numbers)) if getattr(b, "id", "") == "mcnemar")
    assert [row[2:] for row in block.table.rows] == [("10", "0", "0.002", "< 0.001")] * 2


def test_probability_of_improvement_counts_pairs_of_trainings(bench):
    runs = [bench.run("base", s, (40, 8, 90)) for s in (0, 1)]
    runs += [bench.run("mixed", s, h) for s, h in ((0, (40, 18, 90)), (1, (40, 8, 90)))]  # one better, one alike
    numbers = compute(load_study(bench.ledger, bench.study(runs, ["mixed", "base"])), draws=50)
    block = next(b for b in significance.build(Context(numbers)) if getattr(b, "id", "") == "improvement")
    assert block.table.rows[0][2].startswith("75.0 [")  # 2 of 4 pairs won, 2 tied


def test_folds_are_ranked_and_drawn(bench):
    runs = []
    for fold in range(4):
        for label, hits in (("good", (45, 18, 95)), ("fair", (40, 14, 90)), ("base", BASE)):
            runs.append(bench.run(label, 0, hits, spec={"fold": fold}, data={"fold": fold}))
    numbers = compute(load_study(bench.ledger, bench.study(runs, ["good", "fair", "base"])), draws=50)
    result = significance.ranking(numbers)
    assert (result.names, result.ranks.tolist(), result.blocks) == (("good", "fair", "base"), [1.0, 2.0, 3.0], 4)
    # three treatments that all four blocks rank alike: chi² = N (k - 1) = 8
    assert result.chi2 == pytest.approx(8.0)
    text = [b.text for b in significance.build(Context(numbers)) if isinstance(b, Paragraph)]
    assert "over 4 folds: Friedman's chi² 8.00, p 0.018" in text[-1]
    figure = next(b for b in significance.build(Context(numbers)) if isinstance(b, Figure))
    output = [t.get_text().strip() for t in figure.drawn.axes[0].texts]
    assert {"good  1.00", "fair  2.00", "base  3.00"} <= set(output)


def test_one_fold_is_not_ranked(bench):
    assert significance.ranking(numbers_of(bench, {"better": (40, 18, 90), "base": BASE}, 1)) is None
