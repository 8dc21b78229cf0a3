"""What reports say of a method that tried to open sealed files."""

from __future__ import annotations

import csv
import re

import pytest

from fer_bench.reports import build_report
from fer_bench.reports.facts.across import load_comparison
from fer_bench.reports.facts.numbers import Verdict
from fer_bench.reports.facts.response import load_response
from fer_bench.reports.pages import across
from fer_bench.reports.pages import response as response_page
from fer_bench.reports.render.blocks import TableBlock
from fer_bench.reports.sections import Context
from fer_bench.reports.sections.composition import document

# toy data: angry 300 train / 50 test (middle), disgust 40 / 20 (tail), happy 900 / 100 (head)
BASE = (40, 8, 90)
ATTEMPTS = [{"event": "open", "file": "table.csv"}, {"event": "os.rename", "file": "images.npy"}]
NOTE = "⊘ tried to open sealed files (`cheat`: `open table.csv`, `os.rename images.npy`) and was refused"


def markdown_of(block: TableBlock) -> str:
    return "\n".join(" | ".join(row) for row in (block.table.titles, *block.table.rows))


def tried(writer) -> None:
    """Two attempts that the seal refused."""
    writer.put("seal", {"count": 1, "openings": [{"reason": "final", "rows": 170}], "blocked": ATTEMPTS})


@pytest.fixture
def cheated(bench):
    """`cheat` is better than `base`, and one of its five runs tried to open sealed files."""
    runs = [bench.run("cheat", seed, (40, 18, 90), edit=tried if seed == 3 else None) for seed in range(5)]
    runs += [bench.run("base", seed, BASE) for seed in range(5)]
    return bench, bench.study(runs, ["cheat", "base"])


def test_a_refused_attempt_marks_the_method_in_every_table_and_format(cheated, tmp_path):
    bench, study = cheated
    numbers = bench.numbers(study)
    page = document(Context(numbers))
    output = [b for b in page.tables if "`cheat`" in markdown_of(b)]
    assert {"minority", "recall", "gains", "scores", "chance", "leak", "further", "methods", "trust", "cost"} <= {
        b.id for b in output
    }
    for block in output:
        assert not re.search("`cheat`(?! ⊘)", markdown_of(block)), block.id
        assert NOTE in block.table.caption, block.id
    out = build_report(bench.ledger, study, tmp_path / "out").parent
    assert "`cheat` ⊘" in (out / "report.md").read_text()
    assert "<code>cheat</code> ⊘" in (out / "report.html").read_text()
    text = (out / "tables" / "scores.tex").read_text()
    assert r"\texttt{cheat} \ensuremath{\oslash}" in text
    assert r"\ensuremath{\oslash} tried to open sealed files" in text
    rows = list(csv.DictReader((out / "table.csv").open()))
    assert {(r["method"], r["blocked"]) for r in rows} == {
        ("cheat", "open table.csv; os.rename images.npy"),
        ("base", ""),
    }
    output = bench.terminal(study)
    assert "cheat ⊘" in output
    assert NOTE.replace("`", "") in output


def test_a_method_that_was_refused_is_listed_last_and_not_ranked(cheated):
    bench, study = cheated
    numbers = bench.numbers(study)
    assert [m.label for m in numbers.methods] == ["base", "cheat"]
    assert set(numbers.method("cheat").verdicts.values()) == {Verdict.NOT_RANKED}
    text = bench.section(bench.page(numbers), "Answer")
    assert "No method can be compared with `base`." in text
    assert "⊘ **`cheat`** vs `base`" in text
    assert "not ranked, because it tried to open sealed files" in text
    trust = bench.section(bench.page(numbers), "Seal and probe")
    assert "`cheat` was refused access: `open table.csv`, `os.rename images.npy`." in trust


def test_an_attempt_that_ended_its_run_marks_the_method_all_the_same(bench):
    def failed(writer):
        tried(writer)
        writer.fail(RuntimeError("the test is sealed"))

    runs = [bench.run("cheat", 9, (40, 18, 90), edit=failed, finish=False)]
    runs += [bench.run(label, seed, of) for label, of in (("cheat", (40, 18, 90)), ("base", BASE)) for seed in range(5)]
    numbers = bench.numbers(bench.study(runs, ["cheat", "base"]))
    assert numbers.method("cheat").seeds == (0, 1, 2, 3, 4)
    assert numbers.method("cheat").mark == " ⊘"
    assert set(numbers.method("cheat").verdicts.values()) == {Verdict.NOT_RANKED}


def test_nothing_is_claimed_over_a_reference_that_was_refused(bench):
    runs = [bench.run("better", seed, (40, 18, 90)) for seed in range(5)]
    runs += [bench.run("base", seed, BASE, edit=tried) for seed in range(5)]
    numbers = bench.numbers(bench.study(runs, ["better", "base"]))
    text = bench.section(bench.page(numbers), "Answer")
    assert "The reference `base` ⊘ tried to open sealed files, so no gain is claimed." in text
    assert "not ranked, because the reference tried to open sealed files" in text


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
        output = [b for b in page.tables if "`cheat`" in markdown_of(b)]
        assert len(output) > 3
        for block in output:
            assert not re.search("`cheat`(?! ⊘)", markdown_of(block)), block.id
            assert NOTE in block.table.caption, block.id
    for text in (response_page.csv_text(response), across.csv_text(comparison)):
        blocked = {(r["method"], r["blocked"]) for r in csv.DictReader(text.splitlines())}
        assert ("cheat", "open table.csv; os.rename images.npy") in blocked
        assert ("fine", "") in blocked
