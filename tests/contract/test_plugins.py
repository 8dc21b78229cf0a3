import json
import subprocess
import sys
import textwrap

import pytest

from fer_bench.contract.method import Method
from fer_bench.contract.plugins import load_plugin, plugins
from fer_bench.errors import PluginError, UnknownNameError, VariantNameError

HEAD = "from fer_bench import Method, MethodCard\n"
BODY = "class Own(Method):\n    card = card\n"


def source(name, head=HEAD, body=BODY):
    return f'{head}\ncard = MethodCard(name="{name}", title="t")\n\n{body}'


@pytest.fixture
def folder(tmp_path):
    """``folder(file=source, ...)`` writes plug-in files into a folder and gives it."""

    def write(where="plugins", **files):
        place = tmp_path / where
        place.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (place / f"{name}.py").write_text(textwrap.dedent(text))
        return place

    return write


def test_built_in_plugins_are_found_in_both_folders():
    found = plugins()
    assert {"rasn", "baseline_resnet"} <= set(found.methods)
    assert {"fer2013", "synthetic"} <= set(found.datasets)
    assert found.broken == []
    assert not [n for n in found.methods if n.startswith("_")]


def test_every_built_in_plugin_loads_and_has_its_files_name():
    found = plugins()
    for name, plugin in (found.methods | found.datasets).items():
        assert plugin.load().card.name == name == plugin.path.stem


def test_a_plugin_whose_import_fails_is_listed_and_named_when_it_is_loaded(folder):
    found = plugins([folder(own=source("own", head=HEAD + "import no_such_module"))])
    assert found.methods["own"].card.title == "t"
    with pytest.raises(PluginError, match=r"'own' can't be imported: ModuleNotFoundError[\s\S]*own\.py"):
        found.methods["own"].load()
    with pytest.raises(PluginError, match="can't be imported"):  # a second try does not find half a module
        found.methods["own"].load()


def test_a_broken_plugin_is_named_and_skipped_while_others_load(folder):
    found = plugins([folder(good=source("good"), bad="card = (", none="x = 1")])
    assert issubclass(found.methods["good"].load(), Method)
    assert sorted(e.what.split(":")[0] for e in found.broken) == ["can't be read", "has no card"]
    assert all(".py" in e.where for e in found.broken)
    with pytest.raises(PluginError, match=r"method 'bad' is broken: can't be read"):
        found.method("bad")


def test_two_plugins_of_one_name_raise(folder):
    with pytest.raises(PluginError, match=r"two plug-ins are called 'own'[\s\S]*one\.py and .*two\.py"):
        plugins([folder(one=source("own"), two=source("own"))])
    with pytest.raises(PluginError, match="two plug-ins are called 'rasn'"):
        plugins([folder("other", mine=source("rasn"))])


def test_one_folder_given_twice_is_read_once(folder):
    place = folder(own=source("own"))
    assert plugins([place, place]).methods["own"].path == place / "own.py"


def test_a_folder_that_does_not_exist_is_told(tmp_path):
    with pytest.raises(PluginError, match="does not exist"):
        plugins([tmp_path / "nowhere"])


@pytest.mark.parametrize("body", ["", BODY + "class Other(Method):\n    card = card\n"])
def test_a_plugin_must_hold_exactly_one_class(folder, body):
    with pytest.raises(PluginError, match="must define one Method class"):
        plugins([folder(own=source("own", body=body))]).methods["own"].load()


def test_files_with_an_underscore_are_shared_pieces(folder):
    head = HEAD + "from ._shared import NUMBER\n"
    place = folder(own=source("own", head, BODY + "    number = NUMBER\n"), _shared="NUMBER = 41")
    found = plugins([place])
    assert set(found.methods) >= {"own"}
    assert "_shared" not in found.methods
    assert found.methods["own"].load().number == 41


def test_a_folder_with_a_card_is_a_plugin(folder):
    head = HEAD + "from .inner import NUMBER\nfrom .._shared import OTHER\n"
    text = source("own", head, BODY + "    number = NUMBER + OTHER\n")
    place = folder("plugins/own", __init__=text, inner="NUMBER = 40").parent
    folder(_shared="OTHER = 1")
    plugin = plugins([place]).methods["own"]
    assert plugin.path == place / "own" / "__init__.py"
    assert plugin.load().number == 41
    before = plugin.source_hash()
    folder("plugins/own", inner="NUMBER = 2")
    assert plugin.source_hash() != before


def test_a_broken_folder_is_named_by_its_own_name(folder):
    place = folder("plugins/own", __init__="x = 1").parent
    with pytest.raises(PluginError, match=r"method 'own' is broken: has no card[\s\S]*own.__init__\.py"):
        plugins([place]).method("own")


def test_folders_with_an_underscore_or_without_init_are_no_plugins(folder):
    place = folder("plugins/_shared", __init__="x = 1").parent
    folder("plugins/notes", text="x = 1")
    assert plugins([place]).broken == []


def test_tests_among_plugins_are_no_plugins(folder):
    place = folder("plugins/tests", __init__="", test_own="def test(): pass").parent
    folder(own=source("own"), conftest="x = 1")
    found = plugins([place])
    assert (found.broken, "own" in found.methods) == ([], True)


