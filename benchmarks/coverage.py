"""Coverage of the reports' intervals and type I error of their verdicts, where the truth is known.

Predictions are simulated. Training s classifies an image of a class correctly where

    mu + 2.7 z_image + 1.0 w_method,image + spread · b_method,training + e > 0       (all standard normal)

So some images are hard for every method, some for one method only, and chance adds to both; whole trainings differ by
`spread` (standard deviation of the recall, in points). Two trainings of one method then disagree on 16 % of the images
at a recall of one half, as on FER2013 (docs/results/fer2013-cpu), where trainings differ by one to two points.

    python benchmarks/coverage.py [--draws 300] [--out docs/results]         # writes coverage.md and coverage.csv
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
from fer_bench.reports.facts.numbers import compute
from fer_bench.reports.facts.records import MethodRuns, Run, StudyData
from fer_bench.reports.facts.verdicts import CLAIMS
from fer_bench.rng import numpy_generator
from fer_bench.stats.bootstrap import Draws, replicates
from fer_bench.stats.confusion import ClassRecall
from fer_bench.stats.crossed_errors import Jackknife, jackknife
from fer_bench.stats.intervals import Interval, score_differences, score_intervals, t_intervals, wilson
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
RULES = ("any claim of the report", "a claim on the tail", "any endpoint's unadjusted interval")
EQUAL = ("one", "two")  # methods of a study that equal its reference
EQUAL_SIZES, EQUAL_RECALLS, EQUAL_SPREADS = (16, 55, 160, 879), (0.3, 0.65, 0.9), (0.0, 0.01, 0.02, 0.03)
ALPHAS = {"5 %": 0.05, "0.31 %": 0.05 / 16}
EXTREME_SIZES, EXTREME_RECALLS, EXTREME_SPREAD = (55, 879), (0.05, 0.9), 0.02
EXTREMES = ("mean", "least", "most")
PEOPLE = (10, 30, 118)  # JAFFE's women, a test fold of a mid-sized data set, CK+'s people
EACH = 3  # images of each person, as CK+ has peak frames of a sequence
ALIKE = (0.5, 1.0)  # share of the variance between images that lies between people: 1 for frames of one sequence
RECALL = {"recall": ClassRecall(0)}
DRAW_IMAGES, DRAW_RECALL, DRAW_SPREADS = 46, 0.6, (0.057, 0.015)  # the last: over draws, and over seeds of a draw
SUBSETS = (1, 2, 3, 5)
KNOWN, UNKNOWN = "draws, seeds and images", "all trainings taken for seeds"
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


def recall_sample(correct: np.ndarray) -> Jackknife:
    """What :func:`fer_bench.stats.crossed_errors.jackknife` gives for the recall of one class, ten times as fast.

    Parameters
    ----------
    correct : bool ndarray [S, n]
    """
    n, hit = correct.shape[1], correct.sum(1)
    return Jackknife(
        values={"recall": hit / n},
        left_out={"recall": {0: (hit - correct.T) / (n - 1)}},
        units=(n,),
        effective_units={"recall": float(n)},
        units_are_images=True,
    )


def recalls(draws: int, n: int, recall: float, seeds: int, spread: float) -> Iterator[Cell]:
    """Intervals of a recall averaged over seeds: the reports', and Wilson's of the mean count; two true values each."""
    rng = numpy_generator(0, "coverage", "wilson", n, str(recall), seeds, str(spread))
    covered = dict.fromkeys(itertools.product((OURS, MEAN_COUNT), (THESE, ANY)), 0)
    for _ in range(draws):
        correct, recall_of_training = hits(rng, n, (recall,), seeds, spread)
        sample = recall_sample(correct[0])
        both = {OURS: score_intervals(sample)["recall"], MEAN_COUNT: wilson(correct.sum(2).mean(), n)}
        for kind, interval in both.items():
            covered[kind, THESE] += interval.covers(recall_of_training.mean())
            covered[kind, ANY] += interval.covers(recall)
    for (kind, of), count in covered.items():
        yield Cell(part=f"recall of {of}", of=kind, images=n, recall=recall, seeds=seeds, spread=spread,
                   share=count / draws, draws=draws)  # fmt: skip


def gains(draws: int, resampled: int, n: int, recall: float, seeds: int, spread: float) -> Iterator[Cell]:
    """Intervals of a true gain of five points in recall, all kinds on the same predictions; fewer are resampled."""
    rng = numpy_generator(0, "coverage", "gain", n, str(recall), seeds, str(spread))
    truth = Truth(labels=np.zeros(n, dtype=int), classes=2)
    covered, apart = dict.fromkeys((OURS, CROSSED, PERCENTILE), 0), 0
    for k in range(draws):
        correct = hits(rng, n, (recall, recall - GAIN), seeds, spread)[0]
        ours, reference = (recall_sample(side) for side in correct)
        for alpha in ALPHAS.values():
            gain = score_differences(ours, reference, level=1 - alpha)["recall"]
            apart += (gain.p < alpha) == gain.covers()
        covered[OURS] += score_differences(ours, reference)["recall"].covers(GAIN)
        covered[CROSSED] += t_intervals(ours - reference)["recall"].covers(GAIN)
        if k < resampled:
            covered[PERCENTILE] += intervals_of_gain(truth, 1 - correct.astype(int), k)[PERCENTILE].covers(GAIN)
    for kind, count in covered.items():
        number = resampled if kind == PERCENTILE else draws
        yield Cell(part="gain", of=kind, images=n, recall=recall, seeds=seeds, spread=spread, share=count / number,
                   draws=number)  # fmt: skip
    yield Cell(part="disagreement", of="gain", images=n, recall=recall, seeds=seeds, spread=spread,
               share=apart / draws / len(ALPHAS), draws=len(ALPHAS) * draws)  # fmt: skip


def equal_classes(draws: int, n: int, seeds: int, spread: float) -> Iterator[Cell]:
    """How often equal methods seem to differ in the recall of one class, at two levels; recalls take turns."""
    rng = numpy_generator(0, "coverage", "equal classes", n, seeds, str(spread))
    alarms, apart = dict.fromkeys(itertools.product(ALPHAS, (OURS, CROSSED)), 0), 0
    for k in range(draws):
        recall = EQUAL_RECALLS[k % len(EQUAL_RECALLS)]
        ours, reference = (recall_sample(side) for side in hits(rng, n, (recall, recall), seeds, spread)[0])
        gain = score_differences(ours, reference)["recall"]
        apart += (gain.p < 0.05) == gain.covers()
        for kind, p in ((OURS, gain.p), (CROSSED, t_intervals(ours - reference)["recall"].p)):
            for name, alpha in ALPHAS.items():
                alarms[name, kind] += p < alpha
    for (name, kind), count in alarms.items():
        yield Cell(part=f"alarms at {name}", of=kind, images=n, recall="", seeds=seeds, spread=spread,
                   share=count / draws, draws=draws)  # fmt: skip
    yield Cell(part="disagreement", of="equal methods", images=n, recall="", seeds=seeds, spread=spread,
               share=apart / draws, draws=draws)  # fmt: skip


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


def draws_of_training_images(draws: int, subsets: int, seeds: int) -> Iterator[Cell]:
    """A recall of a small class whose training set was thinned: intervals that know of its draws, and that do not.

    Draws of the training set move the recall more than seeds do (:data:`DRAW_SPREADS`).
    """
    n, recall = DRAW_IMAGES, DRAW_RECALL
    rng = numpy_generator(0, "coverage", "subsets", subsets, seeds)
    truth = Truth(labels=np.zeros(n, dtype=int), classes=2)
    rows = np.repeat(np.arange(subsets), seeds)
    total = HARD**2 + OWN**2 + 1
    sway = np.array(DRAW_SPREADS) * np.sqrt(2 * np.pi * total) * np.exp(ndtri(recall) ** 2 / 2)
    covered = dict.fromkeys((KNOWN, UNKNOWN), 0)
    for _ in range(draws):
        moved = sway[0] * rng.normal(size=(subsets, 1)) + sway[1] * rng.normal(size=(subsets, seeds))
        level = ndtri(recall) * np.sqrt(total + (sway**2).sum()) + moved.reshape(-1, 1)
        images = np.sqrt(HARD**2 + OWN**2) * rng.normal(size=n)
        predictions = 1 - (level + images + rng.normal(size=(len(rows), n)) > 0).astype(int)
        for kind, known in ((KNOWN, rows), (UNKNOWN, None)):
            sample = jackknife(truth, predictions, RECALL, known)
            covered[kind] += score_intervals(sample)["recall"].covers(recall)
    for kind, count in covered.items():
        yield Cell(part=f"draws of training images: {subsets}", of=kind, images=n, recall=recall, seeds=seeds,
                   spread=DRAW_SPREADS[0], share=count / draws, draws=draws)  # fmt: skip


def study_of_equals(rng: np.random.Generator, seeds: int, spread: float) -> StudyData:
    """A study of FER2013's size whose methods equal their reference; wrong predictions are random classes."""
    labels = np.repeat(np.arange(7), [test for _, test, _ in FER2013.values()])
    correct = np.concatenate([hits(rng, n, (p,) * 3, seeds, spread)[0] for _, n, p in FER2013.values()], axis=2)
    predictions = np.where(correct, labels, (labels + rng.integers(1, 7, len(labels))) % 7)
    data = {"classes": list(FER2013), "counts": {"train": [train for train, _, _ in FER2013.values()]}}
    rows, nowhere = np.arange(len(labels)), RunRecord(Path("no-record"))
    methods = tuple(
        MethodRuns(label, tuple(Run(nowhere, label, s, 0, {}, data, rows, labels, mine[s]) for s in range(seeds)))
        for label, mine in zip((*EQUAL, "reference"), predictions, strict=True)
    )
    return StudyData(
        name="equals", command="", kind="run", dataset="simulated", protocol={}, classes=tuple(FER2013), fingerprint="",
        reference="reference", methods=methods, folds=(0,), labels=labels, notes=(),
    )  # fmt: skip


