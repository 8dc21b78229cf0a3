"""``fer-bench claims``: published numbers, how each was measured, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from fer_bench.reports.published import Claim

    Maker = Callable[[Sequence[Claim], dict[str, str]], Table]

PICKED = {"val": "validation", "last": "last epoch", "test-best": "the test", "none stated": "no rule", "unknown": "?"}


@click.command()
@click.option("--dataset", metavar="NAME", default="", help="Only this data set.")
@click.option("--method", metavar="TEXT", default="", help="Only methods whose name holds TEXT.")
@click.option("--all", "everything", is_flag=True, help="Quarantined numbers as well.")
@click.option("--csv", "separated", is_flag=True, help="One line a number with all fields, comma-separated.")
def claims(dataset: str, method: str, everything: bool, separated: bool) -> None:
    """Published numbers, each with its split, how its epoch was picked, its flags and its source.

    In percent; "?" where it is not known. They are not ranked, for most can't be compared with each other.
    Quarantined ones, which are not confirmed or known not to hold, are hidden unless --all is given.
    """
    from fer_bench.reports.published import as_csv, select

    found = select(dataset=dataset, method=method, include_quarantined=True)
    shown = [c for c in found if everything or not c.quarantined]
    hidden = len(found) - len(shown)
    if separated:
        click.echo(as_csv(shown), nl=False)
    else:
        _print_tables(shown)
        click.echo(f"{len(shown)} published number{'s' * (len(shown) != 1)}")
    if hidden:
        click.echo(f"{hidden} quarantined number{'s' * (hidden != 1)} hidden: --all shows them", err=separated)


def _print_tables(shown: Sequence[Claim]) -> None:
    """For each data set its scores, its recalls by class, and what is quarantined."""
    from rich.console import Console

    console = Console(highlight=False)
    for name in dict.fromkeys(c.dataset for c in shown):
        mine = [c for c in shown if c.dataset == name]
        scores = [c for c in mine if not c.quarantined and not c.by_class]
        recalls = [c for c in mine if not c.quarantined and c.by_class]
        _print(console, f"{name}: published numbers, %", scores, _score_table)
        _print(console, f"{name}: published recall of each class, %", recalls, _recall_table)
        _print(console, f"{name}: quarantined, %", [c for c in mine if c.quarantined], _score_table)


def _print(console: Console, title: str, listed: Sequence[Claim], make: Maker) -> None:
    """Print a table of claims, if there are any: on a terminal with numbered sources, elsewhere one line a row."""
    from rich import box
    from rich.text import Text

    if not listed:
        return
    sources = list(dict.fromkeys(c.source for c in listed))
    if console.is_terminal:
        table = make(listed, {source: str(number) for number, source in enumerate(sources, start=1)})
        table.title, table.title_justify, table.box = Text(title, "bold"), "left", box.SIMPLE_HEAD
        console.print(table)
        for number, source in enumerate(sources, start=1):
            console.print(Text(f" {number:>3}  {source}", "dim"))
        console.print()
        return
    console.width = 1000
    with console.capture() as captured:
        console.print(make(listed, {source: source for source in sources}))
    click.echo("\n".join([title, *(line.rstrip() for line in captured.get().splitlines()), ""]))


def _table(*columns: str, numbers: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in columns:
        right = name in numbers
        table.add_column(name, justify="right" if right else "left", no_wrap=right, overflow="fold")
    return table


def _score_table(listed: Sequence[Claim], sources: dict[str, str]) -> Table:
    from rich.text import Text

    table = _table("method", "%", "metric", "measured on", "picked by", "flags", "tag", "source", numbers=["%"])
    for c in listed:
        row = (c.method, c.text, c.metric.replace("_", " "), c.split or "?", *_origin(c, sources))
        table.add_row(*map(Text, row))
    return table


def _recall_table(listed: Sequence[Claim], sources: dict[str, str]) -> Table:
    """One row an entry; the classes in the order in which they occur first."""
    from rich.text import Text

    metrics = list(dict.fromkeys(c.metric for c in listed))
    names = [metric.partition(":")[2] for metric in metrics]
    table = _table("method", *names, "picked by", "flags", "tag", "source", numbers=names)
    for entry in dict.fromkeys(c.entry for c in listed):
        found = {c.metric: c for c in listed if c.entry == entry}
        first = next(iter(found.values()))
        row = (first.method, *(found[m].text if m in found else "" for m in metrics), *_origin(first, sources))
        table.add_row(*map(Text, row))
    return table


def _origin(claim: Claim, sources: dict[str, str]) -> tuple[str, str, str, str]:
    return PICKED[claim.selection], ", ".join(claim.flags), claim.tag, sources[claim.source]
