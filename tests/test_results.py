"""The committed results: each rests on a committed ledger, whole and unchanged, from which its report is rebuilt."""

from __future__ import annotations

from pathlib import Path

import pytest

from fer_bench.ledger import Ledger
from fer_bench.reports import build_report

RESULTS = Path(__file__).parent.parent / "docs" / "results"
STUDIES = sorted(p.parent.parent.parent for p in RESULTS.glob("*/ledger/studies/*.json"))


def study_of(folder: Path) -> tuple[Ledger, dict]:
    ledger = Ledger(folder / "ledger")
    return ledger, ledger.study(ledger.studies()[0])


def test_there_are_results():
    assert STUDIES


@pytest.mark.parametrize("folder", STUDIES, ids=lambda p: p.name)
def test_every_record_is_whole(folder: Path):
    ledger, study = study_of(folder)
    assert study["runs"]
    for key in study["runs"]:
        record = ledger.run(key)
        assert record.status == "finished"
        record.verify()
        assert record.json("seal")["count"] == 1
        assert record.json("seal")["blocked"] == []


@pytest.mark.parametrize("folder", STUDIES, ids=lambda p: p.name)
def test_the_report_is_what_the_ledger_gives(folder: Path, tmp_path: Path):
    build_report(*study_of(folder), tmp_path)
    for name in ("report.md", "table.csv"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name
    assert sorted(p.name for p in (tmp_path / "figures").iterdir()) == sorted(
        p.name for p in (folder / "figures").iterdir()
    )
