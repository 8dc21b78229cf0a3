"""What code and pages cite is there: files of this project, and the modules, classes and functions of docstrings."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("fer_bench", "methods", "datasets", "reports", "tests", "docs", "benchmarks", "examples", ".github", ".ci")
ENDINGS = (".py", ".md", ".toml", ".yml", ".yaml", ".j2", ".cff", ".txt", ".css", ".js", "")
PATH = re.compile(r"(?<![\w./@{>-])((?:" + "|".join(map(re.escape, FOLDERS)) + r")/[\w.*<>{}@/+:-]*)")
ROLE = re.compile(r":(?:mod|func|class|meth|attr|data|exc):`(?:[^`<]*<)?~?([^`>]+)>?`")
PACKAGES = ("fer_bench", "methods", "datasets", "reports")


def texts() -> list[Path]:
    """Code, settings and pages; not what a command wrote, and not this file, whose examples are made up."""
    inside = [p for folder in FOLDERS for p in (ROOT / folder).rglob("*")]
    found = [p for p in (*ROOT.iterdir(), *inside) if p.is_file() and p.suffix in ENDINGS and p != Path(__file__)]
    written = ("results", "data-check", "__pycache__", "fer_bench_extras.egg-info")
    return sorted(p for p in found if not {*p.relative_to(ROOT).parts} & {*written})


def missing(text: str) -> list[tuple[int, str]]:
    """(line, path) of what a text cites in our folders that is not there; patterns and places in words don't count."""
    found = []
    for match in PATH.finditer(text):
        path = match[1].rstrip(".:-")
        if not re.search(r"[*<>{}@]", path) and not (ROOT / path.split(":")[0]).exists():
            found.append((text[: match.start()].count("\n") + 1, path))
    return found


def test_every_file_that_is_cited_exists():
    pages = texts()
    assert len(pages) > 300
    lost = {}
    for page in pages:
        try:
            lost[str(page.relative_to(ROOT))] = missing(page.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue
    assert {page: of for page, of in lost.items() if of} == {}


def test_a_citation_that_leads_nowhere_would_be_found():
    text = "see reports/claims/published.py\nand reports/published.py, docs/*.md or tests/training/NAME.py."
    assert missing(text) == [(2, "reports/published.py"), (2, "tests/training/NAME.py")]


def roles() -> Iterator[tuple[Path, str, str]]:
    """(file, its module, what a docstring of it refers to)."""
    for folder in PACKAGES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts if folder == "fer_bench" else ("fer_bench", *parts)
            for target in ROLE.findall(path.read_text(encoding="utf-8")):
                yield path, ".".join(p for p in parts if p != "__init__"), target


def meant(path: Path, module: str, target: str) -> list[str]:
    """The full names that a reference may stand for: itself, or something of its module or of a class there."""
    if target.startswith("."):
        dots = len(target) - len(target.lstrip("."))
        package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
        return [".".join([*package[: len(package) - dots + 1], target.lstrip(".")])]
    return [target, f"{module}.{target}", *(f"{module}.{name}.{target}" for name in classes(path))]


@cache
def classes(path: Path) -> list[str]:
    return [n.name for n in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(n, ast.ClassDef)]


@cache
def exists(name: str) -> bool:
    parts = name.split(".")
    for k in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:k]))
        except ImportError:
            continue
        for attribute in parts[k:]:
            if not hasattr(found, attribute):  # a field without default is only among the annotations
                return attribute in getattr(found, "__annotations__", {})
            found = getattr(found, attribute)
        return True
    return False


def test_every_module_class_and_function_that_a_docstring_refers_to_exists():
    references = list(roles())
    assert len(references) > 100
    lost = [
        (str(path.relative_to(ROOT)), target)
        for path, module, target in references
        if not any(exists(name) for name in meant(path, module, target))
    ]
    assert lost == []


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("fer_bench.stats.confusion.recalls", True),
        ("fer_bench.stats.confusion.no_such_score", False),
        ("fer_bench.no_such_module", False),
        ("fer_bench.stats.sampling.Truth.labels", True),
    ],
)
def test_a_reference_that_leads_nowhere_would_be_found(name, there):
    assert exists(name) is there
