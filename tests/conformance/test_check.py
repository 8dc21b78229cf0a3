"""The door of the kit: what a name or a path means, what is checked, and what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import fer_bench
from fer_bench.cli import cli
from fer_bench.conformance.check import Terms, check, find
from fer_bench.conformance.promise import FAILED, KEPT, NOTHING, UNCHECKED, Broken, DoesNotApply, Promise, judge_all
from fer_bench.conformance.training_promises import state_of
from fer_bench.conformance.world import World, first_difference
from fer_bench.errors import PluginError, UnknownNameError

METHOD = """
from fer_bench import Method, MethodCard

card = MethodCard(name="{name}", title="Plain", changes="nothing")

class Plain(Method):
    card = card
"""


def write(folder: Path, name: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(METHOD.format(name=name))
    return path


def test_a_file_means_its_plug_in_and_a_folder_all_of_them(tmp_path):
    paths = [write(tmp_path, name) for name in ("one", "two")]
    (tmp_path / "helper.py").write_text("PI = 3\n")
    assert [p.card.name for p in find(paths[0])[0]] == ["one"]
    assert [p.card.name for p in find(tmp_path)[0]] == ["one", "two"]
    assert [p.card.name for p in find("two", [tmp_path])[0]] == ["two"]


def test_a_folder_may_be_one_plug_in(tmp_path):
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "__init__.py").write_text(METHOD.format(name="big"))
    assert [p.card.name for p in find(tmp_path / "big")[0]] == ["big"]


def test_a_folder_of_plug_ins_may_be_a_package(tmp_path):
    write(tmp_path, "one")
    (tmp_path / "__init__.py").write_text('"""Plug-ins."""\n')
    assert [p.card.name for p in find(tmp_path)[0]] == ["one"]


def test_a_plug_in_that_cannot_be_read_is_an_error(tmp_path):
    path = tmp_path / "computed.py"
    path.write_text("import os\ncard = MethodCard(name='computed', title=os.getcwd())\n")
    for what in (path, tmp_path):
        with pytest.raises(PluginError, match="can't be read"):
            find(what)
    (tmp_path / "computed.py").write_text("x = 1\n")
    with pytest.raises(PluginError, match="no plug-in here"):
        find(tmp_path)


def test_unknown_names_are_answered_with_the_nearest(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'baseline_resnet'"):
        find("baseline_resnt")
    with pytest.raises(UnknownNameError, match="did you mean 'resume'"):
        check(write(tmp_path, "one"), Terms(only=("resme",)))


def test_a_path_that_does_not_exist_is_answered_with_the_nearest_file(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine", "rare_first")
    monkeypatch.chdir(tmp_path)
    for typed in ("mine/rare_frist.py", "mien/rare_first.py", str(tmp_path / "mine" / "rare_firs.py")):
        with pytest.raises(PluginError, match="there is no file or folder") as caught:
            find(typed)
        near = str(tmp_path / "mine" / "rare_first.py") if typed.startswith("/") else "mine/rare_first.py"
        assert (caught.value.hint, caught.value.next) == (f"did you mean {near}?", f"fer-bench check {near}")
    with pytest.raises(PluginError, match="nothing of a similar name") as caught:
        find("mine/xyz.py")
    assert caught.value.next is None


def test_a_training_that_writes_no_files_ends_like_one_that_does(tmp_path):
    (plugin,), available = find(write(tmp_path, "one"))
    world = World(plugin=plugin, plugins=available, folder=tmp_path / "work")
    bare = world.train(world.fold(), work=tmp_path / "bare")
    assert first_difference(state_of(world.reference), state_of(bare), "run") is None
    assert not list((tmp_path / "bare").glob("*"))
    assert world.reference.last_snapshot.exists()


def test_a_promise_is_checked_only_where_those_before_it_are_kept():
    def raises(error):
        def check(world):
            raise error

        return check

    promises = [
        Promise(name="kept", says="", check=lambda world: "a note"),
        Promise(name="broken", says="", check=raises(Broken("it fails", example="1 is 2", look="here"))),
        Promise(name="behind", says="", check=lambda world: None, after=("broken",)),
        Promise(name="further", says="", check=lambda world: None, after=("behind",)),
        Promise(name="apart", says="", check=raises(DoesNotApply("nothing to check")), look="hook"),
        Promise(name="after", says="", check=lambda world: None, after=("apart",)),
        Promise(name="error", says="", check=raises(ValueError("odd")), look="hook", page="a page"),
        Promise(name="slow", says="", check=lambda world: None, slow=True),
    ]
    verdicts = {v.promise: v for v in judge_all(promises, None, Path("plugin.py"), quick=True)}
    states = {"kept": KEPT, "broken": FAILED, "behind": UNCHECKED, "further": UNCHECKED, "apart": NOTHING}
    states |= {"after": KEPT, "error": FAILED, "slow": UNCHECKED}
    assert {name: v.state for name, v in verdicts.items()} == states
    assert verdicts["behind"].note == "needs 'broken', which is broken"
    assert verdicts["further"].note == "needs 'behind', which is not checked"
    (failure,) = verdicts["error"].failures
    assert (failure.what, failure.page) == ("ValueError: odd", "a page")
    assert "test_check.py" in failure.look
    only = judge_all(promises, None, Path("plugin.py"), only=["behind"])
    assert [v.promise for v in only] == ["broken", "behind"]


def test_the_command_prints_every_promise_and_exits_with_one_where_one_is_broken(tmp_path):
    path = write(tmp_path, "one")
    good = CliRunner().invoke(cli, ["check", str(path), "--only", "hooks"])
    assert good.exit_code == 0, good.output
    assert "  ok      card " in good.output
    assert "one: 2 kept" in good.output
    path.write_text(path.read_text().replace('changes="nothing"', 'changes=""'))
    bad = CliRunner().invoke(cli, ["check", str(path), "--only", "hooks", "--format", "json"])
    assert bad.exit_code == 1
    (report,) = json.loads(bad.output)
    assert [(v["promise"], v["state"]) for v in report["verdicts"]] == [("card", FAILED), ("hooks", UNCHECKED)]
    assert report["verdicts"][0]["failures"][0]["what"] == "the card's changes is empty"


def test_a_plug_in_that_conforms_raises_nothing(tmp_path):
    assert fer_bench.conforms(write(tmp_path, "one"), only=["card", "hooks", "draws"]) is None
