"""``fer-bench data check NAME``: the data set doctor, with findings in the terminal and as a page."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fer_bench.cli.options import force_option, home_option, plugins_option
from fer_bench.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from fer_bench.contract.dataset import Dataset
    from fer_bench.data.store import Store
    from fer_bench.doctor.examine import Diagnosis
    from fer_bench.record.home import Home

COLOURS = {"error": "bold red", "warning": "yellow", "note": "dim"}


@click.command("check")
@click.argument("name")
@click.option("--from", "source", type=click.Path(), help="Check these files  [default: the prepared store]")
@click.option("--out", metavar="DIR", help="Output folder of the page  [default: HOME/results/doctor/NAME]")
@force_option
@click.option("--no-images", is_flag=True, help="Do not include images of the data set in the page.")
@click.option("--strict", is_flag=True, help="Exit with code 1 if any finding is an error.")
@click.option("--dataset-set", multiple=True, metavar="NAME=VALUE", help="Parameter of the data set; repeatable.")
@plugins_option
@home_option
def check(
    name: str,
    source: str | None,
    out: str | None,
    force: bool,
    no_images: bool,
    strict: bool,
    dataset_set: tuple[str, ...],
    plugin_dirs: tuple[str, ...],
    home: str | None,
) -> None:
    """Check NAME for problems.

    Checks counts, label order, duplicates, subjects, sequences, images and class balance. Also writes the clean
    manifest: the rows that protocols ending in -dedup leave out.
    """
    from fer_bench.base.names import locate
    from fer_bench.contract.plugins import plugins
    from fer_bench.data.own_data import dataset_card
    from fer_bench.record.home import Home, require_writable
    from fer_bench.training.recipe import parse_assignments

    available, place = plugins(plugin_dirs), Home.find(home)
    dataset_card(available, name, place, source, typed=sys.argv[1:])
    dataset = available.dataset(name, parse_assignments(dataset_set, "--dataset-set"), lenient=source is not None)
    dataset.source, dataset.options = source, place.options

    from rich.console import Console  # imported after the names are checked: it takes a second

    from fer_bench.cli.progress import Steps
    from fer_bench.data.clean_manifest import NAME, clean_text
    from fer_bench.doctor.examine import examine
    from fer_bench.reports.pages.doctor import PAGE, WEB_PAGE, write_page
    from fer_bench.reports.render import page_folder

    folder = Path(out) if out else locate(place.results("doctor"), name)
    typed = ["fer-bench", "data", "check", name, "--home", str(place.root), "--out", str(folder)]
    repeated = [("--from", source)] if source else []
    repeated += [("--plugins", path) for path in plugin_dirs] + [("--dataset-set", given) for given in dataset_set]
    again = shlex.join([*typed, *(word for pair in repeated for word in pair), *["--no-images"] * no_images])
    own = folder.resolve().is_relative_to(place.root / "results")
    target = page_folder.Target(out=folder, kept=page_folder.CHECK, own=own, force=force, again=again)
    page_folder.check(target, [PAGE, WEB_PAGE, *([NAME] if source else [])])
    require_writable(folder, "the output folder", "choose another with --out DIR")
    if source is None:
        place.require_writable()
    with _store(place, dataset, source, redrawn=bool(dataset_set)) as store:
        click.echo(f"{name}: checking {len(store):,} images")
        with Steps(name) as steps:
            diagnosis = examine(store, dataset.card, faults=dataset.faults, progress=steps)
        more = {NAME: clean_text(diagnosis.dropped)} if source else {}
        page = write_page(diagnosis, store, dataset.card, target, images=not no_images, more=more)
        splits = place.splits(store.path.name, store.fingerprint)
        clean = folder / NAME if source else diagnosis.save(splits)
    console = Console(highlight=False, soft_wrap=True)
    _print_findings(diagnosis, console)
    _print_remedy(dataset, store, console)
    _print_files(diagnosis, page, clean, console)
    if strict and diagnosis.number("error"):
        raise SystemExit(1)


def _print_files(diagnosis: Diagnosis, page: Path, clean: Path, console: Console) -> None:
    console.print(f"page:   {page.with_name('index.html')} (as Markdown: {page.name})", markup=False)
    console.print(f"clean:  {clean} leaves out {len(diagnosis.dropped):,} rows", markup=False)


@contextmanager
def _store(home: Home, dataset: Dataset, source: str | None, *, redrawn: bool) -> Iterator[Store]:
    """The store to check; one made from `source` is temporary, and the store in the home is not touched."""
    from fer_bench.base.scratch import scratch
    from fer_bench.contract.plugins import plugins
    from fer_bench.data.own_data import open_prepared
    from fer_bench.data.prepare import ensure_store
    from fer_bench.errors import SpecError

    name, built_in = dataset.card.name, dataset.card.built_in
    if source is not None:
        with scratch() as folder:
            yield _read(folder, dataset, Path(source).expanduser())
    elif built_in and (redrawn or not home.store(name).exists()):
        yield ensure_store(home, dataset, say=click.echo)
    elif redrawn:
        again = f"fer-bench data check {name} --from PATH --dataset-set NAME=VALUE"
        raise SpecError("--dataset-set needs --from: a prepared store is checked as it is", next=again)
    else:
        yield open_prepared(plugins(dataset.plugin_dirs), name, home)[0]


def _read(folder: Path, dataset: Dataset, source: Path) -> Store:
    from fer_bench.data.store import write_store
    from fer_bench.errors import DataError

    if not source.exists():
        raise DataError("the source does not exist", where=str(source), hint=dataset.card.get or None)
    reading = dataset.read(source)
    click.echo(f"{dataset.card.name}: recognised {reading.layout}: {reading.summary}")
    return write_store(root=folder, card=dataset.card, reading=reading, params=dataset.params)


def _print_remedy(dataset: Dataset, store: Store, console: Console) -> None:
    """Print the command that reads the labels in the better order, if there is one."""
    from fer_bench.data.label_order import PARAMETER, suspicion

    wrong = suspicion(dataset.card, store.manifest)
    if wrong and wrong.order:
        dataset.params = {**dataset.params, **store.manifest["params"]}
        source = dataset.source or store.manifest.get("from")
        console.print(f"next:   {dataset.command('prepare', source, **{PARAMETER: wrong.order})}", markup=False)


def _print_findings(diagnosis: Diagnosis, console: Console) -> None:
    from rich.text import Text

    for finding in diagnosis.findings:
        style = COLOURS[finding.level]
        console.print(Text.assemble((f"{finding.level:8}", style), printable(finding.title)))
        for line in finding.detail:
            console.print(Text(printable(f"{'':10}{line}"), style="dim"))
    colour = next((COLOURS[k] for k in ("error", "warning") if diagnosis.number(k)), "green")
    console.print(Text(f"verdict: {diagnosis.verdict}", style=colour))
