"""docs/methods-list.md is what the cards say now."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

from fer_bench.contract.plugins import plugins

ROOT = Path(__file__).parents[1]
SCRIPT = runpy.run_path(str(ROOT / "docs" / "make_methods_list.py"))


def test_the_page_is_current():
    written = (ROOT / "docs" / "methods-list.md").read_text(encoding="utf-8")
    assert written == SCRIPT["page"](SCRIPT["built_in"]()), "to write it again: python docs/make_methods_list.py"


def test_the_page_has_a_section_for_every_method_and_for_nothing_else():
    text = (ROOT / "docs" / "methods-list.md").read_text(encoding="utf-8")
    sections = [line.removeprefix("### ") for line in text.splitlines() if line.startswith("### ")]
    assert sorted(sections) == sorted(n for n, p in plugins().methods.items() if p.origin == "built in")


def test_text_of_a_card_can_be_no_markup():
    assert SCRIPT["escaped"]("a|b `c` [d](e) p_k *x*") == r"a\|b \`c\` \[d\](e) p\_k \*x\*"


def test_making_it_imports_no_torch():
    script = str(ROOT / "docs" / "make_methods_list.py")
    program = f"import runpy, sys; made = runpy.run_path({script!r}); made['page'](made['built_in']())"
    program += "; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
