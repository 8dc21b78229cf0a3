"""Every command that is printed can be typed as it is printed, in any folder."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import socket
import sys
from pathlib import Path

import click
import pytest

from fer_bench.base.next_command import TAKES, complete
from fer_bench.cli import cli, main
from fer_bench.record.home import Home

ROOT = Path(__file__).parents[2]
SHORT = ["--recipe", "demo", "--epochs", "1", "--set", "batch_size=16", "--precision", "fp32", "--device", "cpu"]


def all_commands(command: click.Command, path: str, context: click.Context):
    """Path and command of everything that can be typed."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        yield from all_commands(child, f"{path} {name}".strip(), click.Context(child, parent=context))


KNOWN = dict(all_commands(cli, "", click.Context(cli)))


def test_the_table_of_options_is_that_of_the_command_line():
    options = {path: {o for p in command.params for o in p.opts} for path, command in KNOWN.items()}
    takes = {path: {"--plugins", "--home"} & has for path, has in options.items()}
    assert {path: set(has) for path, has in TAKES.items()} == {path: has for path, has in takes.items() if has}


def test_home_and_plugins_are_added_where_they_are_taken_and_lacking(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    added = {"home": "my home", "plugins": ["mine"]}
    mine, home = f"--plugins {tmp_path}/mine", f"--home '{tmp_path}/my home'"
    assert complete("fer-bench list runs", **added) == f"fer-bench list runs {mine} {home}"
    assert complete("fer-bench show x", **added) == f"fer-bench show x {mine}"
    assert complete("fer-bench report x --home y", **added) == "fer-bench report x --home y"
    assert complete("fer-bench claims", **added) == "fer-bench claims"
    assert complete("pip install optuna", **added) == "pip install optuna"
    assert complete(None, **added) is None


def test_every_command_in_the_sources_exists():
    """`fer-bench x y`, in strings and in what people read."""
    sources = [p for d in ("fer_bench", "reports", "methods", "datasets") for p in (ROOT / d).rglob("*.py")]
    strings = [
        (path, node.value)
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    named = [(path, m) for path, text in strings for m in re.findall(r"fer-bench ([a-z]+)(?: ([a-z]+))?", text)]
    assert len(named) > 50
    groups = {path.split()[0] for path in KNOWN if " " in path}
    firsts = {path.split()[0] for path in KNOWN}
    prose = {"store", "kind", "and", "is", "can", "did", "has", "writes", "wrote"}  # as in sentences
    bad = [
        (p.name, m)
        for p, m in named
        if m[0] not in firsts | prose or (m[0] in groups and m[1] and " ".join(m) not in KNOWN)
    ]
    assert bad == []


@pytest.fixture
def typed(monkeypatch, capfd, tmp_path_factory):
    """``typed(command)`` runs a command line in another folder, as a shell would; returns exit code, output, errors."""
    monkeypatch.delenv("FER_BENCH_HOME", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(command: str, folder: Path | None = None):
        monkeypatch.chdir(folder or tmp_path_factory.mktemp("elsewhere"))
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capfd.readouterr()
        return caught.value.code, out, err

    return run


@pytest.fixture
def here(tmp_path, plugin_folder):
    """A folder of one's own, with a home and plug-ins below it under names that need quoting."""
    shutil.copytree(plugin_folder, tmp_path / "my plugins")
    return tmp_path


GIVEN = f"--dataset tiny --plugins 'my plugins' --home 'h?me' {shlex.join(SHORT)} --no-track --threads 1 --quiet"


def commands_in(text: str) -> list[str]:
    return [line.strip().removeprefix("next:").strip() for line in text.splitlines() if "fer-bench " in line]


def test_the_commands_that_tune_ends_with_train_what_was_found(typed, here):
    code, out, err = typed(f"fer-bench tune baseline_focal {GIVEN} --trials 2 --select accuracy --name t", here)
    assert code == 0, err
    one, all_tuned = commands_in(out)
    home = Home(here / "h?me")
    best = home.ledger.study("t")["searches"][0]["trials"]
    best = max((t for t in best if t["value"] is not None), key=lambda t: (t["value"], -t["number"]))
    wanted = home.ledger.run(best["run_id"]).spec
    for command, name in ((one, "one"), (all_tuned, "all")):
        code, out, err = typed(f"{command} --seeds 1 --name {name}")
        assert code == 0, err
        (run,) = home.ledger.study(name)["runs"]
        spec = home.ledger.run(run).spec
        assert spec == {**wanted, "test": True}
    facts = home.ledger.study("all")["tuned"]
    assert [(f["trials"], f["seed"], f["objective"]) for f in facts.values()] == [(2, 0, "val_mean_recall")]
    assert "tuned" not in home.ledger.study("one")


def test_a_variant_that_was_not_tuned_is_tuned_by_the_command_of_the_message(typed, here):
    run = f"fer-bench run 'baseline_focal[weights=inverse]' --tuned {GIVEN} --imbalance exp:4 --total 60 --seeds 1"
    code, _, err = typed(run, here)
    assert code == 1
    (again,) = commands_in(err)
    code, _, err = typed(again.replace("--trials 20", "--trials 1"))
    assert code == 0, err
    assert typed(run, here)[0] == 0


RAISING = """
from fer_bench import Method, MethodCard
card = MethodCard(name="raising", title="raises")

class Raising(Method):
    card = card

    def on_epoch_end(self, epoch, stats):
        raise KeyError("no such centre")
"""


def test_the_command_of_a_failed_run_finds_the_plugin_and_its_home(typed, here):
    (here / "my plugins" / "raising.py").write_text(RAISING)
    code, out, err = typed(f"fer-bench run raising {GIVEN} --seeds 1 --name s", here)
    assert code == 1
    (show,) = [c for c in commands_in(out + err) if c.startswith("fer-bench show")]
    assert typed(show)[1].startswith("raising: raises")


def test_the_command_of_an_unknown_name_lists_the_plugins_too(typed, here):
    code, _, err = typed(f"fer-bench run baseline_resnet {GIVEN.replace('tiny', 'tny')}", here)
    assert code == 1
    assert "tiny" in typed(commands_in(err)[0])[1]


def test_the_command_of_a_missing_store_names_the_home(typed, here):
    code, _, err = typed("fer-bench data stats synthetic --home 'h?me'", here)
    assert code == 1
    (command,) = commands_in(err)
    assert shlex.split(command)[-2:] == ["--home", str(here / "h?me")]


def test_the_command_at_the_end_of_a_run_opens_its_store(typed, here):
    words = f"fer-bench run baseline_resnet {GIVEN} --seeds 1 --name s --tracking-uri sqlite:///mine.db"
    code, out, err = typed(words.replace("--no-track", ""), here)
    assert code == 0, err
    (line,) = [line for line in out.splitlines() if line.startswith("MLflow: ")]
    context = KNOWN["ui"].make_context("ui", shlex.split(line.removeprefix("MLflow: "))[2:])
    given = {"home": str(here / "h?me"), "tracking_uri": f"sqlite:///{here}/mine.db"}
    assert given.items() <= context.params.items()
    (command,) = [w for w in (Home(here / "h?me").ledger.study("s")["command"],) if w]
    assert "finished before" in typed(f"{command} --no-track", here)[1]  # as it was typed, where it was typed


def test_a_port_in_use_is_answered_with_the_same_command_on_another(typed, here):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = typed(f"fer-bench ui --home 'h?me' --tracking-uri sqlite:///my.db --port {port}", here)
    assert code == 1
    (command,) = commands_in(err)
    context = KNOWN["ui"].make_context("ui", shlex.split(command)[2:])
    assert context.params == {
        "home": str(here / "h?me"), "tracking_uri": f"sqlite:///{here}/my.db", "port": port % 65535 + 1,
        "host": "127.0.0.1",
    }  # fmt: skip


def test_an_address_with_a_password_is_left_out_and_where_to_put_it_is_said(typed, here):
    uri = "http://alice:s3cr3tpw@127.0.0.1:9/"
    words = f"fer-bench tune baseline_resnet {GIVEN} --trials 1 --name t --tracking-uri {uri}"
    code, out, err = typed(words.replace("--no-track", ""), here)
    assert code == 0, err
    assert "s3cr3tpw" not in out + err
    assert "set it in MLFLOW_TRACKING_URI first" in out
    assert not [c for c in commands_in(out) if "tracking-uri" in c]
    code, out, err = typed(f"fer-bench run baseline_resnet {GIVEN} --seeds 1 --name s --tracking-uri {uri}", here)
    assert code == 0
    files = [p for p in here.rglob("*") if p.is_file() and b"s3cr3tpw" in p.read_bytes()]
    assert files == []
    assert "http://***@127.0.0.1:9/" in (here / "h?me" / "results" / "s" / "report.md").read_text()
    assert "http://***@127.0.0.1:9/" in typed("fer-bench list studies --home 'h?me'", here)[1]
