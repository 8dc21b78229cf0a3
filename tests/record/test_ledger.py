"""The ledger: what a run's id depends on, files that are whole or absent, records that notice a change."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from fer_bench.base.files import write_json, write_with
from fer_bench.errors import LedgerError, LockedError, SpecError
from fer_bench.record import ledger as ledger_module
from fer_bench.record.ledger import Ledger, RunWriter, run_id

METHOD = '''
"""A method with a docstring."""
from fer_bench import Method, MethodCard

from ._shared import factor

card = MethodCard(name="own", title="of a test")


class Own(Method):
    """Its class's docstring."""

    card = card

    def criterion(self, output, target):
        """A hook's docstring."""
        # a comment
        return factor() * super().criterion(output, target)
'''
SHARED = "def factor():\n    return 2.0\n"


# -- ids -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def key(workplace, tiny_run):
    """The id of a run of `tiny`, with some fields changed."""
    from fer_bench.runs.executor import identify

    return lambda method="baseline_resnet", **fields: identify(tiny_run(method, **fields), workplace)[0]


def test_id_is_the_same_for_equal_specs(key):
    assert key() == key()


def test_every_field_of_the_spec_makes_another_id(workplace, key):
    from fer_bench.runs.spec import Selection

    focal = workplace.plugins.method("baseline_focal").card
    ids = [
        key(), key(seed=1), key(recipe={"epochs": 4}), key(recipe={"lr": 1e-3}), key(recipe={"ema_decay": 0.9}),
        key("baseline_focal", params=focal.resolve({})), key("baseline_focal", params=focal.resolve({"gamma": 3.0})),
        key(backbone="resnet18_small"), key(test=False), key(pretrained=True),
        key(protocol="folds"), key(protocol="folds", fold=1), key(profile="exp:10"), key(profile="exp:20"),
        key(selection=Selection(rule="last")), key(selection=Selection(metric="accuracy")),
    ]  # fmt: skip
    assert len(set(ids)) == len(ids)


def test_order_of_parameters_does_not_matter(key):
    assert key(params={"a": 1, "b": 2}) == key(params={"b": 2, "a": 1})


def test_fingerprint_source_and_numerics_take_part_in_the_id(monkeypatch: pytest.MonkeyPatch):
    spec = {"method": "m", "seed": 0}
    base = run_id(spec, "data", "code")

    assert run_id(spec, "data", "code") == base
    assert run_id({**spec, "seed": 1}, "data", "code") != base
    assert run_id(spec, "other data", "code") != base
    assert run_id(spec, "data", "other code") != base
    monkeypatch.setattr(ledger_module, "NUMERICS", ledger_module.NUMERICS + 1)
    assert run_id(spec, "data", "code") != base


@pytest.mark.slow
def test_other_pixels_of_the_data_make_another_id(workplace, tiny_run, tmp_path: Path):
    from fer_bench.contract.plugins import plugins
    from fer_bench.data.prepare import prepare
    from fer_bench.runs.executor import identify

    before = identify(tiny_run(), workplace)[0]
    source = workplace.plugins.datasets["tiny"].path.read_text()
    (tmp_path / "changed").mkdir()
    (tmp_path / "changed/tiny.py").write_text(source.replace("+= 110", "+= 111"))
    prepare(workplace.home, plugins([tmp_path / "changed"]).dataset("tiny"), None, say=lambda line: None)

    assert identify(tiny_run(), workplace)[0] != before


CHANGES = {
    "a comment": ("# a comment", "# another comment", True),
    "a comment more": ("        # a comment\n", "        # a comment\n        # and one more\n", True),
    "a hook's docstring": ("A hook's docstring.", "Says something else.", True),
    "the class's docstring": ("Its class's docstring.", "Says something else.", True),
    "the module's docstring": ("A method with a docstring.", "Says something else.", True),
    "blank lines and quotes": ('name="own"', "name='own'", True),
    "the card's text": ("of a test", "of another test", True),
    "a number": ("factor() *", "2 * factor() *", False),
    "a line more": ("    card = card\n", "    card = card\n    temperature = 1\n", False),
}


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new", "same"), [pytest.param(*v, id=n) for n, v in CHANGES.items()])
def test_change_of_a_method_file_makes_a_new_id_only_where_it_is_code(
    with_plugins, tiny_run, old: str, new: str, same: bool
):
    from fer_bench.runs.executor import identify

    assert METHOD.count(old) == 1
    before = identify(tiny_run("own"), with_plugins(own=METHOD, _shared=SHARED))[0]
    after = identify(tiny_run("own"), with_plugins(own=METHOD.replace(old, new), _shared=SHARED))[0]
    assert (before == after) is same


@pytest.mark.slow
def test_change_of_a_shared_file_makes_a_new_id(with_plugins, tiny_run):
    from fer_bench.runs.executor import identify

    before = identify(tiny_run("own"), with_plugins(own=METHOD, _shared=SHARED))[0]
    said = identify(tiny_run("own"), with_plugins(own=METHOD, _shared="# why\n" + SHARED))[0]
    changed = identify(tiny_run("own"), with_plugins(own=METHOD, _shared=SHARED.replace("2.0", "3.0")))[0]
    assert said == before
    assert changed != before


# -- atomic files ----------------------------------------------------------------------------------------------------


def test_file_that_fails_half_way_leaves_the_old_one_and_nothing_beside(tmp_path: Path):
    file = tmp_path / "history.json"
    write_json(file, [1])

    def fail_half_way(out) -> None:
        out.write(b"[1, 2")
        raise ValueError("half")

    with pytest.raises(ValueError, match="half"):
        write_with(file, fail_half_way)

    assert file.read_text() == "[\n 1\n]\n"
    assert os.listdir(tmp_path) == ["history.json"]


def test_value_that_json_can_not_hold_leaves_the_old_file(tmp_path: Path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert (tmp_path / "a.json").read_text() == "1\n"


def test_reader_never_sees_a_file_half_written(tmp_path: Path):
    file, seen = tmp_path / "model.pt", []

    def save(out) -> None:
        out.write(b"first half")
        out.flush()
        seen.append(file.exists())
        out.write(b", second half")

    write_with(file, save)
    assert seen == [False]
    assert file.read_bytes() == b"first half, second half"


# -- records ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def record(tmp_path: Path) -> RunWriter:
    """A finished record written by hand."""
    writer = Ledger(tmp_path / "ledger").writer("0123456789abcdef")
    writer.start()
    writer.put("spec", {"run_id": writer.id, "label": "own", "spec": {"method": "own"}})
    writer.put("val_logits", np.arange(6, dtype=np.float32).reshape(3, 2))
    writer.put("timing", {"total_seconds": 1.0})
    (writer.path / "model.pt").write_bytes(b"weights")
    writer.finish()
    return writer


def test_record_that_nobody_touched_verifies(record: RunWriter):
    record.verify()
    assert set(record.json("done")["files"]) == {"spec.json", "val_logits.npy", "model.pt"}
    assert not record.work.exists()


@pytest.mark.parametrize("name", ["spec.json", "val_logits.npy", "model.pt"])
def test_changed_byte_is_noticed_with_the_file_named(record: RunWriter, name: str):
    file = record.path / name
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(data)
    with pytest.raises(LedgerError, match=rf"{name} has changed since the run"):
        record.verify()


def test_lost_file_is_noticed(record: RunWriter):
    (record.path / "val_logits.npy").unlink()
    with pytest.raises(LedgerError, match=r"has lost val_logits\.npy"):
        record.verify()
    record.verify(spared=["val_logits.npy"])
    (record.path / "spec.json").unlink()
    with pytest.raises(LedgerError, match=r"has lost spec\.json"):
        record.verify(spared=["val_logits.npy"])


def test_a_file_that_may_be_missing_must_still_be_what_it_was(record: RunWriter):
    (record.path / "val_logits.npy").write_bytes(b"other")
    with pytest.raises(LedgerError, match=r"val_logits\.npy has changed"):
        record.verify(spared=["val_logits.npy"])


def test_a_done_mark_that_lists_nothing_or_not_everything_is_not_sound(record: RunWriter):
    done = record.json("done")
    record.put("done", {**done, "files": {}})
    with pytest.raises(LedgerError, match=r"can't be checked: done\.json does not list spec\.json"):
        record.verify()
    record.put("done", {**done, "files": {"spec.json": done["files"]["spec.json"]}})
    with pytest.raises(LedgerError, match=r"done\.json does not list val_logits\.npy"):
        record.verify()


def test_a_symbolic_link_in_a_record_is_not_followed(record: RunWriter, tmp_path: Path):
    (tmp_path / "secret.json").write_text('{"key": "of somebody"}')
    np.save(tmp_path / "secret.npy", np.arange(3))
    (record.path / "history.json").symlink_to(tmp_path / "secret.json")
    (record.path / "test_logits.npy").symlink_to(tmp_path / "secret.npy")
    for read in (
        lambda: record.json("history"),
        lambda: record.array("test_logits"),
        lambda: record.has("history.json"),
    ):
        with pytest.raises(LedgerError, match="is a symbolic link, which is not followed"):
            read()


def test_a_work_folder_that_is_a_link_is_not_used(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/checkpoint.pt").write_bytes(b"somebody's")
    writer = Ledger(tmp_path / "ledger").writer("0123456789abcdef")
    writer.path.mkdir(parents=True)
    writer.work.symlink_to(tmp_path / "elsewhere")
    writer.start()
    assert not list(writer.work.iterdir())
    assert (tmp_path / "elsewhere/checkpoint.pt").exists()


def test_volatile_files_may_differ(record: RunWriter):
    record.put("timing", {"total_seconds": 2.0})
    record.verify()


def test_status_of_a_record_over_its_life(tmp_path: Path):
    writer = Ledger(tmp_path).writer("00")
    assert writer.status == "unfinished"
    writer.start()
    assert writer.status == "unfinished"
    writer.fail(ValueError("bad luck"))
    assert writer.status == "failed"
    assert writer.json("failed")["message"] == "bad luck"
    writer.start()
    assert writer.status == "unfinished"
    writer.finish()
    assert writer.status == "finished"

    trial = Ledger(tmp_path).writer("01")
    trial.start()
    trial.finish("pruned")
    assert trial.status == "pruned"


def test_start_removes_what_a_kill_left_half_written_and_nothing_else(tmp_path: Path):
    writer = Ledger(tmp_path).writer("00")
    writer.start()
    stale = [".val_logits.npy.99.part", "work/.checkpoint.pt.99.part", "test_labels.npy", "failed.json"]
    kept = ["work/checkpoint.pt", "val_logits.npy", "seal.json"]
    for name in (*stale, *kept):
        (writer.path / name).touch()

    writer.start()

    assert [n for n in stale if (writer.path / n).exists()] == []
    assert [n for n in kept if (writer.path / n).exists()] == kept


@pytest.mark.parametrize(("name", "content"), [("history.json", b"[1,"), ("history.json", None)])
def test_missing_or_damaged_json_is_told_with_run_and_file(record: RunWriter, name: str, content: bytes | None):
    if content:
        (record.path / name).write_bytes(content)
    with pytest.raises(LedgerError, match=rf"run {record.id}.*{name}"):
        record.json("history")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no array at all", None])
def test_missing_or_damaged_array_is_told_with_run_and_file(record: RunWriter, content: bytes | None):
    if content is not None:
        (record.path / "test_logits.npy").write_bytes(content)
    with pytest.raises(LedgerError, match=rf"run {record.id}: test_logits\.npy is missing or damaged"):
        record.array("test_logits")


def test_arrays_come_back_as_they_went(record: RunWriter):
    found = record.array("val_logits")
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_lock_is_for_one_at_a_time(record: RunWriter):
    with record.locked(), pytest.raises(LockedError, match=record.id), record.locked():
        pass
    with record.locked():
        pass


def test_runs_lists_records_and_not_other_folders(record: RunWriter, tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger")
    ledger.put_study("first", {"runs": []})
    (ledger.root / "fedcba9876543210").mkdir()
    assert [r.id for r in ledger.runs()] == [record.id]
    assert Ledger(tmp_path / "nowhere").runs() == []


# -- studies ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def studies(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path)
    for age, name in enumerate(("fer2013_losses", "fer2013_samplers", "synthetic_sharing")):
        path = ledger.put_study(name, {"name": name, "runs": []})
        os.utime(path, ns=(age * 10**9, age * 10**9))
    return ledger


def test_study_is_found_by_name_and_the_last_one_without(studies: Ledger):
    assert studies.study("fer2013_losses")["name"] == "fer2013_losses"
    assert studies.study()["name"] == "synthetic_sharing"
    studies.put_study("fer2013_losses", {"name": "fer2013_losses", "runs": ["00"]})
    assert studies.study()["runs"] == ["00"]


def test_unknown_study_is_answered_with_the_nearest_names(studies: Ledger):
    with pytest.raises(LedgerError, match="no study called 'fer2013_loses'") as caught:
        studies.study("fer2013_loses")
    assert caught.value.hint.startswith("known: fer2013_losses")
    assert "synthetic_sharing" not in caught.value.hint


def test_study_like_no_other_is_answered_with_all_names(studies: Ledger):
    with pytest.raises(LedgerError) as caught:
        studies.study("qqq")
    assert all(name in caught.value.hint for name in studies.studies())


def test_empty_ledger_says_which_command_to_type(tmp_path: Path):
    with pytest.raises(LedgerError, match="holds no study") as caught:
        Ledger(tmp_path).study()
    assert caught.value.next.startswith("fer-bench run")


# -- names, which become paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", ["../x", "..", "", "/etc", "a/b", "studies", ".hidden", "A" * 16, "a" * 121, None, 7])
def test_a_run_id_does_not_climb(tmp_path: Path, run):
    ledger = Ledger(tmp_path / "ledger")
    for find in (ledger.run, ledger.writer):
        with pytest.raises(LedgerError, match=r"can't be a run's id|at most 120"):
            find(run)


@pytest.mark.parametrize("name", ["../../evil", "..", "", ".x", "a/b", "/tmp/x", "a b", "x" * 300, "a\0", "nul"])
def test_a_study_is_not_written_under_a_name_that_climbs_or_that_file_systems_dislike(tmp_path: Path, name: str):
    with pytest.raises(SpecError, match="study's name"):
        Ledger(tmp_path / "ledger").put_study(name, {"runs": []})
    assert list(tmp_path.iterdir()) == []


def test_a_colon_in_a_studys_name_stays_out_of_its_file(tmp_path: Path):
    ledger = Ledger(tmp_path)
    path = ledger.put_study("folder:lab-rasn-0a1b2c", {"name": "folder:lab-rasn-0a1b2c", "runs": []})
    assert path.name == "folder@lab-rasn-0a1b2c.json"
    assert ledger.studies() == ["folder:lab-rasn-0a1b2c"]
    assert ledger.study()["name"] == "folder:lab-rasn-0a1b2c"


def test_a_study_of_an_earlier_version_is_found_and_written_where_it_is(tmp_path: Path):
    ledger, name = Ledger(tmp_path), "folder:lab-rasn-0a1b2c"
    file = tmp_path / "studies" / f"{name}.json"
    write_json(file, {"name": name, "runs": []})
    assert ledger.studies() == [name]
    assert ledger.study(name)["runs"] == []
    assert ledger.put_study(name, {"name": name, "runs": ["00"]}) == file
    assert ledger.studies() == [name]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": "../../evil"}, "calls itself '../../evil'"),
        ({"name": "/tmp/evil"}, "calls itself"),
        ({"name": 3}, "calls itself 3"),
        ({"runs": ["../../../home"]}, "'../../../home' can't be a run's id"),
        ({"runs": ["00", None]}, "'None' can't be a run's id"),
        ({"runs": {"00": 1}}, "is damaged"),
        ({"dataset": "../x"}, "'../x' can't be a data set's name"),
        ({"protocol": "official/../../x"}, "can't be a protocol's name"),
        ([1, 2], "is damaged"),
    ],
)
def test_a_received_record_whose_names_lead_elsewhere_is_refused(tmp_path: Path, change, told: str):
    record = {"name": "got", "runs": ["00"], "dataset": "folder:lab", "protocol": "given"}
    file = tmp_path / "studies" / "got.json"
    write_json(file, record)
    assert Ledger(tmp_path).study("got") == record
    write_json(file, record | change if isinstance(change, dict) else change)
    with pytest.raises(LedgerError, match=re.escape(told)) as caught:
        Ledger(tmp_path).study("got")
    assert caught.value.where == str(file)


def test_folders_that_are_no_runs_are_not_listed(record: RunWriter, tmp_path: Path):
    ledger = Ledger(tmp_path / "ledger")
    for name in ("notes", ".0123456789abcdef.part", "0123456789ABCDEF"):
        (ledger.root / name).mkdir()
        (ledger.root / name / "spec.json").write_text("{}")
    assert [r.id for r in ledger.runs()] == [record.id]
