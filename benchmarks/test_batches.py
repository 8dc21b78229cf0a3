"""What the published sharing mechanism gains from the order of the test images: one network, many test batches.

ARM adds the mean of the test batch to each image's features, and RASN most likely did. Here finished runs of `rasn` or
`arm` (with a mean as ``share.source``) are read out again: with the stored mean, alone, and with the mean of test
batches of several sizes, whose images come shuffled, in the order of the files, or sorted by class. The weights are the
same throughout, and nothing is trained.

    python benchmarks/test_batches.py RUN... --home HOME [--home HOME...] --out test-batches
    python benchmarks/test_batches.py --readings test-batches/readings.csv --out test-batches

The first command reads the networks and writes ``readings.csv`` and the page. The second writes the page again, and
adds runs if it names some.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure as Drawing

from fer_bench.base.files import write_text
from fer_bench.contract.plugins import plugins
from fer_bench.errors import DataError, FerBenchError, UnknownNameError
from fer_bench.inference.explain import open_store
from fer_bench.inference.trained import Trained, load_trained
from fer_bench.methods._rasn.sources import MeanAffinity
from fer_bench.printable import printable
from fer_bench.record.home import Home
from fer_bench.record.ledger import RunRecord
from fer_bench.record.lookup import find_run
from fer_bench.reports.facts import phrases
from fer_bench.reports.render import figure_files, markdown
from fer_bench.reports.render.blocks import Bullets, Code, Document, Figure, Part, TableBlock, blocks
from fer_bench.reports.render.page_folder import Target, aside, check, move
from fer_bench.reports.render.table import Column, each, tabulate
from fer_bench.reports.sections import figures
from fer_bench.runs.worker import raw_logits

SIZES = (16, 64, 256)
SHUFFLES = 5
STORED, ALONE, BATCH = "stored mean", "mean of the image alone", "mean of the test batch"
ORDERS = ("shuffled", "order of the files", "sorted by class")
RARE = "disgust"
KEYS = ["affinity", "order", "batch"]
AGAIN = "python benchmarks/test_batches.py"
Row = tuple[tuple[str, str, int], pd.DataFrame]  # affinity, order and batch, with the scores of each seed


# -- reading networks ------------------------------------------------------------------------------------------------


def orders(labels: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Names and orders of n test images: shuffled several times, as in the files, and sorted by class."""
    for seed in range(SHUFFLES):
        yield "shuffled", np.random.default_rng(seed).permutation(len(labels))
    yield "order of the files", np.arange(len(labels))
    yield "sorted by class", np.argsort(labels, kind="stable")


def own_share(labels: np.ndarray, order: np.ndarray, size: int) -> float:
    """Mean share of an image's own class in its batch."""
    parts = [labels[order][k : k + size] for k in range(0, len(order), size)]
    return float(np.concatenate([(part[:, None] == part[None, :]).mean(1) for part in parts]).mean())


@torch.no_grad()
def answers(trained: Trained, images: np.ndarray, order: np.ndarray, size: int) -> np.ndarray:
    """Predicted classes [n], in the order of the store, of batches of `size` images taken in `order`."""
    found = np.empty(len(order), dtype=np.int64)
    for start in range(0, len(order), size):
        places = order[start : start + size]
        batch = trained.on_device(images[places])
        found[places] = raw_logits(trained.method, trained.model, batch, trained.spec.recipe, features=False)[0].argmax(
            1
        )
    return found


def scores(predicted: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, float]:
    """Accuracy, mean-class accuracy and recalls, in %."""
    right = predicted == labels
    recalls = {name: 100 * float(right[labels == k].mean()) for k, name in enumerate(classes)}
    return {"accuracy": 100 * float(right.mean()), "mean-class": float(np.mean(list(recalls.values()))), **recalls}


def study(run: str, home: Home) -> pd.DataFrame:
    """All readings of one run, a row each."""
    trained = load_trained(find_run(home.ledger, run), home, plugins())
    model: Any = trained.model
    source = getattr(model.sharing, "source", None)
    if not isinstance(source, MeanAffinity):
        raise SystemExit(f"run {run} shares no mean: choose a run of rasn or arm with share.source=batch_mean")
    record = trained.record
    store = open_store(trained, home)
    rows, labels = record.array("test_rows"), record.array("test_labels")
    images, classes = store.images(rows), trained.classes
    name = {"run": record.id, "data": data_of(record), "network": record.json("spec")["label"]}
    name["seed"] = trained.spec.seed
    found = []
    for affinity, size in ((STORED, 256), (ALONE, 1)):
        source.evaluate = "frozen_ema" if affinity == STORED else "test_batch"
        predicted = answers(trained, images, np.arange(len(rows)), size)
        share = float("nan") if affinity == STORED else 1.0
        row = {**name, "affinity": affinity, "order": "any", "batch": size, "images": len(rows), "own class": share}
        found.append({**row, **scores(predicted, labels, classes)})
    source.evaluate = "test_batch"
    for size in SIZES:
        for order_name, order in orders(labels):
            predicted = answers(trained, images, order, size)
            row = {**name, "affinity": BATCH, "order": order_name, "batch": size, "images": len(rows)}
            row["own class"] = own_share(labels, order, size)
            found.append({**row, **scores(predicted, labels, classes)})
    return pd.DataFrame(found)


