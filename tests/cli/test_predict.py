"""``fer-bench predict`` and ``explain``, typed as a newcomer would."""

from __future__ import annotations

import csv
import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer_bench.cli.predict import SHOWN
from fer_bench.contract.plugins import plugins
from fer_bench.data.prepare import prepare
from fer_bench.record.home import Home
from fer_bench.record.lookup import find_run
from fer_bench.runs.executor import Workplace, execute
from fer_bench.runs.spec import RunSpec
from fer_bench.training.job import Runtime
from fer_bench.training.recipe import Recipe

SAVED = ("a.png", "b.jpg")


@pytest.fixture(scope="module")
def trained(plugin_folder, tmp_path_factory):
    """A home with a finished run of plain cross-entropy on `tiny`."""
    home, available = Home(tmp_path_factory.mktemp("predict")), plugins([plugin_folder])
    prepare(home, available.dataset("tiny"), None, say=lambda line: None)
    recipe = Recipe.build({"epochs": 1, "batch_size": 16, "precision": "fp32"}, {})
    names = {"method": "baseline_resnet", "dataset": "tiny", "protocol": "official", "backbone": "resnet10_tiny"}
    params = available.method("baseline_resnet").card.resolve({})
    work = Workplace(home=home, plugins=available, runtime=Runtime(device="cpu", threads=1))
    execute(RunSpec(**names, params=params, recipe=recipe), work)
    return home.root


@pytest.fixture
def home(trained, tmp_path):
    """A copy of it."""
    return shutil.copytree(trained, tmp_path / "home")


@pytest.fixture
def faces(tmp_path):
    """Two images and what else lies in a folder."""
    folder = tmp_path / "faces"
    folder.mkdir()
    for name, size in zip(SAVED, ((16, 16), (40, 30)), strict=True):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)).save(folder / name)
    (folder / "broken.png").write_text("no image")
    (folder / "notes.txt").write_text("no image")
    return folder


def test_predictions_of_a_folder_in_every_format(call, home, faces, tmp_path):
    place = ["--home", home, "--device", "cpu"]
    code, out, err = call("predict", "baseline_resnet", faces, *place)
    assert code == 0, err
    assert ": 2 images\n" in out
    assert [name for name in SAVED if name not in out.replace("\n", "")] == []
    assert f"skipped {faces / 'broken.png'}: unreadable image" in err
    assert "passed over 1 file in folders" in err

    code, out, err = call("predict", "baseline_resnet", faces, *place, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["image"] for row in rows] == [str(faces / name) for name in SAVED]
    shares = np.array([[float(row[f"p_c{k}"]) for k in range(4)] for row in rows])
    np.testing.assert_allclose(shares.sum(1), 1)
    assert [row["predicted"] for row in rows] == [f"c{k}" for k in shares.argmax(1)]

    code, out, err = call("predict", "baseline_resnet", faces, *place, "--format", "json")
    told = json.loads(out)
    assert [[entry[f"p_c{k}"] for k in range(4)] for entry in told] == shares.tolist()
    code, out, err = call("predict", "baseline_resnet", faces, *place, "--out", tmp_path / "x.parquet")
    assert f"2 predictions written to {tmp_path / 'x.parquet'}" in out
    np.testing.assert_array_equal(pd.read_parquet(tmp_path / "x.parquet").filter(like="p_"), shares)

    code, out, err = call("predict", "baseline_resnet", faces / "broken.png", *place)
    assert (code, out) == (1, "")
    assert "not one of the images can be read" in err


def test_stored_predictions_need_neither_weights_nor_images(call, home, plugin_folder):
    record = find_run(Home(home).ledger, "baseline_resnet")
    logits, labels = record.array("test_logits"), record.array("test_labels")
    (record.path / "model.pt").unlink()
    code, out, err = call("predict", record.id[:8], "--test", "--home", home, "--format", "csv")
    assert code == 0, err
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["predicted"] for row in rows] == [f"c{k}" for k in logits.argmax(1)]
    assert [row["source"] for row in rows] == [f"test/{k}" for k in range(48)]
    assert [row["correct"] for row in rows] == [str(bool(v)) for v in logits.argmax(1) == labels]
    shutil.rmtree(home / "data")
    code, out, err = call("predict", "baseline_resnet", "--test", "--home", home, "--top", "1")
    assert code == 0, err
    right = 100 * (logits.argmax(1) == labels).mean()
    assert f"48 test images, {right:.1f} % right" in out
    assert f"row {record.array('test_rows')[0]}" in out
    code, _, err = call("predict", "baseline_resnet", "x.png", "--home", home)
    assert code == 1
    code, _, err = call("predict", "baseline_resnet", __file__, "--home", home)
    assert f"next:  fer-bench predict {record.id} --test --home {home}" in err


