"""``fer-bench relabel [STUDY]``: other labels of the same images, for reports to score runs against."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from fer_bench.base.quantities import plural
from fer_bench.cli.options import home_option, plugins_option

if TYPE_CHECKING:
    from fer_bench.contract.plugins import Plugins
    from fer_bench.data.store import Store
    from fer_bench.record.home import Home
    from fer_bench.record.relabelled import Relabelled
    from fer_bench.runs.executor import Workplace


@click.command()
@click.argument("study", required=False)
@click.option("--from", "source", metavar="NAME", help="Data set with the other labels  [default: all that have some]")
@plugins_option
@home_option
def relabel(study: str | None, source: str | None, plugin_dirs: tuple[str, ...], home: str | None) -> None:
    """Let reports of STUDY (default: the most recent one) score its runs against other labels of the same images.

    The data set of the study and the one with the other labels must be prepared. Their images are matched by their
    pixels. The labels go into the ledger, beside the runs: finished records stay as they are, and every report of runs
    on the same data uses them from then on. `fer-bench run` does the same, if both are prepared.
    """
    from fer_bench.base.next_command import complete
    from fer_bench.contract.plugins import plugins
    from fer_bench.data.relabel import keep_labels
    from fer_bench.record.home import Home

    place, available = Home.find(home), plugins(plugin_dirs)
    record = place.ledger.study(study)
    store, names = _scored(record, available, place), [source] if source else None
    for name in names or _candidates(record, available, place):
        other = _prepared(name, available, place)
        found, new = keep_labels(place, store, other, available.dataset_card(name))
        click.echo(f"{_described(found, record['dataset'])}{'' if new else '; they were in the ledger already'}")
    click.echo(f"next: {complete(shlex.join(['fer-bench', 'report', record['name']]), home=place.root)}")


def _scored(record: dict[str, Any], available: Plugins, place: Home) -> Store:
    """The store that the study's runs were tested on.

    Raises
    ------
    LedgerError
        The prepared data are not those of the runs.
    """
    from fer_bench.data.own_data import open_prepared
    from fer_bench.errors import FerBenchError, LedgerError

    store, _ = open_prepared(available, record["dataset"], place)
    used = set()
    for run in map(place.ledger.run, record["runs"]):
        try:
            used.add(str(run.data.get("fingerprint")))
        except (FerBenchError, AttributeError):  # a run that never began; the report says what is wrong with others
            continue
    if store.fingerprint not in used:
        raise LedgerError(
            f"the runs of '{record['name']}' are not of the data that are prepared as '{record['dataset']}'",
            where=f"fingerprint of the runs {', '.join(sorted(used)) or 'unknown'}, of the data {store.fingerprint}",
            hint="prepare the data of the runs; copies of a data set can differ in pixels or labels",
            next=f"fer-bench data prepare {record['dataset']} --from PATH",
        )
    return store


def _candidates(record: dict[str, Any], available: Plugins, place: Home) -> list[str]:
    """The data sets that label the study's images anew: those that are prepared, or all where none is.

    Raises
    ------
    DataError
        There is no such data set.
    """
    from fer_bench.errors import DataError

    names = available.relabellers(available.dataset_card(record["dataset"]).base)
    if not names:
        cards = [plugin.card for plugin in available.datasets.values()]
        known = ", ".join(f"{c.relabels.of} ({c.name})" for c in cards if c.relabels is not None)
        raise DataError(
            f"no known data set labels the images of '{record['dataset']}' anew",
            hint=f"those that one does: {known}" if known else None,
            next="fer-bench list datasets",
        )
    return [name for name in names if place.store(name).is_dir()] or names


def _prepared(name: str, available: Plugins, place: Home) -> Store:
    """The store with the other labels; the error for one that is not prepared says how to get it."""
    from fer_bench.data.own_data import open_prepared
    from fer_bench.errors import ChangedStoreError, StoreError

    try:
        return open_prepared(available, name, place)[0]
    except ChangedStoreError:
        raise
    except StoreError as error:
        hint = available.dataset_card(name).get or error.hint
        raise StoreError(error.what, where=error.where, hint=hint, next=error.next) from None


def _described(found: Relabelled, dataset: str) -> str:
    missing = found.images - len(found.rows)
    text = f"{found.name}: {len(found.rows):,} of the {found.images:,} images of {dataset} are among its own"
    text += f" ({missing:,} are not, or have copies that can't be told apart)" if missing else ""
    return f"{text}; {plural(int((found.labels >= 0).sum()), 'has a label', 'have a label')}"


def add_labels(dataset: str, work: Workplace) -> None:
    """Keep the other labels of this data set's images in the ledger, where data sets that have some are prepared.

    Nothing that goes wrong here stops a study: it is told in a warning.
    """
    from fer_bench.data.relabel import keep_labels
    from fer_bench.data.store import Store
    from fer_bench.errors import FerBenchError
    from fer_bench.runs.live import say, warn

    card = work.plugins.dataset_card(dataset)
    for name in work.plugins.relabellers(card.base):
        if not work.home.store(name).is_dir():
            continue
        try:
            stores = Store.open(work.home.store(dataset)), Store.open(work.home.store(name))
            found, new = keep_labels(work.home, *stores, work.plugins.dataset_card(name))
        except FerBenchError as error:
            warn(f"no labels from {name}: {error.what}")
            continue
        if new:
            say(f"{_described(found, dataset)}; the report scores the runs against these as well")
