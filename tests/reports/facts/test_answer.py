"""The sentences of a report: gains and their cost, missing folds, and captions that depend on the data."""

from __future__ import annotations

import re

import numpy as np

from fer_bench.reports.facts.records import load_study
from fer_bench.reports.render.blocks import Bullets
from fer_bench.reports.render.markdown import page as markdown
from fer_bench.reports.sections import (
    Context,
    compared,
    confusion_matrices,
    oracle,
    recall,
)
from fer_bench.reports.sections.composition import document

# toy data: angry 300 train / 50 test (middle), disgust 40 / 20 (tail), happy 900 / 100 (head)
BASE = (40, 8, 90)


def right(labels: np.ndarray, disgust: int) -> np.ndarray:
    """All right but some images of disgust, which are called happy."""
    out = labels.copy()
    out[np.flatnonzero(labels == 1)[disgust:]] = 2
    return out


def test_a_gain_is_told_with_what_the_frequent_classes_and_accuracy_pay(bench):
    # 18 of 20 disgust instead of 8, 60 of 100 happy instead of 90: accuracy loses 20 of 170, 11.8 points.
    study = bench.study_of({"better": (40, 18, 60), "base": BASE})
    text = bench.section(bench.page(bench.numbers(study)), "Answer")
    assert "`better` improves on `base` in recall of the rarest class" in text
    assert "`better` changes recall of the frequent classes by −30.0 points and accuracy by −11.8 points." in text
    assert re.search(
        r"Cost: recall of the frequent classes \(happy\) −30\.0 \[[^]]+\] points, accuracy −11\.8 \[[^]]+\] points",
        text,
    )
    output = bench.terminal(study)
    assert "Cost: recall of the frequent classes (happy) −30.0" in output
    assert "At the same time, better changes recall of the frequent classes by −30.0 points" in output


def test_a_gain_without_a_price_says_that_none_is_shown(bench):
    text = bench.section(bench.page(bench.numbers(bench.study_of({"better": (40, 18, 90), "base": BASE}))), "Answer")
    assert "No cost shown: recall of the frequent classes (happy) 0.0 [" in text
    assert "accuracy +5.9 [" in text


def test_the_price_is_named_whatever_the_verdict(bench):
    numbers = bench.numbers(bench.study_of({"better": (40, 18, 60), "base": BASE}, seeds=1))
    page = bench.page(numbers)
    assert "one seed: nothing is claimed" in bench.section(page, "Answer")
    assert "Cost: recall of the frequent classes (happy) −30.0" in bench.section(page, "Answer")
    text = bench.section(page, "Gains on minority classes")
    assert "Cost: recall of the frequent classes (happy) −30.0 [" in text
    assert "accuracy −11.8 [" in text


def test_a_loss_of_both_is_no_payment(bench):
    page = bench.page(bench.numbers(bench.study_of({"worse": (40, 1, 60), "base": BASE})))
    assert "Other changes: recall of the frequent classes (happy) −30.0" in bench.section(page, "Answer")
    assert "Other changes: recall of the frequent classes (happy) −30.0" in bench.section(
        page, "Gains on minority classes"
    )


def test_flip_at_test_is_told_in_the_answer(bench):
    told = "Predictions are means over an image and its mirror image (`test_flip`)."
    for flip in (True, False):
        recipe = {"recipe": {"epochs": 2, "test_flip": flip}}
        runs = [bench.run(label, seed, BASE, spec=recipe) for label in ("better", "base") for seed in (0, 1)]
        text = bench.section(bench.page(bench.numbers(bench.study(runs, ["better", "base"], "base"))), "Answer")
        assert (told in text) is flip


def test_missing_folds_stand_in_the_header_and_in_the_answer(bench):
    protocol = bench.data()["protocol"] | {"folds": 4, "scheme": "kfold", "group": "subject"}
    runs = [
        bench.run(
            label, seed, BASE, spec={"fold": f}, data={"fold": f, "protocol": protocol}, rows=np.arange(170) + 170 * f
        )
        for label in ("better", "base")
        for seed in (0, 1)
        for f in (0, 1, 3)
        if (label, seed, f) != ("better", 1, 1)
    ]
    study = bench.study(runs, ["better", "base"])
    page = bench.page(bench.numbers(study))
    sentence = "Fold 2 of 4 is missing; `better` seed 1 is missing fold 1. The results cover fewer test images than"
    assert sentence in markdown(page).partition("## Answer")[0]
    assert sentence in bench.section(page, "Answer")
    assert sentence.replace("`", "") in bench.terminal(study)


