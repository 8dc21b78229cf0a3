"""Cards are read from syntax trees: what they may use, and how the rest is refused."""

from __future__ import annotations

import importlib
import textwrap
from pathlib import Path

import pytest

import fer_bench.datasets
import fer_bench.methods
from fer_bench.contract.card_reader import name_in, read_card
from fer_bench.contract.cards import DatasetCard, MethodCard
from fer_bench.contract.params import Choice, Int, Param
from fer_bench.contract.plugins import plugins
from fer_bench.contract.sources import Tree
from fer_bench.errors import PluginError

IMPORTS = "from fer_bench import MethodCard, Param\n"


@pytest.fixture
def card_of(tmp_path):
    """``card_of(text, **{"other.py": text})`` reads the card of a file that has others beside it."""

    def read(text: str, **files: str):
        for name, content in {"own.py": text, **files}.items():
            place = tmp_path / name.replace("__slash__", "/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(textwrap.dedent(content))
        return read_card(tmp_path / "own.py")

    return read


def test_a_card_is_read_without_importing_its_file(card_of):
    card = card_of(
        """
        import no_such_module
        raise RuntimeError("imported")
        SHARED = "a shared sentence"
        RATES = (0.1, -1)
        card = MethodCard(
            name="own", title="two " + "parts", changes=SHARED, year=2024, deviations=("one", SHARED),
            transductive=True,
            params={
                "rate": Param(0.5, "h", choices=RATES, space=Choice(RATES)),
                "n": Param(2, "h", space=Int(1, 9, log=True)),
            },
        )
        """
    )
    assert isinstance(card, MethodCard)
    assert (card.title, card.changes, card.deviations) == ("two parts", "a shared sentence", ("one", card.changes))
    assert card.params["rate"].space == Choice((0.1, -1))
    assert card.params["n"].space == Int(1, 9, log=True)
    assert card.transductive


SIZE = 'from fer_bench import Param\nSIZE = Param(48, "pixels")\nCOMMON = {"size": SIZE, "n": Param(1, "h")}\n'
EQUAL = {
    "unpacked": ('COMMON = {"n": Param(1, "h")}', 'params={**COMMON, "size": Param(48, "pixels")}', {}),
    "united": ('COMMON = {"n": Param(1, "h")}', 'params=COMMON | {"size": Param(48, "pixels")}', {}),
    "unpacked keywords": ('REST = {"params": {"size": Param(48, "pixels"), "n": Param(1, "h")}}', "**REST", {}),
    "from a file": ("from ._shared import COMMON", "params=COMMON", {"_shared.py": SIZE}),
    "under another name": ("from ._shared import COMMON as C", "params={**C}", {"_shared.py": SIZE}),
    "from a folder": ("from ._inner.pieces import COMMON", "params=COMMON", {"_inner/pieces.py": SIZE}),
    "from a package": ("from ._inner import COMMON", "params=COMMON", {"_inner/__init__.py": SIZE}),
    "through a package": (
        "from ._inner import COMMON",
        "params=COMMON",
        {"_inner/__init__.py": "from .pieces import COMMON", "_inner/pieces.py": SIZE},
    ),
    "of a module": ("from . import _shared", "params=_shared.COMMON", {"_shared.py": SIZE}),
    "of an inner module": ("from ._inner import pieces", "params=pieces.COMMON", {"_inner/pieces.py": SIZE}),
    "all of a file": ("from ._shared import *", "params=COMMON", {"_shared.py": SIZE}),
    "with a type": ('COMMON: dict = {"n": Param(1, "h"), "size": Param(48, "pixels")}', "params=COMMON", {}),
    "by key": ('ALL = {"own": {"n": Param(1, "h"), "size": Param(48, "pixels")}}', 'params=ALL["own"]', {}),
    "replaced": (
        'from dataclasses import replace\nN = Param(2, "h")',
        'params={"n": replace(N, default=1), "size": Param(48, "pixels")}',
        {},
    ),
    "by a field": (
        'N = Param(1, "h")',
        'params={"n": Param(N.default, N.help), "size": Param(48, "pixels")}',
        {},
    ),
    "with a computed text": ('UNIT = "pixel"', 'params={"n": Param(1, "h"), "size": Param(8 * 6, f"{UNIT}s")}', {}),
}


@pytest.mark.parametrize("name", EQUAL)
def test_constants_are_followed_wherever_they_stand(card_of, name):
    above, argument, files = EQUAL[name]
    card = card_of(f'{IMPORTS}{above}\ncard = MethodCard(name="own", title="t", {argument})', **files)
    assert dict(card.params) == {"size": Param(48, "pixels"), "n": Param(1, "h")}


def test_names_of_the_interface_may_be_imported_in_any_way(card_of):
    for head in (
        "import fer_bench",
        "import fer_bench as fb",
        "from fer_bench import Param as P",
        "from fer_bench import *",
    ):
        prefix = {"import fer_bench": "fer_bench.", "import fer_bench as fb": "fb."}.get(head, "")
        param = "P" if head.endswith("P") else f"{prefix}Param"
        card = card_of(f"{head}\ncard = {prefix}MethodCard(name='own', title='t', params={{'a': {param}(1, 'h')}})")
        assert dict(card.params) == {"a": Param(1, "h")}


REFUSED = {
    "no card": ("x = 1", "has no card", ""),
    "no Python": ("card = (", "can't be read", ":1"),
    "another type": ("card = 3", "neither a MethodCard nor a DatasetCard", ""),
    "a call": ("card = MethodCard(name='own', title=open('x').read())", "`open", ":1"),
    "no title": ("card = MethodCard(name='own')", "title", ":1"),
    "an unknown field": ("card = MethodCard(name='own', title='t', colour='red')", "colour", ":1"),
    "an unknown name": ("card = MethodCard(name='own', title=TITLE)", "`TITLE` has no value", ":1"),
    "code": ("card = __import__('os').getcwd()", "`__import__` has no value", ":1"),
    "a comprehension": ("card = MethodCard(name='own', title='t', params={k: k for k in 'ab'})", "for k in", ":1"),
    "an unknown unpacking": (
        "x = f()\ncard = MethodCard(name='own', title='t', params={**x})",
        r"`x` can't .*`f\(\)`",
        ":2",
    ),
    "a changed constant": (
        "X = {}\nX['a'] = 1\ncard = MethodCard(name='own', title='t', params=X)",
        "may change `X`",
        ":3",
    ),
    "an updated constant": (
        "X = {}\nX.update(a=1)\ncard = MethodCard(name='o', title='t', params=X)",
        "may change `X`",
        ":3",
    ),
    "a passed constant": ("X = {}\nf(X)\ncard = MethodCard(name='o', title='t', params=X)", "may change `X`", ":3"),
    "a popped constant": (
        "X = {}\nY = X.pop(1)\ncard = MethodCard(name='o', title='t', params=X)",
        "may change `X`",
        ":3",
    ),
    "an added constant": (
        "X = {}\nX |= {1: 2}\ncard = MethodCard(name='o', title='t', params=X)",
        "may change `X`",
        ":3",
    ),
    "a condition": ("X = 1\nif f:\n    X = 2\ncard = MethodCard(name='o', title=X)", "may change `X`", ":4"),
    "a conditional card": ("if f:\n    card = MethodCard(name='o', title='t')", "may change `card`", ":1"),
    "a constant made of an unreadable one": (
        "X = f()\nY = {'a': X}\ncard = MethodCard(name='o', title='t', params=Y)",
        r"`Y` can't be read: `f\(\)` is computed",
        ":3",
    ),
    "from elsewhere": ("from numpy import pi\ncard = MethodCard(name='o', title=pi)", "not a constant of a file", ":2"),
    "from no file": ("from ._gone import X\ncard = MethodCard(name='o', title=X)", "not a constant of a file", ":2"),
    "no such constant": (
        "from ._shared import Y\ncard = MethodCard(name='o', title=Y)",
        "not a constant of a file",
        ":2",
    ),
    "out of the folder": ("from ..up import X\ncard = MethodCard(name='o', title=X)", "not a constant of a file", ":2"),
    "a class": ("class X: pass\ncard = MethodCard(name='o', title=X)", "may change `X`", ":2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_more_than_constants_is_refused_with_its_place(card_of, name):
    text, message, place = REFUSED[name]
    with pytest.raises(PluginError, match=message) as caught:
        card_of(text, **{"_shared.py": "X = 1"})
    assert str(caught.value.where).endswith(f"own.py{place}")


def test_a_fault_in_a_file_beside_it_is_shown_where_it_stands(card_of):
    text = "from ._shared import X\ncard = MethodCard(name='o', title=X)"
    with pytest.raises(PluginError, match=r"`X` can't be read: `time\(\)` is computed"):
        card_of(text, **{"_shared.py": "X = time()"})
    with pytest.raises(PluginError, match="can't be read") as caught:
        card_of(text, **{"_shared.py": "X = (\n"})
    assert "_shared.py:1" in str(caught.value.where)


def test_a_file_whose_constants_the_card_does_not_use_is_not_read(card_of):
    text = "from ._shared import used_in_the_class\ncard = MethodCard(name='own', title='t')\n"
    assert card_of(text, **{"_shared.py": "this is no Python"}).title == "t"


def test_files_that_import_each_other_come_to_an_end(card_of):
    text = "from ._one import TITLE\ncard = MethodCard(name='own', title=TITLE)\n"
    assert (
        card_of(text, **{"_one.py": "from ._two import *\nTITLE = 't'", "_two.py": "from ._one import *"}).title == "t"
    )
    with pytest.raises(PluginError, match=r"`TITLE` can't be read: `from \._two import TITLE` brings a value"):
        card_of(text, **{"_one.py": "from ._two import TITLE", "_two.py": "from ._one import TITLE"})


def test_several_cards_share_what_was_read_and_nothing_is_lost(tmp_path):
    (tmp_path / "_shared.py").write_text("COMMON = {'a': Param(1, 'h')}\n")
    own = "from ._shared import COMMON\nparams = {{**COMMON, 'b': Param(2, 'h')}}\n"
    own += "card = MethodCard(name={name!r}, title='t', params=params)"
    readers: dict = {}
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(own.format(name=name))
        assert list(read_card(tmp_path / f"{name}.py", Tree(tmp_path), readers).params) == ["a", "b"]
    (reader,) = readers.values()
    assert {file.stem for file in reader.files} == {"one", "two", "_shared"}


def test_what_the_card_does_not_use_may_be_computed(card_of):
    text = f"import numpy as np\nRATES = (1, 2)\nTABLE = np.array(RATES)\n{IMPORTS}"
    card = card_of(text + "card = MethodCard(name='own', title='t', params={'r': Param(1, 'h', choices=RATES)})")
    assert card.params["r"].choices == (1, 2)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "own.py").write_bytes(b"\xff\x00card")
    with pytest.raises(PluginError, match="can't be read"):
        read_card(tmp_path / "own.py")


def test_the_name_of_a_broken_card_is_known(tmp_path):
    file = tmp_path / "file.py"
    file.write_text("card = MethodCard(name='own', title=open('x').read())")
    assert name_in(file) == "own"
    file.write_text("card = (")
    assert name_in(file) is None


FILES = [
    (kind, file)
    for kind, package in (("methods", fer_bench.methods), ("datasets", fer_bench.datasets))
    for file in sorted(Path(str(package.__file__)).parent.glob("[a-z]*.py"))
]


@pytest.mark.parametrize(("kind", "file"), FILES, ids=[f.stem for _, f in FILES])
def test_reading_a_card_gives_what_importing_it_gives(kind, file):
    card = importlib.import_module(f"fer_bench.{kind}.{file.stem}").card
    assert isinstance(card, MethodCard if kind == "methods" else DatasetCard)
    assert read_card(file, Tree(file.parent, f"fer_bench.{kind}")) == card


def test_a_broken_plugin_is_found_by_its_whole_name_only(tmp_path):
    (tmp_path / "resnet_own.py").write_text("card = MethodCard(name='my_net', title=f())")
    found = plugins([tmp_path])
    for name in ("resnet_own", "my_net"):
        with pytest.raises(PluginError, match=f"method '{name}' is broken: its card can't be read"):
            found.method(name)
    with pytest.raises(LookupError, match="unknown method 'net'"):
        found.method("net")
