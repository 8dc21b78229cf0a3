"""How long a report takes: the whole report of a ledger of made-up runs is built twice, and the bytes are compared.

The records have FER2013's size (3,589 test images in 7 classes, predictions of 8 epochs) and are written with NumPy
alone; torch is not imported. The second build runs in a fresh process, so that no cache helps it.

    python benchmarks/report_speed.py [--methods 20] [--seeds 50] [--formats markdown,html,latex,csv] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import hashlib
import json
import multiprocessing
import pstats
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer_bench.record.ledger import Ledger
from fer_bench.reports.build import FORMATS, build_report, parse_formats

TRAIN = (3995, 436, 4097, 7215, 4830, 3171, 4965)
TEST = (491, 55, 528, 879, 594, 416, 626)
CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
EPOCHS = 8


def arguments() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=50, help="runs of each method")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--profile", action="store_true", help="show where the time goes instead (one build)")
    return parser.parse_args()


def write_run(
    ledger: Ledger,
    label: str,
    seed: int,
    skill: float,
    classes: Sequence[str] = CLASSES,
    train: Sequence[int] = TRAIN,
    test: Sequence[int] = TEST,
) -> str:
    """One finished record; `skill` moves the logits of the true class. Returns its id."""
    rng = np.random.default_rng([seed, int.from_bytes(label.encode(), "big")])
    labels = np.repeat(np.arange(len(classes)), test)
    logits = rng.normal(size=(len(labels), len(classes))).astype(np.float32)
    logits[np.arange(len(labels)), labels] += np.float32(skill)
    writer = ledger.writer(hashlib.sha256(f"{label} {seed}".encode()).hexdigest()[:16])
    writer.start()
    recipe = {"epochs": EPOCHS, "batch_size": 128, "lr": 0.002, "optimizer": "adamw"}
    spec: dict[str, Any] = {"method": label, "params": {}, "dataset": "synthetic", "protocol": "official", "fold": None}
    spec |= {"profile": "natural", "backbone": "resnet18", "pretrained": False, "seed": seed, "recipe": recipe}
    spec |= {"selection": {"rule": "val", "metric": "mean_recall"}}
    writer.put("spec", {"run_id": writer.id, "label": label, "spec": spec, "fingerprint": "f", "source": "s"})
    counts = {"train": list(train), "val": list(test), "test": list(test)}
    data = {"dataset": "synthetic", "classes": list(classes), "fingerprint": "f", "counts": counts}
    writer.put("data", data | {"protocol": {"name": "synthetic/official", "title": "as drawn"}})
    writer.put("method", {"name": label, "title": label, "deviations": [], "transductive": False})
    curve = [{"epoch": e, "train_loss": 2 / (e + 1), "val_mean_recall": 0.05 * e + 0.001 * seed} for e in range(EPOCHS)]
    writer.put("history", curve)
    writer.put("selection", {"rule": "val", "metric": "mean_recall", "epoch": EPOCHS - 1})
    writer.put("seal", {"count": 1, "openings": [], "blocked": []})
    check = {"name": "alone", "max_difference": 1e-6, "flipped": 0}
    writer.put("probe", {"transductive": False, "images": 256, "checks": [check]})
    writer.put("environment", {"versions": {"numpy": np.__version__}, "device": "cpu"})
    writer.put("timing", {"images_per_second": [100.0, 100.0], "total_seconds": 60, "device": "cpu"})
    kind = np.uint8 if len(classes) <= 256 else np.uint16
    epochs = np.stack([np.roll(logits.argmax(1), e) for e in range(EPOCHS)]).astype(kind)
    for name, array in (("rows", np.arange(len(labels))), ("labels", labels), ("logits", logits), ("epochs", epochs)):
        writer.put(f"test_{name}", array)
    writer.finish()
    return writer.id


def write_study(ledger: Ledger, methods: int, seeds: int) -> dict[str, Any]:
    """A study of `methods` times `seeds` runs, the first method being the reference."""
    labels = [f"method_{m:02d}" for m in range(methods)]
    runs = [write_run(ledger, label, s, 1.5 + 0.02 * m) for m, label in enumerate(labels) for s in range(seeds)]
    study = {"name": "speed", "command": "none: drawn", "dataset": "synthetic", "kind": "run", "reference": labels[0]}
    study |= {"runs": runs, "methods": labels}
    ledger.put_study("speed", study)
    return study


def build(root: str, out: str, formats: tuple[str, ...]) -> None:
    """Build the report of the study."""
    ledger = Ledger(root)
    build_report(ledger, ledger.study("speed"), Path(out), formats=formats)
    assert "torch" not in sys.modules


def timed(root: str, out: str, formats: tuple[str, ...]) -> float:
    """Seconds that a report takes in a process of its own."""
    start = time.perf_counter()
    process = multiprocessing.get_context("spawn").Process(target=build, args=(root, out, formats))
    process.start()
    process.join()
    if process.exitcode:
        sys.exit("the report was not built")
    return round(time.perf_counter() - start, 2)


def digests(out: str) -> dict[str, str]:
    """Hash of every file of a report."""
    files = [p for p in sorted(Path(out).rglob("*")) if p.is_file()]
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def profiled(root: str, out: str, formats: tuple[str, ...]) -> None:
    """Print where the time of one build goes."""
    profile = cProfile.Profile()
    profile.runcall(build, root, out, formats)
    pstats.Stats(profile).sort_stats("cumulative").print_stats(45)


def main() -> None:
    """Write the records, build twice, compare and tell."""
    args = arguments()
    formats = parse_formats(args.formats)
    with tempfile.TemporaryDirectory() as folder:
        root, outs = f"{folder}/ledger", [f"{folder}/one", f"{folder}/two"]
        write_study(Ledger(root), args.methods, args.seeds)
        if args.profile:
            profiled(root, outs[0], formats)
            return
        seconds = [timed(root, out, formats) for out in outs]
        one, two = map(digests, outs)
        measured = {"runs": args.methods * args.seeds, "formats": formats, "seconds": seconds}
        print(json.dumps(measured | {"files": len(one), "same_bytes": one == two}))
        if one != two:
            sys.exit("the two reports differ")


if __name__ == "__main__":
    main()
