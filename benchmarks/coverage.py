"""What the intervals and verdicts of the reports are worth: coverage and false alarms, where the truth is known.

Answers are simulated. An image of a class is right in training s where

    mu + 2.7 z_image + 1.0 w_method,image + spread · b_method,training + e > 0       (all standard normal)

so images are hard for everybody, harder for one method, and answered by chance on top; trainings differ as wholes by
`spread` (standard deviation of the recall, in points). Two trainings of one method then disagree on 16 % of the images
at a recall of one half, as on FER2013 (docs/results/fer2013-cpu), where trainings differ by one to two points.

    python benchmarks/coverage.py [--draws 1000] [--out docs/results]        # writes coverage.md and coverage.csv
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import binom

from fer_bench.base.files import write_text
from fer_bench.record.ledger import RunRecord
from fer_bench.reports.facts.numbers import Verdict, compute
from fer_bench.reports.facts.records import MethodRuns, Run, StudyData
from fer_bench.rng import numpy_generator
from fer_bench.stats import intervals

SIZES = (16, 55, 74, 160, 879)
RECALLS = (0.3, 0.5, 0.65, 0.8, 0.95)
GAIN_RECALLS = (0.35, 0.65, 0.95)
SPREADS = (0.0, 0.01, 0.03)
GAIN = 0.05
HARD, OWN = 2.7, 1.0  # how much images differ for all methods, and for one
FER2013 = {
    "angry": (3995, 491, 0.60), "disgust": (436, 55, 0.50), "fear": (4097, 528, 0.45), "happy": (7215, 879, 0.88),
    "sad": (4830, 594, 0.55), "surprise": (3171, 416, 0.80), "neutral": (4965, 626, 0.65),
}  # fmt: skip
"""Training images, test images and a plausible recall of each class."""
SEEDS = (1, 2, 3, 5, 10)
OURS, MEAN_COUNT = "the reports' interval", "Wilson of the mean count"
PERCENTILE, CROSSED = "percentile bootstrap", "crossed t"
THESE, ANY = "these trainings", "any training"
RULES = (
    "the report's verdicts", f"{CROSSED} with Holm", f"{PERCENTILE} with Holm", f"{OURS}, uncorrected",
    f"{PERCENTILE}, uncorrected",
)  # fmt: skip
EXTREMES = ("mean", "least", "most")
PEOPLE = (10, 30, 118)  # JAFFE's women, a test fold of a mid-sized data set, CK+'s people
EACH = 3  # images of each person, as CK+ has peak frames of a sequence
ALIKE = (0.5, 1.0)  # share of what images differ by that is the person's: 1 for frames of one sequence
BY_IMAGE, BY_PERSON = "by image", "by person"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One measured share; `of` says of what."""

    part: str
    of: str
    images: int | str
    recall: float | str
    seeds: int
    spread: float
    share: float
    draws: int | str


