"""A plug-in's source hash covers all code that it can reach in its tree, and nothing else."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fer_bench.contract.plugins import plugins
from fer_bench.contract.sources import Tree, code_hash, files_of
from fer_bench.errors import PluginError


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(textwrap.dedent(text))
    return root


def reached(root: Path, files: dict[str, str], package: str = "") -> set[str]:
    """Names of the files that own.py reaches."""
    tree = Tree(write(root, files), package)
    return {f.relative_to(root).as_posix() for f in files_of(root / "own.py", tree)}


FORMS = {
    "a file": ("from ._losses import f", ["_losses.py"]),
    "a file, whole": ("from . import _losses", ["_losses.py"]),
    "two files": ("from . import _losses, _other", ["_losses.py", "_other.py"]),
    "a file of a package": ("from ._shared.losses import f", ["_shared/__init__.py", "_shared/losses.py"]),
    "a package": ("from . import _shared", ["_shared/__init__.py"]),
    "a module of a package": ("from ._shared import losses", ["_shared/__init__.py", "_shared/losses.py"]),
    "all of a package": (
        "from ._shared import *",
        ["_shared/__init__.py", "_shared/losses.py", "_shared/deep.py", "_other.py"],
    ),
    "up and down": ("from ._shared.deep import g", ["_shared/__init__.py", "_shared/deep.py", "_other.py"]),
    "a folder without __init__": ("from ._bare.piece import h", ["_bare/piece.py"]),
    "a module of such a folder": ("from ._bare import piece", ["_bare/piece.py"]),
    "in a function": ("def k():\n    from ._losses import f", ["_losses.py"]),
    "in a branch": ("if x:\n    pass\nelse:\n    from ._losses import f", ["_losses.py"]),
    "in a class": ("class A:\n    from ._losses import f", ["_losses.py"]),
    "by importlib": ("import importlib\nm = importlib.import_module('._losses', __package__)", ["_losses.py"]),
    "a file or nothing": ("try:\n    from ._gone import f\nexcept ImportError:\n    f = None", []),
    "a compiled file": ("from ._fast import f", ["_fast.cpython-311-x86_64-linux-gnu.so"]),
    "another project": ("import numpy\nimport os.path\nfrom sklearn import svm", []),
    "an absolute name": ("import _losses", ["_losses.py"]),
}
FILES = {
    "_losses.py": "def f(): return 1",
    "_other.py": "def o(): return 1",
    "_shared/__init__.py": "",
    "_shared/losses.py": "def f(): return 1",
    "_shared/deep.py": "from .._other import o\ndef g(): return o()",
    "_bare/piece.py": "def h(): return 1",
    "_fast.cpython-311-x86_64-linux-gnu.so": "machine code",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_import_is_followed(tmp_path, form):
    text, expected = FORMS[form]
    assert reached(tmp_path, {**FILES, "own.py": text}) == {"own.py", *expected}


def test_circles_end(tmp_path):
    files = {"own.py": "from . import _a", "_a.py": "from . import _b", "_b.py": "from ._a import x\nfrom . import own"}
    assert reached(tmp_path, files) == {"own.py", "_a.py", "_b.py"}


def test_a_package_comes_before_a_file_of_its_name(tmp_path):
    files = {"own.py": "from ._a import x", "_a/__init__.py": "x = 1", "_a.py": "x = 2"}
    assert reached(tmp_path, files) == {"own.py", "_a/__init__.py"}


def test_a_package_that_is_imported_by_name_is_followed(tmp_path):
    text = "import pkg.inner.tools\nfrom pkg import near\nfrom pkg.inner import more\nimport pkgother"
    files = {"__init__.py": "", "near.py": "", "inner/__init__.py": "", "inner/tools.py": "", "inner/more.py": ""}
    files |= {"far.py": "", "own.py": text}
    expected = {"own.py", "__init__.py", "near.py", "inner/__init__.py", "inner/tools.py", "inner/more.py"}
    assert reached(tmp_path / "pkg", files, "pkg") == expected


FAULTS = {
    "no file": ("x = 1\nfrom ._gone import f", "names no file", ":2"),
    "no file in a function": ("def f():\n\n    from ._gone import f", "names no file", ":3"),
    "no module of a bare folder": ("from ._bare import gone", "names no file", ":1"),
    "out of the folder": ("from ..other import f", "leaves the folder of its plug-in", ":1"),
    "a computed name": ("import importlib\nm = importlib.import_module(name)", "known only when it runs", ":2"),
    "a computed built-in": ("m = __import__('a' + b)", "known only when it runs", ":1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_can_not_be_followed_is_an_error_with_its_line(tmp_path, fault):
    text, message, line = FAULTS[fault]
    with pytest.raises(PluginError, match=message) as caught:
        reached(tmp_path, {**FILES, "own.py": text})
    assert str(caught.value.where) == f"{tmp_path / 'own.py'}{line}"


def test_a_fault_of_a_file_beside_it_is_named(tmp_path):
    with pytest.raises(PluginError, match="can't be read") as caught:
        reached(tmp_path, {"own.py": "from ._a import x", "_a.py": "x = 1\ny = ("})
    assert str(caught.value.where) == f"{tmp_path / '_a.py'}:2"


# -- the property, on made-up trees ----------------------------------------------------------------------------------

PLACES = (
    "own.py",
    "_a.py",
    "_b.py",
    "_pkg/__init__.py",
    "_pkg/c.py",
    "_pkg/d.py",
    "_pkg/deep/__init__.py",
    "_pkg/deep/e.py",
)


def name_of(place: str) -> tuple[str, ...]:
    parts = tuple(place.removesuffix(".py").split("/"))
    return parts[:-1] if parts[-1] == "__init__" else parts


def statement(source: str, target: str, form: int) -> str:
    """An import of one place of the tree by another, in one of five forms."""
    here, there = name_of(source), name_of(target)
    package = here if source.endswith("__init__.py") else here[:-1]
    common = 0
    while common < min(len(package), len(there)) and package[common] == there[common]:
        common += 1
    common = min(common, len(there) - 1)
    dots = "." * (len(package) - common + 1)
    *way, last = there[common:]
    text = f"from {dots}{'.'.join([*way, last])} import value"
    if form == 1:
        text = f"from {dots}{'.'.join(way)} import {last}"
    if form == 2:
        text = f"def late():\n    {text}"
    if form == 3:
        text = f"if True:\n    {text}"
    return text


@st.composite
def trees(draw):
    """Who imports whom, and how; a file's own code."""
    files = {}
    edges: dict[str, set[str]] = {place: set() for place in PLACES}
    for place in PLACES:
        targets = draw(
            st.lists(st.sampled_from([p for p in PLACES if p not in (place, "own.py")]), max_size=2, unique=True)
        )
        lines = [statement(place, t, draw(st.integers(0, 3))) for t in targets]
        edges[place] |= set(targets)
        files[place] = "\n".join([*lines, f"def value():\n    return {draw(st.integers(0, 9))}"]) + "\n"
    return files, edges