def data_of(record: RunRecord) -> str:
    """The data set with the parameters that differ from its defaults, and the imbalance profile."""
    spec = record.spec
    plugin = plugins().datasets.get(spec["dataset"])
    known = plugin.card.params if plugin else {}
    changed = [f"{k}={v}" for k, v in sorted(spec["dataset_params"].items()) if k in known and v != known[k].default]
    profile = spec.get("profile", "natural")
    return spec["dataset"] + (f"[{','.join(changed)}]" if changed else "") + (f", {profile}" * (profile != "natural"))


def home_of(run: str, homes: Sequence[Home]) -> Home:
    """The home that holds a run."""
    for home in homes:
        try:
            find_run(home.ledger, run)
        except UnknownNameError:
            continue
        return home
    find_run(homes[-1].ledger, run)
    raise AssertionError


# -- the page --------------------------------------------------------------------------------------------------------


def by_seed(readings: pd.DataFrame) -> pd.DataFrame:
    """Scores of each seed with each reading, mean over shuffles, and their differences from the stored mean."""
    numbers = ["own class", "accuracy", "mean-class", RARE]
    means = readings.groupby(["seed", *KEYS], sort=False, dropna=False)[numbers].mean().reset_index()
    stored = means[means["affinity"] == STORED].set_index("seed")
    for name in numbers[1:]:
        means[f"gain in {name}"] = means[name] - means["seed"].map(stored[name])
    return means


def readings_of(means: pd.DataFrame) -> list[Row]:
    """Each way of reading with the rows of all seeds."""
    return [(key, part) for key, part in means.groupby(KEYS, sort=False)]