def hits(
    rng: np.random.Generator,
    n: int,
    recalls: tuple[float, ...],
    seeds: int,
    spread: float,
    each: int = 1,
    alike: float = 0.0,
):
    """Right or wrong [G, S, n] for one method a recall, and each training's own true recall [G, S].

    Every `each` images in a row are of one person, who makes up the share `alike` of what images differ by.
    """

    def drawn() -> np.ndarray:
        own = rng.normal(size=n)
        if alike == 0:
            return own
        return alike**0.5 * np.repeat(rng.normal(size=n // each), each) + (1 - alike) ** 0.5 * own

    images = HARD * drawn()
    right, truth = [], []
    for recall in recalls:
        total = HARD**2 + OWN**2 + 1
        sway = spread * np.sqrt(2 * np.pi * total) * np.exp(ndtri(recall) ** 2 / 2)  # moves the recall by `spread`
        level = ndtri(recall) * np.sqrt(total + sway**2) + sway * rng.normal(size=(seeds, 1))
        chance = level + images + OWN * drawn()
        right.append(chance + rng.normal(size=(seeds, n)) > 0)
        truth.append(ndtr(level[:, 0] / np.sqrt(total)))
    return np.stack(right), np.stack(truth)


def wilson_of_one() -> Iterator[Cell]:
    """Wilson's interval of one training: exact sums over the binomial distribution, no simulation."""
    grid = np.round(np.arange(0.3, 0.9501, 0.001), 3)
    for n in SIZES:
        every = [intervals.wilson(k, n) for k in range(n + 1)]
        low, high = np.array([(i.low, i.high) for i in every]).T
        inside = (low[:, None] <= grid) & (grid <= high[:, None])
        covered = (binom.pmf(np.arange(n + 1)[:, None], n, grid) * inside).sum(0)
        for name, value in zip(EXTREMES, (covered.mean(), covered.min(), covered.max()), strict=True):
            yield Cell(part="wilson 1", of=f"{name} over recalls", images=n, recall="0.3 to 0.95", seeds=1, spread=0.0,
                       share=float(value), draws="exact")  # fmt: skip


def recalls(draws: int, n: int, recall: float, seeds: int, spread: float) -> Iterator[Cell]:
    """Intervals of a recall averaged over seeds, against two truths: the reports', and Wilson's of the mean count."""
    metric = {"recall": intervals.recall_of(0)}
    rng = numpy_generator(0, "coverage", "wilson", n, str(recall), seeds, str(spread))
    labels, covered = np.zeros(n, dtype=int), dict.fromkeys(itertools.product((OURS, MEAN_COUNT), (THESE, ANY)), 0)
    for _ in range(draws):
        right, truth = hits(rng, n, (recall,), seeds, spread)
        sample = intervals.jackknife(labels, 1 - right[0].astype(int), metric, classes=2)
        both = {OURS: intervals.score_intervals(sample)["recall"], MEAN_COUNT: intervals.wilson(right.sum(2).mean(), n)}
        for kind, found in both.items():
            covered[kind, THESE] += found.covers(truth.mean())
            covered[kind, ANY] += found.covers(recall)
    for (kind, of), count in covered.items():
        yield Cell(part=f"recall of {of}", of=kind, images=n, recall=recall, seeds=seeds, spread=spread,
                   share=count / draws, draws=draws)  # fmt: skip


def gains(draws: int, n: int, recall: float, seeds: int, spread: float) -> Iterator[Cell]:
    """Intervals of a true gain of five points in recall, all kinds on the same answers."""
    rng = numpy_generator(0, "coverage", "gain", n, str(recall), seeds, str(spread))
    labels = np.zeros(n, dtype=int)
    covered = dict.fromkeys((OURS, PERCENTILE, CROSSED), 0)
    for k in range(draws):
        answers = 1 - hits(rng, n, (recall, recall - GAIN), seeds, spread)[0].astype(int)
        for kind, found in intervals_of_gain(labels, answers, k).items():
            covered[kind] += found.covers(GAIN)
    for kind, count in covered.items():
        yield Cell(part="gain", of=kind, images=n, recall=recall, seeds=seeds, spread=spread, share=count / draws,
                   draws=draws)  # fmt: skip


def intervals_of_gain(labels: np.ndarray, answers: np.ndarray, draw: int, clusters: np.ndarray | None = None):
    """Every kind of interval of the gain in recall of two methods, `answers` [2, S, n]."""
    metric = {"recall": intervals.recall_of(0)}
    how = {"classes": 2, "clusters": clusters}
    sides = [intervals.jackknife(labels, side, metric, **how) for side in answers]
    drawn = [intervals.replicates(labels, s, metric, draws=400, names=("coverage", draw), **how) for s in answers]
    apart = (sides[0] - sides[1]).estimates["recall"]
    return {
        OURS: intervals.score_differences(*sides)["recall"],
        PERCENTILE: (drawn[0] - drawn[1]).intervals()["recall"],
        CROSSED: intervals.Interval(apart.value, *apart.limits(intervals.LEVEL)),
    }


def people(draws: int, number: int, alike: float) -> Iterator[Cell]:
    """Images of people: intervals that draw images against those that draw people; recall and a gain of five points."""
    metric, recall, seeds, spread = {"recall": intervals.recall_of(0)}, 0.65, 5, 0.01
    rng = numpy_generator(0, "coverage", "people", number, str(alike))
    n = EACH * number
    labels, who = np.zeros(n, dtype=int), np.repeat(np.arange(number), EACH)
    covered = dict.fromkeys(itertools.product(("recall", OURS, PERCENTILE, CROSSED), (BY_IMAGE, BY_PERSON)), 0)
    for k in range(draws):
        answers = 1 - hits(rng, n, (recall, recall - GAIN), seeds, spread, EACH, alike)[0].astype(int)
        for by, clusters in ((BY_IMAGE, None), (BY_PERSON, who)):
            sample = intervals.jackknife(labels, answers[0], metric, classes=2, clusters=clusters)
            covered["recall", by] += intervals.score_intervals(sample)["recall"].covers(recall)
            for kind, found in intervals_of_gain(labels, answers, k, clusters).items():
                covered[kind, by] += found.covers(GAIN)
    for (kind, by), count in covered.items():
        yield Cell(part=f"people, alike {alike:g}", of=f"{kind} {by}", images=n, recall=recall, seeds=seeds,
                   spread=spread, share=count / draws, draws=draws)  # fmt: skip


def study_of_equals(rng: np.random.Generator, seeds: int, spread: float) -> StudyData:
    """A study of FER2013's size in which method and reference are the same; wrong answers go to random classes."""
    labels = np.repeat(np.arange(7), [test for _, test, _ in FER2013.values()])
    right = np.concatenate([hits(rng, n, (p, p), seeds, spread)[0] for _, n, p in FER2013.values()], axis=2)
    predictions = np.where(right, labels, (labels + rng.integers(1, 7, len(labels))) % 7)
    data = {"classes": list(FER2013), "counts": {"train": [train for train, _, _ in FER2013.values()]}}
    rows, nowhere = np.arange(len(labels)), RunRecord(Path("no-record"))
    methods = tuple(
        MethodRuns(label, tuple(Run(nowhere, label, s, 0, {}, data, rows, labels, mine[s]) for s in range(seeds)))
        for label, mine in zip(("ours", "reference"), predictions, strict=True)
    )
    return StudyData(
        name="equals", command="", kind="run", dataset="simulated", protocol={}, classes=tuple(FER2013), fingerprint="",
        reference="reference", methods=methods, folds=(0,), labels=labels, notes=(),
    )  # fmt: skip


def false_alarms(draws: int, spread: float) -> Iterator[Cell]:
    """How often the report's own rule claims a gain or a loss between equal methods, and what others would."""
    seeds, rng, claims = 5, numpy_generator(0, "coverage", "equals", str(spread)), dict.fromkeys(RULES, 0)
    for _ in range(draws):
        study = study_of_equals(rng, seeds, spread)
        found = compute(study, draws=200)
        ours = found.method("ours")
        gains = [ours.gains[name] for name in found.headline]
        claimed = (
            bool({Verdict.GAIN, Verdict.LOSS} & set(ours.verdicts.values())),
            bool((intervals.holm([gain.p for gain in gains]) < 0.05).any()),
            _percentile_alarm(study),
            any(not gain.covers() for gain in gains),
            any(not ours.resampled[name].covers() for name in found.headline),
        )
        for rule, claim in zip(RULES, claimed, strict=True):
            claims[rule] += claim
    for rule, count in claims.items():
        yield Cell(part="equals", of=rule, images="all", recall="", seeds=seeds, spread=spread, share=count / draws,
                   draws=draws)  # fmt: skip


def _percentile_alarm(study: StudyData) -> bool:
    """Whether Holm rejects either headline by percentile p-values: one of two below 2.5 %."""
    metrics = {"rarest": intervals.recall_of(study.order[0]), "mean": intervals.STACKED["mean_recall"]}
    ours, reference = (study.predictions(m.label)[1] for m in study.methods)
    found = intervals.bootstrap_difference(study.labels, ours, reference, metrics, classes=7, draws=200, level=0.975)
    return any(not interval.covers() for interval in found.values())


def select(cells: list[Cell], **wanted) -> np.ndarray:
    """Shares of the cells whose fields have these values."""
    return np.array([c.share for c in cells if all(getattr(c, k) == v for k, v in wanted.items())])


def percent(shares: np.ndarray) -> str:
    """ "95.1 (93.8 to 96.2)": mean, smallest and largest; one number alone."""
    mean, low, high = 100 * shares.mean(), 100 * shares.min(), 100 * shares.max()
    return f"{mean:.1f} ({low:.1f} to {high:.1f})" if len(shares) > 1 else f"{mean:.1f}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def csv_text(cells: list[Cell]) -> str:
    """All cells, one a line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["part", "of", "images", "recall", "seeds", "spread", "percent", "draws"])
    for c in cells:
        writer.writerow([c.part, c.of, c.images, c.recall, c.seeds, f"{c.spread:g}", f"{100 * c.share:.2f}", c.draws])
    return out.getvalue()


def tables(cells: list[Cell]) -> dict[str, str]:
    """The tables of coverage.md by name."""
    points = [f"spread {100 * s:g}" for s in SPREADS]

    def across(**wanted) -> list[str]:
        return [percent(select(cells, spread=v, **wanted)) for v in SPREADS]

    one = [
        [str(n), *(percent(select(cells, part="wilson 1", images=n, of=f"{k} over recalls")) for k in EXTREMES)]
        for n in SIZES
    ]
    by_images = [
        [f"{n} images", *(
            percent(select(cells, part=f"recall of {ANY}", of=OURS, images=n, seeds=s, spread=SPREADS[1]))
            for s in SEEDS
        )]
        for n in SIZES
    ]  # fmt: skip
    recalls_by_seeds = {
        of: [
            [f"{s} seed{'s' * (s > 1)}, {kind}", *across(part=f"recall of {of}", of=kind, seeds=s)]
            for s in SEEDS for kind in (OURS, MEAN_COUNT)
        ]
        for of in (ANY, THESE)
    }  # fmt: skip
    kinds = (OURS, CROSSED, PERCENTILE)
    by_seeds = [[f"{s} seeds, {kind}", *across(part="gain", of=kind, seeds=s)] for s in SEEDS[1:] for kind in kinds]
    by_size = [
        [f"{n} images, {kind}", *across(part="gain", of=kind, seeds=5, images=n)] for n in SIZES for kind in kinds
    ]
    shown = {"recall": "recall", OURS: "gain", CROSSED: "gain, t", PERCENTILE: "gain, bootstrap"}
    of_people = [
        [f"{number} people, {'frames of one sequence' if alike == 1 else 'half of it theirs'}", *(
            percent(select(cells, part=f"people, alike {alike:g}", images=EACH * number, of=f"{kind} {by}"))
            for kind in shown for by in (BY_IMAGE, BY_PERSON)
        )]
        for alike in ALIKE for number in PEOPLE
    ]  # fmt: skip
    by_kind = [f"{name} {by}" for name in shown.values() for by in (BY_IMAGE, BY_PERSON)]
    return {
        "one": table(["Images", *(k.capitalize() for k in EXTREMES)], one),
        "by_images": table(["Recall", *(f"{s} seed{'s' * (s > 1)}" for s in SEEDS)], by_images),
        "any": table([f"Recall of {ANY}", *points], recalls_by_seeds[ANY]),
        "these": table([f"Recall of {THESE}", *points], recalls_by_seeds[THESE]),
        "by_seeds": table(["Gain", *points], by_seeds),
        "by_size": table(["Gain, 5 seeds", *points], by_size),
        "people": table(["Images of", *by_kind], of_people),
        "alarms": table(["Rule", *points], [[rule, *across(part="equals", of=rule)] for rule in RULES]),
    }


def measured(work: tuple[Callable[..., Iterator[Cell]], tuple]) -> list[Cell]:
    """Cells of one piece of work, for a process of its own; each piece has its own named random stream."""
    part, args = work
    return list(part(*args))


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000, help="simulated studies a cell")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    options = parser.parse_args()
    few = max(1, options.draws // 3)
    work: list[tuple[Callable[..., Iterator[Cell]], tuple]] = [(wilson_of_one, ())]
    work += [(recalls, (options.draws, *c)) for c in itertools.product(SIZES, RECALLS, SEEDS, SPREADS)]
    work += [(gains, (few, *c)) for c in itertools.product(SIZES, GAIN_RECALLS, SEEDS[1:], SPREADS)]
    work += [(people, (options.draws, *c)) for c in itertools.product(PEOPLE, ALIKE)]
    work += [(false_alarms, (options.draws, c)) for c in SPREADS]
    with multiprocessing.Pool(options.jobs) as pool:
        cells = [cell for part in pool.imap(measured, work) for cell in part]
    text = (Path(__file__).parent / "coverage.template.md").read_text(encoding="utf-8")
    for name, markdown in tables(cells).items():
        text = text.replace("{{" + name + "}}", markdown)
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "coverage.md", text)
    write_text(options.out / "coverage.csv", csv_text(cells))


if __name__ == "__main__":
    main()
