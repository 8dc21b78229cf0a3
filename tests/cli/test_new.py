"""`fer-bench new`: what it writes works as it is, and nothing is overwritten."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fer_bench.cli.new import LONGEST, STAND_INS, TEMPLATES, rendered
from fer_bench.cli.preflight import preflight
from fer_bench.cli.run import run as run_command
from fer_bench.contract.plugins import load_plugin, plugins

ROOT = Path(__file__).parents[2]


def commands(out: str) -> list[str]:
    return [line for line in out.splitlines() if line.startswith(("fer-bench ", "pytest "))]


def run_pytest(*paths: Path) -> subprocess.CompletedProcess[str]:
    """Run tests as somebody would who has just written them, in their folder."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, paths)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(words, capture_output=True, text=True, cwd=paths[0].parent, env=environment)


def test_a_method_and_its_tests_are_written_and_the_next_commands_printed(call, tmp_path):
    code, out, err = call("new", "method", "own_loss", "--into", tmp_path / "mine")
    assert code == 0, err
    file, tests = tmp_path / "mine" / "own_loss.py", tmp_path / "mine" / "tests" / "test_own_loss.py"
    assert sorted(p for p in (tmp_path / "mine").rglob("*") if p.is_file()) == [file, tests]
    check, test, run = commands(out)
    assert (check, test) == (f"fer-bench check {file}", f"pytest {tests}")
    assert run.startswith("fer-bench run own_loss baseline_resnet --dataset synthetic --recipe ")
    assert run.endswith(f" --plugins {tmp_path / 'mine'}")
    assert plugins([tmp_path / "mine"]).broken == []
    made = load_plugin(file)
    assert (made.__name__, made.card.title) == ("OwnLoss", "Own loss")
    assert call(*shlex.split(check)[1:], "--quick")[0] == 0
    options = dict(run_command.make_context("run", shlex.split(run)[2:]).params)
    assert "own_loss" in preflight(options.pop("methods"), options).methods


def test_the_tests_of_every_template_and_of_a_data_set_pass_as_they_are(call, tmp_path):
    for template in TEMPLATES:
        name = f"a_{template.replace('-', '_')}"
        assert call("new", "method", name, "--template", template, "--into", tmp_path)[0] == 0
    assert call("new", "dataset", "lab_faces", "--into", tmp_path)[0] == 0
    done = run_pytest(tmp_path / "tests")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_data_set_and_its_tests_are_written_and_the_next_commands_printed(call, tmp_path):
    code, out, err = call("new", "dataset", "lab_faces", "--into", tmp_path)
    assert code == 0, err
    assert load_plugin(tmp_path / "lab_faces.py").card.title == "Lab faces"
    check, test, show, whole, prepare, run = commands(out)
    assert check == f"fer-bench check {tmp_path}/lab_faces.py"
    assert call(*shlex.split(check)[1:])[0] == 0
    assert test == f"pytest {tmp_path}/tests/test_lab_faces.py"
    assert call(*shlex.split(show)[1:])[0] == 0
    assert prepare == f"fer-bench data prepare lab_faces --from FACES --plugins {tmp_path}"
    assert whole == f"{check} --from FACES"
    assert run.startswith("fer-bench run baseline_resnet --dataset lab_faces --recipe ")
    assert run.endswith(f" --plugins {tmp_path}")
    options = dict(run_command.make_context("run", shlex.split(run)[2:]).params)
    assert options["dataset"] == "lab_faces"


@pytest.mark.parametrize("kind", STAND_INS)
@pytest.mark.parametrize("name", ["a", "a" * LONGEST, "a_" * (LONGEST // 2)], ids=len)
def test_what_is_written_satisfies_ruff_whatever_the_name(tmp_path, kind, name):
    for template in TEMPLATES if kind == "method" else ["dataset"]:
        for number, text in enumerate(rendered(kind, template.replace("-", "_"), name)):
            (tmp_path / f"{template}_{number}.py").write_text(text)
    for words in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *words, "--config", str(ROOT / "pyproject.toml"), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_class_never_hides_what_its_file_imports():
    assert "class Stage" not in rendered("method", "two_stage", "stage")[0].replace("class StageMethod", "")
    assert "class ReadingDataset(Dataset)" in rendered("dataset", "dataset", "reading")[0]


def test_two_methods_share_a_folder(call, tmp_path):
    assert call("new", "method", "one", "--into", tmp_path)[0] == 0
    assert call("new", "method", "two", "--into", tmp_path)[0] == 0
    assert {"one", "two"} <= set(plugins([tmp_path]).methods)


def test_the_folder_is_the_current_one_unless_one_is_given(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("new", "method", "own")[0] == 0
    assert (tmp_path / "own.py").exists()
    assert "own" in call("list", "methods", "own", "--plugins", ".")[1]


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("Own", "own"),
        ("own loss", "own_loss"),
        ("own-loss", "own_loss"),
        ("2nd", "my_2nd"),
        ("class", "my_class"),
        ("match", "my_match"),
        ("tests", "my_tests"),
        ("conftest", "my_conftest"),
        ("raw", "my_raw"),
        ("torch", "my_torch"),
        ("json", "my_json"),
        ("_own", "own"),
        ("../own", "own"),
        ("", "method"),
        ("ü", "method"),
        ("baseline_resnet", "my_baseline_resnet"),
        ("synthetic", "my_synthetic"),
        ("o" * (LONGEST + 1), "o" * (LONGEST - 3)),
    ],
)
def test_a_name_that_can_not_be_is_answered_with_one_that_can(call, tmp_path, name, near):
    code, _, err = call("new", "method", name, "--into", tmp_path / "mine")
    assert code == 1
    assert f"  hint:  '{near}' can\n" in err
    assert list(tmp_path.iterdir()) == []
    (again,) = [line.removeprefix("  next:").strip() for line in err.splitlines() if line.startswith("  next:")]
    assert call(*shlex.split(again)[1:])[0] == 0
    assert (tmp_path / "mine" / f"{near}.py").exists()


def test_nothing_is_overwritten_without_force(call, tmp_path):
    assert call("new", "method", "own", "--into", tmp_path)[0] == 0
    file, tests = tmp_path / "own.py", tmp_path / "tests" / "test_own.py"
    for changed, other in ((file, tests), (tests, file)):
        other.unlink(missing_ok=True)
        changed.write_text("mine = 1\n")
        code, _, err = call("new", "method", "own", "--into", tmp_path)
        assert code == 1
        assert f"there is a file {changed} already" in err
        assert (changed.read_text(), other.exists()) == ("mine = 1\n", False)
    (again,) = [line.removeprefix("  next:").strip() for line in err.splitlines() if line.startswith("  next:")]
    assert call(*shlex.split(again)[1:])[0] == 0
    assert "mine = 1" not in file.read_text() + tests.read_text()


def test_an_unknown_template_is_answered_with_the_nearest(call, tmp_path):
    code, _, err = call("new", "method", "own", "--template", "samplr", "--into", tmp_path)
    assert code == 1
    assert "unknown template 'samplr'" in err
    assert "'sampler'" in err
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_refused(call, tmp_path):
    (tmp_path / "mine").write_text("")
    code, _, err = call("new", "method", "own", "--into", tmp_path / "mine")
    assert code == 1
    assert str(tmp_path / "mine") in err
    assert "Traceback" not in err