def test_long_tables_are_cut_on_the_terminal_and_whole_in_a_file(call, home, faces, tmp_path):
    (faces / "broken.png").unlink()
    for k in range(SHOWN):
        shutil.copy(faces / "a.png", faces / f"c{k}.png")
    code, out, _ = call("predict", "baseline_resnet", faces, "--home", home, "--quiet")
    assert code == 0
    assert "and 2 more; all of them: --out FILE.csv" in out
    call("predict", "baseline_resnet", faces, "--home", home, "--out", tmp_path / "all.csv")
    assert len(pd.read_csv(tmp_path / "all.csv")) == SHOWN + 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "x"], "give images, or --test for the run's own test images"),
        (["predict", "x", "a.png", "--test"], "not both"),
        (["predict", "x", "a.png", "--format", "jsn"], "did you mean 'json'"),
        (["predict", "x", "a.png", "--format", "parquet"], "needs a file"),
        (["predict", "x", "a.png", "--out", "y.txt"], "can't tell the format of 'y.txt'"),
        (["predict", "x", "a.png", "--device", "gpu"], "unknown device 'gpu'"),
        (["predict", "x", "a.png"], "there is no run in"),
        (["explain", "x", "--out", "o"], "there is no run in"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(call, tmp_path, words, message):
    code, out, err = call(*words, "--home", tmp_path)
    assert (code, out) == (1, "")
    assert message in err


def test_a_name_in_a_csv_file_is_no_formula(call, home, faces, tmp_path, monkeypatch):
    monkeypatch.chdir(faces)
    shutil.copy("a.png", "=1+1.png")
    _, out, _ = call("predict", "baseline_resnet", "=1+1.png", "--home", home, "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(out))
    assert row["image"] == "'=1+1.png"


def test_explain_writes_a_page_and_the_command_that_writes_it_again(call, home, faces, plugin_folder, tmp_path):
    out_folder = tmp_path / "page"
    words = ["--home", home, "--out", out_folder, "--plugins", plugin_folder]
    code, out, err = call("explain", "baseline_resnet", *words, "--per-class", "2", "--classes", "1")
    assert code == 0, err
    assert str(out_folder / "README.md") in out
    text = (out_folder / "README.md").read_text()
    assert "2 test images of the rarest classes (c3)" in text
    (again,) = [line for line in text.splitlines() if line.startswith("fer-bench explain")]
    for option in ("--per-class 2", "--classes 1", f"--out {out_folder}", f"--home {home}"):
        assert option in again
    before = {p.name: p.read_bytes() for p in out_folder.rglob("*.*") if p.is_file()}
    code, _, err = call(*again.split()[1:])
    assert code == 0, err
    assert {p.name: p.read_bytes() for p in out_folder.rglob("*.*") if p.is_file()} == before
    code, out, err = call("explain", "baseline_resnet", faces, *words)
    assert code == 0, err
    assert "2 images of baseline_resnet" in out
    assert "skipped" in err


def test_a_file_is_replaced_by_force_alone(call, home, plugin_folder, tmp_path):
    out = tmp_path / "mine.csv"
    out.write_text("mine")
    words = ["predict", "baseline_resnet", "--test", "--home", home, "--out", out]
    code, said, err = call(*words)
    assert (code, said, out.read_text()) == (1, "", "mine")
    for part in ("there is such a file already", f"where: {out}", "or replace this one with --force"):
        assert part in err
    again = err.partition("next:")[2].split()
    assert again[:4] == ["fer-bench", "predict", "--force", "baseline_resnet"]
    code, _, err = call(*again[1:])
    assert code == 0, err
    assert len(pd.read_csv(out)) == 48


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["data", "show", "tiny", "--out", "mine"], "--out"),
        (["launch", "slurm", "--output", "mine", "--", "run", "baseline_resnet", "--dataset", "synthetic"], "--output"),
    ],
)
def test_other_commands_that_write_one_file_do_not_replace_it_either(call, tmp_path, monkeypatch, words, option):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("mine")
    code, _, err = call(*words)
    assert (code, (tmp_path / "mine").read_text()) == (1, "mine")
    assert f"choose another file with {option}" in err
    assert f"next:  fer-bench {' '.join([*words[:2], '--force', *words[2:]])}" in err


def test_explain_keeps_to_a_folder_of_its_own(call, home, faces, plugin_folder):
    words = ["explain", "baseline_resnet", "--per-class", "2", "--classes", "1", "--home", home, "--device", "cpu",
             "--plugins", plugin_folder, "--out", faces]  # fmt: skip
    (faces / "README.md").write_text("mine")
    before = {p.name: p.read_bytes() for p in faces.iterdir()}
    code, _, err = call(*words)
    assert code == 1
    assert "the folder holds files that are not of such a page: README.md, a.png, b.jpg, broken.png, notes.txt" in err
    assert {p.name: p.read_bytes() for p in faces.iterdir()} == before

    code, _, err = call(*words, "--force")
    assert code == 0, err
    assert "README.md is not fer-bench's: the copy is kept as README.edited-1.md" in err
    before["README.edited-1.md"] = before.pop("README.md")
    assert {name: (faces / name).read_bytes() for name in before} == before
    assert (faces / "figures").is_dir()

    code, out, err = call("predict", "baseline_resnet", faces, "--home", home, "--device", "cpu", "--format", "csv")
    assert [row["image"] for row in csv.DictReader(io.StringIO(out))] == [str(faces / name) for name in SAVED]
    assert "passed over 1 picture that fer-bench wrote for a page" in err
