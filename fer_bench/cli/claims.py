"""``fer-bench claims``: published numbers, how each was measured, and its known problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from fer_bench.base.quantities import plural

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from fer_bench.reports.claims.published import Claim

    Maker = Callable[[Sequence[Claim], dict[str, str]], "Sheet"]

PICKED = {"val": "validation", "last": "last epoch", "test-best": "the test", "none stated": "no rule", "unknown": "?"}
ORIGIN = ("measured on", "picked by", "flags", "tag", "source")


@click.command()
@click.option("--dataset", metavar="NAME", default="", help="Only this data set.")
@click.option("--method", metavar="TEXT", default="", help="Only methods whose name contains TEXT.")
@click.option("--all", "everything", is_flag=True, help="Also show quarantined numbers.")
@click.option("--csv", "separated", is_flag=True, help="Print all fields as CSV, one line per number.")
def claims(dataset: str, method: str, everything: bool, separated: bool) -> None:
    """List published numbers with their split, how the epoch was selected, flags and source.

    Numbers are in percent; "?" means unknown. They are not ranked, because most are not comparable. Quarantined
    numbers (unconfirmed or known to be wrong) are hidden unless --all is given. Flags and tags are explained below the
    tables.
    """
    from fer_bench.reports.claims.published import as_csv, select

    matches = select(dataset=dataset, method=method, include_quarantined=True)
    listed = [c for c in matches if everything or not c.quarantined]
    hidden = len(matches) - len(listed)
    if separated:
        click.echo(as_csv(listed), nl=False)
    else:
        _print_tables(listed)
        _print_legend(listed)
        click.echo(plural(len(listed), "published number"))
    if hidden:
        click.echo(f"{plural(hidden, 'quarantined number')} hidden (see --all)", err=separated)


def _print_tables(listed: Sequence[Claim]) -> None:
    """For each data set: scores, recalls by class, and quarantined numbers."""
    from rich.console import Console

    console = Console(highlight=False)
    for name in dict.fromkeys(c.dataset for c in listed):
        mine = [c for c in listed if c.dataset == name]
        scores = [c for c in mine if not c.quarantined and not c.by_class]
        recalls = [c for c in mine if not c.quarantined and c.by_class]
        _print(console, f"{name}: published numbers, %", scores, _scores)
        _print(console, f"{name}: published recall of each class, %", recalls, _recalls)
        _print(console, f"{name}: quarantined, %", [c for c in mine if c.quarantined], _scores)


def _print_legend(listed: Sequence[Claim]) -> None:
    """Explain the tags and flags that occur."""
    from fer_bench.reports.claims.published import FLAGS, TAGS

    tags, flags = {c.tag for c in listed}, {f for c in listed for f in c.flags}
    legend = {"tags": {k: v for k, v in TAGS.items() if k in tags}}
    legend['flags ("theirs" is the published number)'] = {k: v.words for k, v in FLAGS.items() if k in flags}
    for title, words in legend.items():
        if words:
            width = max(map(len, words))
            click.echo("\n".join([title, *(f"  {name:<{width}}  {meaning}" for name, meaning in words.items()), ""]))


@dataclass(frozen=True)
class Sheet:
    """Rows of (method, numbers, details), and the names of the number and detail columns."""

    numbers: Sequence[str]
    details: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str], Sequence[str]]]


def _print(console: Console, title: str, listed: Sequence[Claim], make: Maker) -> None:
    """Print a table of claims, if any: with numbered sources on a terminal, otherwise one line per row."""
    from rich import box
    from rich.text import Text

    if not listed:
        return
    sources = list(dict.fromkeys(c.source for c in listed))
    spelled = make(listed, {source: source for source in sources})
    if console.is_terminal:
        numbered = make(listed, {source: str(number) for number, source in enumerate(sources, start=1)})
        table, below = _wide(numbered), sources
        table.box = box.SIMPLE_HEAD
        if console.measure(table, options=console.options.update(width=1000)).maximum > console.width:
            table, below = (_stacked(numbered), sources) if len(numbered.numbers) == 1 else _noted(spelled)
            table.box = box.SIMPLE_HEAD
        table.title, table.title_justify = Text(title, "bold"), "left"
        console.print(table)
        for number, line in enumerate(below, start=1):
            console.print(Text(f" {number:>3}  {line}", "dim"))
        console.print()
        return
    console.width = 1000
    with console.capture() as captured:
        console.print(_wide(spelled))
    click.echo("\n".join([title, *(line.rstrip() for line in captured.get().splitlines()), ""]))


def _wide(sheet: Sheet) -> Table:
    """A table with a column for everything."""
    from rich.text import Text

    table = _table("method", *sheet.numbers, *sheet.details, numbers=sheet.numbers)
    for method, numbers, details in sheet.rows:
        table.add_row(*map(Text, (method, *numbers, *details)))
    return table


def _stacked(sheet: Sheet) -> Table:
    """A table with the details below the method, for a terminal too narrow for their columns."""
    from rich.text import Text

    table = _table(*sheet.numbers, "method", numbers=sheet.numbers)
    for method, numbers, details in sheet.rows:
        table.add_row(*map(Text, numbers), Text.assemble(method, "\n", (_details(sheet, details), "dim")))
    return table


def _noted(sheet: Sheet) -> tuple[Table, list[str]]:
    """A table with the details as numbered notes, for many number columns on a narrow terminal."""
    from rich.text import Text

    notes = list(dict.fromkeys(_details(sheet, details) for _, _, details in sheet.rows))
    table = _table("method", *sheet.numbers, "note", numbers=(*sheet.numbers, "note"))
    table.padding = (0, 1, 0, 0)
    for method, numbers, details in sheet.rows:
        table.add_row(*map(Text, (method, *numbers, str(notes.index(_details(sheet, details)) + 1))))
    return table, notes


def _details(sheet: Sheet, details: Sequence[str]) -> str:
    return "; ".join(f"{name} {value}" for name, value in zip(sheet.details, details, strict=True) if value)


def _table(*columns: str, numbers: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in columns:
        right = name in numbers
        table.add_column(name, justify="right" if right else "left", no_wrap=right, overflow="fold")
    return table


def _scores(listed: Sequence[Claim], sources: dict[str, str]) -> Sheet:
    rows = [(c.method, [c.text], [c.metric.replace("_", " "), *_origin(c, sources)]) for c in listed]
    return Sheet(["%"], ["metric", *ORIGIN], rows)


def _recalls(listed: Sequence[Claim], sources: dict[str, str]) -> Sheet:
    """One row per entry; classes in order of first appearance."""
    metrics = list(dict.fromkeys(c.metric for c in listed))
    rows = []
    for entry in dict.fromkeys(c.entry for c in listed):
        by_metric = {c.metric: c for c in listed if c.entry == entry}
        first = next(iter(by_metric.values()))
        numbers = [by_metric[m].text if m in by_metric else "" for m in metrics]
        rows.append((first.method, numbers, _origin(first, sources)))
    return Sheet([metric.partition(":")[2] for metric in metrics], ORIGIN, rows)


def _origin(claim: Claim, sources: dict[str, str]) -> tuple[str, ...]:
    """Values of the columns :data:`ORIGIN`."""
    where = claim.split or "?"
    where += f", {claim.classes} classes" if claim.classes else ""
    return where, PICKED[claim.selection], ", ".join(claim.flags), claim.tag, sources[claim.source]
