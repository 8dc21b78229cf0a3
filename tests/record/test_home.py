"""A home that can't be written or read: a clear error at once, from every command, and nothing spoilt."""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fer_bench.cli import main
from fer_bench.record.home import Home, refused

SHORT = "--recipe demo --epochs 1 --set batch_size=16 --precision fp32 --device cpu --threads 1 --quiet"
TINY = f"--dataset tiny --plugins {{plugins}} {SHORT}"

# What writes into the home, and what only reads it.
WRITING = {
    "run": f"run baseline_resnet {TINY} --seeds 1 --no-track --name other",
    "tune": f"tune baseline_resnet {TINY} --trials 1 --no-track",
    "prepare": "data prepare synthetic --dataset-set size=300 --dataset-set least_test=0",
    "fetch": "data fetch ferplus",
    "check": "data check tiny --plugins {plugins}",
    "report": "report s",
    "response": "response s",
    "compare": "compare s",
    "sync": "track sync s",
    "ui": "ui --port 45671",
}
READING = {
    "runs": "list runs",
    "studies": "list studies",
    "stats": "data stats tiny",
    "report elsewhere": "report s --out {out} --format md",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, plugin_folder):
    """A home with one finished study, which can be read and not written."""
    place = tmp_path_factory.mktemp("homes")
    shutil.copytree(plugin_folder, place / "plugins")
    home = place / "home"
    words = WRITING["run"].format(plugins=place / "plugins").replace("other", "s")
    with pytest.raises(SystemExit) as caught:
        main([*shlex.split(words), "--home", str(home)])
    assert caught.value.code == 0
    for path in [place, *place.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield place
    for path in [place, *place.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture
def obeying():
    """Permissions mean something: root gives up its right to override them for the length of a test."""
    if os.geteuid() != 0:
        yield
        return
    libc, header, had = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    override = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if libc.capget(header, had) != 0 or not had[0] & override:
        pytest.skip("the rights of this root can't be told")
    less = (ctypes.c_uint32 * 6)(had[0] & ~override, *had[1:])  # effective, permitted, inheritable; twice
    assert libc.capset(header, less) == 0
    yield
    assert libc.capset(header, had) == 0


@pytest.fixture
def call(capfd):
    def run(words: str, home: Path, **names):
        with pytest.raises(SystemExit) as caught:
            main([*shlex.split(words.format(**names)), "--home", str(home)])
        out, err = capfd.readouterr()
        return caught.value.code, out, err

    return run


def check_refusal(code: int, out: str, err: str) -> None:
    """One error that says what and where, and no traceback."""
    assert code == 1, out + err
    assert err.startswith("error: "), err
    assert "  where: " in err
    assert "Traceback" not in out + err


@pytest.mark.parametrize("words", WRITING.values(), ids=WRITING)
def test_a_read_only_home_is_refused_by_what_writes(finished, obeying, call, words):
    before = sorted(finished.rglob("*"))
    code, out, err = call(words, finished / "home", plugins=finished / "plugins")
    check_refusal(code, out, err)
    assert sorted(finished.rglob("*")) == before


@pytest.mark.parametrize("words", READING.values(), ids=READING)
def test_a_read_only_home_can_be_read(finished, obeying, call, tmp_path, words):
    code, _, err = call(words, finished / "home", plugins=finished / "plugins", out=tmp_path)
    assert code == 0, err


@pytest.mark.parametrize("words", [*WRITING.values(), *list(READING.values())[:3]], ids=[*WRITING, *list(READING)[:3]])
def test_a_forbidden_home_is_refused_by_every_command(plugin_folder, obeying, call, tmp_path, words):
    home = tmp_path / "home"
    home.mkdir(mode=0)
    check_refusal(*call(words, home, plugins=plugin_folder))


@pytest.mark.parametrize("home", ["/proc/nowhere", "{}/file", "{}/file/below", "{}/" + "x" * 300])
@pytest.mark.parametrize("name", ["run", "tune", "prepare"])
def test_what_can_be_no_folder_is_refused(call, tmp_path, plugin_folder, home, name):
    (tmp_path / "file").touch()
    check_refusal(*call(WRITING[name], Path(home.format(tmp_path)), plugins=plugin_folder))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_read_only_disk_is_refused_for_root_too(finished):
    """Permissions do not stop root; a disk that is mounted read-only does."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("needs root and a mount namespace")
    program = """
import sys, json, shlex
from fer_bench.cli import main
for words in json.loads(sys.argv[1]):
    print("$", words, file=sys.stderr, flush=True)
    try:
        main(shlex.split(words))
    except SystemExit as end:
        print(f"ended with {end.code}", file=sys.stderr, flush=True)
"""
    home, plugins = finished / "home", finished / "plugins"
    commands = [f"{WRITING[n].format(plugins=plugins)} --home {home}" for n in WRITING]
    mount = f'mount --bind {home} {home} && mount -o remount,ro,bind {home} && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-c", program, json.dumps(commands)],
        capture_output=True, text=True,
    )  # fmt: skip
    answers = [part for part in done.stderr.split("$ ") if part]
    assert len(answers) == len(commands), done.stderr
    for answer in answers:
        assert "error: " in answer, answer
        assert answer.endswith("ended with 1\n")
        assert "Traceback" not in answer


def test_only_what_the_system_refused_is_told_without_a_traceback(tmp_path):
    told = refused(PermissionError(13, "Permission denied", str(tmp_path)))
    assert told is not None
    assert told.where == str(tmp_path)
    assert refused(FileNotFoundError(2, "No such file", "x")) is None
    assert refused(PermissionError(13, "Permission denied")) is None


def test_looking_whether_a_home_can_be_written_makes_nothing(tmp_path):
    Home(tmp_path / "new" / "home").require_writable()
    assert list(tmp_path.iterdir()) == []
