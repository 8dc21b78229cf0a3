"""Coverage of the reports' intervals and type I error of their verdicts, where the truth is known.

Predictions are simulated. Training s classifies an image of a class correctly where

    mu + 2.7 z_image + 1.0 w_method,image + spread · b_method,training + e > 0       (all standard normal)

So some images are hard for every method, some for one method only, and chance adds to both; whole trainings differ by
`spread` (standard deviation of the recall, in points). Two trainings of one method then disagree on 16 % of the images
at a recall of one half, as on FER2013 (docs/results/fer2013-cpu), where trainings differ by one to two points.

    python benchmarks/coverage.py [--draws 1000] [--out docs/results]        # writes coverage.md and coverage.csv
    python benchmarks/coverage.py --from docs/results/coverage.csv           # writes coverage.md without simulating
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
from fer_bench.stats.bootstrap import Draws, bootstrap_difference, replicates
from fer_bench.stats.confusion import SCORES, ClassRecall
from fer_bench.stats.crossed_errors import jackknife
from fer_bench.stats.intervals import Interval, holm, score_differences, score_intervals, t_intervals, wilson
from fer_bench.stats.sampling import Truth

SIZES = (16, 55, 74, 160, 879)
RECALLS = (0.3, 0.5, 0.65, 0.8, 0.95)
GAIN_RECALLS = (0.35, 0.65, 0.95)
SPREADS = (0.0, 0.01, 0.03)
GAIN = 0.05
HARD, OWN = 2.7, 1.0  # standard deviation of the difficulty of images: for all methods, and for one only
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
ALIKE = (0.5, 1.0)  # share of the variance between images that lies between people: 1 for frames of one sequence
RECALL = {"recall": ClassRecall(0)}
BY_IMAGE, BY_PERSON = "by image", "by person"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One measured share of studies; `of` names the interval or rule that it is about."""

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
) -> tuple[np.ndarray, np.ndarray]:
    """Correct or wrong [G, S, n] for one method per recall, and each training's own true recall [G, S].

    Every `each` images in a row show one person; the share `alike` of the variance between images lies between people.
    """

    def drawn() -> np.ndarray:
        own = rng.normal(size=n)
        if alike == 0:
            return own
        return alike**0.5 * np.repeat(rng.normal(size=n // each), each) + (1 - alike) ** 0.5 * own

    images = HARD * drawn()
    correct, truth = [], []
    for recall in recalls:
        total = HARD**2 + OWN**2 + 1
        sway = spread * np.sqrt(2 * np.pi * total) * np.exp(ndtri(recall) ** 2 / 2)  # moves the recall by `spread`
        level = ndtri(recall) * np.sqrt(total + sway**2) + sway * rng.normal(size=(seeds, 1))
        chance = level + images + OWN * drawn()
        correct.append(chance + rng.normal(size=(seeds, n)) > 0)
        truth.append(ndtr(level[:, 0] / np.sqrt(total)))
    return np.stack(correct), np.stack(truth)


def wilson_of_one() -> Iterator[Cell]:
    """Wilson's interval of one training: exact sums over the binomial distribution, no simulation."""
    grid = np.round(np.arange(0.3, 0.9501, 0.001), 3)
    for n in SIZES:
        every = [wilson(k, n) for k in range(n + 1)]
        low, high = np.array([(i.low, i.high) for i in every]).T
        inside = (low[:, None] <= grid) & (grid <= high[:, None])
        covered = (binom.pmf(np.arange(n + 1)[:, None], n, grid) * inside).sum(0)
        for name, value in zip(EXTREMES, (covered.mean(), covered.min(), covered.max()), strict=True):
            yield Cell(part="wilson 1", of=f"{name} over recalls", images=n, recall="0.3 to 0.95", seeds=1, spread=0.0,
                       share=float(value), draws="exact")  # fmt: skip


def recalls(draws: int, n: int, recall: float, seeds: int, spread: float) -> Iterator[Cell]:
    """Intervals of a recall averaged over seeds: the reports', and Wilson's of the mean count; two true values each."""
    rng = numpy_generator(0, "coverage", "wilson", n, str(recall), seeds, str(spread))
    truth = Truth(labels=np.zeros(n, dtype=int), classes=2)
    covered = dict.fromkeys(itertools.product((OURS, MEAN_COUNT), (THESE, ANY)), 0)
    for _ in range(draws):
        correct, recall_of_training = hits(rng, n, (recall,), seeds, spread)
        sample = jackknife(truth, 1 - correct[0].astype(int), RECALL)
        both = {OURS: score_intervals(sample)["recall"], MEAN_COUNT: wilson(correct.sum(2).mean(), n)}
        for kind, interval in both.items():
            covered[kind, THESE] += interval.covers(recall_of_training.mean())
            covered[kind, ANY] += interval.covers(recall)
    for (kind, of), count in covered.items():
        yield Cell(part=f"recall of {of}", of=kind, images=n, recall=recall, seeds=seeds, spread=spread,
                   share=count / draws, draws=draws)  # fmt: skip


def gains(draws: int, n: int, recall: float, seeds: int, spread: float) -> Iterator[Cell]:
    """Intervals of a true gain of five points in recall, all kinds on the same predictions."""
    rng = numpy_generator(0, "coverage", "gain", n, str(recall), seeds, str(spread))
    truth = Truth(labels=np.zeros(n, dtype=int), classes=2)
    covered = dict.fromkeys((OURS, PERCENTILE, CROSSED), 0)
    for k in range(draws):
        predictions = 1 - hits(rng, n, (recall, recall - GAIN), seeds, spread)[0].astype(int)
        for kind, interval in intervals_of_gain(truth, predictions, k).items():
            covered[kind] += interval.covers(GAIN)
    for kind, count in covered.items():
        yield Cell(part="gain", of=kind, images=n, recall=recall, seeds=seeds, spread=spread, share=count / draws,
                   draws=draws)  # fmt: skip


def intervals_of_gain(truth: Truth, predictions: np.ndarray, study: int) -> dict[str, Interval]:
    """Every kind of interval of the gain in recall of two methods with `predictions` [2, S, n]."""
    ours, reference = (jackknife(truth, side, RECALL) for side in predictions)
    draws = Draws(number=400, names=("coverage", study))
    drawn = [replicates(truth, side, RECALL, draws) for side in predictions]
    return {
        OURS: score_differences(ours, reference)["recall"],
        PERCENTILE: (drawn[0] - drawn[1]).intervals()["recall"],
        CROSSED: t_intervals(ours - reference)["recall"],
    }


def people(draws: int, number: int, alike: float) -> Iterator[Cell]:
    """Several images per person: intervals that sample images against those that sample people."""
    recall, seeds, spread = 0.65, 5, 0.01
    rng = numpy_generator(0, "coverage", "people", number, str(alike))
    n = EACH * number
    labels, who = np.zeros(n, dtype=int), np.repeat(np.arange(number), EACH)
    covered = dict.fromkeys(itertools.product(("recall", OURS, PERCENTILE, CROSSED), (BY_IMAGE, BY_PERSON)), 0)
    for k in range(draws):
        predictions = 1 - hits(rng, n, (recall, recall - GAIN), seeds, spread, EACH, alike)[0].astype(int)
        for by, clusters in ((BY_IMAGE, None), (BY_PERSON, who)):
            truth = Truth(labels=labels, classes=2, clusters=clusters)
            sample = jackknife(truth, predictions[0], RECALL)
            covered["recall", by] += score_intervals(sample)["recall"].covers(recall)
            for kind, interval in intervals_of_gain(truth, predictions, k).items():
                covered[kind, by] += interval.covers(GAIN)
    for (kind, by), count in covered.items():
        yield Cell(part=f"people, alike {alike:g}", of=f"{kind} {by}", images=n, recall=recall, seeds=seeds,
                   spread=spread, share=count / draws, draws=draws)  # fmt: skip


def study_of_equals(rng: np.random.Generator, seeds: int, spread: float) -> StudyData:
    """A study of FER2013's size whose method equals its reference; wrong predictions are random classes."""
    labels = np.repeat(np.arange(7), [test for _, test, _ in FER2013.values()])
    correct = np.concatenate([hits(rng, n, (p, p), seeds, spread)[0] for _, n, p in FER2013.values()], axis=2)
    predictions = np.where(correct, labels, (labels + rng.integers(1, 7, len(labels))) % 7)
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
    """How often the reports' rule claims a gain or a loss between equal methods, and how often other rules would."""
    seeds, rng, claims = 5, numpy_generator(0, "coverage", "equals", str(spread)), dict.fromkeys(RULES, 0)
    for _ in range(draws):
        study = study_of_equals(rng, seeds, spread)
        numbers = compute(study, draws=200)
        ours = numbers.method("ours")
        gains = [ours.gains[name] for name in numbers.headline]
        claimed = (
            bool({Verdict.GAIN, Verdict.LOSS} & set(ours.verdicts.values())),
            bool((holm([gain.p for gain in gains]) < 0.05).any()),
            _percentile_alarm(study),
            any(not gain.covers() for gain in gains),
            any(not ours.resampled[name].covers() for name in numbers.headline),
        )
        for rule, claim in zip(RULES, claimed, strict=True):
            claims[rule] += claim
    for rule, count in claims.items():
        yield Cell(part="equals", of=rule, images="all", recall="", seeds=seeds, spread=spread, share=count / draws,
                   draws=draws)  # fmt: skip


def _percentile_alarm(study: StudyData) -> bool:
    """Whether Holm rejects either headline by percentile p-values: one of two below 2.5 %."""
    scores = {"rarest": ClassRecall(study.order[0]), "mean": SCORES["mean_recall"]}
    ours, reference = (study.predictions(m.label)[1] for m in study.methods)
    gains = bootstrap_difference(study.truth, ours, reference, scores, Draws(number=200), level=0.975)
    return any(not gain.covers() for gain in gains.values())


def select(cells: list[Cell], **wanted: object) -> np.ndarray:
    """Shares of the cells whose fields have these values."""
    return np.array([c.share for c in cells if all(getattr(c, k) == v for k, v in wanted.items())])


def percent(shares: np.ndarray) -> str:
    """ "95.1 (93.8 to 96.2)": mean, smallest and largest; a single number by itself."""
    mean, low, high = 100 * shares.mean(), 100 * shares.min(), 100 * shares.max()
    return f"{mean:.1f} ({low:.1f} to {high:.1f})" if len(shares) > 1 else f"{mean:.1f}"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def csv_text(cells: list[Cell]) -> str:
    """All cells, one per line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["part", "of", "images", "recall", "seeds", "spread", "percent", "draws"])
    for c in cells:
        writer.writerow([c.part, c.of, c.images, c.recall, c.seeds, f"{c.spread:g}", f"{100 * c.share:.2f}", c.draws])
    return out.getvalue()


def cells_of(text: str) -> list[Cell]:
    """The cells of :func:`csv_text`.

    Its two decimals of percent suffice for counts of simulated studies. Those of exact sums are recomputed.
    """
    cells = list(wilson_of_one())
    for row in csv.DictReader(io.StringIO(text)):
        if row["draws"] == "exact":
            continue
        draws, images = int(row["draws"]), row["images"]
        cells.append(Cell(
            part=row["part"], of=row["of"], images=int(images) if images.isdigit() else images,
            recall=float(row["recall"]) if row["recall"] else "", seeds=int(row["seeds"]), spread=float(row["spread"]),
            share=round(float(row["percent"]) / 100 * draws) / draws, draws=draws,
        ))  # fmt: skip
    return cells


def tables(cells: list[Cell]) -> dict[str, str]:
    """The tables of coverage.md by name."""
    points = [f"spread {100 * s:g}" for s in SPREADS]

    def across(**wanted: object) -> list[str]:
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
    headings = {"recall": "recall", OURS: "gain", CROSSED: "gain, t", PERCENTILE: "gain, bootstrap"}
    of_people = [
        [f"{number} people, {'frames of one sequence' if alike == 1 else 'half of it theirs'}", *(
            percent(select(cells, part=f"people, alike {alike:g}", images=EACH * number, of=f"{kind} {by}"))
            for kind in headings for by in (BY_IMAGE, BY_PERSON)
        )]
        for alike in ALIKE for number in PEOPLE
    ]  # fmt: skip
    by_kind = [f"{name} {by}" for name in headings.values() for by in (BY_IMAGE, BY_PERSON)]
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
    """The cells of one piece of work, in a worker process; each piece has its own named random stream."""
    part, args = work
    return list(part(*args))


def simulated(draws: int, jobs: int) -> list[Cell]:
    """All cells, measured in `jobs` processes."""
    few = max(1, draws // 3)
    work: list[tuple[Callable[..., Iterator[Cell]], tuple]] = [(wilson_of_one, ())]
    work += [(recalls, (draws, *c)) for c in itertools.product(SIZES, RECALLS, SEEDS, SPREADS)]
    work += [(gains, (few, *c)) for c in itertools.product(SIZES, GAIN_RECALLS, SEEDS[1:], SPREADS)]
    work += [(people, (draws, *c)) for c in itertools.product(PEOPLE, ALIKE)]
    work += [(false_alarms, (draws, c)) for c in SPREADS]
    with multiprocessing.Pool(jobs) as pool:
        return [cell for part in pool.imap(measured, work) for cell in part]


def main() -> None:
    """Simulate, or read the cells of an earlier simulation, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000, help="simulated studies per cell")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--from", dest="source", type=Path, metavar="CSV", help="take the cells from here")
    options = parser.parse_args()
    if options.source is None:
        cells = simulated(options.draws, options.jobs)
    else:
        cells = cells_of(options.source.read_text(encoding="utf-8"))
    text = (Path(__file__).parent / "coverage.template.md").read_text(encoding="utf-8")
    for name, markdown in tables(cells).items():
        text = text.replace("{{" + name + "}}", markdown)
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "coverage.md", text)
    if options.source is None:
        write_text(options.out / "coverage.csv", csv_text(cells))


if __name__ == "__main__":
    main()
