"""The journal of searches: cut where unfinished, filled from the ledger where lost; nothing is trained twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from fer_bench.contract.params import Choice, Float, Int, parse_variant
from fer_bench.training.recipe import Recipe
from fer_bench.tuning.journal import distribution, in_words, open_storage
from fer_bench.tuning.search import build_search
from fer_bench.tuning.tune import tune


@pytest.fixture
def search(workplace):
    recipe = {"epochs": 1, "batch_size": 16, "optimizer": "adamw", "lr": 4e-3, "precision": "fp32", "shift": 1.0}
    template = {"dataset": "tiny", "dataset_params": {}, "protocol": "official", "backbone": "resnet10_tiny"}
    template |= {"pretrained": False, "recipe": Recipe.build(recipe, {})}
    return build_search(workplace, parse_variant("baseline_focal"), template, "demo")


@pytest.fixture
def searched(workplace, search):
    """A home in which three trials of a search are finished; returns the journal and what was trained."""
    journal = workplace.home.tuning / "journal.log"
    run(workplace, search, 3)
    return journal, trained(workplace)


def run(work, search, trials):
    said: list[str] = []
    (found,) = tune([search], trials, work, command="fer-bench tune ...", name="search", say=said.append)
    return found, said


def trained(work):
    return {r.id: (r.path / "done.json").stat().st_mtime_ns for r in work.home.ledger.runs()}


def trials_of(work, search):
    """(state, value, values, curve, run) of every trial, by number."""
    import optuna

    storage = open_storage(work.home.tuning / "journal.log")
    trials = optuna.load_study(study_name=search.study(0), storage=storage).get_trials(deepcopy=False)
    return [(t.state.name, t.value, t.params, t.intermediate_values, t.user_attrs.get("run_id")) for t in trials]


@pytest.mark.parametrize("cut", [1, 40, 200])
def test_an_unfinished_last_line_is_cut_off_and_the_search_goes_on(workplace, search, searched, cut):
    journal, before = searched
    content = journal.read_bytes()
    journal.write_bytes(content[:-cut])
    found, said = run(workplace, search, 3)
    assert found["trials"] == 3
    assert trained(workplace) == before
    assert [json.loads(line) is not None for line in journal.read_bytes().splitlines()]
    assert not [line for line in said if "damaged" in line]
    assert not list(journal.parent.glob("*damaged*"))


def test_zeros_that_a_crash_has_left_at_the_end_are_cut_off(workplace, search, searched):
    journal, before = searched
    whole = journal.read_bytes()
    journal.write_bytes(whole + b"\0" * 512)
    assert run(workplace, search, 3)[0]["trials"] == 3
    assert journal.read_bytes().startswith(whole)
    assert b"\0" not in journal.read_bytes()
    assert trained(workplace) == before


@pytest.mark.parametrize(
    ("damage", "readable"),
    [
        (lambda content: content[:500] + b"\0" * 50 + content[550:], False),
        (lambda content: content.replace(b'"op_code":4', b'"op_code":', 1), False),
        (lambda content: b"".join(content.splitlines(keepends=True)[1:]), True),
        (lambda content: b"", True),
    ],
    ids=["zeros in the middle", "glued", "first line lost", "empty"],
)
def test_a_damaged_journal_is_filled_from_the_ledger(workplace, search, searched, damage, readable):
    journal, before = searched
    told_before = trials_of(workplace, search)
    shutil.copy(journal, journal.parent / "whole")
    damaged = damage(journal.read_bytes())
    assert damaged != journal.read_bytes()
    journal.write_bytes(damaged)
    found, said = run(workplace, search, 3)
    assert found["trials"] == 3
    assert trained(workplace) == before
    assert trials_of(workplace, search) == told_before
    kept = journal.with_name("journal-damaged-1.log")
    assert kept.exists() != readable
    if not readable:
        assert kept.read_bytes() == damaged
        assert f"it is now {kept}" in said[0]

    (journal.parent / "whole").rename(journal)  # the fourth trial is what an unharmed journal proposes
    run(workplace, search, 4)
    one = trials_of(workplace, search)[3]
    journal.write_bytes(damaged)
    found, _ = run(workplace, search, 4)
    assert trials_of(workplace, search)[3] == one


def test_a_ledger_of_an_earlier_version_rebuilds_by_repeating_what_was_proposed(workplace, search, searched):
    journal, before = searched
    study = workplace.home.ledger.study("search")
    del study["searches"]
    workplace.home.ledger.put_study("search", study)
    told_before = trials_of(workplace, search)
    journal.unlink()
    assert run(workplace, search, 3)[0]["trials"] == 3
    assert trained(workplace) == before
    assert trials_of(workplace, search) == told_before


@pytest.mark.parametrize(
    "searches",
    [3, ["x"], [{"name": "{}"}], [{"name": "{}", "trials": [{"number": 0, "state": "COMPLETE"}]}],
     [{"name": "{}", "trials": [{"number": 0, "state": "GONE", "run_id": "../x", "values": {"no": 1}, "value": 1}]}]],
)  # fmt: skip
def test_a_malformed_record_of_a_search_gives_no_trials_and_harms_nothing(workplace, search, searched, searches):
    journal, before = searched
    told_before = trials_of(workplace, search)
    for told in searches if isinstance(searches, list) and isinstance(searches[0], dict) else ():
        told["name"] = search.study(0)
    study = workplace.home.ledger.study("search") | {"searches": searches}
    workplace.home.ledger.put_study("search", study)
    journal.unlink()
    run(workplace, search, 3)
    assert trained(workplace) == before
    assert trials_of(workplace, search) == told_before


def test_the_lock_of_a_killed_writer_blocks_nobody(tmp_path):
    journal = tmp_path / "journal.log"
    os.symlink(journal, tmp_path / "journal.log.lock")  # what Optuna's own lock leaves behind
    code = """
import sys, pathlib
from fer_bench.base.locks import FileLock
FileLock(pathlib.Path(sys.argv[1])).acquire()
print("held", flush=True)
sys.stdin.read()
"""
    writer = subprocess.Popen([sys.executable, "-c", code, str(journal)], stdin=-1, stdout=-1, text=True)
    assert writer.stdout.readline() == "held\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()

    import optuna

    optuna.create_study(storage=open_storage(journal), study_name="after")
    assert optuna.get_all_study_names(open_storage(journal)) == ["after"]


def test_spaces_in_optunas_words_and_in_a_readers():
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    assert distribution(Choice((1, "a", None))) == CategoricalDistribution([1, "a", None])
    assert distribution(Int(1, 9, log=True)) == IntDistribution(1, 9, log=True)
    assert distribution(Float(0.1, 2.0)) == FloatDistribution(0.1, 2.0)
    assert in_words(Choice((1, "a", None))) == "one of 1, a, none"
    assert in_words(Int(1, 9)) == "1 to 9"
    assert in_words(Float(4e-4, 1.2e-2, log=True)) == "0.0004 to 0.012, logarithmic"