def false_alarms(draws: int, spread: float) -> Iterator[Cell]:
    """How often the report of a study claims a gain or a loss between equal methods, and other rules would."""
    seeds, rng, claims = 5, numpy_generator(0, "coverage", "equals", str(spread)), dict.fromkeys(RULES, 0)
    for _ in range(draws):
        numbers = compute(study_of_equals(rng, seeds, spread), draws=2)
        methods, family = [numbers.method(label) for label in EQUAL], numbers.family
        claimed = (
            any(of.verdict in CLAIMS for method in methods for of in method.judged.values()),
            any(method.judged[family.primary].verdict in CLAIMS for method in methods),
            any(not m.gains[key].covers() for m in methods for key in (family.primary, *family.secondary)),
        )
        for rule, claim in zip(RULES, claimed, strict=True):
            claims[rule] += claim
    for rule, count in claims.items():
        yield Cell(part="equals", of=rule, images="all", recall="", seeds=seeds, spread=spread, share=count / draws,
                   draws=draws)  # fmt: skip


def select(cells: list[Cell], **wanted: object) -> np.ndarray:
    """Shares of the cells whose fields have these values."""
    return np.array([c.share for c in cells if all(getattr(c, k) == v for k, v in wanted.items())])


def percent(shares: np.ndarray, digits: int = 1) -> str:
    """ "95.1 (93.8 to 96.2)": mean, smallest and largest; a single number by itself."""
    mean, low, high = (f"{100 * share:.{digits}f}" for share in (shares.mean(), shares.min(), shares.max()))
    return f"{mean} ({low} to {high})" if len(shares) > 1 else mean


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


