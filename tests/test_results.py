"""The committed results: each has a committed ledger, complete and unchanged, from which its report can be rebuilt."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest

from fer_bench.base.files import sha256_file
from fer_bench.record.ledger import Ledger
from fer_bench.reports import beside, build_report, build_response
from fer_bench.reports.render.page_folder import REPORT

RESULTS = Path(__file__).parent.parent / "docs" / "results"
LEFT_OUT = {"model.pt", *(f"val_{part}.npy" for part in ("epochs", "labels", "logits", "rows"))}  # no report reads them
STUDIES = sorted({p.parent.parent.parent for p in RESULTS.glob("*/ledger/studies/*.json")})
DOSES, BATCHES = RESULTS / "sharing-dose", RESULTS / "test-batches"  # their pages are written by scripts


def studies_of(folder: Path) -> tuple[Ledger, list[dict]]:
    ledger = Ledger(folder / "ledger")
    return ledger, [ledger.study(name) for name in ledger.studies()]


@pytest.fixture
def script(monkeypatch):
    """``script(NAME)``: a module of benchmarks/."""
    monkeypatch.syspath_prepend(str(RESULTS.parents[1] / "benchmarks"))
    return importlib.import_module


def test_the_list_of_results_names_every_folder():
    listed = re.findall(r"^\| \[([a-z0-9-]+)\]\(\1/", (RESULTS / "README.md").read_text(encoding="utf-8"), re.M)
    assert sorted(listed) == sorted(p.name for p in RESULTS.iterdir() if p.is_dir())
    assert {DOSES.name, BATCHES.name} <= set(listed)
    assert DOSES in STUDIES


@pytest.mark.parametrize("folder", STUDIES, ids=lambda p: p.name)
def test_every_record_is_whole(folder: Path):
    ledger, studies = studies_of(folder)
    keys = [key for study in studies for key in study["runs"]]
    assert keys
    for key in keys:
        record = ledger.run(key)
        assert record.status == "finished"
        record.verify(spared=LEFT_OUT)
        assert record.json("seal")["count"] == (0 if record.has("derived.json") else 1)
        assert record.json("seal")["blocked"] == []


@pytest.mark.parametrize("folder", [p for p in STUDIES if p != DOSES], ids=lambda p: p.name)
def test_the_report_is_what_the_ledger_gives(folder: Path, tmp_path: Path):
    ledger, studies = studies_of(folder)
    page = tmp_path / folder.name
    if len(studies) == 1:
        build_report(ledger, studies[0], page)
    else:  # studies of several imbalance profiles
        build_response(ledger, studies, page)
    more = [p.name for study in studies for p in beside(study, folder / "report.md").values()]
    assert_same(page, folder, "report.md", "table.csv", *more)


def test_the_page_on_doses_is_what_the_ledger_gives(script, tmp_path: Path):
    script("sharing_dose").build([DOSES], tmp_path / DOSES.name)
    assert_same(tmp_path / DOSES.name, DOSES, "report.md", "dose.csv")


def test_the_page_on_test_batches_is_what_the_readings_give(script, tmp_path: Path):
    batches = script("test_batches")
    batches.build(batches.read(BATCHES / "readings.csv"), tmp_path / BATCHES.name)
    assert_same(tmp_path / BATCHES.name, BATCHES, "report.md", "readings.csv")


def assert_same(page: Path, folder: Path, *names: str) -> None:
    for name in names:
        assert (page / name).read_bytes() == (folder / name).read_bytes(), name
    assert sorted(p.name for p in (page / "figures").iterdir()) == sorted(
        p.name for p in (folder / "figures").iterdir()
    )


@pytest.mark.parametrize("folder", [*STUDIES, BATCHES], ids=lambda p: p.name)
def test_the_list_of_files_is_up_to_date_so_that_the_report_can_be_written_again(folder: Path):
    listed = json.loads((folder / REPORT).read_text())["files"]
    pages = [p for p in folder.rglob("*") if p.is_file() and "ledger" not in p.relative_to(folder).parts]
    assert listed == {p.relative_to(folder).as_posix(): sha256_file(p) for p in pages if p.name != REPORT}