def test_a_plugin_is_loaded_from_its_file_as_from_its_folder(folder):
    head = HEAD + "from ._shared import NUMBER\n"
    place = folder(own=source("own", head, BODY + "    number = NUMBER\n"), _shared="NUMBER = 41")
    assert load_plugin(place / "own.py").number == 41
    assert load_plugin(str(place / "own.py")) is plugins([place]).methods["own"].load()
    inner = folder("plugins/other", __init__=source("other", head.replace("._", ".._"), BODY + "    number = NUMBER\n"))
    assert load_plugin(inner).number == 41
    assert load_plugin(inner / "__init__.py") is load_plugin(inner)


def test_a_file_that_is_no_plugin_can_not_be_loaded(folder):
    with pytest.raises(PluginError, match="has no card"):
        load_plugin(folder(none="x = 1") / "none.py")
    with pytest.raises(PluginError, match=r"can't be read[\s\S]*gone\.py"):
        load_plugin(folder() / "gone.py")


def test_names_of_variants_are_known_unless_a_plugin_has_them(folder):
    def known(name, *others):
        return source(name).replace('title="t"', f'title="t", also_known={dict.fromkeys(others, "")!r}')

    found = plugins([folder(one=known("one", "a", "b"), two=known("two", "b", "c"), c=source("c"))])
    mine = {name: variant for name, variant in found.variants().items() if variant[0] in ("one", "two")}
    assert mine == {"a": ("one", ""), "b": ("one", "")}
    assert found.method("c").card.title == "t"
    with pytest.raises(VariantNameError, match="'b' is one"):
        found.method("b")


def test_a_file_and_a_folder_of_one_name_raise(folder):
    place = folder("plugins/own", __init__=source("own")).parent
    folder(own=source("other"))
    with pytest.raises(PluginError, match=r"a file and a folder are both called 'own'[\s\S]*own\.py and .*own"):
        plugins([place])


def test_equal_file_names_in_two_folders_do_not_mix(folder):
    head = HEAD + "from ._shared import NUMBER\n"
    body = BODY + "    number = NUMBER\n"
    one = folder("one", own=source("one", head, body), _shared="NUMBER = 1")
    two = folder("two", own=source("two", head, body), _shared="NUMBER = 2")
    found = plugins([one, two])
    assert [found.methods[n].load().number for n in ("one", "two")] == [1, 2]


@pytest.mark.slow
def test_source_hash_follows_code_and_shared_code_and_nothing_else(folder):
    def hash_of(body=BODY, shared="NUMBER = 1", title="t", **other):
        text = source("own", HEAD + "from ._shared import NUMBER\n", body).replace('title="t"', f'title="{title}"')
        return plugins([folder(own=text, _shared=shared, **other)]).methods["own"].source_hash()

    base = hash_of()
    assert base == hash_of('class Own(Method):\n    """Documented."""\n\n    card = card  # commented\n')
    assert base == hash_of(shared='"""About."""\n# a number\nNUMBER = 1')
    assert base == hash_of(title="another")
    assert base == hash_of(_other="x = 1")
    assert base != hash_of(BODY + "    x = 1\n")
    assert base != hash_of(shared="NUMBER = 2")


def test_unknown_names_are_answered_with_the_nearest():
    found = plugins()
    with pytest.raises(UnknownNameError, match=r"unknown method 'rsan'[\s\S]*'rasn'[\s\S]*fer-bench list methods"):
        found.method("rsan")
    with pytest.raises(UnknownNameError, match=r"unknown dataset 'FER2O13'[\s\S]*'fer2013'"):
        found.dataset("FER2O13")


def test_an_installed_package_offers_a_method_by_entry_point(tmp_path, monkeypatch):
    (tmp_path / "elsewhere_pkg" / "inner").mkdir(parents=True)
    (tmp_path / "elsewhere_pkg" / "__init__.py").write_text('raise RuntimeError("imported while listing")')
    (tmp_path / "elsewhere_pkg" / "inner" / "__init__.py").write_text("")
    (tmp_path / "elsewhere_pkg" / "inner" / "theirs.py").write_text(source("theirs"))
    info = tmp_path / "elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    points = ["theirs = elsewhere_pkg.inner.theirs", "gone = elsewhere_pkg.gone", "odd = no_such_package.x"]
    (info / "entry_points.txt").write_text("[fer_bench.methods]\n" + "\n".join(points))
    monkeypatch.syspath_prepend(tmp_path)
    found = plugins()
    assert found.methods["theirs"].origin == "entry point elsewhere_pkg.inner.theirs"
    assert sorted(str(e.where) for e in found.broken) == ["elsewhere_pkg.gone", "no_such_package.x"]
    (tmp_path / "elsewhere_pkg" / "__init__.py").write_text("")
    assert found.methods["theirs"].load().card.name == "theirs"
    for name in [m for m in sys.modules if m.startswith("elsewhere_pkg")]:
        del sys.modules[name]


def test_finding_and_reading_cards_imports_nothing_heavy(folder):
    program = f"""
import json, sys
from fer_bench.contract.plugins import load_plugin, plugins
found = plugins([{str(folder(own=source("own")))!r}])
heavy = ("torch", "timm", "numpy", "pandas", "sklearn", "matplotlib", "mlflow", "optuna")
print(json.dumps([sorted(found.methods), [m for m in heavy if m in sys.modules]]))
"""
    names, heavy = json.loads(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout)
    assert {"own", "rasn"} <= set(names)
    assert heavy == []
