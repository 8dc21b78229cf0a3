"""The same methods over several data sets, from ledgers in which every recall is known."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from scipy import stats as scipy_stats

from fer_bench.errors import LedgerError
from fer_bench.reports.facts.across import ACCURACY, MEAN, RARE, Comparison, load_comparison
from fer_bench.reports.pages import across
from fer_bench.reports.render.blocks import Document
from fer_bench.reports.render.markdown import page as markdown

# Every data set has 50 angry, 20 disgust, 100 happy test images, and 300, 40, 900 in training: disgust is the tail.
LOW, MIDDLE, HIGH = (40, 8, 90), (40, 12, 90), (40, 18, 90)  # disgust: 40 %, 60 %, 90 %
THREE = {"toy": (HIGH, MIDDLE, LOW), "faces": (HIGH, MIDDLE, LOW), "masks": (MIDDLE, HIGH, LOW)}  # of `a`, `b`, `base`


def load(bench, studies) -> Comparison:
    return load_comparison(bench.ledger, studies, draws=50)


def cells(document: Document, table: str) -> dict[str, dict[str, str]]:
    """Rows of a table by their first cell, each by column title."""
    result = next(t.table for t in document.tables if t.id == table)
    return {row[0]: dict(zip(result.titles, row, strict=True)) for row in result.rows}


def text_of(document: Document, part: str) -> str:
    """The Markdown of a section."""
    kept = tuple(p for p in document.parts if p.name == part)
    return markdown(Document("x", (), kept))


def lines(comparison: Comparison) -> list[dict[str, str]]:
    """The numbers of the page in long form."""
    return list(csv.DictReader(across.csv_text(comparison).splitlines()))


def gains_axis(comparison: Comparison):
    return across.draw_gains(comparison).axes[0]


# -- numbers ---------------------------------------------------------------------------------------------------------


def test_a_value_is_the_mean_over_seeds(bench, add):
    studies = [
        add("toy", {"a": [(40, 8, 90), (50, 12, 70)], "base": [LOW]}),
        add("faces", {"a": [HIGH], "base": [LOW]}),
    ]
    toy, faces = load(bench, studies).entries
    assert toy.value("a", MEAN) == pytest.approx(((0.8 + 0.4 + 0.9) / 3 + (1.0 + 0.6 + 0.7) / 3) / 2)
    assert toy.value("a", ACCURACY) == pytest.approx((138 / 170 + 132 / 170) / 2)
    assert toy.value("a", RARE) == pytest.approx((0.4 + 0.6) / 2)
    assert faces.value("a", RARE) == pytest.approx(0.9)


def test_tables_show_mean_and_spread_by_data_set_and_mark_no_best(bench, add):
    both = [add(name, {"a": [(40, 8, 90), (40, 12, 90)], "base": [LOW]}) for name in ("toy", "faces")]
    row = cells(across.page(load(bench, both), "x"), "scores-group-tail")["`a`"]
    spread = 100 * (0.6 - 0.4) / 2**0.5
    assert row == {"Method": "`a`", "toy": f"50.0 ± {spread:.1f}", "faces": f"50.0 ± {spread:.1f}", "Mean rank": "1.00"}


def test_a_data_set_without_rare_classes_has_no_tail_and_counts_in_no_rank_of_it(bench, add, three):
    bench.train = (100, 100, 100)
    flat = {"a": [HIGH], "b": [MIDDLE], "base": [LOW]}
    even = add("even", flat, data={"counts": {"train": [100] * 3, "test": [50, 20, 100]}})
    comparison = load(bench, [*three, even])
    document = across.page(comparison, "x")
    assert cells(document, "scores-group-tail")["`a`"]["even"] == "–"
    assert cells(document, "gains-group-tail")["`a`"]["even"] == "–"
    assert [r.blocks for r in map(comparison.ranking, (MEAN, RARE))] == [4, 3]
    assert "- even: no tail, because all classes have the same number of training images" in text_of(document, "scores")
    assert [t.get_text().split("\n") for t in gains_axis(comparison).get_yticklabels()] == [
        [name, "disgust"] for name in THREE
    ]


# -- ranks -----------------------------------------------------------------------------------------------------------


def test_ranks_are_those_by_hand_and_friedmans_is_scipys(bench, three):
    comparison = load(bench, three)
    result = comparison.ranking(MEAN)
    assert dict(zip(result.names, result.ranks, strict=True)) == pytest.approx({"a": 4 / 3, "b": 5 / 3, "base": 3})
    recalls = [[(0.8 + hits[1] / 20 + 0.9) / 3 for hits in by_method] for by_method in THREE.values()]
    independent = scipy_stats.friedmanchisquare(*np.transpose(recalls))
    assert (result.chi2, result.chi2_p) == pytest.approx((independent.statistic, independent.pvalue))
    document = across.page(comparison, "x")
    means = {label: row["Mean rank"] for label, row in cells(document, "scores-mean-recall").items()}
    assert means == {"`a`": "1.33", "`b`": "1.67", "`base`": "3.00"}
    # chi² = 14/3; F = 2 chi² / (6 - chi²) = 7 with 2 and 4 degrees; of 216 orders 42 give as much
    text = text_of(document, "ranks")
    assert "Friedman's chi² 4.67, p 0.097; Iman and Davenport's F 7.00, p 0.049; permutation" in text
    assert "within the data sets, p 0.194" in text
    assert "critical difference of 1.91 (" in text  # 2.343 * sqrt(3 * 4 / (6 * 3)), Demsar's table 5
    assert "With fewer than 10 data sets these tests have little power" in text


def test_where_all_data_sets_agree_f_has_no_p(bench, add):
    both = [add(name, {"a": [HIGH], "b": [MIDDLE], "base": [LOW]}) for name in ("toy", "faces")]
    text = text_of(across.page(load(bench, both), "x"), "ranks")
    assert "F is infinite, because all data sets rank alike, so its p is left out" in text
    assert "within the data sets, p 0.167." in text  # 6 of 36 orders agree


def test_methods_of_equal_mean_share_a_rank_whatever_the_order_of_their_seeds(bench, add):
    seeds = [(39, 11, 95), (40, 8, 90), (33, 7, 61)]
    turned = [seeds[2], seeds[0], seeds[1]]
    studies = [add(name, {"a": seeds, "b": turned, "base": [LOW] * 3}) for name in ("toy", "faces")]
    comparison = load(bench, studies)
    assert comparison.entries[0].value("a", MEAN) != comparison.entries[0].value("b", MEAN)  # the sums round apart
    result = comparison.ranking(MEAN)
    assert dict(zip(result.names, result.ranks, strict=True)) == {"a": 2.5, "b": 2.5, "base": 1.0}


def test_ten_data_sets_need_no_caution(bench, add):
    ten = [add(f"set{i}", {"a": [HIGH], "base": [LOW]}) for i in range(10)]
    text = text_of(across.page(load(bench, ten), "x"), "ranks")
    assert "over 10 data sets" in text
    assert "find little" not in text


def test_the_diagram_names_methods_and_mean_ranks(bench, three):
    figure = next(f for f in across.page(load(bench, three), "x").figures if f.name == "ranks")
    output = {t.get_text().strip() for t in figure.drawn.axes[0].texts}
    assert {"a  1.33", "b  1.67", "base  3.00", "critical difference 1.91"} <= output


# -- what is left out of the ranks -----------------------------------------------------------------------------------


def test_a_method_that_one_study_lacks_is_left_out_and_named(bench, add, three):
    more = add("more", {"a": [HIGH], "b": [MIDDLE], "base": [LOW], "third": [HIGH]})
    comparison = load(bench, [*three, more])
    assert comparison.methods == ("a", "b", "base")
    assert "`third` is left out, because it is not in `on-toy`, `on-faces` and `on-masks`." in comparison.notes
    assert "Left out because not in every study: `third`." in text_of(across.page(comparison, "x"), "ranks")


def test_a_method_that_reads_other_test_images_is_shown_last_and_not_ranked(bench, add):
    hits = {"cheat": [HIGH] * 5, "a": [MIDDLE] * 5, "base": [LOW] * 5}
    studies = [add("toy", hits), add("faces", hits, transductive=["cheat"])]  # one probe finds it out
    comparison = load(bench, studies)
    assert comparison.ranking(MEAN).names == ("a", "base")
    document = across.page(comparison, "x")
    rows = cells(document, "scores-mean-recall")
    assert list(rows) == ["`a`", "`base`", "`cheat` ⚠"]
    assert (rows["`cheat` ⚠"]["toy"], rows["`cheat` ⚠"]["Mean rank"]) == ("86.7 ± 0.0", "–")
    assert cells(document, "gains-mean-recall")["`cheat` ⚠"]["Gains in"] == "–"
    assert "`cheat` ⚠: nothing is claimed, because it reads other test images. Side effects:" in text_of(
        document, "gains"
    )
    assert "not ranked (reads other test images): `cheat`." in text_of(document, "ranks")
    assert "`cheat` reads other test images (in `on-faces`): listed with ⚠, not ranked." in comparison.notes


@pytest.mark.slow
def test_a_watermarked_study_is_shown_and_counts_nowhere(bench, add):
    hits = {"a": [HIGH] * 5, "b": [MIDDLE] * 5, "base": [LOW] * 5}
    marked = add("masks", hits, protocol={"watermark": "people are in training and test"})
    comparison = load(bench, [add("toy", hits), add("faces", hits), marked])
    assert comparison.ranking(MEAN).blocks == 2
    document = across.page(comparison, "x")
    assert cells(document, "scores-mean-recall")["`a`"]["masks ⚠"] == "86.7 ± 0.0"
    assert cells(document, "gains-mean-recall")["`a`"]["Gains in"] == "2 of 2"
    assert cells(document, "gains-mean-recall")["`a`"]["masks ⚠"].startswith("+16.7 [")  # not bold
    text = markdown(document)
    assert "**Watermarked: not a fair estimate on masks.** people are in training and test" in text
    assert "not ranked (not a fair estimate): masks." in text
    assert "Study `on-masks` is watermarked (people are in training and test): listed with ⚠, not ranked." in text


def test_with_one_data_set_left_there_are_no_ranks_and_the_page_says_why(bench, add):
    hits = {"a": [HIGH], "base": [LOW]}
    comparison = load(bench, [add("toy", hits), add("faces", hits, protocol={"watermark": "selects on test"})])
    document = across.page(comparison, "x")
    assert comparison.ranking(MEAN) is None
    text = text_of(document, "ranks")
    assert "need at least two methods and two data sets, and 2 methods and 1 data set can be ranked." in text
    assert "not ranked (not a fair estimate): faces." in text
    assert [f.name for f in document.figures] == ["gains"]
    assert {row["Mean rank"] for row in cells(document, "scores-accuracy").values()} == {"–"}
    assert {line["ranked"] for line in lines(comparison)} == {"false"}


def test_with_one_method_left_there_are_no_ranks(bench, add):
    studies = [add(n, {"a": [HIGH], "base": [LOW]}, transductive=["a", "base"]) for n in ("toy", "faces")]
    text = text_of(across.page(load(bench, studies), "x"), "ranks")
    assert "and 0 methods and 2 data sets can be ranked." in text


# -- which studies can be compared -----------------------------------------------------------------------------------


def test_the_same_block_twice_adds_no_data_set(bench, add, three):
    again = add("toy", {"a": [LOW], "b": [LOW], "base": [HIGH]}, name="again")
    comparison = load(bench, [*three, again])
    assert [e.study.name for e in comparison.entries] == ["on-toy", "on-faces", "on-masks"]
    same = "Study `again` has the same data set, protocol and profile as `on-toy` and is left out."
    assert same in comparison.notes


def test_one_data_set_is_no_comparison(bench, add):
    study = add("toy", {"a": [HIGH], "base": [LOW]})
    with pytest.raises(LedgerError, match="at least two data sets") as alone:
        load(bench, [study])
    assert "on-toy: toy toy/official natural" in str(alone.value)
    assert "under another protocol or imbalance profile counts as a data set of its own" in str(alone.value)
    with pytest.raises(LedgerError, match="same data set, protocol and profile"):
        load(bench, [study, add("toy", {"a": [HIGH], "base": [LOW]}, name="again")])


def test_another_profile_of_a_data_set_is_a_block_whose_dependence_is_told(bench, add):
    hits = {"a": [HIGH], "base": [LOW]}
    thin = add("toy", hits, name="thin", spec={"profile": "exp:10"}, data={"fingerprint": "prepared anew"})
    comparison = load(bench, [add("toy", hits), thin, add("faces", hits)])
    assert [e.title for e in comparison.entries] == ["toy/official natural", "toy/official exp:10", "faces"]
    assert "are not independent" in text_of(across.page(comparison, "x"), "ranks")


def test_data_sets_of_their_own_are_not_called_dependent(bench, three):
    assert "independent" not in text_of(across.page(load(bench, three), "x"), "ranks")


def test_two_names_of_the_same_data_are_called_dependent(bench, add):
    hits = {"a": [HIGH], "base": [LOW]}
    studies = [add("toy", hits), add("copy", hits, data={"fingerprint": "print-of-toy"})]
    assert "are not independent" in text_of(across.page(load(bench, studies), "x"), "ranks")


def test_fewer_than_two_methods_in_common_are_no_comparison(bench, add):
    studies = [add("toy", {"a": [HIGH], "base": [LOW]}), add("faces", {"b": [HIGH], "base": [LOW]})]
    with pytest.raises(LedgerError, match="fewer than two methods in common") as error:
        load(bench, studies)
    assert "on-toy: a, base; on-faces: b, base" in str(error.value)


def test_a_study_without_usable_runs_is_told_and_the_rest_reported(bench, add, three):
    broken = add("broken", {"a": [HIGH], "base": [LOW]})
    for key in broken["runs"]:
        (bench.ledger.run(key).path / "test_logits.npy").unlink()
    comparison = load(bench, [broken, *three])
    assert [e.title for e in comparison.entries] == list(THREE)
    (note,) = [n for n in comparison.notes if "on-broken" in n]
    assert note.startswith("Left out: study 'on-broken' has no run that can be reported. `a` seed 0")
    assert "test_logits.npy is missing" in note
    with pytest.raises(LedgerError, match="study 'on-broken' has no run that can be reported"):
        load(bench, [broken, three[0]])


def test_a_damaged_run_is_told_with_its_study(bench, add, three):
    key = three[1]["runs"][0]
    more = add("more", {"a": [HIGH], "b": [MIDDLE], "base": [LOW]})
    (bench.ledger.run(key).path / "seal.json").unlink()
    comparison = load(bench, [*three, more])
    assert [n for n in comparison.notes if n.startswith("`on-faces`: `a` seed 0") and "seal.json is missing" in n]