def test_several_missing_folds_are_counted(bench):
    protocol = bench.data()["protocol"] | {"folds": 10, "scheme": "kfold", "group": "subject"}
    run = bench.run("base", 0, BASE, spec={"fold": 3}, data={"fold": 3, "protocol": protocol})
    text = bench.section(bench.page(bench.numbers(bench.study([run], ["base"], None))), "Answer")
    assert "9 of 10 folds are missing (fold 0–2, 4–9). The results cover fewer test images" in text


def test_what_bold_means_is_what_is_bold(bench):
    def caption(train):
        bench.train = train
        return recall.recall_table(bench.numbers(bench.study_of({"base": BASE}, 1, None))).caption

    assert caption((300, 40, 900)).endswith(
        "to the most frequent; bold: less than half of an even share of the images."
    )
    assert caption((400, 300, 500)).endswith("to the most frequent; bold: the rarest class.")
    assert caption((300, 300, 500)).endswith("to the most frequent; bold: the rarest classes.")
    assert caption((300, 300, 300)).endswith("All classes have the same number of training images.")


def test_a_card_that_does_not_say_what_changes_is_not_said_to_change_nothing(bench):
    runs = [bench.run("base", 0, BASE, method={"changes": ""}), bench.run("better", 0, BASE)]
    table = compared.method_table(load_study(bench.ledger, bench.study(runs, ["better", "base"])))
    assert [row[table.titles.index("Changes")] for row in table.rows] == ["loss", "–"]


def test_a_confusion_matrix_says_what_it_is_made_of(bench):
    def sentence(runs):
        numbers = bench.numbers(bench.study(runs, ["base"], None))
        return confusion_matrices.pooled(numbers.study, numbers.methods[0])

    def fold(seed, f):
        return bench.run("base", seed, BASE, spec={"fold": f}, data={"fold": f}, rows=np.arange(170) + 170 * f)

    assert sentence([bench.run("base", 0, BASE)]) == ""
    assert sentence([bench.run("base", s, BASE) for s in (0, 1)]) == ", mean over 2 seeds"
    assert sentence([fold(0, 0), fold(0, 1)]) == ", 2 folds pooled"
    assert sentence([fold(s, f) for s in (0, 1) for f in (0, 1)]) == ", mean over 2 seeds, 2 folds pooled"
    assert sentence([fold(0, 0), fold(0, 1), fold(1, 0)]) == ", all predictions of 3 runs pooled"


def test_equal_leak_gaps_have_no_interval_and_limits_end_at_zero(bench):
    # Each run's other epoch finds no more, or k more of the 20 disgust images than the chosen one.
    def gaps(*more):
        runs = []
        for seed, k in enumerate(more):
            chosen, other = right(bench.labels, 8), right(bench.labels, 8 + k)
            logits = (4 * np.eye(3)[chosen]).astype(np.float32)
            runs.append(bench.run("base", seed, logits=logits, epochs=np.stack([other, chosen]).astype(np.uint8)))
        table = oracle.leak_table(bench.numbers(bench.study(runs, ["base"], None)))
        return dict(zip(table.titles, table.rows[0], strict=True))

    assert gaps(0, 0)["Leak gap"] == "0.0 (all 2 runs)"
    assert gaps(0)["Leak gap"] == "0.0"
    assert gaps(0, 0)["Epochs"] == "2"
    # accuracy: 0 and 10 of 170, mean 2.94, t(1) = 12.71 times 2.94: the lower limit would be −34.4
    assert gaps(0, 10)["Leak gap"] == "+2.9 [0.0, +40.3] (0.0 to 5.9)"


def test_one_epoch_leaves_nothing_to_peek_at(bench):
    run = bench.run("base", 0, BASE, epochs=bench.labels[None].astype(np.uint8))
    table = oracle.leak_table(bench.numbers(bench.study([run], ["base"], None)))
    assert dict(zip(table.titles, table.rows[0], strict=True))["Leak gap"] == "–"


def test_one_training_is_not_called_a_mean(bench):
    text = markdown(document(Context(bench.numbers(bench.study_of({"base": BASE}, 1, None)))))
    assert (
        "Recall in %, one seed, with 95 % intervals over images (one seed says nothing about other training runs)"
        in text
    )
    assert "One seed per method, so no standard deviation (–); shares in %." in text
    assert "mean over" not in text.replace("mean over runs", "").replace("Medians over runs", "")


def test_answers_hold_a_bullet_for_every_method(bench):
    page = bench.page(bench.numbers(bench.study_of({"a": (40, 10, 90), "b": (40, 9, 90), "base": BASE}, 2)))
    (answers,) = [p for p in page.parts if p.name == "answer"]
    lists = [b for b in answers.blocks if isinstance(b, Bullets)]
    assert [len(b.items) for b in lists] == [2]
