"""What a report may say of a gain: its price, collapse and chance, refused attempts, missing folds and classes."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest
from rich.console import Console

from fer_bench.reports import build_report
from fer_bench.reports.facts.across import RARE, load_comparison
from fer_bench.reports.facts.numbers import Verdict, compute
from fer_bench.reports.facts.records import load_study
from fer_bench.reports.facts.response import load_response
from fer_bench.reports.pages import across
from fer_bench.reports.pages import response as response_page
from fer_bench.reports.pages.terminal import study_table
from fer_bench.reports.render.blocks import Bullets, TableBlock
from fer_bench.reports.render.latex import files as latex
from fer_bench.reports.render.markdown import page as markdown
from fer_bench.reports.sections import minority, tables
from fer_bench.reports.sections.contents import SECTIONS, Context, document

# toy data: angry 300 train / 50 test (middle), disgust 40 / 20 (tail), happy 900 / 100 (head)
BASE = (40, 8, 90)
ATTEMPTS = [{"event": "open", "file": "table.csv"}, {"event": "os.rename", "file": "images.npy"}]


def constant(labels: np.ndarray, answer: int, classes: int = 3) -> np.ndarray:
    """Logits of one answer to everything."""
    return np.tile(np.eye(classes, dtype=np.float32)[answer], (len(labels), 1))


def tried(writer) -> None:
    """Two attempts that the seal refused."""
    writer.put("seal", {"count": 1, "openings": [{"reason": "final", "rows": 170}], "blocked": ATTEMPTS})


def study_of(bench, methods: dict, seeds: int = 5, reference: str | None = "base", **more):
    """A study of methods given by their hits, by the answer they give to everything, or by a function of the seed."""
    runs = []
    for label, of in methods.items():
        for seed in range(seeds):
            if isinstance(of, tuple):
                runs.append(bench.run(label, seed, of, **more))
            else:
                logits = of(seed) if callable(of) else constant(bench.labels, of, len(bench.classes))
                runs.append(bench.run(label, seed, logits=logits, **more))
    return bench.study(runs, list(methods), reference)


def numbers_of(bench, study):
    return compute(load_study(bench.ledger, study), draws=100)


def page_of(numbers):
    """The page without what takes long."""
    slow = ("frequency", "curves", "confusion", "recall", "further", "calibration")
    return document(Context(numbers), [s for s in SECTIONS if s.name not in slow])


def section(page, name: str) -> str:
    """The text of a section."""
    text = markdown(page)
    return re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)[1]


def terminal_of(bench, study) -> str:
    console = Console(width=500, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(study_table(bench.ledger, study))
    return console.export_text()


# -- the price -------------------------------------------------------------------------------------------------------


def test_a_gain_is_told_with_what_the_frequent_classes_and_accuracy_pay(bench):
    # 18 of 20 disgust instead of 8, 60 of 100 happy instead of 90: accuracy loses 20 of 170, 11.8 points.
    study = study_of(bench, {"better": (40, 18, 60), "base": BASE})
    told = section(page_of(numbers_of(bench, study)), "Answer")
    assert "`better` gains over `base` in recall of the rarest class" in told
    assert (
        "What goes with it: `better` −30.0 points of recall of the frequent classes and −11.8 points of accuracy."
        in told
    )
    assert re.search(
        r"the price: the frequent classes \(happy\) −30\.0 \[[^]]+\] points, accuracy −11\.8 \[[^]]+\] points", told
    )
    shown = terminal_of(bench, study)
    assert "the price: the frequent classes (happy) −30.0" in shown
    assert "What goes with it: better −30.0 points of recall of the frequent classes" in shown


def test_a_gain_without_a_price_says_that_none_is_shown(bench):
    told = section(page_of(numbers_of(bench, study_of(bench, {"better": (40, 18, 90), "base": BASE}))), "Answer")
    assert "no price is shown: the frequent classes (happy) 0.0 [" in told
    assert "accuracy +5.9 [" in told


def test_the_price_is_named_whatever_the_verdict(bench):
    numbers = numbers_of(bench, study_of(bench, {"better": (40, 18, 60), "base": BASE}, seeds=1))
    page = page_of(numbers)
    assert "tentative" in section(page, "Answer")
    assert "the price: the frequent classes (happy) −30.0" in section(page, "Answer")
    told = section(page, "Gains on minority classes")
    assert "the frequent ones seem to pay for it, −30.0 [" in told
    assert "accuracy −11.8 [" in told


def test_a_loss_of_both_is_no_payment(bench):
    page = page_of(numbers_of(bench, study_of(bench, {"worse": (40, 1, 60), "base": BASE})))
    assert "besides, the frequent classes (happy) −30.0" in section(page, "Answer")
    assert "the frequent ones lose as well, −30.0" in section(page, "Gains on minority classes")


# -- collapse and chance ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [1, 5])
def test_a_gain_bought_by_collapse_is_not_called_one(bench, seeds):
    study = study_of(bench, {"collapsed": 1, "base": BASE}, seeds)
    numbers = numbers_of(bench, study)
    assert numbers.method("collapsed").gains["recall:disgust"].low > 0
    assert numbers.method("collapsed").verdicts["recall:disgust"] is Verdict.CHANCE
    page = page_of(numbers)
    told = section(page, "Answer")
    trainings = "5 of 5 trainings" if seeds == 5 else "its one training"
    assert "`collapsed` is not shown to gain over `base` in recall of the rarest class" in told
    assert re.search(
        rf"recall of disgust \+60\.0 \[[^]]+\] points, not called a gain: it has collapsed in {trainings};", told
    )
    assert f"**`collapsed` has collapsed** in {trainings}: it answers *disgust* to at least 90 %" in told
    assert "its mean-class accuracy is 33.3 %, and whatever ignores the image" in told
    assert "its accuracy is 11.8 %, and always answering *happy* has 58.8 %" in told
    assert "not called a gain" in section(page, "Gains on minority classes")
    assert "has collapsed" in terminal_of(bench, study)
    assert not re.search(r", a gain|helps the rare", told + section(page, "Gains on minority classes"))


def test_what_has_collapsed_bears_a_mark_in_every_table_of_numbers(bench):
    numbers = numbers_of(bench, study_of(bench, {"collapsed": 1, "base": BASE}))
    page = page_of(numbers)
    for name in ("minority", "scores", "chance", "leak", "resampled"):
        (block,) = [b for b in page.tables if b.id == name]
        assert "`collapsed` ∅" in markdown_of(block)
        assert "∅ hardly a classifier: `collapsed` has collapsed in 5 of 5 trainings." in block.table.caption
    assert r"\texttt{collapsed} $\emptyset$" in latex(page)["scores.tex"]
    row = next(r for r in rows_of_csv(numbers) if r["method"] == "collapsed")
    assert (row["collapsed_seeds"], row["chance_p"]) == ("5", "1.0000")


def markdown_of(block: TableBlock) -> str:
    return "\n".join(" | ".join(row) for row in (block.table.titles, *block.table.rows))


def rows_of_csv(numbers) -> list[dict[str, str]]:
    return list(csv.DictReader(tables.csv_text(numbers).splitlines()))


def test_one_collapsed_training_of_many_is_named_and_its_gain_not_called_one(bench):
    def mostly(seed):
        return constant(bench.labels, 1) if seed == 0 else 4 * np.eye(3, dtype=np.float32)[right(bench.labels, 13)]

    numbers = numbers_of(bench, study_of(bench, {"mostly": mostly, "base": BASE}, 8))
    method = numbers.method("mostly")
    assert method.chance.collapsed.sum() == 1
    assert method.chance.above
    assert method.gains["recall:disgust"].low > 0
    assert method.verdicts["recall:disgust"] is Verdict.CHANCE
    assert "has collapsed in 1 of 8 trainings" in section(page_of(numbers), "Answer")


def right(labels: np.ndarray, disgust: int) -> np.ndarray:
    """All right but some images of disgust, which are called happy."""
    out = labels.copy()
    out[np.flatnonzero(labels == 1)[disgust:]] = 2
    return out


def test_a_loss_to_a_collapsed_reference_is_not_called_one(bench):
    numbers = numbers_of(bench, study_of(bench, {"fine": (45, 10, 95), "base": 1}))
    method = numbers.method("fine")
    assert method.gains["recall:disgust"].high < 0
    assert method.verdicts == {"recall:disgust": Verdict.CHANCE, "mean_recall": Verdict.GAIN}
    told = section(page_of(numbers), "Answer")
    assert "not called a loss: the reference `base` has collapsed in 5 of 5 trainings" in told
    assert "Gains over such a reference say little." in told


def test_guessing_is_not_shown_to_be_better_than_chance(bench):
    def guess(seed):
        return np.random.default_rng(seed).normal(size=(170, 3)).astype(np.float32)

    numbers = numbers_of(bench, study_of(bench, {"guess": guess, "base": (45, 0, 95)}))
    method = numbers.method("guess")
    assert method.gains["recall:disgust"].low > 0
    assert method.verdicts["recall:disgust"] is Verdict.CHANCE
    told = section(page_of(numbers), "Answer")
    assert "not called a gain: it is not shown to be better than chance" in told
    assert "has collapsed" not in told


def test_a_balanced_classifier_may_lose_to_the_best_constant_answer_and_the_report_says_so(bench):
    numbers = numbers_of(bench, study_of(bench, {"base": (40, 16, 40)}, 1, None))
    told = section(page_of(numbers), "Answer")
    assert "`base` is not shown to beat the best constant answer in accuracy: its accuracy is 56.5 %" in told
    assert "chance" not in told


def test_the_levels_of_chance_stand_below_the_table(bench):
    table = tables.chance_table(numbers_of(bench, study_of(bench, {"base": BASE}, 1, None)))
    assert "always answering happy has 58.8 % accuracy" in table.caption
    # training shares 300, 40, 900 of 1240 on 50, 20, 100 of 170 images
    guess = 100 * np.dot([300, 40, 900], [50, 20, 100]) / 1240 / 170
    assert (
        f"guessing with the shares of training {guess:.1f} %, and both have 33.3 % mean-class accuracy" in table.caption
    )
    assert table.rows[0][1] == "+36.7"  # (.8 + .4 + .9) / 3 - 1 / 3
    assert table.rows[0][3] == "+22.4"  # 138 / 170 - 100 / 170


# -- two classes, ties, and classes without test images --------------------------------------------------------------


@pytest.fixture
def two(bench):
    """Smiles are the minority: 300 of 1,200 training and 40 of 132 test images."""
    bench.classes, bench.train, bench.test = ("smile", "other"), (300, 900), (40, 92)
    bench.labels = np.repeat([0, 1], [40, 92])
    return bench


def test_of_two_classes_the_minority_is_the_tail_and_the_majority_the_head(two):
    numbers = numbers_of(two, study_of(two, {"better": (36, 80), "base": (20, 85)}))
    assert dict(numbers.groups.members) == {"head": (1,), "tail": (0,)}
    page = page_of(numbers)
    told = section(page, "Gains on minority classes")
    assert "`better` helps the rare expressions (smile): +40.0 [" in told
    assert "| `better` | head, mean | −5.4 [" in told
    assert "(head: 900 training images; tail: 300 training images)" in told
    assert "the frequent classes (other) −5.4 [" in section(page, "Answer")
    assert minority.tradeoff(numbers) is not None


def test_two_classes_have_response_curves_of_a_head_and_a_tail(two):
    found = []
    for profile, train in (("exp:3", [300, 900]), ("exp:30", [30, 900])):
        counts = {"counts": {"train": train, "val": [40, 92], "test": [40, 92]}}
        runs = [
            two.run(label, 0, hits, spec={"profile": profile}, data=counts)
            for label, hits in (("base", (20, 85)), ("other", (30, 80)))
        ]
        found.append(two.study(runs, ["base", "other"], name=profile.replace(":", "-")))
    response = load_response(two.ledger, found)
    assert response.measures == ("head", "tail", "mean")
    text = markdown(response_page.page(response, "x"))
    assert "Recall of tail in % (smile)" in text
    assert "Accuracy in % (share of all test images)" in text


def test_two_classes_have_a_tail_over_several_data_sets(two):
    studies = []
    for name in ("toy", "faces"):
        facts = {
            "dataset": name,
            "fingerprint": name,
            "protocol": two.data()["protocol"] | {"name": f"{name}/official"},
        }
        runs = [
            two.run(label, 0, hits, spec={"dataset": name}, data=facts)
            for label, hits in (("base", (20, 85)), ("other", (30, 80)))
        ]
        studies.append(two.study(runs, ["base", "other"], name=name, dataset=name))
    comparison = load_comparison(two.ledger, studies, draws=50)
    assert comparison.entries[0].value("other", RARE) == pytest.approx(0.75)
    text = markdown(across.page(comparison, "x"))
    assert "recall of the frequent classes moves by −5.4 (toy) and −5.4 (faces) points" in text
    assert "accuracy moves by +3.8 (toy) and +3.8 (faces) points" in text


def test_classes_of_equal_count_are_not_called_the_rarest(bench):
    bench.train = (100, 100, 100)
    page = page_of(numbers_of(bench, study_of(bench, {"better": (40, 18, 90), "base": BASE}, 1)))
    assert "in recall of *angry* (100 training and 50 test images), the first of 3 equally frequent classes" in section(
        page, "Answer"
    )
    bench.train = (40, 40, 900)
    told = section(page_of(numbers_of(bench, study_of(bench, {"b": (40, 18, 90), "base": BASE}, 1))), "Answer")
    assert "the first of the 2 rarest classes" in told


def test_a_class_without_test_images_is_named_and_spoken_of_nowhere(bench):
    bench.test = (50, 0, 100)
    bench.labels = np.repeat([0, 2], [50, 100])
    numbers = numbers_of(bench, study_of(bench, {"better": (48, 0, 90), "base": (30, 0, 90)}))
    assert numbers.headline == ("recall:angry", "mean_recall")
    assert dict(numbers.groups.members) == {"head": (2,), "tail": (0,)}
    told = section(page_of(numbers), "Answer")
    assert "the rarest class with test images, *angry* (300 training and 50 test images)" in told
    assert "*disgust* has no test images: means over classes leave it out." in told


def test_with_one_class_to_test_nothing_is_said_of_chance(two):
    two.labels = np.zeros(40, int)
    numbers = numbers_of(two, study_of(two, {"better": (36, 0), "base": (20, 0)}))
    page = page_of(numbers)
    assert "only one class has test images" in section(page, "Gains on minority classes")
    assert "Fewer than two classes have test images" in section(page, "Overall scores")
    assert "collapsed" not in section(page, "Answer")


# -- attempts that the seal refused ----------------------------------------------------------------------------------

NOTE = "⊘ tried to get at sealed files (`cheat`: `open table.csv`, `os.rename images.npy`) and was refused"


@pytest.fixture
def cheated(bench):
    """`cheat` is better than `base`, and one of its five runs tried to get at sealed files."""
    runs = [bench.run("cheat", seed, (40, 18, 90), edit=tried if seed == 3 else None) for seed in range(5)]
    runs += [bench.run("base", seed, BASE) for seed in range(5)]
    return bench, bench.study(runs, ["cheat", "base"])


def test_a_refused_attempt_marks_the_method_in_every_table_and_format(cheated, tmp_path):
    bench, study = cheated
    numbers = numbers_of(bench, study)
    page = document(Context(numbers))
    shown = [b for b in page.tables if "`cheat`" in markdown_of(b)]
    assert {"minority", "recall", "gains", "scores", "chance", "leak", "further", "methods", "trust", "cost"} <= {
        b.id for b in shown
    }
    for block in shown:
        assert not re.search("`cheat`(?! ⊘)", markdown_of(block)), block.id
        assert NOTE in block.table.caption, block.id
    out = build_report(bench.ledger, study, tmp_path / "out").parent
    assert "`cheat` ⊘" in (out / "report.md").read_text()
    assert "<code>cheat</code> ⊘" in (out / "report.html").read_text()
    text = (out / "tables" / "scores.tex").read_text()
    assert r"\texttt{cheat} \ensuremath{\oslash}" in text
    assert r"\ensuremath{\oslash} tried to get at sealed files" in text
    rows = list(csv.DictReader((out / "table.csv").open()))
    assert {(r["method"], r["blocked"]) for r in rows} == {
        ("cheat", "open table.csv; os.rename images.npy"),
        ("base", ""),
    }
    shown = terminal_of(bench, study)
    assert "cheat ⊘" in shown
    assert NOTE.replace("`", "") in shown


def test_a_method_that_was_refused_is_listed_last_and_not_ranked(cheated):
    bench, study = cheated
    numbers = numbers_of(bench, study)
    assert [m.label for m in numbers.methods] == ["base", "cheat"]
    assert set(numbers.method("cheat").verdicts.values()) == {Verdict.NOT_RANKED}
    told = section(page_of(numbers), "Answer")
    assert "No method can be compared with `base`." in told
    assert "⊘ **`cheat`** against `base`" in told
    assert "not ranked: it tried to get at sealed files" in told
    trust = section(page_of(numbers), "Seal and probe")
    assert "`cheat` tried, and was refused: `open table.csv`, `os.rename images.npy`." in trust


def test_an_attempt_that_ended_its_run_marks_the_method_all_the_same(bench):
    def failed(writer):
        tried(writer)
        writer.fail(RuntimeError("the test is sealed"))

    runs = [bench.run("cheat", 9, (40, 18, 90), edit=failed, finish=False)]
    runs += [bench.run(label, seed, of) for label, of in (("cheat", (40, 18, 90)), ("base", BASE)) for seed in range(5)]
    numbers = numbers_of(bench, bench.study(runs, ["cheat", "base"]))
    assert numbers.method("cheat").seeds == (0, 1, 2, 3, 4)
    assert numbers.method("cheat").mark == " ⊘"
    assert set(numbers.method("cheat").verdicts.values()) == {Verdict.NOT_RANKED}


def test_nothing_is_claimed_over_a_reference_that_was_refused(bench):
    runs = [bench.run("better", seed, (40, 18, 90)) for seed in range(5)]
    runs += [bench.run("base", seed, BASE, edit=tried) for seed in range(5)]
    numbers = numbers_of(bench, bench.study(runs, ["better", "base"]))
    told = section(page_of(numbers), "Answer")
    assert "The reference `base` ⊘ tried to get at sealed files, so no gain is claimed." in told
    assert "not ranked: the reference tried to get at sealed files" in told


def test_refused_attempts_mark_the_pages_over_profiles_and_data_sets(bench):
    def study(name, dataset, edit, **facts):
        hits = {"cheat": (40, 18, 90), "fine": (40, 10, 90), "base": BASE}
        runs = [bench.run(m, 0, of, edit=edit if m == "cheat" else None, **facts) for m, of in hits.items()]
        return bench.study(runs, list(hits), name=name, dataset=dataset)

    profiles, sets = [], []
    for rare, dataset, edit in ((90, "toy", None), (9, "faces", tried)):  # refused in one of both
        counts = {"counts": {"train": [90, rare, 900], "val": [50, 20, 100], "test": [50, 20, 100]}}
        profiles.append(study(f"profile-{rare}", "toy", edit, spec={"profile": f"exp:{900 // rare}"}, data=counts))
        protocol = bench.data()["protocol"] | {"name": f"{dataset}/official"}
        facts = {"dataset": dataset, "fingerprint": dataset, "protocol": protocol}
        sets.append(study(f"on-{dataset}", dataset, edit, spec={"dataset": dataset}, data=facts))
    response = load_response(bench.ledger, profiles)
    comparison = load_comparison(bench.ledger, sets, draws=50)
    assert comparison.ranked == ("fine", "base")
    for page in (response_page.page(response, "x"), across.page(comparison, "x")):
        shown = [b for b in page.tables if "`cheat`" in markdown_of(b)]
        assert len(shown) > 3
        for block in shown:
            assert not re.search("`cheat`(?! ⊘)", markdown_of(block)), block.id
            assert NOTE in block.table.caption, block.id
    for text in (response_page.csv_text(response), across.csv_text(comparison)):
        blocked = {(r["method"], r["blocked"]) for r in csv.DictReader(text.splitlines())}
        assert ("cheat", "open table.csv; os.rename images.npy") in blocked
        assert ("fine", "") in blocked


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
    assert "Without toy, where a method answers nearly everything with such a class or is at chance." in text
    assert "- toy: **`flat` has collapsed** in its one training" in text


# -- folds -----------------------------------------------------------------------------------------------------------


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
    page = page_of(numbers_of(bench, study))
    said = (
        "Fold 2 of 4 is missing; `better` seed 1 lacks fold 1: numbers rest on fewer test images than the protocol has."
    )
    assert said in markdown(page).partition("## Answer")[0]
    assert said in section(page, "Answer")
    assert said.replace("`", "") in terminal_of(bench, study)


def test_several_missing_folds_are_counted(bench):
    protocol = bench.data()["protocol"] | {"folds": 10, "scheme": "kfold", "group": "subject"}
    run = bench.run("base", 0, BASE, spec={"fold": 3}, data={"fold": 3, "protocol": protocol})
    told = section(page_of(numbers_of(bench, bench.study([run], ["base"], None))), "Answer")
    assert "9 of 10 folds are missing (fold 0–2, 4–9): numbers rest on fewer test images" in told


# -- sentences that depend on the data -------------------------------------------------------------------------------


def test_what_bold_means_is_what_is_bold(bench):
    def caption(train):
        bench.train = train
        return tables.recall_table(numbers_of(bench, study_of(bench, {"base": BASE}, 1, None))).caption

    assert caption((300, 40, 900)).endswith("to the most frequent; bold: fewer than half of an even share.")
    assert caption((400, 300, 500)).endswith("to the most frequent; bold: the rarest.")
    assert caption((300, 300, 500)).endswith("to the most frequent; bold: the rarest ones.")
    assert caption((300, 300, 300)).endswith("All classes have equally many training images.")


def test_a_card_that_does_not_say_what_changes_is_not_said_to_change_nothing(bench):
    runs = [bench.run("base", 0, BASE, method={"changes": ""}), bench.run("better", 0, BASE)]
    table = tables.method_table(load_study(bench.ledger, bench.study(runs, ["better", "base"])))
    assert [row[table.titles.index("Changes")] for row in table.rows] == ["loss", "–"]


def test_a_confusion_matrix_says_what_it_is_made_of(bench):
    def said(runs):
        numbers = numbers_of(bench, bench.study(runs, ["base"], None))
        return tables.pooled(numbers.study, numbers.methods[0])

    def fold(seed, f):
        return bench.run("base", seed, BASE, spec={"fold": f}, data={"fold": f}, rows=np.arange(170) + 170 * f)

    assert said([bench.run("base", 0, BASE)]) == ""
    assert said([bench.run("base", s, BASE) for s in (0, 1)]) == ", mean over 2 seeds"
    assert said([fold(0, 0), fold(0, 1)]) == ", 2 folds pooled"
    assert said([fold(s, f) for s in (0, 1) for f in (0, 1)]) == ", mean over 2 seeds, 2 folds pooled"
    assert said([fold(0, 0), fold(0, 1), fold(1, 0)]) == ", all answers of 3 runs pooled"


def test_equal_leak_gaps_have_no_interval_and_limits_end_at_zero(bench):
    # Each run's other epoch finds no more, or k more of the 20 disgust images than the chosen one.
    def gaps(*more):
        runs = []
        for seed, k in enumerate(more):
            chosen, other = right(bench.labels, 8), right(bench.labels, 8 + k)
            logits = (4 * np.eye(3)[chosen]).astype(np.float32)
            runs.append(bench.run("base", seed, logits=logits, epochs=np.stack([other, chosen]).astype(np.uint8)))
        table = tables.leak_table(numbers_of(bench, bench.study(runs, ["base"], None)))
        return dict(zip(table.titles, table.rows[0], strict=True))

    assert gaps(0, 0)["Leak gap"] == "0.0 (in all 2 runs)"
    assert gaps(0)["Leak gap"] == "0.0"
    assert gaps(0, 0)["Epochs"] == "2"
    # accuracy: 0 and 10 of 170, mean 2.94, t(1) = 12.71 times 2.94: the lower limit would be −34.4
    assert gaps(0, 10)["Leak gap"] == "+2.9 [0.0, +40.3] (0.0 to 5.9)"


def test_one_epoch_leaves_nothing_to_peek_at(bench):
    run = bench.run("base", 0, BASE, epochs=bench.labels[None].astype(np.uint8))
    table = tables.leak_table(numbers_of(bench, bench.study([run], ["base"], None)))
    assert dict(zip(table.titles, table.rows[0], strict=True))["Leak gap"] == "–"


def test_one_training_is_not_called_a_mean(bench):
    text = markdown(document(Context(numbers_of(bench, study_of(bench, {"base": BASE}, 1, None)))))
    assert (
        "Recall in %, of one training, with its 95 % interval over images, which says nothing of other trainings"
        in text
    )
    assert "One training a method, so no spread (–); shares in %." in text
    assert "mean over" not in text.replace("mean over runs", "").replace("Medians over runs", "")


def test_answers_hold_a_bullet_for_every_method(bench):
    page = page_of(numbers_of(bench, study_of(bench, {"a": (40, 10, 90), "b": (40, 9, 90), "base": BASE}, 2)))
    (answers,) = [p for p in page.parts if p.name == "answer"]
    lists = [b for b in answers.blocks if isinstance(b, Bullets)]
    assert [len(b.items) for b in lists] == [2]
