"""Results as tidy tables, for analyses of one's own: ``fer_bench.results``, ``fer_bench.predictions``, ``results.csv``.

Records are read and scored by the code that reports use, so the numbers are the same. Imports no torch, and pandas only
when a frame is asked for.
"""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fer_bench.errors import FerBenchError, LedgerError, PluginError, SpecError, StoreError
from fer_bench.printable import csv_cells, printable
from fer_bench.record.home import Home
from fer_bench.record.ledger import Ledger
from fer_bench.record.lookup import find_run
from fer_bench.reports.facts.records import StudyData, alone, is_trial, load_study
from fer_bench.reports.facts.runs import ANSWERS, Run, read_run
from fer_bench.reports.facts.scoring import Results, evaluated, scored_runs
from fer_bench.stats.metrics import METRICS, Metric, Values, discover
from fer_bench.stats.probabilities import softmax

if TYPE_CHECKING:
    import pandas as pd

Split = Literal["test", "val"]
Scores = Mapping[str, Values | PluginError]
WARNED = 5  # remarks that a warning repeats; frame.attrs["remarks"] has all of them

DTYPES = {
    "study": "string",
    "run": "string",
    "dataset": "string",
    "protocol": "string",
    "fold": "int64",
    "imbalance": "string",
    "method": "string",
    "backbone": "string",
    "pretrained": "bool",
    "recipe": "string",
    "subset": "int64",
    "seed": "int64",
    "epoch": "Int64",
    "split": "string",
    "class": "string",
    "images": "int64",
    "metric": "string",
    "value": "float64",
    "reason": "string",
    "watermark": "string",
    "transductive": "bool",
    "blocked": "bool",
}
"""The columns of :func:`results` and of ``results.csv``, in their order, with the type of each in the frame."""


def results(home: str | Path | None = None, *, study: str | None = None, split: Split = "test") -> pd.DataFrame:
    """Every score of every finished run: one row per run, class and metric.

    Metrics are all registered ones, those of installed packages included (:mod:`fer_bench.stats.metrics`). Tuning
    trials are left out, since they never open the test. Runs that are unfinished or damaged are left out with a
    warning; ``frame.attrs["remarks"]`` holds one sentence for each of them.

    Parameters
    ----------
    home : path, optional
        The folder that holds ``ledger/``; ``$FER_BENCH_HOME``, or the current folder, if left out.
    study : str, optional
        Only the runs that the report of this study uses, in the report's order.
    split : {"test", "val"}
        Which images the scores are computed on. Published records often come without validation outputs.

    Returns
    -------
    DataFrame
        The columns and types of :data:`DTYPES`. `class` is empty in rows of scores over all classes, and `images`
        counts the images that a row is about. `value` is a share between 0 and 1 for most metrics; where it is NaN,
        `reason` says why. `epoch` is the selected epoch, counted from 1. `recipe` lists the settings that are not 0.
        `subset` is the draw of a thinned training set, 0 where there is one.
        A `watermark` says why no number of the run is a fair estimate; `transductive` runs read other test images, and
        `blocked` ones tried to read sealed files. A run of several studies names all of them in `study`.

    Raises
    ------
    FerBenchError
        There is no ledger in `home`, no such study, or no run that can be read.
    """
    _check_split(split)
    ledger = _ledger(home)
    notes: list[str] = [error.what for error in discover()]
    if study is not None and split == "test":
        data = load_study(ledger, study)
        runs, notes = data.runs, [*notes, *data.notes]
    else:
        runs = _all_runs(ledger, study, split, notes)
    names = {run.record.id: study for run in runs} if study is not None else _studies(ledger, notes)
    if not runs:
        hint = " ".join(notes[:3]) or "it holds no finished run"
        what = f"no run in this ledger has {split} outputs that can be read"
        raise LedgerError(what, where=str(ledger.root), hint=printable(hint), next="fer-bench list runs")
    frame = _frame(tidy_columns(runs, names))
    _remark(frame, notes)
    return frame


