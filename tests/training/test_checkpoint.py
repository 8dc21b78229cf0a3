"""Files that a run goes on from: what is read back holds no classes, and files of other versions are named as such."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import fer_bench
from fer_bench.base.files import write_json
from fer_bench.errors import LedgerError, TrainingError
from fer_bench.runs import worker
from fer_bench.runs.executor import execute, identify
from fer_bench.training.checkpoint import FORMAT, load_fold, load_plain, save_plain

RESAMPLED = """
    def stages(self):
        return [Stage(name="few", kind="resample"), Stage(epochs=2)]

    def resample(self, stage, view):
        SEEN["resampled"].append(len(view))
        return Resampled(index=np.arange(0, len(view), 2))
"""


def old_class(module: str, name: str, fields: list[str]) -> type:
    """A data class of a module that is no longer there, as versions without a format pickled it."""
    made = dataclasses.make_dataclass(name, fields)
    made.__module__ = module
    return made


def save_as_before_the_format(path: Path, value: Any, *classes: type) -> None:
    """Write with ``torch.save`` while the modules of `classes` can be imported."""
    modules = {kind.__module__: ModuleType(kind.__module__) for kind in classes}
    for kind in classes:
        setattr(modules[kind.__module__], kind.__name__, kind)
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        torch.save(value, path)


def write_old_checkpoint(path: Path) -> None:
    progress = old_class("fer_bench.fit", "Progress", ["stage", "epoch", "history"])
    save_as_before_the_format(path, {"progress": progress(0, 2, []), "model": {"w": torch.ones(2)}}, progress)


def write_old_fold(path: Path) -> None:
    resampled = old_class("fer_bench.method", "Resampled", ["index", "images", "labels"])
    save_as_before_the_format(path, resampled(np.arange(3), None, None), resampled)


def interrupted(spec: Any, work: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Train until just before the epoch is selected, and return the folder that the next command goes on from."""
    with monkeypatch.context() as patch:
        patch.setattr(worker, "select", lambda *a: (_ for _ in ()).throw(TrainingError("stop")))
        with pytest.raises(TrainingError, match="stop"):
            execute(spec, work)
    return work.home.ledger.run(identify(spec, work)[0]).path / "work"


def test_a_checkpoint_from_before_the_format_is_of_another_version_and_not_damaged(tmp_path: Path):
    write_old_checkpoint(tmp_path / "checkpoint.pt")

    with pytest.raises(LedgerError) as caught:
        load_plain(tmp_path / "checkpoint.pt")

    assert caught.value.what == "checkpoint.pt was written by another version of fer-bench"
    assert f"this version reads format {FORMAT}" in caught.value.hint
    assert "train the run again" in caught.value.hint


def test_a_stage_fold_from_before_the_format_is_of_another_version(tmp_path: Path):
    write_old_fold(tmp_path / "fold_0.pt")
    with pytest.raises(LedgerError, match=r"fold_0\.pt was written by another version of fer-bench"):
        load_fold(tmp_path / "fold_0.pt", torch.device("cpu"))


def test_files_with_another_format_or_none_are_of_another_version(tmp_path: Path):
    torch.save({"model": {}, "method": {}}, tmp_path / "old.pt")
    with pytest.raises(LedgerError, match=r"old\.pt was written by another version of fer-bench\n"):
        load_plain(tmp_path / "old.pt")
    torch.save({"format": 99, "state": {}}, tmp_path / "new.pt")
    with pytest.raises(LedgerError, match=r"new\.pt was written by another version of fer-bench \(format 99\)\n"):
        load_plain(tmp_path / "new.pt")