def tables_of_tests(cells: list[Cell]) -> dict[str, str]:
    """The tables about p-values and the hardest recalls, by name."""
    hard = [
        [f"{n} images, recall {recall:g}", *(
            percent(select(cells, part=f"recall of {ANY}", of=OURS, images=n, recall=recall, seeds=s,
                           spread=EXTREME_SPREAD))
            for s in SEEDS[1:]
        )]
        for n in EXTREME_SIZES for recall in EXTREME_RECALLS
    ]  # fmt: skip
    equal = {
        name: [
            [f"{s} seeds, {kind}", *(
                percent(select(cells, part=f"alarms at {name}", of=kind, seeds=s, spread=v), 1 if alpha == 0.05 else 2)
                for v in EQUAL_SPREADS
            )]
            for s in SEEDS[1:] for kind in (OURS, CROSSED)
        ]
        for name, alpha in ALPHAS.items()
    }  # fmt: skip
    equal_points = [f"spread {100 * s:g}" for s in EQUAL_SPREADS]
    thinned = [
        [f"{r} draw{'s' * (r > 1)}, {kind}", *(
            percent(select(cells, part=f"draws of training images: {r}", of=kind, seeds=s)) for s in SEEDS[1:4]
        )]
        for r in SUBSETS for kind in (KNOWN, UNKNOWN)[: 1 + (r > 1)]
    ]  # fmt: skip
    checked = [c for c in cells if c.part == "disagreement"]
    apart = round(sum(c.share * int(c.draws) for c in checked))
    return {
        "hard": table(["Recall", *(f"{s} seeds" for s in SEEDS[1:])], hard),
        "subsets": table(["Intervals over", *(f"{s} seeds" for s in SEEDS[1:4])], thinned),
        "disagreements": f"{apart} of {sum(int(c.draws) for c in checked):,}",
        "equal_5": table(["False alarms at 5 %", *equal_points], equal["5 %"]),
        "equal_16": table(["False alarms at 0.31 %", *equal_points], equal["0.31 %"]),
    }