def predictions(run: str, home: str | Path | None = None, *, split: Split = "test") -> pd.DataFrame:
    """Every prediction of one run: one row per image.

    Parameters
    ----------
    run : str
        The run's id, as in the column `run` of :func:`results` and in ``fer-bench list runs``; the beginning of it; or
        its method, if only one run has it.
    home : path, optional
        As for :func:`results`.
    split : {"test", "val"}
        Test or validation images, both at the selected epoch.

    Returns
    -------
    DataFrame
        `row` (int64, the image's row in the prepared store), `source` (string: its file name or row number in the
        source; missing where this home does not hold the store that the run was trained on), `true` and `predicted`
        (categories in the order of the classes), `correct` (bool), and one probability per class, `p_<class>`
        (float64, softmax of the logits).

    Raises
    ------
    UnknownNameError
        The ledger holds no such run; the nearest ids are given.
    FerBenchError
        There is no ledger in `home`, or the run is unfinished, damaged, or kept no outputs of this split.
    """
    import pandas as pd

    _check_split(split)
    ledger = _ledger(home)
    record = find_run(ledger, run)
    notes: list[str] = []
    read = read_run(record, {}, notes, split=split)
    if read is None:
        what = f"run {record.id} has no {split} predictions that can be read"
        raise LedgerError(what, where=str(record.path), hint=printable(" ".join(notes)))
    classes = pd.Index(list(read.data["classes"]))
    share = softmax(read.record.array(f"{split}_logits").astype(np.float64))
    frame = pd.DataFrame(
        {
            "row": read.rows.astype(np.int64),
            "source": pd.array(_sources(read, Home(ledger.root.parent)), dtype="string"),
            "true": pd.Categorical.from_codes(read.labels.tolist(), classes),
            "predicted": pd.Categorical.from_codes(read.predictions.tolist(), classes),
            "correct": read.labels == read.predictions,
        }
    )
    return frame.assign(**{f"p_{name}": share[:, k] for k, name in enumerate(classes)})


def csv_text(study: StudyData, scored: Results | None = None) -> str:
    """The content of ``results.csv``: :func:`results` of this study. A value that is NaN is an empty cell.

    `scored` are scores of the study that are known already, so that they need not be computed twice.
    """
    ready = {} if scored is None or len(study.folds) > 1 else _by_run(study, scored)
    table = tidy_columns(study.runs, {run.record.id: study.name for run in study.runs}, ready)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(table)
    for row in zip(*table.values(), strict=True):
        lines.writerow(csv_cells("" if item is None or item != item else item for item in row))
    return text.getvalue()


def tidy_columns(
    runs: Iterable[Run], studies: Mapping[str, str], ready: Mapping[str, Scores] | None = None
) -> dict[str, list]:
    """The columns of the table of some runs.

    Parameters
    ----------
    runs : iterable of Run
    studies : mapping
        The study, or studies, of each run id.
    ready : mapping, optional
        Scores by run id and metric that are known already.
    """
    metrics = list(METRICS)
    table: dict[str, list] = {name: [] for name in DTYPES}
    for run in runs:
        facts = _facts_of(run, studies.get(run.record.id, ""))
        rows = _score_rows(run, metrics, (ready or {}).get(run.record.id, {}))
        for name, column in table.items():
            column += [facts[name]] * len(rows) if name in facts else [row[name] for row in rows]
    return table


def _facts_of(run: Run, study: str) -> dict[str, Any]:
    """What all rows of a run have in common."""
    own, spec = alone(run), run.spec
    epoch = (run.facts.get("selection") or {}).get("epoch")
    method = own.methods[0]
    return {
        "study": study,
        "run": run.record.id,
        "dataset": own.dataset or "",
        "protocol": own.protocol.get("name") or "",
        "fold": run.fold,
        "imbalance": spec.get("profile") or "",
        "method": run.label,
        "backbone": spec.get("backbone") or "",
        "pretrained": bool(spec.get("pretrained")),
        "recipe": " ".join(f"{k}={v}" for k, v in sorted((spec.get("recipe") or {}).items()) if v),
        "subset": run.subset,
        "seed": run.seed,
        "epoch": None if epoch is None else int(epoch) + 1,
        "split": run.split,
        "watermark": "; ".join(own.watermarks),
        "transductive": method.transductive,
        "blocked": bool(method.blocked),
    }


def _by_run(study: StudyData, scored: Results) -> dict[str, Scores]:
    """Scores by run id of a study of one fold, in which a method's trainings are its runs."""
    known: dict[str, Scores] = {}
    for method, results in zip(study.methods, scored.methods, strict=True):
        for run in method.runs:
            place = method.trainings.index(run.training)
            known[run.record.id] = {name: _of_seed(score, place) for name, score in results.metrics.items()}
    return known


def _of_seed(score: Values | PluginError, place: int) -> Values | PluginError:
    if isinstance(score, PluginError) or score.values is None:
        return score
    return replace(score, values=score.values[place : place + 1])


