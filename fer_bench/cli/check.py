"""``fer-bench data check NAME``: the data set doctor, in the terminal and as a page."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fer_bench.cli.options import force_option, home_option, plugins_option
from fer_bench.harmless import shown

if TYPE_CHECKING:
    from rich.console import Console

    from fer_bench.dataset import Dataset
    from fer_bench.doctor import Diagnosis
    from fer_bench.home import Home
    from fer_bench.store import Store

COLOURS = {"error": "bold red", "warning": "yellow", "note": "dim"}


@click.command("check")
@click.argument("name")
@click.option("--from", "source", type=click.Path(), help="Examine these files  [default: the prepared store]")
@click.option("--out", metavar="DIR", help="Folder of the page  [default: HOME/results/doctor/NAME]")
@force_option
@click.option("--no-images", is_flag=True, help="Show no image of the data set on the page.")
@click.option("--strict", is_flag=True, help="Exit with 1 if there is an error among the findings.")
@click.option("--dataset-set", multiple=True, metavar="NAME=VALUE", help="A parameter of the data set; repeatable.")
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
    """Examine NAME: counts, label order, duplicates, people, sequences, images, balance; write a clean manifest."""
    from rich.console import Console

    from fer_bench.clean import NAME, clean_text, save_clean
    from fer_bench.doctor import examine
    from fer_bench.home import Home
    from fer_bench.plugins import plugins
    from fer_bench.recipe import parse_assignments
    from fer_bench.reports.doctor_page import PAGE, write_page
    from fer_bench.reports.folder import CHECK, Target
    from fer_bench.reports.folder import check as look_through

    dataset = plugins(plugin_dirs).dataset(
        name, parse_assignments(dataset_set, "--dataset-set"), lenient=source is not None
    )
    place = Home.find(home)
    folder = Path(out) if out else place.results("doctor") / name
    words = ["fer-bench", "data", "check", name, "--home", str(place.root), "--out", str(folder)]
    words += ["--from", source] if source else []
    words += [w for path in plugin_dirs for w in ("--plugins", path)]
    words += [w for given in dataset_set for w in ("--dataset-set", given)] + ["--no-images"] * no_images
    own = folder.resolve().is_relative_to(place.results(""))
    target = Target(out=folder, kept=CHECK, own=own, force=force, again=shlex.join(words))
    look_through(target, [PAGE, *([NAME] if source else [])])
    console = Console(highlight=False, soft_wrap=True)
    with _store(place, dataset, source, drawn_anew=bool(dataset_set)) as store:
        click.echo(f"{name}: examining {len(store):,} images")
        diagnosis = examine(store, dataset.card, faults=dataset.faults)
        more = {NAME: clean_text(diagnosis.dropped)} if source else {}
        page = write_page(diagnosis, store, dataset.card, target, images=not no_images, more=more)
        derived = place.splits(store.path.name, store.fingerprint)
        clean = folder / NAME if source else save_clean(derived, diagnosis.dropped)
    _tell(diagnosis, console)
    console.print(f"page:   {page}", markup=False)
    console.print(f"clean:  {clean} leaves out {len(diagnosis.dropped):,} rows", markup=False)
    if strict and diagnosis.number("error"):
        raise SystemExit(1)


@contextmanager
def _store(home: Home, dataset: Dataset, source: str | None, *, drawn_anew: bool) -> Iterator[Store]:
    """The store to examine; one made from `source` lasts as long as the block, and the home's is left alone."""
    from fer_bench.errors import SpecError
    from fer_bench.prepare import ensure_store
    from fer_bench.scratch import scratch
    from fer_bench.store import Store

    name, built_in = dataset.card.name, dataset.card.built_in
    if source is not None:
        with scratch() as folder:
            yield _read(folder, dataset, Path(source).expanduser())
    elif built_in and (drawn_anew or not (home.data / name).exists()):
        yield ensure_store(home, dataset, say=click.echo)
    elif drawn_anew:
        again = f"fer-bench data check {name} --from PATH --dataset-set NAME=VALUE"
        raise SpecError("--dataset-set goes with --from: a prepared store is examined as it is", next=again)
    else:
        yield Store.open(home.data / name)


def _read(folder: Path, dataset: Dataset, source: Path) -> Store:
    from fer_bench.errors import DataError
    from fer_bench.store import write_store

    if not source.exists():
        raise DataError("the source does not exist", where=str(source), hint=dataset.card.get or None)
    reading = dataset.read(source)
    click.echo(f"{dataset.card.name}: recognised {reading.layout}: {reading.said}")
    return write_store(root=folder, card=dataset.card, reading=reading, params=dataset.params)


def _tell(diagnosis: Diagnosis, console: Console) -> None:
    from rich.text import Text

    for finding in diagnosis.findings:
        style = COLOURS[finding.level]
        console.print(Text.assemble((f"{finding.level:8}", style), shown(finding.title)))
        for line in finding.detail:
            console.print(Text(shown(f"{'':10}{line}"), style="dim"))
    colour = next((COLOURS[k] for k in ("error", "warning") if diagnosis.number(k)), "green")
    console.print(Text(f"verdict: {diagnosis.verdict}", style=colour))
