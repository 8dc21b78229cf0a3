"""MLflow's SQLite file: whole or absent, reached under every path, and made anew where it was left half made."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fer_bench.base.addresses import absolute, check_uri, sqlite_path, sqlite_uri
from fer_bench.errors import TrackingError
from fer_bench.tracking.mlflow_database import client, create, prepare_database, reachable

ODD = ["h?x", "h%41", "h#x", "h%3Fx", "ein Haus", "häuser", "it's", "a&b;c", "me@lab:x", "100%"]


@pytest.mark.parametrize("name", ODD)
def test_a_path_and_its_address_turn_into_each_other(tmp_path, name):
    path = tmp_path / name / "mlflow.db"
    assert sqlite_path(sqlite_uri(path)) == path
    assert absolute(sqlite_uri(path)) == sqlite_uri(path)
    check_uri(sqlite_uri(path))


def test_addresses_that_are_no_plain_file_are_left_to_mlflow(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert sqlite_path("sqlite:///mlflow.db") == tmp_path / "mlflow.db"
    assert absolute("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    for other in ("sqlite://", "sqlite:///:memory:", "sqlite:///x.db?timeout=9", "postgresql://h/db", "http://h"):
        assert sqlite_path(other) is None
        assert absolute(other) == other


def test_a_question_mark_that_cuts_an_address_off_is_refused():
    with pytest.raises(TrackingError, match="question mark") as caught:
        check_uri("sqlite:////tmp/h?x/mlflow.db")
    assert "%3F" in caught.value.hint


@pytest.mark.parametrize("name", ODD)
def test_every_path_is_reached_under_an_address_without_odd_letters(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database:
        database.execute("CREATE TABLE here (x)")
    with reachable(folder / "mlflow.db") as uri:
        path = uri.removeprefix("sqlite:///")
        assert not set("?#% ") & set(path)
        with contextlib.closing(sqlite3.connect(path)) as database:
            assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("here",)]
            database.execute("INSERT INTO here VALUES (1)")
            database.commit()
    assert os.listdir(folder) == ["mlflow.db"]
    assert os.listdir(tmp_path) == [name]


def start(code: str, *words: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-P", "-c", code, *words], stdout=-1, stderr=-1)


def wait_until(ready, process: subprocess.Popen) -> None:
    """Look again and again until `ready()`; the process must still be at work then."""
    while not ready():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


def tables(path: Path) -> int:
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as d,
    ):
        return d.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return 0


@pytest.fixture(scope="module")
def half_made(tmp_path_factory) -> dict[str, bytes]:
    """The files that MLflow leaves where it is killed while it makes a database in place."""
    folder = tmp_path_factory.mktemp("half")
    path = folder / "mlflow.db"
    code = "import sys; from mlflow import MlflowClient; MlflowClient(sys.argv[1]).search_experiments()"
    process = start(code, f"sqlite:///{path}")
    wait_until(lambda: tables(path) > 25, process)
    process.kill()
    process.wait()
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.fixture
def left_half_made(half_made, tmp_path):
    """A home with such a database, untouched for a minute."""
    for name, content in half_made.items():
        (tmp_path / name).write_bytes(content)
        os.utime(tmp_path / name, (time.time() - 60,) * 2)
    return tmp_path / "mlflow.db"


def test_a_half_made_database_is_kept_aside_and_made_anew(left_half_made, half_made):
    told: list[str] = []
    assert prepare_database(left_half_made, told.append)
    assert "half made" in told[0]
    assert "mlflow-half-made-1.db" in told[0]
    assert left_half_made.with_name("mlflow-half-made-1.db").stat().st_size == len(half_made["mlflow.db"])
    with reachable(left_half_made) as uri:
        assert [e.name for e in client(uri).search_experiments()] == ["Default"]
    assert not prepare_database(left_half_made, told.append)
    assert len(told) == 1


def test_a_database_that_holds_anything_is_never_moved(left_half_made):
    with contextlib.closing(sqlite3.connect(left_half_made)) as database:
        database.execute("PRAGMA ignore_check_constraints = ON")
        columns = [c[1] for c in database.execute("PRAGMA table_info(experiments)")]
        values = {"experiment_id": 7, "name": "mine"}
        shown = [str(values.get(c, "")) for c in columns]
        database.execute(f"INSERT INTO experiments VALUES ({','.join('?' * len(shown))})", shown)
        database.commit()
    os.utime(left_half_made, (time.time() - 60,) * 2)
    assert not prepare_database(left_half_made)
    assert [p.name for p in left_half_made.parent.glob("*.db")] == ["mlflow.db"]


@pytest.mark.parametrize("size", [1, 400_000])
def test_a_killed_creation_leaves_no_database(tmp_path, size):
    home, aside = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    aside.mkdir()
    code = (
        "import sys, pathlib; from fer_bench.tracking.mlflow_database import create; create(pathlib.Path(sys.argv[1]))"
    )
    env = {**os.environ, "TMPDIR": str(aside)}
    process = subprocess.Popen([sys.executable, "-P", "-c", code, str(home / "mlflow.db")], env=env)
    wait_until(lambda: any(p.stat().st_size >= size for p in aside.rglob("mlflow.db")), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert os.listdir(home) == []


def test_a_creation_that_was_overtaken_leaves_the_other_alone(tmp_path, monkeypatch):
    path = tmp_path / "mlflow.db"

    def overtaken(uri):
        with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
            database.execute("CREATE TABLE ours (x)")
        path.write_bytes(b"theirs")

    monkeypatch.setattr("fer_bench.tracking.mlflow_database.client", overtaken)
    create(path)
    assert path.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["mlflow.db"]


def test_an_empty_file_counts_as_none(tmp_path, monkeypatch):
    def made(uri):
        with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database:
            database.execute("CREATE TABLE ours (x)")

    monkeypatch.setattr("fer_bench.tracking.mlflow_database.client", made)
    (tmp_path / "mlflow.db").touch()
    assert not prepare_database(tmp_path / "mlflow.db")
    assert tables(tmp_path / "mlflow.db") == 1


def test_a_file_that_is_no_database_is_named_at_once(tmp_path):
    (tmp_path / "mlflow.db").write_text("notes of mine")
    with pytest.raises(TrackingError, match="not a SQLite database"):
        prepare_database(tmp_path / "mlflow.db")
    assert (tmp_path / "mlflow.db").read_text() == "notes of mine"


@pytest.mark.parametrize("place", ["/proc/nowhere/mlflow.db", "{}/file/mlflow.db", "{}/" + "x" * 300 + "/mlflow.db"])
def test_a_place_that_can_hold_no_database_is_named_at_once(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(TrackingError, match="can't be"):
        prepare_database(Path(place.format(tmp_path)))
