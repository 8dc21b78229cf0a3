"""The job script for Slurm: valid, quoted, and two of its tasks share a study without doing anything twice."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from fer_bench.errors import SpecError
from fer_bench.launch.slurm import script
from fer_bench.record.home import Home
from tests.cli.conftest import call

__all__ = ["call"]
STUDY = ["--recipe", "demo", "--epochs", "1", "--set", "batch_size=16", "--set", "precision=fp32", "--device", "cpu",
         "--threads", "1", "--no-second-reference", "--seeds", "2", "--name", "shared"]  # fmt: skip


def last_words(text: str) -> list[str]:
    """The command at the end of a script, as bash divides it into words."""
    return shlex.split(text.splitlines()[-1])


def test_a_script_is_valid_and_keeps_every_word(tmp_path: Path):
    words = ["fer-bench", "run", "a[b=c]", "it's", "$HOME", "two words", 'a"b', "*"]
    text = script(words, tmp_path / "a folder", 3, ["partition=gpu", "--gres=gpu:1"], name="n")
    (tmp_path / "s").write_text(text)
    assert subprocess.run(["bash", "-n", tmp_path / "s"]).returncode == 0
    assert last_words(text) == ["exec", *words]
    assert text.splitlines()[1:5] == [
        "#SBATCH --job-name=n", "#SBATCH --array=0-2", "#SBATCH --partition=gpu", "#SBATCH --gres=gpu:1",
    ]  # fmt: skip
    (tmp_path / "a folder").mkdir()
    (tmp_path / "s").write_text(text.replace("exec fer-bench", "printf '%s\\n'"))
    done = subprocess.run(["bash", tmp_path / "s"], capture_output=True, text=True, cwd="/")
    assert done.stdout.splitlines()[1:] == words[1:]


@pytest.mark.parametrize("directive", ["array=0-3", "--job-name=x", "a b", "time=1\nrm", "", "mem=$(x)'"])
def test_a_directive_that_would_break_the_script_is_refused(directive, tmp_path: Path):
    with pytest.raises(SpecError, match=r"is not an option of sbatch|is set by the script"):
        script(["x"], tmp_path, 2, [directive], name="n")


def test_what_is_wrong_with_the_command_is_told_before_anything_is_written(call, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words, message in (
        (["run", "baseline_resnt", "--dataset", "synthetic"], "baseline_resnt"),
        (["run", "baseline_resnet", "--dataset", "synthetic", "--seeds", "none"], "--seeds none is not a whole number"),
        (["tune", "baseline_resnet", "--dataset", "synthetic"], "unknown command 'tune'"),
        (
            ["run", "baseline_resnet", "--dataset", "synthetic", "--tracking-uri", "https://me:secret@host"],
            "contains a password",
        ),
    ):
        code, _, err = call("launch", "slurm", "--", *words)
        assert code == 1
        assert message in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ray", "message"),
    [
        (["--executor", "ray", "--gpus-per-run=0.5", "--cpus-per-run", "2"], "would drive the Ray cluster"),
        (["--executor=ray", "--ray-address", "auto"], "would drive the Ray cluster"),
        (None, "would only write another job script"),
    ],
    ids=["ray", "ray with =", "slurm of slurm"],
)
def test_a_cluster_within_a_cluster_is_refused_with_the_command_that_works(call, tmp_path, monkeypatch, ray, message):
    monkeypatch.chdir(tmp_path)
    words = ["run", "baseline_resnet", "--dataset", "synthetic", "--jobs", "2", "--home", str(tmp_path)]
    nested = ["launch", "slurm", "--jobs", "3", "--", *words] if ray is None else [*words, *ray]
    code, _, err = call("launch", "slurm", "--jobs", "8", "--partition", "gpu", "--", *nested)
    assert (code, message in err) == (1, True), err
    assert list(tmp_path.iterdir()) == []
    (suggested,) = [line.strip() for line in err.splitlines() if line.strip().startswith("next:")]
    suggested = shlex.split(suggested.removeprefix("next:"))
    assert suggested == ["fer-bench", "launch", "slurm", "--jobs", "8", "--partition", "gpu", "--", *words]
    assert call(*suggested[1:])[0] == 0
    assert last_words((tmp_path / "study.sbatch").read_text())[-len(words) - 2 :][: len(words)] == words


def test_a_refusal_prints_no_password(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["run", "baseline_resnet", "--dataset", "synthetic", "--tracking-uri", "https://me:secret@host"]
    code, _, err = call("launch", "slurm", "--", *words, "--executor", "ray")
    assert (code, "would drive the Ray cluster" in err, "secret" in err) == (1, True, False), err


def test_two_tasks_at_once_finish_every_run_once_and_the_last_reports(call, plugin_folder, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "a home"
    home.mkdir()
    words = ["run", "baseline_resnet", "baseline_focal[gamma=3]", "--dataset", "tiny", "--plugins", plugin_folder,
             "--home", "a home", *STUDY]  # fmt: skip
    code, out, err = call("launch", "slurm", "--jobs", "2", "--output", "s.sbatch", "--", *words)
    assert code == 0, err
    assert f"submit it with: sbatch {tmp_path / 's.sbatch'}" in out
    tasks = [
        subprocess.Popen(
            ["bash", tmp_path / "s.sbatch"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/",
            env={**os.environ, "SLURM_ARRAY_TASK_ID": str(number)},
        )
        for number in range(2)
    ]  # fmt: skip
    outputs = [task.communicate()[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], outputs
    begun = [line for output in outputs for line in output.splitlines() if line.startswith("[") and ": run " in line]
    runs = Home(home).ledger.runs()
    assert [run.status for run in runs] == ["finished"] * 4
    assert sorted(line.rpartition(" ")[2] for line in begun) == [run.id for run in runs], outputs
    reports = [f"report: {home / 'results/shared/report.md'}" in output for output in outputs]
    assert any(reports), outputs
    for reported, output in zip(reports, outputs, strict=True):
        assert reported or "the last to end writes the report" in output