def measured(work: tuple[Callable[..., Iterator[Cell]], tuple]) -> list[Cell]:
    """The cells of one piece of work, in a worker process; each piece has its own named random stream."""
    part, args = work
    return list(part(*args))


def simulated(draws: int, jobs: int) -> list[Cell]:
    """All cells, measured in `jobs` processes."""
    half, some = (max(1, draws // part) for part in (2, 12))
    work: list[tuple[Callable[..., Iterator[Cell]], tuple]] = [(wilson_of_one, ())]
    work += [(recalls, (draws, *c)) for c in itertools.product(SIZES, RECALLS, SEEDS, SPREADS)]
    extreme = itertools.product(EXTREME_SIZES, EXTREME_RECALLS, SEEDS[1:], (EXTREME_SPREAD,))
    work += [(recalls, (5 * draws, *c)) for c in extreme]
    work += [(gains, (half, some, *c)) for c in itertools.product(SIZES, GAIN_RECALLS, SEEDS[1:], SPREADS)]
    work += [(equal_classes, (10 * draws, *c)) for c in itertools.product(EQUAL_SIZES, SEEDS[1:], EQUAL_SPREADS)]
    work += [(people, (2 * draws, *c)) for c in itertools.product(PEOPLE, ALIKE)]
    work += [(draws_of_training_images, (draws, *c)) for c in itertools.product(SUBSETS, SEEDS[1:4])]
    work += [(false_alarms, (draws, c)) for c in SPREADS]
    with multiprocessing.Pool(jobs) as pool:
        return [cell for part in pool.imap(measured, work) for cell in part]


def main() -> None:
    """Simulate, or read the cells of an earlier simulation, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=300, help="simulated studies per cell of a recall")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--from", dest="source", type=Path, metavar="CSV", help="take the cells from here")
    options = parser.parse_args()
    if options.source is None:
        cells = simulated(options.draws, options.jobs)
    else:
        cells = cells_of(options.source.read_text(encoding="utf-8"))
    text = (Path(__file__).parent / "coverage.template.md").read_text(encoding="utf-8")
    for name, markdown in (tables(cells) | tables_of_tests(cells)).items():
        text = text.replace("{{" + name + "}}", markdown)
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "coverage.md", text)
    if options.source is None:
        write_text(options.out / "coverage.csv", csv_text(cells))


if __name__ == "__main__":
    main()
