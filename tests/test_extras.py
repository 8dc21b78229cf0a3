"""The example packages of plug-ins, installed as anybody would, and used through the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

EXAMPLES = Path(__file__).parents[1] / "examples"
EXTRAS, MINIMAL = EXAMPLES / "fer-bench-extras", EXAMPLES / "fer-bench-minimal"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> dict[str, str]:
    """An environment in which both packages are installed, without a network."""
    place = tmp_path_factory.mktemp("extras")
    sources = [place / folder.name for folder in (EXTRAS, MINIMAL)]
    for source, folder in zip(sources, (EXTRAS, MINIMAL), strict=True):
        shutil.copytree(folder, source, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    if find_spec("pip") is None:
        pytest.skip("pip is not installed here")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(place / "site")]
    command = [sys.executable, "-m", "pip", "install", *options, *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {**os.environ, "PYTHONPATH": str(place / "site"), "FER_BENCH_HOME": str(place), "OMP_NUM_THREADS": "1"}


def type_in(environment: dict[str, str], *words: str) -> str:
    """What fer-bench prints."""
    command = [sys.executable, "-m", "fer_bench", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=environment["FER_BENCH_HOME"])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_smallest_package_has_fewer_than_40_lines():
    files = [p for p in MINIMAL.rglob("*") if p.is_file() and p.suffix in (".py", ".toml", ".cfg", ".md")]
    assert {"pyproject.toml", "fer_bench_minimal.py"} <= {p.name for p in files}
    assert sum(len(p.read_text().splitlines()) for p in files) < 40


def test_the_method_of_the_smallest_package_keeps_what_every_method_must_and_trains(installed):
    assert "kept" in type_in(installed, "check", "tempered", "--quick")
    words = "run tempered tempered[temperature=1] --dataset checkers --recipe demo --epochs 1 --seeds 1 --threads 1"
    type_in(installed, *words.split(), "--no-track", "--quiet", "--name", "minimal")
    page = (Path(installed["FER_BENCH_HOME"]) / "results" / "minimal" / "report.md").read_text()
    assert "tempered[temperature=1.0]" in page


def test_the_plug_ins_are_listed(installed):
    assert {"soft_margin", "tempered"} <= set(type_in(installed, "list", "methods").split())
    assert "checkers" in type_in(installed, "list", "datasets")


def test_a_study_uses_all_four(installed):
    words = "run soft_margin --dataset checkers --recipe demo --epochs 1 --seeds 1 --threads 1 --no-track --quiet"
    type_in(installed, *words.split(), "--name", "extras")
    folder = Path(installed["FER_BENCH_HOME"]) / "results" / "extras"
    page = (folder / "report.md").read_text()
    assert "## The commonest confusion" in page
    assert "Cohen's kappa" in page
    assert "broken" not in page
    frame = pd.read_csv(folder / "results.csv", keep_default_na=False)
    run, value = frame[frame.metric == "kappa"][["run", "value"]].iloc[0]
    record = Path(installed["FER_BENCH_HOME"]) / "ledger" / run
    predicted = np.load(record / "test_logits.npy").argmax(1)
    expected = cohen_kappa_score(np.load(record / "test_labels.npy"), predicted)
    assert float(value) == pytest.approx(expected, nan_ok=True)


def test_kappa_is_what_scikit_learn_computes():
    spec = spec_from_file_location("kappa_example", EXTRAS / "src" / "fer_bench_extras" / "kappa.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    rng = np.random.default_rng(3)
    truth, answers = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    answers[:90] = truth[:90]
    matrix = np.zeros((4, 4))
    np.add.at(matrix, (truth, answers), 1)
    assert module.kappa(matrix[None]).tolist() == pytest.approx([cohen_kappa_score(truth, answers)])
    assert np.isnan(module.kappa(np.diag([5.0, 0, 0, 0])[None])).all()
