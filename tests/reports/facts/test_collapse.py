"""What is said of a method that has collapsed or is at chance."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest

from fer_bench.reports.facts.across import RARE, load_comparison
from fer_bench.reports.facts.numbers import Verdict
from fer_bench.reports.pages import across
from fer_bench.reports.render.blocks import TableBlock
from fer_bench.reports.render.latex import files as latex
from fer_bench.reports.render.markdown import page as markdown
from fer_bench.reports.sections import (
    overall,
    table_csv,
)

# toy data: angry 300 train / 50 test (middle), disgust 40 / 20 (tail), happy 900 / 100 (head)
BASE = (40, 8, 90)


def constant(labels: np.ndarray, answer: int, classes: int = 3) -> np.ndarray:
    """Logits of one class for everything."""
    return np.tile(np.eye(classes, dtype=np.float32)[answer], (len(labels), 1))


def markdown_of(block: TableBlock) -> str:
    return "\n".join(" | ".join(row) for row in (block.table.titles, *block.table.rows))


def rows_of_csv(numbers) -> list[dict[str, str]]:
    return list(csv.DictReader(table_csv.csv_text(numbers).splitlines()))


@pytest.mark.parametrize("seeds", [1, 5])
def test_a_gain_bought_by_collapse_is_not_called_one(bench, seeds):
    study = bench.study_of({"collapsed": 1, "base": BASE}, seeds)
    numbers = bench.numbers(study)
    assert numbers.method("collapsed").gains["recall:disgust"].low > 0
    assert numbers.method("collapsed").verdicts["recall:disgust"] is Verdict.CHANCE
    page = bench.page(numbers)
    text = bench.section(page, "Answer")
    seeds_of = "5 of 5 seeds" if seeds == 5 else "its only seed"
    assert "`collapsed` is not shown to improve on `base` in recall of the rarest class" in text
    why = f"not counted as a gain, because it has collapsed for {seeds_of}"
    assert re.search(rf"recall of disgust \+60\.0 \[[^]]+\] points \({why}\)", text)
    assert f"**`collapsed` has collapsed** for {seeds_of}: it predicts *disgust* for at least 90 %" in text
    assert "its mean-class accuracy is 33.3 %, against 33.3 % for any classifier that ignores the image" in text
    assert "its accuracy is 11.8 %, against 58.8 % for always predicting *happy*" in text
    assert "not counted as a gain" in bench.section(page, "Gains on minority classes")
    assert "has collapsed" in bench.terminal(study)
    assert not re.search(r", a gain|helps the rare", text + bench.section(page, "Gains on minority classes"))


def test_what_has_collapsed_bears_a_mark_in_every_table_of_numbers(bench):
    numbers = bench.numbers(bench.study_of({"collapsed": 1, "base": BASE}))
    page = bench.page(numbers)
    for name in ("minority", "scores", "chance", "leak", "resampled"):
        (block,) = [b for b in page.tables if b.id == name]
        assert "`collapsed` ∅" in markdown_of(block)
        assert "∅ hardly a classifier: `collapsed` has collapsed for 5 of 5 seeds." in block.table.caption
    assert r"\texttt{collapsed} $\emptyset$" in latex(page)["scores.tex"]
    row = next(r for r in rows_of_csv(numbers) if r["method"] == "collapsed")
    assert (row["collapsed_seeds"], row["chance_p"]) == ("5", "1.0000")


def test_one_collapsed_training_of_many_is_named_and_its_gain_not_called_one(bench):
    def mostly(seed):
        return constant(bench.labels, 1) if seed == 0 else 4 * np.eye(3, dtype=np.float32)[right(bench.labels, 13)]

    numbers = bench.numbers(bench.study_of({"mostly": mostly, "base": BASE}, 8))
    method = numbers.method("mostly")
    assert method.chance.collapsed.sum() == 1
    assert method.chance.above
    assert method.gains["recall:disgust"].low > 0
    assert method.verdicts["recall:disgust"] is Verdict.CHANCE
    assert "has collapsed** for 1 of 8 seeds" in bench.section(bench.page(numbers), "Answer")


def right(labels: np.ndarray, disgust: int) -> np.ndarray:
    """All right but some images of disgust, which are called happy."""
    out = labels.copy()
    out[np.flatnonzero(labels == 1)[disgust:]] = 2
    return out


def test_a_loss_to_a_collapsed_reference_is_not_called_one(bench):
    numbers = bench.numbers(bench.study_of({"fine": (45, 10, 95), "base": 1}))
    method = numbers.method("fine")
    assert method.gains["recall:disgust"].high < 0
    assert method.verdicts["recall:disgust"] is method.verdicts["group:tail"] is Verdict.CHANCE
    assert method.verdicts["mean_recall"] is Verdict.GAIN  # the tail differs, so what is behind it is tested
    text = bench.section(bench.page(numbers), "Answer")
    assert "not counted as a loss, because the reference `base` has collapsed for 5 of 5 seeds" in text
    assert "Gains over such a reference mean little." in text


def test_guessing_is_not_shown_to_be_better_than_chance(bench):
    def guess(seed):
        return np.random.default_rng(seed).normal(size=(170, 3)).astype(np.float32)

    numbers = bench.numbers(bench.study_of({"guess": guess, "base": (45, 0, 95)}))
    method = numbers.method("guess")
    assert method.gains["recall:disgust"].low > 0
    assert method.verdicts["recall:disgust"] is Verdict.CHANCE
    text = bench.section(bench.page(numbers), "Answer")
    assert "not counted as a gain, because it is not significantly better than chance" in text
    assert "has collapsed" not in text


def test_a_balanced_classifier_may_lose_to_the_best_constant_answer_and_the_report_says_so(bench):
    numbers = bench.numbers(bench.study_of({"base": (40, 16, 40)}, 1, None))
    text = bench.section(bench.page(numbers), "Answer")
    assert (
        "`base` is not significantly better in accuracy than the best constant prediction: its accuracy is 56.5 %"
        in text
    )
    assert "chance" not in text


def test_the_levels_of_chance_stand_below_the_table(bench):
    table = overall.chance_table(bench.numbers(bench.study_of({"base": BASE}, 1, None)))
    assert "always predicting happy gives 58.8 % accuracy" in table.caption
    # training shares 300, 40, 900 of 1240 on 50, 20, 100 of 170 images
    guess = 100 * np.dot([300, 40, 900], [50, 20, 100]) / 1240 / 170
    assert (
        f"guessing by class frequency in training {guess:.1f} %; both give 33.3 % mean-class accuracy" in table.caption
    )
    assert table.rows[0][1] == "+36.7"  # (.8 + .4 + .9) / 3 - 1 / 3
    assert table.rows[0][3] == "+22.4"  # 138 / 170 - 100 / 170


def test_a_tail_bought_by_collapse_is_ranked_nowhere(bench):
    studies = []
    for name, answer in (("toy", 1), ("faces", None), ("masks", None)):
        facts = {
            "dataset": name,
            "fingerprint": name,
            "protocol": bench.data()["protocol"] | {"name": f"{name}/official"},
        }
        runs = [bench.run("base", 0, BASE, spec={"dataset": name}, data=facts)]
        logits = None if answer is None else constant(bench.labels, answer)
        hits = (40, 4, 90) if answer is None else None
        runs.append(bench.run("flat", 0, hits, logits=logits, spec={"dataset": name}, data=facts))
        studies.append(bench.study(runs, ["flat", "base"], name=name, dataset=name))
    comparison = load_comparison(bench.ledger, studies, draws=50)
    assert comparison.ranking(RARE).blocks == 2
    text = markdown(across.page(comparison, "x"))
    assert "Ranks leave out toy, where a method has collapsed or is at chance." in text
    assert "- toy: **`flat` has collapsed** for its only seed" in text
