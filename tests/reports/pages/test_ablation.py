"""The page of an ablation, from ledgers in which every recall is known."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest
from click.testing import CliRunner

from fer_bench.cli.report import report as command
from fer_bench.reports import build_report
from fer_bench.reports.facts.ablation import Finding, ablation_of
from fer_bench.reports.facts.minority import HEAD, TAIL
from fer_bench.reports.facts.rise import Rise
from fer_bench.reports.facts.verdicts import Verdict
from fer_bench.reports.pages.ablation import page, summary
from fer_bench.reports.render.markdown import page as markdown

# toy data: angry 300 train / 50 test, disgust 40 / 20, happy 900 / 100; groups of three classes: one each
PLAIN = (40, 4, 90)  # 80 %, 20 %, 90 %
WIDE = (40, 5, 90)  # disgust 25 %
ATTENTION = (40, 16, 90)  # disgust 80 %
FULL = (40, 17, 80)  # disgust 85 %, happy 80 %
ARMS = {
    "plain": ("base", "", "", ""),
    "wide": ("own[width=12]", "plain", "", ""),
    "attention": ("own[share=none]", "plain", "attention", "wide"),
    "full": ("own", "attention", "sharing", ""),
}
HITS = {"base": PLAIN, "own[width=12]": WIDE, "own[share=none]": ATTENTION, "own": FULL}
WEIGHTS = {"base": 1_000_000, "own[width=12]": 1_110_000, "own[share=none]": 1_100_000, "own": 1_111_000}
SECONDS = {"base": 100, "own[width=12]": 110, "own[share=none]": 150, "own": 175}


def record(arms=ARMS, left_out=()):
    keys = ("name", "label", "to", "adds", "control")
    listed = [dict(zip(keys, (name, *of), strict=True), variant=of[0]) for name, of in arms.items()]
    return {"method": "own", "arms": listed, "left_out": list(left_out)}


def study_of(bench, of=HITS, seeds=5, arms=ARMS, left_out=(), second=None, **more):
    """A study of arms given by their hits, or by logits of a seed."""
    runs = []
    for label, answers in of.items():

        def edit(writer, label=label):
            writer.put("timing", {"device": "cpu", "total_seconds": SECONDS.get(label, 0)})

        given = {"method": {"parameters": WEIGHTS.get(label, 1_000_000)}, "edit": edit, **more}
        for seed in range(seeds):
            what = {"hits": answers} if isinstance(answers, tuple) else {"logits": answers(seed)}
            runs.append(bench.run(label, seed, **what, **given))
    extra = {"ablation": record(arms, left_out), "kind": "ablation", "second_reference": second}
    return bench.study(runs, list(of), "base", command="fer-bench ablate own --dataset toy", **extra)


@pytest.fixture
def ablated(bench):
    """``ablated(...)``: the ablation of :func:`study_of`."""

    def read(**given):
        result = ablation_of(bench.numbers(study_of(bench, **given)))
        assert result is not None
        return result

    return read


def text_of(ablation):
    return markdown(page(ablation))


def contrast(ablation, name, *, beyond=False):
    return next(c for c in ablation.contrasts if c.arm.name == name and c.beyond is beyond)


def test_contributions_are_paired_differences_from_the_arm_that_each_is_compared_with(ablated):
    ablation = ablated()
    assert [(c.arm.name, c.other.name, c.beyond) for c in ablation.contrasts] == [
        ("wide", "plain", False),
        ("attention", "plain", False),
        ("full", "attention", False),
        ("attention", "wide", True),
    ]
    gains = {(c.arm.name, c.other.name): c.gains for c in ablation.contrasts}
    assert gains["attention", "plain"][TAIL].value == pytest.approx(12 / 20)
    assert gains["attention", "plain"]["mean_recall"].value == pytest.approx(0.6 / 3)
    assert gains["attention", "plain"]["accuracy"].value == pytest.approx(12 / 170)
    assert gains["full", "attention"]["recall:disgust"].value == pytest.approx(1 / 20)
    assert gains["full", "attention"][HEAD].value == pytest.approx(-0.1)
    assert gains["attention", "wide"][TAIL].value == pytest.approx(11 / 20)


def test_every_module_and_every_control_is_a_member_of_one_family(ablated):
    ablation = ablated()
    levels = ablation.family.hierarchy
    assert (levels.methods, levels.secondary) == (3, 3)  # two modules and a control; angry, happy and the mean
    assert levels.primary_alpha == pytest.approx(0.05 / 3)
    attention = contrast(ablation, "attention")
    assert attention.verdicts[TAIL] is Verdict.GAIN
    assert attention.judged[TAIL].p == pytest.approx(min(1, 3 * attention.judged[TAIL].raw))
    assert contrast(ablation, "full").verdicts[TAIL] is Verdict.NOISE
    assert contrast(ablation, "wide").judged == {}, "it adds no module"
    assert [ablation.finding(c) for c in ablation.modules] == [Finding.RAISES, Finding.NOTHING]


def test_a_gain_that_a_control_has_as_well_may_be_extra_capacity(ablated):
    ablation = ablated(of=HITS | {"own[width=12]": (40, 15, 90)})
    assert contrast(ablation, "attention").verdicts[TAIL] is Verdict.GAIN
    assert contrast(ablation, "attention", beyond=True).verdicts[TAIL] is Verdict.NOISE
    assert ablation.finding(contrast(ablation, "attention")) is Finding.CAPACITY
    text = summary(ablation)
    assert text.startswith("None of 2 modules of `own` is shown to raise recall of the tail")
    assert "**Attention** is not shown to add more than as many other parameters do." in text.replace("\n", " ")


def test_a_module_that_harms_is_said_to(ablated):
    ablation = ablated(of=HITS | {"own": PLAIN})
    assert ablation.finding(contrast(ablation, "full")) is Finding.LOWERS
    assert "**Sharing** lowers it." in summary(ablation)


# -- a shift of the decision -----------------------------------------------------------------------------------------


def shifted(labels, amount):
    """Logits of a network that sees a little, with `amount` added to those of disgust."""
    base = np.random.default_rng(5).normal(size=(len(labels), 3)) + 1.2 * np.eye(3)[labels] - [0, 2.0, 0]

    def of(seed):
        noise = np.random.default_rng(seed).normal(size=base.shape) * 0.1
        return (base + noise + [0, amount, 0]).astype(np.float32)

    return of


TWO = {"plain": ("base", "", "", ""), "full": ("own", "plain", "sharing", "")}


def test_more_recall_without_a_better_order_is_a_shift_if_the_second_reference_gains_as_much(bench, ablated):
    of = {name: shifted(bench.labels, by) for name, by in (("base", 0.0), ("own", 2.0), ("shift", 2.5))}
    ablation = ablated(of=of, arms=TWO, second="shift")
    full = contrast(ablation, "full")
    disgust = bench.labels == 1
    recalls = [np.mean([(of[n](s).argmax(1)[disgust] == 1).mean() for s in range(5)]) for n in ("base", "own")]
    assert full.gains[TAIL].value == pytest.approx(recalls[1] - recalls[0])
    assert full.gains[TAIL].low > 0.1
    assert (full.auroc.value, full.auroc.low, full.auroc.high) == pytest.approx((0, 0, 0), abs=1e-6)
    assert ablation.finding(full) is Finding.SHIFT
    assert full.verdicts[TAIL] is Verdict.SHIFT
    text = markdown(page(ablation))
    assert "**a shift of the decision**, not a gain" in text
    assert re.search(r"\| \*\*sharing\*\* \| \+[^*|]+ \|.*\| a shift of the decision \|", text), "not bold"
    assert "(gain)" not in text


def test_an_arm_on_the_curve_of_the_shifted_baseline_lies_nothing_above_it(bench, ablated):
    shares = np.array([300, 40, 900]) / 1240
    base = shifted(bench.labels, 0.0)
    of = {"base": base, "own": lambda seed: (base(seed) - 0.7 * np.log(shares)).astype(np.float32)}
    full = contrast(ablated(of=of, arms=TWO), "full")
    assert full.gains[TAIL].value > 0.1
    assert full.above.value == pytest.approx(0, abs=1e-9)


def test_it_is_no_shift_if_the_second_reference_gains_less_or_the_order_is_better(bench, ablated):
    of = {name: shifted(bench.labels, by) for name, by in (("base", 0.0), ("own", 2.0), ("shift", 0.3))}
    ablation = ablated(of=of, arms=TWO, second="shift")
    full = contrast(ablation, "full")
    assert full.rise is Rise.UNDECIDED
    assert ablation.finding(full) is Finding.RAISES
    assert re.search(
        r"but the second reference `shift` gains .*, which is less\. So it is \*\*not decided\*\*", text_of(ablation)
    )
    assert "AUROC of the tail is not shown to rise with **sharing**, so it is not decided" in summary(ablation)


def test_a_second_reference_whose_own_gain_is_not_shown_decides_nothing(bench, ablated):
    def shift(seed):  # gains in some seeds, loses in others
        return shifted(bench.labels, 4.0 if seed % 2 else -1.0)(seed)

    of = {name: shifted(bench.labels, by) for name, by in (("base", 0.0), ("own", 2.0))} | {"shift": shift}
    ablation = ablated(of=of, arms=TWO, second="shift")
    full, second = contrast(ablation, "full"), ablation.numbers.method("shift").gains[TAIL]
    assert second.low < 0 < full.gains[TAIL].value < second.high
    assert full.rise is Rise.UNDECIDED
    assert full.verdicts[TAIL] is Verdict.GAIN
    assert "which may be as much or nothing. So it is **not decided** whether this is a shift" in text_of(ablation)
    assert "not decided whether this is more than a shift of the decision" in summary(ablation)
    assert "| not decided |" in text_of(ablation)


def test_a_second_reference_that_gains_as_much_within_its_interval_is_enough(bench, ablated):
    of = {name: shifted(bench.labels, by) for name, by in (("base", 0.0), ("own", 2.0), ("shift", 1.85))}
    ablation = ablated(of=of, arms=TWO, second="shift")
    full, second = contrast(ablation, "full"), ablation.numbers.method("shift").gains[TAIL]
    assert second.value < full.gains[TAIL].value < second.high
    assert ablation.finding(full) is Finding.SHIFT


def test_a_better_order_of_the_images_is_no_shift(bench, ablated):
    better = shifted(bench.labels, 2.0)
    of = {name: shifted(bench.labels, by) for name, by in (("base", 0.0), ("shift", 4.0))}
    of["own"] = lambda seed: better(seed) + 3 * np.eye(3, dtype=np.float32)[bench.labels]
    ablation = ablated(of=of, arms=TWO, second="shift")
    assert contrast(ablation, "full").auroc.low > 0
    assert ablation.finding(contrast(ablation, "full")) is Finding.RAISES
    assert "AUROC of the tail rises too" in markdown(page(ablation))


def test_without_a_second_reference_it_is_not_known(bench, ablated):
    of = {name: shifted(bench.labels, by) for name, by in (("base", 0.0), ("own", 2.0))}
    text = markdown(page(ablated(of=of, arms=TWO)))
    assert "without a second reference it is unknown whether a shift" in text
    assert "This study has no second reference" in text
    assert "| not decided |" in text


# -- the report beside it ---------------------------------------------------------------------------------------------


def report_of(bench, folder, second_by, better=0.0):
    """The report of two arms and a shift by `second_by`; `better` is what the second arm adds to the true class."""
    mine = shifted(bench.labels, 2.0)
    of = {name: shifted(bench.labels, by) for name, by in (("base", 0.0), ("shift", second_by))}
    of["own"] = lambda seed: mine(seed) + np.float32(better) * np.eye(3, dtype=np.float32)[bench.labels]
    study = study_of(bench, of, arms=TWO, second="shift")
    return build_report(bench.ledger, study, folder / "report", formats=["markdown"]).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("second_by", "better", "verb", "sentence", "told"),
    [
        (2.5, 0.0, "raises recall of",
         "What `own` does to the tail is a shift of the decision, which `shift` gives too.",
         "which is as much: **a shift of the decision**, not a gain."),
        (0.3, 0.0, "helps", "What `own` does to the tail is a better ranking or a shift of the decision: that is not "
         "decided.",
         "So it is **not decided** whether this is more than a shift."),
        (2.5, 3.0, "helps", "", "so it ranks images better."),
    ],
)  # fmt: skip
def test_the_report_says_of_a_gain_whether_it_is_a_shift(bench, tmp_path, second_by, better, verb, sentence, told):
    text = report_of(bench, tmp_path, second_by, better)
    assert f"`own` {verb} the rare expressions (disgust): +" in text
    assert told in text
    assert sentence in text
    assert sentence or "What `own` does" not in text


def test_the_report_and_the_page_say_that_there_are_two_families(bench, ablated, tmp_path):
    told = "of this study tests the same runs as another family, so the probability of any false claim on the two pages"
    study = study_of(bench)
    report = build_report(bench.ledger, study, tmp_path / "report", formats=["markdown"])
    assert f"The page on each module {told} together is at most 10 %." in report.read_text(encoding="utf-8")
    assert f"The report {told} together is at most 10 %." in report.with_name("ablation.md").read_text(encoding="utf-8")
    plain = study | {"ablation": None, "name": "plain"}
    alone = build_report(bench.ledger, plain, tmp_path / "plain", formats=["markdown"])
    assert "another family" not in alone.read_text(encoding="utf-8")


# -- what is missing -------------------------------------------------------------------------------------------------


def test_one_seed_claims_nothing_and_says_why(ablated):
    ablation = ablated(seeds=1)
    assert ablation.family.methods == ()
    assert contrast(ablation, "attention").verdicts[TAIL] is Verdict.ONE_SEED
    text = markdown(page(ablation))
    assert "None of 2 modules of `own` is shown to raise" in text
    assert "With one seed, intervals cover the sampling of test images" in text
    assert "| **attention** | `attention` − `plain` | 1 | +60.0 [" in text


def test_arms_without_runs_or_controls_that_were_not_asked_for_are_named(bench, ablated):
    few = {name: of for name, of in ARMS.items() if name != "wide"}
    without = {label: hits for label, hits in HITS.items() if label not in ("own", "own[width=12]")}
    ablation = ablated(of=without, arms=few, left_out=["wide"])
    text = markdown(page(ablation))
    assert "The arm `full` (`own`) has no usable run." in text
    assert "The control `wide` of the arm `attention` was not trained, so its gain may be extra capacity." in text
    assert "Arms of the card that were not asked for: `wide`." in text
    assert "It has 10.0 % more parameters than `plain` and was not compared with an arm that has as many" in text
    assert [c.arm.name for c in ablation.contrasts] == ["attention"]
    alone = page(ablated(of={"base": PLAIN}, arms={"plain": ("base", "", "", "")}))
    assert "No module of `own` can be judged" in markdown(alone)


def test_of_a_watermarked_study_or_an_arm_that_reads_other_images_nothing_is_claimed(bench, ablated):
    protocol = bench.data()["protocol"] | {"watermark": "chosen on the test"}
    marked = ablated(data={"protocol": protocol})
    assert marked.family.methods == ()
    text = markdown(page(marked))
    assert "**Watermarked: not a fair estimate.** chosen on the test" in text
    assert "so no contribution is claimed" in text
    assert not re.search(r"\*\*[+−]", text)
    peeking = ablated(transductive=True)
    assert contrast(peeking, "attention").verdicts[TAIL] is Verdict.NOT_RANKED
    assert "⚠ reads or remembers other test images; listed but not ranked." in markdown(page(peeking))


def test_a_collapsed_arm_is_no_gain(bench, ablated):
    everything = lambda seed: np.tile(np.eye(3, dtype=np.float32)[1], (len(bench.labels), 1))  # noqa: E731
    ablation = ablated(of=HITS | {"own[share=none]": everything})
    assert contrast(ablation, "attention").gains[TAIL].value == pytest.approx(0.8)
    assert contrast(ablation, "attention").verdicts[TAIL] is Verdict.CHANCE
    assert "`own[share=none]` has collapsed" in markdown(page(ablation))


@pytest.mark.parametrize(
    "broken", [[], {"arms": []}, {"arms": [{"name": "plain"}]}, {"arms": record()["arms"] * 2}, {"arms": 3}]
)
def test_a_malformed_record_costs_the_page_and_not_the_report(bench, tmp_path, broken):
    runs = [bench.run("base", seed, PLAIN) for seed in (0, 1)]
    study = bench.study(runs, ["base"], ablation=broken)
    build_report(bench.ledger, study, tmp_path / "out")
    report = (tmp_path / "out" / "report.md").read_text()
    assert "The study's record of its ablation is malformed, so there is no page on it." in report
    assert "ablation.md" not in report
    assert not (tmp_path / "out" / "ablation.md").exists()


# -- tables and files ------------------------------------------------------------------------------------------------


def rows_of(document, table):
    block = next(t for t in document.tables if t.id == table)
    return [dict(zip(block.table.titles, row, strict=True)) for row in block.table.rows]


def test_figures_call_arms_by_their_names(bench, ablated):
    drawn = next(f for f in page(ablated(seeds=2)).figures).drawn
    assert [t.get_text() for t in drawn.legends[0].get_texts()] == ["attention − plain", "full − attention"]
    methods = bench.numbers(bench.ledger.study("toy-study")).methods
    assert {m.label: m.short for m in methods} == {label: name for name, (label, *_) in ARMS.items()}


def test_gains_by_class_stand_in_a_table_that_fits_the_page(ablated):
    rows = rows_of(page(ablated(seeds=2)), "ablation-classes")
    assert list(rows[0]) == ["Module", "disgust", "angry", "happy"]
    assert [r["Module"] for r in rows] == ["`wide` − `plain`", "**attention**", "**sharing**"]
    assert rows[1]["disgust"].strip("*").startswith("+60.0 [")


def test_parameters_and_times_are_told_as_ratios_to_the_baseline(ablated):
    rows = rows_of(page(ablated()), "ablation-cost")
    assert [(r["Arm"], r["Weights"], r["× baseline"], r["Time × baseline"]) for r in rows] == [
        ("`plain`", "1.00 M", "1.000", "1.00"),
        ("`wide`", "1.11 M", "1.110", "1.10"),
        ("`attention`", "1.10 M", "1.100", "1.50"),
        ("`full`", "1.11 M", "1.111", "1.75"),
    ]
    assert (rows[2]["Adds"], rows[2]["Control"]) == ("attention to `plain`", "`wide`")


def test_tables_show_tail_precision_and_recall_by_hand(ablated):
    rows = rows_of(page(ablated()), "ablation-decision")
    # Errors go to the next class: ten of the angry images are called disgust, so 4 of 14 and 16 of 26 are right.
    assert [(r["Arm"], r["Tail recall"].split()[0], r["Tail precision"]) for r in rows] == [
        ("`plain`", "20.0", "28.6"),
        ("`wide`", "25.0", "33.3"),
        ("`attention`", "80.0", "61.5"),
        ("`full`", "85.0", "63.0"),
    ]


def test_the_command_writes_the_page_beside_the_report_with_the_same_bytes_twice(bench, tmp_path):
    study_of(bench, seeds=2)
    folders = [tmp_path / name for name in ("one", "two")]
    for out in folders:
        done = CliRunner().invoke(command, ["toy-study", "--home", str(tmp_path), "--out", str(out)])
        assert done.exit_code == 0, done.output
        assert done.output.endswith(f"report: {out / 'report.md'}\nablation: {out / 'ablation.md'}\n")
    files = {str(p.relative_to(folders[0])) for p in folders[0].rglob("*") if p.is_file()}
    assert {"ablation.md", "ablation.html", "ablation.csv", "tables/ablation-modules.tex"} <= files
    assert {"figures/ablation-contributions.svg", "tables/ablation.tex", "tables/main.tex", "table.csv"} <= files
    assert all((folders[0] / f).read_bytes() == (folders[1] / f).read_bytes() for f in files)
    assert "[The contribution of each module](ablation.md)" in (folders[0] / "report.md").read_text()
    assert '<a href="ablation.html">The contribution of each module</a>' in (folders[0] / "report.html").read_text()
    assert "[The report of this study](report.md)" in (folders[0] / "ablation.md").read_text()
    html = (folders[0] / "ablation.html").read_text()
    assert 'aria-label="Contribution of every module to the recall of each class, with intervals"' in html
    lines = list(csv.DictReader((folders[0] / "ablation.csv").open()))
    tail = [r for r in lines if r["quantity"] == "group:tail"]
    assert [(r["comparison"], r["arm"], r["against"], r["points"]) for r in tail] == [
        ("contribution", "wide", "plain", "5.0000"),
        ("contribution", "attention", "plain", "60.0000"),
        ("contribution", "full", "attention", "5.0000"),
        ("beyond_control", "attention", "wide", "55.0000"),
    ]
    assert [r["finding"] for r in tail] == ["", "raises", "nothing", ""]


def test_the_page_passes_the_linter_and_fits_latex(bench, tmp_path, markdown_linter, check_latex):
    build_report(bench.ledger, study_of(bench, seeds=2), tmp_path / "out")
    assert markdown_linter(tmp_path / "out" / "ablation.md") == ""
    for file in (tmp_path / "out" / "tables").glob("ablation*.tex"):
        check_latex(file.read_text())


def test_a_study_that_is_no_ablation_has_no_such_page(bench, tmp_path):
    study = bench.study_of({"base": PLAIN, "own": FULL}, seeds=2)
    build_report(bench.ledger, study, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("ablation*"))
