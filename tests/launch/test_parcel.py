"""What travels to a node, and the folder in which it arrives there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from fer_bench.data.clean_manifest import save_clean
from fer_bench.data.store import SOURCES, Store
from fer_bench.errors import ClusterError
from fer_bench.launch import node_folder, parcel
from fer_bench.launch.node_folder import run_home, tidy
from fer_bench.launch.parcel import data_parcel, plugin_parcel, unpack
from fer_bench.launch.same_code import HARNESS, code_facts, difference
from fer_bench.record.home import Home


@pytest.fixture
def base(tmp_path: Path, monkeypatch) -> Path:
    """The node's folder, in a temporary folder of the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"fer-bench-{os.geteuid()}"


def test_a_store_and_what_was_derived_from_it_arrive_whole(workplace, tmp_path: Path):
    home = workplace.home
    derived = home.splits("tiny", Store.open(home.store("tiny")).fingerprint)
    save_clean(derived, [(3, "constant", None)])
    (derived / "official.csv").write_text("for people to read\n")
    sent = data_parcel(home, "tiny")
    unpack(sent.files, tmp_path / "there")
    there = Home(tmp_path / "there")
    assert Store.open(there.store("tiny")).fingerprint == Store.open(home.store("tiny")).fingerprint
    assert (there.store("tiny") / SOURCES).is_file(), "the seal reads it"
    assert sorted(os.listdir(there.data / "splits" / derived.name)) == ["clean.csv", "clean.json"]
    assert data_parcel(there, "tiny").digest == sent.digest
    save_clean(derived, [])
    assert data_parcel(home, "tiny").digest != sent.digest


def test_code_of_plug_ins_and_what_it_reads_arrive_and_nothing_else(tmp_path: Path):
    folder = tmp_path / "mine"
    for name in ("own.py", "inner/table.json", ".git/config", "inner/__pycache__/own.pyc", "venv/pyvenv.cfg",
                 "venv/lib/big.py", "data/x/table.csv", "ledger/a/test_labels.npy", "results/r/report.md",
                 "tuning/x.json"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "empty.py").touch()
    sent = plugin_parcel([str(folder)], Home(folder))
    assert sorted(sent.files) == ["0/empty.py", "0/inner/table.json", "0/own.py"]
    unpack(sent.files, tmp_path / "there")
    assert (tmp_path / "there/0/inner/table.json").read_text() == "inner/table.json"
    assert (tmp_path / "there/0/empty.py").read_text() == ""
    assert plugin_parcel([], Home(folder)) is None


@pytest.mark.parametrize(("limit", "most"), [("MOST_BYTES", 10), ("MOST_FILES", 1)])
def test_a_folder_that_holds_more_than_plug_ins_is_refused(tmp_path: Path, monkeypatch, limit, most):
    (tmp_path / "own.py").write_text("x = 1\n")
    (tmp_path / "other.py").write_text("x = 2\n")
    monkeypatch.setattr(parcel, limit, most)
    with pytest.raises(ClusterError, match="too much to be sent to every node") as refusal:
        plugin_parcel([str(tmp_path)], Home(tmp_path / "home"))
    assert refusal.value.where == f"--plugins {tmp_path}"


def test_data_are_fetched_once_and_go_when_other_data_come_and_nobody_uses_them(workplace, base: Path):
    sent, fetched = data_parcel(workplace.home, "tiny").files, []

    def fetch():
        fetched.append(1)
        return sent

    with run_home("a", fetch) as one, run_home("a", fetch) as two:
        assert len(fetched) == 1
        assert one != two
        assert Store.open(Home(one).store("tiny")).fingerprint == Store.open(Home(two).store("tiny")).fingerprint
        with run_home("b", fetch):
            assert (base / "data-a").is_dir(), "two runs use them"
    assert sorted(os.listdir(base)) == ["data-a", "data-b", "lock"]
    with run_home("b", fetch):
        assert len(fetched) == 2
        assert not (base / "data-a").exists()
        tidy()
        assert (base / "data-b").is_dir(), "a run uses them"
    tidy()
    assert os.listdir(base) == ["lock"]


def test_data_that_were_half_written_are_fetched_again(workplace, base: Path):
    sent = data_parcel(workplace.home, "tiny").files

    def die():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), run_home("a", die):
        pass
    node_folder.node_folder().joinpath("data-a.part").mkdir(exist_ok=True)
    with run_home("a", lambda: sent) as home:
        assert len(Store.open(Home(home).store("tiny"))) == 184
    assert sorted(os.listdir(base)) == ["data-a", "lock"]


def test_a_folder_of_somebody_else_is_not_used(base: Path, tmp_path: Path):
    (tmp_path / "theirs").mkdir()
    base.symlink_to(tmp_path / "theirs")
    with pytest.raises(ClusterError, match="belongs to somebody else"):
        tidy()


def test_differences_of_code_are_told_by_name():
    here = {"torch": "2.11.0", "numpy": "2.0.0", HARNESS: "a"}
    assert difference(here, dict(here)) == ""
    assert difference(here, {**here, HARNESS: "b"}) == "the code of fer-bench differs, though its version is the same"
    assert difference(here, {**here, HARNESS: "b", "torch": "2.10.0"}) == "torch 2.10.0 there, 2.11.0 here"
    assert difference(here, {"torch": "2.11.0", HARNESS: "a"}) == "numpy unknown there, 2.0.0 here"
    facts = code_facts()
    assert {"torch", "fer-bench", HARNESS} <= set(facts)
    assert "+" not in facts["torch"]
