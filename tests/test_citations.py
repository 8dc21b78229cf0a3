"""What code and pages cite is there: files of this project, and the modules, classes and functions of docstrings."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import fer_bench

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
        text = (
            page.read_text(encoding="utf-8").replace(r"\.", ".").replace(r"\_", "_")
        )  # as a pattern or Markdown writes it
        lost[str(page.relative_to(ROOT))] = missing(text)
    assert {page: of for page, of in lost.items() if of} == {}


def test_a_citation_that_leads_nowhere_would_be_found():
    text = "see reports/claims/published.py\nand reports/published.py, docs/*.md or tests/training/NAME.py."
    assert missing(text) == [(2, "reports/published.py"), (2, "tests/training/NAME.py")]


def modules() -> dict[str, Path]:
    """Every module of the package, by its full name."""
    found = {}
    for folder in PACKAGES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts if folder == "fer_bench" else ("fer_bench", *parts)
            found[".".join(p for p in parts if p != "__init__")] = path
    return found


def roles() -> Iterator[tuple[str, str]]:
    """(module, what a docstring of it refers to)."""
    for module, path in MODULES.items():
        yield from ((module, target) for target in ROLE.findall(path.read_text(encoding="utf-8")))


def meant(module: str, target: str) -> list[str]:
    """The full names that a reference may stand for: itself, or something of its module or of a class there."""
    if target.startswith("."):
        dots = len(target) - len(target.lstrip("."))
        package = module.split(".") if MODULES[module].name == "__init__.py" else module.split(".")[:-1]
        return [".".join([*package[: len(package) - dots + 1], target.lstrip(".")])]
    owners = [name for name, of in names(module).items() if of]
    first, _, rest = target.partition(".")
    imported = [".".join([aliases(module)[first], *([rest] if rest else [])])] if first in aliases(module) else []
    return [target, f"{module}.{target}", *(f"{module}.{name}.{target}" for name in owners), *imported]


@cache
def aliases(module: str) -> dict[str, str]:
    """What a module imports from others, anywhere, by the name that it has there."""
    found = {}
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            found |= {alias.asname or alias.name: f"{origin}.{alias.name}" for alias in node.names}
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def names(module: str) -> dict[str, set[str]]:
    """What a module holds at top level, and the members of its classes."""
    return dict(held(tree(module)))


def held(scope: ast.Module | ast.ClassDef) -> Iterator[tuple[str, set[str]]]:
    """Functions, classes and variables of a scope, with the members of each class."""
    for node in scope.body:
        if isinstance(node, ast.ClassDef):
            yield node.name, {name for name, _ in held(node)}
        elif isinstance(node, ast.FunctionDef):
            yield node.name, set()
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((t.id, set()) for t in targets if isinstance(t, ast.Name))


@cache
def exists(name: str) -> bool:
    """Whether a full name is a module of ours, or something in one; of other packages, whether they have it."""
    first, *parts = name.split(".")
    if first != "fer_bench":
        return bool(parts) and first in ("numpy", "torch") and exists_elsewhere(name)
    if parts and parts[0] in PUBLIC:
        name = ".".join([PUBLIC[parts[0]], *parts])
    module, rest = name, []
    while module not in MODULES:
        module, _, last = module.rpartition(".")
        rest.insert(0, last)
    inside = names(module)
    return not rest or (rest[0] in inside and (len(rest) == 1 or (len(rest) == 2 and rest[1] in inside[rest[0]])))


def exists_elsewhere(name: str) -> bool:
    module, _, last = name.rpartition(".")
    return hasattr(importlib.import_module(module), last)


PUBLIC = fer_bench._HOME  # public names, by the module that they come from
MODULES = modules()


def test_every_module_class_and_function_that_a_docstring_refers_to_exists():
    references = list(roles())
    assert len(references) > 100
    assert [(m, target) for m, target in references if not any(exists(name) for name in meant(m, target))] == []


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
