"""Every built-in plug-in keeps what it asks of others."""

from __future__ import annotations

import pytest

from fer_bench.conformance.check import Terms, check
from fer_bench.conformance.report import in_words
from fer_bench.contract.plugins import plugins

METHODS = sorted(name for name, plugin in plugins().methods.items() if plugin.origin == "built in")


@pytest.mark.parametrize("name", METHODS)
def test_the_method_keeps_every_promise(name: str):
    (report,) = check(name, Terms(notes=False))
    assert report.broken == [], in_words(report)
    assert [v for v in report.verdicts if "it refuses" in v.note] == [], "ours take any fold"
