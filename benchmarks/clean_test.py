"""How much easier a test set becomes without the images that a `dedup` protocol leaves out.

Nothing is trained: the stored predictions of a study are scored on all test images, and on those that the clean
manifest keeps. A `dedup` protocol leaves out all copies of an image whose copies have different labels, so it removes
doubtful images from the test as well as copies from training.

    fer-bench data check NAME
    python benchmarks/clean_test.py --home HOME --clean data/splits/NAME-FINGERPRINT/clean.csv [--study STUDY]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from fer_bench.data.clean_manifest import CleanManifest, load_clean
from fer_bench.record.home import Home
from fer_bench.reports.facts.records import StudyData, load_study


def mean_recall(study: StudyData, right: np.ndarray, which: np.ndarray) -> float:
    """Mean recall in % of the images `which` [n], mean over seeds; `right` [S, n] says what was answered correctly."""
    classes = range(len(study.classes))
    return 100 * float(np.mean([right[:, which & (study.labels == c)].mean() for c in classes]))


def compare(study: StudyData, clean: CleanManifest) -> None:
    """Print a line for each method."""
    rows = np.concatenate([next(r.rows for r in study.runs if r.fold == fold) for fold in study.folds])
    torn = clean.rows[np.asarray(clean.reasons) == "conflicting labels"]
    kept, conflicting = ~np.isin(rows, clean.rows), np.isin(rows, torn)
    print(f"{kept.sum():,} of {len(rows):,} test images are kept; {conflicting.sum():,} have conflicting copies")
    print(f"{'method':24} {'accuracy':>8} {'kept':>6} {'conflicting':>11} {'mean-class':>10} {'kept':>6}")
    for method in study.methods:
        right = study.predictions(method.label)[1] == study.labels
        shares = [100 * right[:, which].mean() for which in (kept | True, kept, conflicting)]
        recalls = [mean_recall(study, right, which) for which in (kept | True, kept)]
        print("{:24} {:8.1f} {:6.1f} {:11.1f} {:10.1f} {:6.1f}".format(method.label, *shares, *recalls))


def main() -> None:
    """Read the study and the manifest, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(), help="folder that holds the study's ledger")
    parser.add_argument("--study", help="the study's name  [default: the last one]")
    parser.add_argument("--clean", type=Path, required=True, help="clean.csv, as `fer-bench data check` leaves it")
    given = parser.parse_args()
    ledger = Home(given.home.resolve()).ledger
    compare(load_study(ledger, ledger.study(given.study)), load_clean(given.clean.resolve().parent))


if __name__ == "__main__":
    main()
