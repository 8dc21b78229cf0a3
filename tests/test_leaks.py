"""What docs/architecture.md says of methods that cheat is what they achieve."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_documented_outcomes_are_those_of_the_plugins():
    leaks = runpy.run_path(str(ROOT / "benchmarks/leaks.py"))
    page = (ROOT / "docs/architecture.md").read_text()
    assert len(leaks["LEAKS"]) >= 15
    assert leaks["table"](leaks["outcomes"]()) in page