def closure(edges: dict[str, set[str]]) -> set[str]:
    """What own.py reaches, with the packages on the way, found without reading any file."""
    seen, todo = set(), ["own.py"]
    while todo:
        place = todo.pop()
        if place in seen:
            continue
        seen.add(place)
        todo += edges[place]
        if place != "own.py":
            todo += [p for p in PLACES if p.endswith("__init__.py") and place.startswith(p.removesuffix("__init__.py"))]
    return seen


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees())
def test_a_changed_function_changes_the_hash_just_where_it_can_be_reached(tmp_path_factory, made):
    files, edges = made
    root = write(tmp_path_factory.mktemp("tree"), files)
    before = code_hash(root / "own.py", Tree(root))
    reach = closure(edges)
    for place, text in files.items():
        (root / place).write_text(text.replace("    return ", "    return 1 + "))
        assert (code_hash(root / "own.py", Tree(root)) != before) == (place in reach), place
        commented = text.replace("def value():", '# a comment\n\ndef value():  # another\n    """Documented."""\n')
        (root / place).write_text(commented)
        assert code_hash(root / "own.py", Tree(root)) == before, place
        (root / place).write_text(text)


def test_two_codes_have_two_hashes(tmp_path):
    """Pairs that a careless text of the syntax tree would mix up."""
    codes = [
        "x = 1",
        "x = True",
        "x = 1.0",
        "x = '1'",
        "x = b'1'",
        "x = None",
        "x = f'{a}'",
        "x = f'{a!r}'",
        "x = f'{a:1}'",
    ]
    codes += ["def f(a, b=1): return a", "def f(a, *, b=1): return a", "def f(a): return", "def f(a): return a"]
    codes += ["async def f(a): return a", "x = {**a}", "x = {'a': a}", "x = {a}", "x = [a]", "x = a[1:]", "x = a[:1]"]
    codes += ["from a import b as c", "from a import b", "import a as b", "import a", "x: int = 1", "x: int", "x += 1"]
    hashes = [code_hash(write(tmp_path, {"own.py": code}) / "own.py", Tree(tmp_path)) for code in codes]
    assert len(set(hashes)) == len(codes)


def test_the_card_is_no_part_of_the_hash(tmp_path):
    def hash_of(title: str) -> str:
        return code_hash(write(tmp_path, {"own.py": f"card = f({title!r})\nx = 1"}) / "own.py", Tree(tmp_path))

    assert hash_of("one") == hash_of("two")


HEAD = "from fer_bench import Method, MethodCard\n"
OWN = 'card = MethodCard(name="theirs", title="t")\n\n\nclass Own(Method):\n    card = card\n'


@pytest.mark.slow
def test_an_installed_package_is_followed_through_its_own_names(tmp_path, monkeypatch):
    files = {
        "elsewhere_pkg/__init__.py": "",
        "elsewhere_pkg/losses.py": "def f(): return 1",
        "elsewhere_pkg/inner/__init__.py": "",
        "elsewhere_pkg/inner/theirs.py": f"{HEAD}from ..losses import f\nimport elsewhere_pkg.late\n{OWN}",
        "elsewhere_pkg/late.py": "x = 1",
        "elsewhere-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n",
        "elsewhere-1.0.dist-info/entry_points.txt": "[fer_bench.methods]\ntheirs = elsewhere_pkg.inner.theirs\n",
    }
    write(tmp_path, files)
    monkeypatch.syspath_prepend(tmp_path)
    before = plugins().methods["theirs"].source_hash()
    for place in ("losses.py", "late.py", "inner/__init__.py"):
        text = (tmp_path / "elsewhere_pkg" / place).read_text()
        (tmp_path / "elsewhere_pkg" / place).write_text(text + "\ny = 2\n")
        assert plugins().methods["theirs"].source_hash() != before
        (tmp_path / "elsewhere_pkg" / place).write_text(text)
    assert plugins().methods["theirs"].source_hash() == before


@pytest.mark.slow
def test_built_in_plugins_reach_their_own_folder_only():
    for plugin in [*plugins().methods.values(), *plugins().datasets.values()]:
        files = files_of(plugin.path, plugin.tree)
        assert plugin.path in files
        assert {f.relative_to(plugin.tree.root).parts[0] for f in files}  # raises for a file outside
