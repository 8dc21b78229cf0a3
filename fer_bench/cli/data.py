"""``fer-bench data``: prepare a store, print its statistics, draw a contact sheet; adds ``fetch`` and ``check``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from fer_bench.base.quantities import plural
from fer_bench.cli.data_check import check
from fer_bench.cli.data_fetch import fetch
from fer_bench.cli.group import Group
from fer_bench.cli.options import check_new, home_option, number_option, plugins_option, replace_option
from fer_bench.printable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from fer_bench.contract.cards import DatasetCard
    from fer_bench.data.store import Store


@click.group(cls=Group)
def data() -> None:
    """Download, prepare, check and inspect data sets."""


@data.command()
@click.argument("name")
@click.option("--from", "source", type=click.Path(), help="Source file or folder  [default: HOME/data/raw/NAME]")
@click.option("--force", is_flag=True, help="Rewrite the store even if nothing has changed.")
@click.option("--dataset-set", multiple=True, metavar="NAME=VALUE", help="Parameter of the data set; repeatable.")
@plugins_option
@home_option
def prepare(
    name: str,
    source: str | None,
    force: bool,
    dataset_set: tuple[str, ...],
    plugin_dirs: tuple[str, ...],
    home: str | None,
) -> None:
    """Convert source files to a prepared store.

    Training reads only the store. The source may have any layout that `fer-bench show NAME` lists.
    """
    from fer_bench.contract.plugins import plugins
    from fer_bench.data.own_data import dataset_card
    from fer_bench.data.prepare import prepare
    from fer_bench.record.home import Home
    from fer_bench.training.recipe import parse_assignments

    available, place = plugins(plugin_dirs), Home.find(home)
    dataset_card(available, name, place, source)
    dataset = available.dataset(name, parse_assignments(dataset_set, "--dataset-set"))
    place.require_writable()
    prepare(place, dataset, source, force=force, say=lambda line: click.echo(printable(line)))


@data.command()
@click.argument("name")
@plugins_option
@home_option
def stats(name: str, plugin_dirs: tuple[str, ...], home: str | None) -> None:
    """Print statistics of a prepared store.

    Shows counts by split and class, imbalance, duplicates, image size and layout.
    """
    from fer_bench.contract.plugins import plugins
    from fer_bench.data.own_data import open_prepared
    from fer_bench.data.store import duplicates
    from fer_bench.record.home import Home

    store, card = open_prepared(plugins(plugin_dirs), name, Home.find(home), sys.argv[1:])
    from rich.console import Console

    console, copies = Console(highlight=False, soft_wrap=True), duplicates(store)
    console.print(_counts_table(store, copies))
    _print_facts(store, copies, console)
    _print_labels(store, card, console)


@data.command()
@click.argument("name")
@click.option("--out", type=click.Path(dir_okay=False), required=True, help="PNG file to write.")
@replace_option
@number_option("--per-class", int, 1, 200, "Images per class.", default=8)
@click.option("--split", metavar="NAME", help="Use only this split.")
@number_option("--seed", int, 0, 2**31 - 1, "Seed of the random choice.", default=0)
@plugins_option
@home_option
def show(
    name: str,
    out: str,
    force: bool,
    per_class: int,
    split: str | None,
    seed: int,
    plugin_dirs: tuple[str, ...],
    home: str | None,
) -> None:
    """Draw a contact sheet of sample images."""
    check_new(out, force=force)
    from fer_bench.contract.plugins import plugins
    from fer_bench.data.contact_sheet import contact_sheet
    from fer_bench.data.own_data import open_prepared
    from fer_bench.record.home import Home

    store, _ = open_prepared(plugins(plugin_dirs), name, Home.find(home), sys.argv[1:])
    rows = contact_sheet(store, out, per_class, split, seed)
    click.echo(f"{name}: {len(rows)} images of {len(store.classes)} classes written to {out}")


def _print_labels(store: Store, card: DatasetCard | None, console: Console) -> None:
    from fer_bench.data.label_order import describe_mapping, suspicion

    console.print(f"labels       read as {describe_mapping(store.manifest)}", markup=False)
    wrong = suspicion(card, store.manifest) if card and not card.built_in else None
    for line in (f"WARNING: {wrong.title}", *wrong.lines) if wrong else ():
        console.print(f"             {line}", markup=False)


def _counts_table(store: Store, copies: dict[str, Any]) -> Table:
    from rich.table import Table
    from rich.text import Text

    repeated = copies["by_split"]
    columns = {split: store.manifest["counts"][split] for split in repeated}
    table = Table(title=Text(f"{store.manifest['dataset']}: images by class and split"))
    table.add_column("")
    for split in [*columns, "all"]:
        table.add_column(Text(printable(split)), justify="right")
    for label, name in enumerate(store.classes):
        row = [counts[label] for counts in columns.values()]
        table.add_row(Text(printable(name)), *map(str, row), str(sum(row)))
    table.add_section()
    table.add_row("labelled", *(str(sum(c)) for c in columns.values()), str(sum(map(sum, columns.values()))))
    together = [sum(row) for row in zip(*columns.values(), strict=True)]
    table.add_row("largest/rarest", *map(_ratio, columns.values()), _ratio(together))
    table.add_row("repeated", *(str(n) for n in repeated.values()), str(len(store) - copies["distinct"]))
    return table


def _ratio(counts: list[int]) -> str:
    return f"{max(counts) / min(counts):.2f}" if min(counts) else "empty class"


def _print_facts(store: Store, copies: dict[str, Any], console: Console) -> None:
    manifest, checks = store.manifest, store.manifest.get("checks", {})
    size = sum(manifest["sizes"].values()) / 1e6
    distinct, groups = f"{copies['distinct']:,} distinct", plural(copies["groups"], "group")
    console.print(f"images       {len(store):,}, {distinct} (repeated: identical to an earlier image)")
    console.print(f"duplicates   {groups}, {copies['conflicting']:,} of them with conflicting labels")
    for (one, other), rows in copies["across"].items():
        images = plural(rows, f"image of {other} also occurs", f"images of {other} also occur")
        console.print(printable(f"             {images} in {one}"), markup=False)
    console.print(f"shape        {'x'.join(map(str, store.shape))} uint8, {size:.1f} MB on disk")
    console.print(f"layout       {manifest['layout']}: {printable(manifest['said'])}", markup=False)
    console.print(f"fingerprint  {store.fingerprint}")
    console.print(f"store        {store.path}", markup=False)
    verdict = {"match": "match the card", "differ": "DIFFER from the card"}
    console.print(f"counts       {verdict.get(checks.get('counts'), 'the card has no counts')}")
    for line in checks.get("differences", []):
        console.print(printable(f"             {line}"), markup=False)


data.add_command(fetch)
data.add_command(check)
