"""The plan of the house: which room may import which, and that every folder is part of the package.

A new arrow is a decision. Whoever needs one adds it to `ARROWS` and to the picture in docs/architecture.md.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"fer_bench": "fer_bench", "fer_bench.methods": "methods", "fer_bench.datasets": "datasets"}
FOLDERS |= {"fer_bench.reports": "reports"}  # package to folder, as pyproject.toml maps them
GROUND = ("errors", "printable", "rng", "seal")  # modules that lie outside the rooms, below all of them

ARROWS: dict[str, tuple[str, ...]] = {
    "base": (),
    "stats": (),
    "record": ("base",),
    "contract": ("base",),
    "data": ("base", "contract", "record"),
    "doctor": ("base", "contract", "data"),
    "fetching": ("base", "contract", "record"),
    "training": ("base", "contract", "stats"),
    "runs": ("base", "contract", "data", "doctor", "record", "stats", "training"),
    "tuning": ("base", "contract", "record", "runs", "training"),
    "launch": ("base", "contract", "data", "record", "runs", "training"),
    "conformance": ("base", "contract", "data", "record", "runs", "training"),
    "inference": ("base", "contract", "data", "record", "reports", "runs", "stats", "training"),
    "tracking": ("base", "record", "stats"),
    "reports": ("base", "contract", "data", "doctor", "record", "stats"),
    "cli": (
        *("base", "conformance", "contract", "data", "doctor", "fetching", "inference", "launch", "record", "reports"),
        *("runs", "stats", "tracking", "training", "tuning"),
    ),
}
"""Room to the rooms it imports: every arrow there is, whether at the top of a file or inside a function."""

INNER: dict[str, tuple[str, ...]] = {
    "facts": (),
    "render": (),
    "claims": ("facts",),
    "sections": ("claims", "facts", "render"),
    "pages": ("facts", "render", "sections"),
    "build": ("facts", "pages", "render", "sections"),
}
"""The same for the rooms of the reports; `build` writes every page."""


def modules() -> dict[str, Path]:
    """Every module of the package, by its full name."""
    names = {}
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            inner = [p for p in path.relative_to(ROOT / folder).with_suffix("").parts if p != "__init__"]
            names[".".join([package, *inner])] = path
    return names


def imports(name: str, path: Path, text: str | None = None) -> Iterator[str]:
    """Names of modules, or of things in modules, that a file imports anywhere."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8") if text is None else text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def edges() -> frozenset[tuple[str, str]]:
    """(module, module that it imports), packages left out where something inside them is meant."""
    known = modules()
    pairs = set()
    for name, path in known.items():
        for target in imports(name, path):
            while target and target not in known:
                target = target.rpartition(".")[0]
            if target and target != name and "fer_bench" not in (name, target) and target not in FOLDERS:
                pairs.add((name, target))
    return frozenset(pairs)


def room(module: str) -> str:
    """The room of a module of the harness or the reports; its own name outside the rooms."""
    return module.split(".")[1]


def inner_room(module: str) -> str:
    """The room of the reports in which a module lies."""
    parts = module.split(".")
    return parts[2] if len(parts) > 2 else "front door"


def arrows(which: str) -> dict[str, set[str]]:
    """Room to rooms, as the files import each other now."""
    result: dict[str, set[str]] = {name: set() for name in (ARROWS if which == "house" else INNER)}
    for source, target in edges():
        if which == "house":
            a, b = room(source), room(target)
        else:
            if not (source.startswith("fer_bench.reports.") and target.startswith("fer_bench.reports.")):
                continue
            a, b = inner_room(source), inner_room(target)
        if a in result and b not in (a, *GROUND):
            result[a].add(b)
    return result


def test_rooms_import_each_other_as_planned():
    assert arrows("house") == {name: set(targets) for name, targets in ARROWS.items()}


def test_rooms_of_the_reports_import_each_other_as_planned():
    assert arrows("reports") == {name: set(targets) for name, targets in INNER.items()}


def test_what_lies_below_the_rooms_imports_none_of_them():
    below = {(s, t) for s, t in edges() if room(s) in GROUND and room(t) not in GROUND}
    assert below == set()


@pytest.mark.parametrize("plan", [ARROWS, INNER], ids=["house", "reports"])
def test_the_plan_has_no_circle(plan):
    list(TopologicalSorter(plan).static_order())


def test_no_modules_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = {}
    for source, target in edges():
        graph.setdefault(source, set()).add(target)
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_imports_are_seen_wherever_they_stand():
    text = (
        "import fer_bench.runs.spec\n"
        "from fer_bench.data import store\n"
        "def f():\n    from fer_bench.training.fit import fit\n"
        "from . import cards\nfrom ..base import files\nfrom .plugins import plugins\n"
    )
    seen = set(imports("fer_bench.contract.method", Path("method.py"), text))
    assert seen == {
        "fer_bench.runs.spec",
        "fer_bench.data.store",
        "fer_bench.training.fit.fit",
        "fer_bench.contract.cards",
        "fer_bench.base.files",
        "fer_bench.contract.plugins.plugins",
    }
    assert set(imports("fer_bench.contract", Path("__init__.py"), "from . import cards")) == {
        "fer_bench.contract.cards"
    }


def test_every_room_is_a_folder_and_every_folder_a_room():
    folders = {p.parent.name for p in (ROOT / "fer_bench").glob("*/__init__.py")}
    assert folders | {"reports"} == set(ARROWS)
    assert {p.parent.name for p in (ROOT / "reports").glob("*/__init__.py")} | {"build"} == set(INNER)


def test_pyproject_lists_every_folder_with_code():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {
        ".".join([package, *path.parent.relative_to(ROOT / folder).parts])
        for package, folder in FOLDERS.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    assert sorted(tool["packages"]) == sorted(folders)
    assert tool["package-dir"] == FOLDERS


def reduced(plan: dict[str, tuple[str, ...]]) -> set[tuple[str, str]]:
    """The arrows that are not implied by longer ways."""

    def reach(name: str) -> set[str]:
        return {t for n in plan[name] for t in (n, *reach(n))}

    return {(a, b) for a, targets in plan.items() for b in targets if not any(b in reach(t) for t in targets if t != b)}


def drawn(text: str, first: str) -> set[tuple[str, str]]:
    """The arrows of the Mermaid picture that names a room."""
    pictures = [p for p in re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL) if re.search(rf"\b{first}\b", p)]
    assert len(pictures) == 1
    pairs = set()
    for line in pictures[0].splitlines():
        steps = [re.findall(r"\w+", step) for step in re.sub(r"\[.*?\]", "", line).split("-->")]
        pairs |= {(a, b) for left, right in pairwise(steps) for a in left for b in right}
    return pairs


@pytest.mark.parametrize(("plan", "first"), [(ARROWS, "tuning"), (INNER, "sections")], ids=["house", "reports"])
def test_the_picture_shows_the_plan(plan, first):
    """The picture leaves out arrows that a longer way implies."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert drawn(text, first) == reduced(plan)