def networks(readings: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Data, network and readings of every network."""
    return [(str(d), str(n), part) for (d, n), part in readings.groupby(["data", "network"], sort=False)]


def signed(values: pd.Series) -> str:
    """Mean over seeds, with the lowest and the highest seed where there are several: "+1.2 (+0.4 to +2.0)"."""
    low, high = values.min(), values.max()
    mean = phrases.points(values.mean() / 100)
    return mean if len(values) < 2 else f"{mean} ({phrases.points(low / 100)} to {phrases.points(high / 100)})"


def by_chance(part: pd.DataFrame, batch: int) -> float:
    """The largest change of accuracy, in points, that any shuffled order of the test images makes with any seed."""
    stored = part[part["affinity"] == STORED].set_index("seed")["accuracy"]
    shuffled = part[(part["order"] == "shuffled") & (part["batch"] == batch)]
    return float((shuffled["accuracy"] - shuffled["seed"].map(stored)).abs().max())


def in_words(gains: pd.Series, chance: float) -> str:
    """What a reading does to accuracy; "raises" and "lowers" where each seed changes by more than `chance`."""
    if gains.abs().min() > chance and ((gains > 0).all() or (gains < 0).all()):
        verb, seeds = "raises" if gains.iloc[0] > 0 else "lowers", " in every seed" * (len(gains) > 1)
        return f"{verb} accuracy{seeds}, by {signed(gains)} points"
    return f"moves accuracy by at most {gains.abs().max():.1f} points"


def lead(readings: pd.DataFrame) -> list[str]:
    """A sentence for each network: batches of 64, sorted by class, as in the files, and shuffled."""
    said = []
    for data, network, part in networks(readings):
        rows = {
            key[1]: frame["gain in accuracy"] for key, frame in readings_of(by_seed(part)) if key[::2] == (BATCH, 64)
        }
        seeds, chance = phrases.count(part["seed"].nunique(), "seed"), by_chance(part, 64)
        parts = [f"sorted by class, the mean of a test batch of 64 {in_words(rows['sorted by class'], chance)}"]
        parts += [f"in the order of the files it {in_words(rows['order of the files'], chance)}"]
        parts += [f"shuffled, no order moves it by more than {chance:.1f} points"]
        said.append(f"`{network}` on {data} ({seeds}): {'; '.join(parts)}.")
    return said


def table(data: str, network: str, part: pd.DataFrame, number: int) -> TableBlock:
    """All readings of a network."""

    def own(row: Row) -> str:
        share = row[1]["own class"].mean()
        return phrases.UNKNOWN if np.isnan(share) else f"{100 * share:.0f} %"

    def gain(name: str, row: Row) -> str:
        return "" if row[0][0] == STORED else signed(row[1][f"gain in {name}"])

    def level(name: str, row: Row) -> str:
        return f"{row[1][name].mean():.1f}"

    columns = [
        Column("Affinity", lambda row: row[0][0], right=False),
        Column("Order", lambda row: row[0][1] if row[0][0] == BATCH else "", right=False),
        Column("Batch", lambda row: str(row[0][2]) if row[0][0] == BATCH else ""),
        Column("Own class", own),
    ]
    for name, title in (("accuracy", "Accuracy"), ("mean-class", "Mean-class accuracy"), (RARE, f"Recall of {RARE}")):
        columns += [Column(title, each(level, name)), Column("Change", each(gain, name))]
    seeds = part["seed"].nunique()
    lowest = "; after a change, in brackets, the seeds with the lowest and the highest"
    over = f"mean over {phrases.count(seeds, 'seed')}{lowest}" if seeds > 1 else "one seed"
    caption = (
        f"`{network}` on {data}, {part['images'].iloc[0]:,} test images. In %: {over}. Own class: mean share of an "
        f"image's own class in its batch. Change: in points, from the stored mean. Shuffled: mean of {SHUFFLES} orders."
    )
    return TableBlock(tabulate(columns, readings_of(by_seed(part)), caption), f"batches-{number}", f"{network}: {data}")


@figures.styled
def draw(readings: pd.DataFrame) -> Drawing:
    """Change of accuracy against the size of the test batch, a panel for each network, a line for each order."""
    shown = networks(readings)
    figure, axes = figures.new_figure(2.7 * len(shown) + 0.8, 3.3, 1, len(shown), sharey=True)
    looks = figures.looks_of(ORDERS)
    for axis, (data, network, part) in zip(axes[0], shown, strict=True):
        means = by_seed(part)
        for order in ORDERS:
            colour, marker, line = looks[order]
            rows = means[(means["affinity"] == BATCH) & (means["order"] == order)]
            of = rows.groupby("batch")["gain in accuracy"].agg(["mean", "min", "max"])
            places = [SIZES.index(size) + (ORDERS.index(order) - 1) * 0.06 for size in of.index]
            axis.vlines(places, of["min"], of["max"], color=colour, linewidth=1.2, alpha=0.6)
            axis.plot(places, of["mean"], color=colour, marker=marker, linestyle=line, markersize=5, label=order)
        axis.axhline(0, color="#333333", linewidth=1)
        axis.set_title(f"{figures.shorten(data, 38)}\n{figures.shorten(network, 38)}", fontsize=8.5)
        axis.set_xticks(range(len(SIZES)), [str(size) for size in SIZES])
        axis.set_xlabel("images in a test batch")
        axis.grid(axis="y")
    axes[0, 0].set_ylabel("accuracy, change in points")
    figures.legend(figure, axes[0, 0])
    return figure


RULE = (
    "*Raises* and *lowers* are said where every seed changes accuracy by more than any shuffled order does with any "
    f"seed ({SHUFFLES} orders a seed). With one or two seeds this is a description, not a test."
)
WHY = (
    "Behind the mean stand a pooling and a linear head. So, with the pooled mean m of a test batch (attended, where "
    "the network does that) and the stored one m̄, the logits of all its images change by αW(m − m̄): one vector for "
    "the whole batch (docs/rasn.md). It can't help to tell two images of one batch apart. It moves the decisions of a "
    "batch towards some classes, so it can only pay where a batch is filled with these, and where α is large enough."
)
FILES = (
    "The order of a data set's files decides what such a mechanism gains. FER2013's file and the built-in faces are "
    "shuffled: there, the order of the files is one more shuffle, as the column *Own class* shows. A file sorted by "
    "class would have given the rows *sorted by class*. RAF-DB's official test list is partly sorted: it ends with "
    "66 of 74 images of fear, 85 of 160 of disgust and all 680 of neutral in runs, so that in batches of 64 an image "
    "of fear meets 84 % of its own class, of disgust 46 %, of neutral 98 % (after a shuffle: 2, 5 and 22 %). ARM's "
    "recall of neutral there is 98 %. RAF-DB's images are not part of this study."
)


def page(readings: pd.DataFrame) -> Document:
    """The whole page."""
    tables = [table(*of, number) for number, of in enumerate(networks(readings), 1)]
    alt = "Change of accuracy with the mean of the test batch, against its size, by the order of the test images"
    runs = [
        f"`{network}` on {data}: "
        + ", ".join(f"seed {s} `{r}`" for r, s in part[["run", "seed"]].drop_duplicates().values)
        for data, network, part in networks(readings)
    ]
    again = "The first command needs the trained networks (`model.pt`), which published ledgers leave out."
    out = "--out test-batches"
    commands = f"{AGAIN} RUN... --home HOME {out}\n{AGAIN} --readings test-batches/readings.csv {out}"
    parts = [
        ("answer", "Answer", [Bullets(tuple(lead(readings))), RULE, WHY, FILES]),
        ("readings", "All readings", [Figure("test-batches", alt, draw(readings)), *tables]),
        ("repeat", "How to reproduce this", [Code(commands), again, "Runs:", Bullets(tuple(runs))]),
    ]
    intro = (
        "Trained networks that share a mean are read out again, with the same weights: with the mean stored in "
        "training, as `rasn` does here, and with the mean of the test batch, as ARM's code does and RASN most likely "
        "did. Only the size of the test batches and the order of the test images differ."
    )
    return Document(
        title="What sharing gains from the order of the test images",
        intro=blocks(intro),
        parts=tuple(Part(name, title, blocks(content)) for name, title, content in parts),
    )


def build(readings: pd.DataFrame, out: Path, *, force: bool = False) -> Path:
    """Write ``report.md``, ``readings.csv`` and the figure into `out`; returns the path of the page."""
    target = Target(out=out, force=force, again=f"{AGAIN} --readings {out / 'readings.csv'} --out {out}")
    check(target, ["report.md", "readings.csv"])
    with aside(target) as folder:
        text = readings.to_csv(index=False, float_format="%.4f", lineterminator="\n")
        write_text(folder / "readings.csv", text)
        document = page(read(folder / "readings.csv"))
        for figure in document.figures:
            figure_files.save(figure.drawn, folder / "figures", figure.name)
        write_text(folder / "report.md", printable(markdown.page(document)))
        move(folder, target)
    return out / "report.md"


def read(path: Path) -> pd.DataFrame:
    """Readings as they were written.

    Raises
    ------
    DataError
        The file can't be read as such a table, lacks a column, or holds text where a number belongs.
    """

    def wrong(what: str) -> DataError:
        return DataError(what, where=str(path), next=f"{AGAIN} RUN... --home HOME --out {path.parent}")

    try:
        found = pd.read_csv(path, keep_default_na=False, na_values={"own class": [""]}, dtype={"run": str})
    except (OSError, ValueError) as error:  # also an empty file, a malformed one, and other bytes than UTF-8
        raise wrong(f"the readings can't be read: {error}") from error
    numbers = ["seed", "batch", "images", "own class", "accuracy", "mean-class", RARE]
    if missing := [name for name in ("run", "data", "network", *KEYS, *numbers) if name not in found]:
        raise wrong(f"the readings have no column {phrases.listed([repr(name) for name in dict.fromkeys(missing)])}")
    if found.empty:
        raise wrong("there is no reading")
    if text := [name for name in numbers if not pd.api.types.is_numeric_dtype(found[name])]:
        raise wrong(f"the readings hold something else than numbers in {phrases.listed([repr(name) for name in text])}")
    if lacking := [name for _, name, part in networks(found) if set(part["affinity"]) != {STORED, ALONE, BATCH}]:
        raise wrong(
            f"the readings of {lacking[0]!r} are not complete: the affinity must be {STORED}, {ALONE} and {BATCH}"
        )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the networks of some runs, or readings, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN")
    parser.add_argument("--home", type=Path, action="append", help="folder of the runs; several may be given")
    parser.add_argument("--readings", type=Path, help="take these readings, and add those of the runs")
    parser.add_argument("--out", type=Path, required=True, help="folder that is written")
    parser.add_argument("--force", action="store_true", help="also replace files that this script did not write")
    given = parser.parse_args(arguments)
    if not (given.runs or given.readings):
        parser.error("name runs, or a file with --readings")
    try:
        homes = [Home(home.resolve()) for home in given.home or [Path()]]
        before = [read(given.readings)] if given.readings else []
        frame = pd.concat([*before, *(study(run, home_of(run, homes)) for run in given.runs)], ignore_index=True)
        print(f"report: {build(frame, given.out, force=given.force)}")
    except FerBenchError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
