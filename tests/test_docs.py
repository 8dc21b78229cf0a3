"""What people read: the pages of the project are sound Markdown, and their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def test_a_linter_finds_nothing_in_any_page(markdown_linter):
    assert len(PAGES) > 5
    assert markdown_linter(*PAGES) == ""


def test_the_linter_would_find_something(markdown_linter, tmp_path):
    (tmp_path / "bad.md").write_text("# One\n\n# Two\n\n\n\ntext \n")
    assert "MD025" in markdown_linter(tmp_path / "bad.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page):
    targets = [t for t in LINK.findall(page.read_text()) if not re.match(r"https?:|mailto:", t)]
    assert [t for t in targets if not (page.parent / t).exists()] == []