def test_nothing_of_an_old_file_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The class is there to be imported, and would note it."""
    write_old_checkpoint(tmp_path / "checkpoint.pt")
    (tmp_path / "fit.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')\nclass Progress: pass\n")
    monkeypatch.setattr(fer_bench, "__path__", [*fer_bench.__path__, str(tmp_path)])

    with pytest.raises(LedgerError, match="another version"):
        load_plain(tmp_path / "checkpoint.pt")

    assert not (tmp_path / "imported").exists()


def test_an_old_checkpoint_is_named_and_the_run_starts_again(workplace, tiny_run, in_process, monkeypatch):
    spec = tiny_run(recipe={"epochs": 2})
    file = interrupted(spec, workplace, monkeypatch) / "checkpoint.pt"
    write_old_checkpoint(file)

    text = r"checkpoint\.pt was written by another version of fer-bench: the run starts again from its beginning \(/"
    with pytest.warns(UserWarning, match=text):
        record = execute(spec, workplace)

    assert record.status == "finished"
    assert record.json("timing")["resumed"] == 0


@pytest.mark.parametrize("write", [write_old_fold, lambda file: file.write_bytes(b"half")], ids=["old", "damaged"])
def test_a_fold_that_can_not_be_read_is_made_again_with_everything_after_it(
    with_method, noted_by, tiny_run, monkeypatch, write
):
    work = with_method(RESAMPLED)
    spec = tiny_run("own", recipe={"epochs": 2})
    folder = interrupted(spec, work, monkeypatch)
    write(folder / "fold_0.pt")

    with pytest.warns(UserWarning, match=r"fold_0\.pt .*: the run starts again from its beginning"):
        record = execute(spec, work)

    assert record.json("timing")["resumed"] == 0, "the checkpoint belonged to the fold that could not be read"
    assert noted_by(work)["resampled"] == [96, 96]


def test_a_readable_fold_is_kept(with_method, noted_by, tiny_run, monkeypatch):
    work = with_method(RESAMPLED)
    spec = tiny_run("own", recipe={"epochs": 2})
    interrupted(spec, work, monkeypatch)

    record = execute(spec, work)

    assert record.json("timing")["resumed"] == 1
    assert noted_by(work)["resampled"] == [96]


@pytest.mark.parametrize("mark", ["without a format", "of another format", "damaged", "a list"])
def test_the_mark_of_a_training_of_another_version_is_not_scored_from(
    workplace, tiny_run, in_process, monkeypatch, mark
):
    """Its snapshots may be of that version too; the training process looks at them, and says so."""
    from fer_bench.runs import executor

    spec = tiny_run(recipe={"epochs": 2})
    with monkeypatch.context() as patch:
        patch.setattr(executor._Run, "_score", lambda *a: (_ for _ in ()).throw(TrainingError("stop")))
        with pytest.raises(TrainingError, match="stop"):
            execute(spec, workplace)
    folder = workplace.home.ledger.run(identify(spec, workplace)[0]).path / "work"
    trained = json.loads((folder / "trained.json").read_text())
    contents = {
        "without a format": json.dumps({k: v for k, v in trained.items() if k != "format"}),
        "of another format": json.dumps({**trained, "format": FORMAT - 1}),
        "damaged": "{",
        "a list": "[]",
    }
    (folder / "trained.json").write_text(contents[mark])
    for file in folder.glob("*.pt"):
        write_old_checkpoint(file)

    with pytest.warns(UserWarning, match="another version of fer-bench: the run starts again"):
        record = execute(spec, workplace)

    assert record.status == "finished"
    record.verify()


@pytest.mark.parametrize(
    "content", ['{"version": 0, "log": []}', '{"openings": [1], "blocked": []}', "[]", "", "{"], ids=str
)
def test_a_seal_log_that_can_not_be_read_is_not_taken_for_an_empty_one(workplace, tiny_run, in_process, content):
    spec = tiny_run(recipe={"epochs": 1})
    folder = workplace.home.ledger.run(identify(spec, workplace)[0]).path
    folder.mkdir(parents=True)
    (folder / "seal.json").write_text(content)

    with pytest.raises(LedgerError) as caught:
        execute(spec, workplace)

    assert "damaged or was written by another version of fer-bench" in caught.value.what
    assert caught.value.next == f"rm -r {folder}"
    assert (folder / "seal.json").read_text() == content
    shutil.rmtree(folder)  # what the message says
    assert execute(spec, workplace).status == "finished"


def test_a_seal_log_of_this_version_is_continued(workplace, tiny_run, in_process):
    spec = tiny_run(recipe={"epochs": 1})
    folder = workplace.home.ledger.run(identify(spec, workplace)[0]).path
    attempt = {"event": "open", "file": "table.csv"}
    write_json(folder / "seal.json", {"count": 0, "openings": [], "blocked": [attempt]})

    record = execute(spec, workplace)

    assert record.json("seal")["blocked"] == [attempt]
    assert record.json("seal")["count"] == 1


PICKLES = ("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal")


def calls_that_may_run_code(tree: ast.AST) -> list[str]:
    """Imports of pickle and its like, and loading calls that would accept a pickle."""
    faults = []
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        faults += [
            n for n in names if n.split(".")[0] in ("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal")
        ]
        if isinstance(node, ast.Call):
            text, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            faults += [text] if text == "torch.load" and given.get("weights_only") != "True" else []
            faults += [text] if given.get("allow_pickle", "False") != "False" else []
    return faults


def test_the_harness_reads_no_pickle():
    root = Path(fer_bench.__file__).parent
    faults = {
        str(file.relative_to(root)): calls
        for file in root.rglob("*.py")
        if (calls := calls_that_may_run_code(ast.parse(file.read_text(encoding="utf-8"))))
    }
    assert faults == {}


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from joblib import load", "torch.load(f)", "torch.load(f, weights_only=False)",
     "np.load(f, allow_pickle=True)"],
)  # fmt: skip
def test_the_search_for_pickles_sees_each_kind(code: str):
    assert calls_that_may_run_code(ast.parse(code))


def test_a_checkpoint_holds_only_plain_values(tmp_path: Path):
    """What is written names no class of ours, so that moving a class breaks no file."""
    save_plain(tmp_path / "a.pt", {"model": {"w": torch.ones(2)}, "steps": 3, "set": {1}, "array": np.ones(2)})
    import pickletools
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.pt") as file:
        data = file.read(next(n for n in file.namelist() if n.endswith("data.pkl")))
    named = {str(a).split(" ")[0] for code, a, _ in pickletools.genops(data) if re.search("GLOBAL", code.name)}
    assert named <= {"torch._utils", "collections", "torch"}
