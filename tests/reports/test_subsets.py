"""Reports of studies whose thinned training set was drawn once or several times."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from fer_bench.reports.facts import answer, phrases
from fer_bench.reports.facts.numbers import compute
from fer_bench.reports.facts.records import load_study
from fer_bench.reports.facts.runs import Training
from fer_bench.reports.facts.tidy import tidy_columns
from fer_bench.reports.render.markdown import page as markdown
from fer_bench.reports.sections import Context
from fer_bench.reports.sections.composition import document
from fer_bench.reports.sections.table_csv import csv_text
from fer_bench.stats.crossed_subsets import MeanSquares
from tests.reports.conftest import Bench

HITS = {0: 10, 1: 14, 2: 6}  # of 20 images of disgust, by subset
COMMAND = "fer-bench run better base --dataset toy --imbalance exp:50"


def runs_of(bench: Bench, label: str, more: int = 0, seeds: int = 2, subsets=(0, 1, 2), lost=()) -> list[str]:
    """A method whose recall of disgust depends on the subset, and by one image on the seed."""
    return [
        bench.run(
            label,
            seed,
            (40, HITS[subset] + more + seed, 90),
            spec={"profile": "exp:50"} | ({"subset": subset} if subset else {}),
        )
        for seed in range(seeds)
        for subset in subsets
        if (subset, seed) not in lost
    ]


def study_of(bench: Bench, runs: list[str], methods=("better", "base")):
    return load_study(bench.ledger, bench.study(runs, list(methods), command=COMMAND))


def page_of(study):
    """The whole page as Markdown."""
    return markdown(document(Context(compute(study, draws=20))))


@pytest.fixture
def crossed(bench):
    """Two methods, each of two seeds on three subsets."""
    return study_of(bench, runs_of(bench, "better", 3) + runs_of(bench, "base"))


def test_every_subset_and_seed_is_a_training_of_its_own(crossed):
    trainings, predictions = crossed.predictions("base")
    assert trainings == tuple(Training(subset, seed) for subset in range(3) for seed in range(2))
    right = ((predictions == crossed.labels) & (crossed.labels == 1)).sum(1)
    assert right.tolist() == [10, 11, 14, 15, 6, 7]
    assert (crossed.subsets, crossed.method("base").seeds, crossed.crossed) == ((0, 1, 2), (0, 1), True)
    shared, ours, _ = crossed.paired("better", "base")
    assert shared == trainings
    assert ((ours == 1) & (crossed.labels == 1)).sum() == right.sum() + 6 * 3


def test_a_run_without_a_subset_in_its_spec_has_draw_0(bench):
    study = study_of(bench, [bench.run("base", 0, (40, 10, 90))], ["base"])
    assert [r.subset for r in study.runs] == [0]
    assert not study.crossed


def test_intervals_of_a_report_cover_the_draws(bench, crossed):
    numbers = compute(crossed, draws=20)
    one = compute(study_of(bench, runs_of(bench, "base", seeds=6, subsets=(0,)), ["base"]), draws=20)
    wide, narrow = (n.method("base").scores["recall:disgust"] for n in (numbers, one))
    assert wide.high - wide.low > 1.3 * (narrow.high - narrow.low)
    # The spread of the gain: three images more on each subset and seed, so no mean square is above those of images.
    gain = numbers.method("better").gains["recall:disgust"]
    assert gain.value == pytest.approx(3 / 20)
    table = np.array([[10, 11], [14, 15], [6, 7]]) / 20
    assert MeanSquares.of(table).subset == pytest.approx(2 * (0.2**2 + 0.2**2) / 2)


def test_what_is_missing_from_the_cross_is_left_out_with_the_reason(bench):
    runs = runs_of(bench, "better", 3, lost=[(1, 1)]) + runs_of(bench, "base")
    study = study_of(bench, runs)
    assert study.method("better").trainings == (Training(0, 0), Training(1, 0), Training(2, 0))
    assert len(study.method("base").trainings) == 6
    note = next(n for n in study.notes if "left out" in n)
    assert "`better` has no usable run for subset 1 seed 1" in note
    assert "subset 0 seed 1, subset 2 seed 1 are left out" in note
    assert compute(study, draws=20).method("better").pairs == 3


def test_what_the_seal_refused_to_a_run_outside_the_cross_still_counts(bench):
    runs = runs_of(bench, "better", lost=[(1, 1), (0, 1), (2, 1)])

    def caught(writer):
        refused = [{"event": "open", "file": "test.npz"}]
        writer.put("seal", {"count": 1, "openings": [], "blocked": refused})

    runs.append(bench.run("better", 1, (40, 9, 90), spec={"profile": "exp:50"}, edit=caught))
    study = study_of(bench, runs + runs_of(bench, "base"))
    assert len(study.method("better").trainings) == 3
    assert study.method("better").blocked == ("open test.npz",)


def test_one_draw_of_a_thinned_set_is_a_caution_with_the_command_that_adds_others(bench, crossed):
    single = study_of(bench, runs_of(bench, "better", subsets=(0,)) + runs_of(bench, "base", subsets=(0,)))
    sentence = phrases.one_draw(single)
    assert sentence in answer.cautions(compute(single, draws=20))
    assert "All runs train on the same draw of the thinned training set (`exp:50`)" in sentence
    assert sentence.endswith(f"`{COMMAND} --subsets 3`")
    assert phrases.one_draw(crossed) == ""
    natural = study_of(bench, [bench.run("base", 0, (40, 10, 90))], ["base"])
    assert phrases.one_draw(natural) == ""


def test_reports_name_subsets_wherever_they_name_seeds(crossed):
    page = page_of(crossed)
    for text in (
        "3 subsets × 2 seeds shared",
        "95 % intervals over subsets, seeds and images",
        "mean ± standard deviation over subsets and seeds",
        "| draws of the training set | 3 (0–2); every seed is trained on each |",
        "3 training sets were drawn",
        "| Subset | Seed |",
        "subset 2 seed 1 `",
        "| 3 × 2 |",
    ):
        assert text in page, text
    assert "same draw" not in page
    assert "only the method differs" in page, "the subset is no setting that differs"


def test_a_study_of_one_draw_reads_as_before(bench):
    study = study_of(bench, [bench.run(m, s, (40, 10, 90)) for m in ("better", "base") for s in (0, 1)])
    page = page_of(study)
    assert "ubset" not in page
    assert "(2 shared seeds)" in page


def test_tables_for_programs_have_a_column_for_the_subset(crossed):
    table = tidy_columns(crossed.runs, {})
    assert {(a, b) for a, b in zip(table["subset"], table["seed"], strict=True)} == set(
        map(tuple, crossed.method("base").trainings)
    )
    rows = list(csv.DictReader(io.StringIO(csv_text(compute(crossed, draws=20)))))
    assert {(r["seeds"], r["subsets"]) for r in rows} == {("2", "3")}


def test_scores_of_a_run_are_those_of_its_own_subset(crossed):
    from fer_bench.reports.facts.scoring import begin
    from fer_bench.reports.facts.second_process import Work
    from fer_bench.reports.facts.tidy import csv_text as results_csv

    with Work() as work:
        ready = begin(crossed, work).results()
    assert results_csv(crossed, ready) == results_csv(crossed)
