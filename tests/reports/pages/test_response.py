"""Imbalance-response curves, from ledgers in which every recall is known."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from click.testing import CliRunner

from fer_bench.cli.response import response as command
from fer_bench.errors import LedgerError
from fer_bench.reports.facts.response import load_response
from fer_bench.reports.pages.response import page

# toy data: angry 300 train / 50 test, disgust 40 / 20, happy 900 / 100; groups of three classes: one each
BASE = {"exp:10": (40, 16, 90), "exp:100": (40, 4, 90)}  # disgust: 80 %, 20 %
OTHER = {"exp:10": (40, 12, 90), "exp:100": (40, 8, 90)}  # disgust: 60 %, 40 %
COUNTS = {"exp:10": [285, 90, 900], "exp:100": [90, 9, 900]}


@pytest.fixture
def studies(bench):
    """Two profiles, two methods, two seeds; `other` is worse in disgust at ratio 10 and better at ratio 100."""
    result = []
    for profile in ("exp:100", "exp:10"):
        runs = [
            bench.run(label, seed, hits[profile], spec={"profile": profile}, data={"counts": counts_of(profile)})
            for label, hits in (("base", BASE), ("other", OTHER))
            for seed in (0, 1)
        ]
        result.append(bench.study(runs, ["base", "other"], name=profile.replace(":", "-")))
    return bench, result


def counts_of(profile: str) -> dict[str, list[int]]:
    return {"train": COUNTS[profile], "val": [50, 20, 100], "test": [50, 20, 100]}


def test_points_run_by_rising_ratio_with_the_recall_of_each_group(studies):
    response = load_response(studies[0].ledger, studies[1])
    assert [(p.profile, p.ratio, p.images) for p in response.points] == [("exp:10", 10, 1275), ("exp:100", 100, 999)]
    assert response.measures == ("head", "middle", "tail", "mean")
    assert dict(response.groups.members) == {"head": (2,), "middle": (0,), "tail": (1,)}
    tails = [[p.recall[m]["tail"].value for p in response.points] for m in ("base", "other")]
    assert np.allclose(tails, [[0.8, 0.2], [0.6, 0.4]])
    assert response.points[0].recall["base"]["mean"].value == pytest.approx((0.8 + 0.8 + 0.9) / 3)


def test_gains_are_paired_with_the_reference(studies):
    response = load_response(studies[0].ledger, studies[1])
    assert [p.gain["other"]["tail"].value for p in response.points] == pytest.approx([-0.2, 0.2])
    assert "base" not in response.points[0].gain


def test_curves_cross_where_the_line_between_two_ratios_does(studies):
    crossings = load_response(studies[0].ledger, studies[1]).crossings()
    assert [(c.method, c.group) for c in crossings] == [("other", "tail"), ("other", "mean")]
    assert crossings[0].at == pytest.approx(10**1.5)  # half-way on a logarithmic axis
    assert (crossings[0].below, crossings[0].above) == (10, 100)


def test_a_crossing_within_noise_is_no_finding(bench):
    made = []
    for profile, hits in (("exp:10", (40, 9, 90)), ("exp:100", (40, 11, 90))):
        counts = {"counts": counts_of(profile)}
        runs = [bench.run("base", 0, (40, 10, 90), spec={"profile": profile}, data=counts)]
        runs.append(bench.run("other", 0, hits, spec={"profile": profile}, data=counts))
        made.append(bench.study(runs, ["base", "other"], name=profile.replace(":", "-")))
    (tail, _) = load_response(bench.ledger, made).crossings()
    assert not tail.certain


def test_one_ratio_makes_no_curve(studies):
    bench, (first, _) = studies
    with pytest.raises(LedgerError, match="at least two ratios"):
        load_response(bench.ledger, [first, first])


def test_a_study_with_other_settings_is_left_out_and_named(studies):
    bench, result = studies
    recipe = bench.spec("base", 0)["recipe"] | {"lr": 0.5}
    odd = bench.run("base", 0, (40, 9, 90), spec={"profile": "exp:20", "recipe": recipe})
    response = load_response(bench.ledger, [*result, bench.study([odd], ["base"], name="odd")])
    assert len(response.points) == 2
    assert any("Study `odd` differs from `exp-100` in its settings and is left out." in n for n in response.notes)


def test_a_method_that_one_study_lacks_is_left_out_and_named(studies):
    bench, result = studies
    more = bench.run("third", 0, (1, 1, 1), spec={"profile": "exp:10"}, data={"counts": counts_of("exp:10")})
    result[1] = bench.study([*result[1]["runs"], more], ["base", "other", "third"], name="exp-10")
    response = load_response(bench.ledger, result)
    assert response.methods == ("base", "other")
    assert "`third` is not in every study and is left out." in response.notes


def test_the_page_shows_curves_tables_crossings_and_training_sets(studies):
    document = page(load_response(studies[0].ledger, studies[1]), "toy response")
    assert [part.name for part in document.parts] == ["curves", "tables", "crossings", "sets", "repeat"]
    rows = {t.id: t.table.rows for t in document.tables}
    assert rows["response-tail"][0][:2] == ("`exp:10`", "10")
    assert rows["response-tail"][0][2].startswith("80.0 [")
    assert rows["response-tail"][1][4].startswith("+20.0 [")
    assert list(rows["response-sets"][1][2:6]) == ["999", "9", "90", "900"]
    repeat = str(document.parts[4].blocks)
    assert "fer-bench run better base --dataset toy" in repeat
    assert all(key in repeat for study in studies[1] for key in study["runs"])
    assert "cross in recall of the tail classes between the ratios 10 and 100, near 31.6" in str(
        document.parts[2].blocks
    )


def test_the_command_writes_the_page_in_every_format(studies, tmp_path):
    done = CliRunner().invoke(command, ["exp-10", "exp-100", "--home", str(tmp_path), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert done.output == f"report: {tmp_path / 'out' / 'report.md'}\n"
    files = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    assert {"report.md", "report.html", "table.csv", "figures/response.svg", "tables/response-tail.tex"} <= files
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").open()))
    row = next(r for r in rows if (r["method"], r["group"], r["profile"]) == ("other", "tail", "exp:100"))
    assert (row["percent"], row["gain"], row["images"]) == ("40.0000", "20.0000", "999")


def test_an_unknown_study_is_told(studies, tmp_path):
    done = CliRunner().invoke(command, ["exp-10", "exp-1000", "--home", str(tmp_path)])
    assert isinstance(done.exception, LedgerError)
    assert "no study called 'exp-1000'" in str(done.exception)