def _score_rows(run: Run, metrics: Sequence[Metric], ready: Scores) -> list[dict[str, Any]]:
    """One row for each score of a run, and for each class of a score that is one per class."""
    own = alone(run)
    on = scored_runs(own, run.label, run.split)
    scores = {**ready, **evaluated([m.name for m in metrics if m.name not in ready], on, on.answers())}
    counts = own.counts["test"].tolist()
    rows: list[dict[str, Any]] = []
    for metric in metrics:
        by_class = metric.kind == "class"
        names, images = (own.classes, counts) if by_class else (("",), [len(own.labels)])
        values, why = _values(scores[metric.name], len(names))
        for name, count, value in zip(names, images, values, strict=True):
            reason = why if np.isfinite(value) else why or _undefined(by_class, count)
            rows.append({"class": name, "images": count, "metric": metric.name, "value": value, "reason": reason})
    return rows


def _values(score: Values | PluginError, count: int) -> tuple[list[float], str]:
    """The numbers of a metric, or NaN and the reason why there are none."""
    if isinstance(score, PluginError):
        return [np.nan] * count, printable(score.what)
    if score.values is None:
        return [np.nan] * count, printable(score.reason)
    return np.atleast_1d(score.values[0]).tolist(), ""


def _undefined(by_class: bool, images: int) -> str:
    return "the class has no images here" if by_class and not images else "it is not defined for these predictions"


def _check_split(split: str) -> None:
    if split not in ANSWERS:
        raise SpecError(f"there is no split '{split}'", where="split", hint='"test" or "val"')


def _ledger(home: str | Path | None) -> Ledger:
    place = Home.find(home)
    if not place.ledger.runs():
        inside = (place.root / "studies").is_dir()
        meant = f"home is the folder that holds ledger/: {place.root.parent}" if inside else "name the home folder"
        raise FerBenchError(
            f"there is no run in {place.ledger.root}",
            hint=f"{meant}; or set FER_BENCH_HOME",
            next="fer-bench run METHOD --dataset NAME",
        )
    return place.ledger


def _all_runs(ledger: Ledger, study: str | None, split: str, notes: list[str]) -> list[Run]:
    """Every run of a ledger, or of a study, that can be used by itself; why others can't is added to `notes`."""
    records = ledger.runs() if study is None else [ledger.run(name) for name in ledger.study(study)["runs"]]
    arrays: dict[str, np.ndarray] = {}
    read = (read_run(record, arrays, notes, split=split) for record in records if not is_trial(record))
    runs = [run for run in read if run is not None]
    return sorted(
        runs, key=lambda r: (str(r.data.get("dataset")), str(r.spec.get("profile")), r.label, r.training, r.fold)
    )


def _studies(ledger: Ledger, notes: list[str]) -> dict[str, str]:
    """The names of the studies that list each run."""
    names: dict[str, list[str]] = {}
    for name in ledger.studies():
        try:
            for run in ledger.study(name)["runs"]:
                names.setdefault(run, []).append(name)
        except LedgerError as error:
            notes.append(printable(error.what))
    return {run: ", ".join(of) for run, of in names.items()}


def _frame(table: dict[str, list]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(table).astype(DTYPES)


def _remark(frame: pd.DataFrame, notes: Sequence[str]) -> None:
    """Keep the remarks with the frame, and warn of them."""
    frame.attrs["remarks"] = list(notes)
    if notes:
        more = [f"... and {len(notes) - WARNED} more, in frame.attrs['remarks']"] if len(notes) > WARNED else []
        warnings.warn("\n".join(["remarks on these results:", *notes[:WARNED], *more]), stacklevel=3)


def _sources(run: Run, home: Home) -> list[str | None]:
    """File name, or row number, of each image in the source; None where the run's store is not in this home."""
    from fer_bench.data.store import Store

    missing: list[str | None] = [None] * len(run.rows)
    try:
        path = home.store(str(run.data.get("dataset") or ""))
        if not (path / "manifest.json").is_file():
            return missing
        store = Store.open(path)
        if store.fingerprint != run.data.get("fingerprint"):
            warnings.warn(f"{path} holds other data than this run was trained on: no file names", stacklevel=3)
            return missing
        names = store.columns("source")["source"].astype(str)
        return names[run.rows].tolist()
    except (StoreError, SpecError, IndexError, OSError) as error:
        warnings.warn(f"no file names: {error}", stacklevel=3)
        return missing
