"""``fer-bench data fetch``: download the source files of a data set, if its licence allows it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from fer_bench.cli.options import home_option, plugins_option

if TYPE_CHECKING:
    from fer_bench.fetching.download import Tick
    from fer_bench.fetching.fetch import Meter


@click.command()
@click.argument("name")
@plugins_option
@home_option
def fetch(name: str, plugin_dirs: tuple[str, ...], home: str | None) -> None:
    """Download the source files of NAME.

    If the licence does not allow that, the error says how to obtain them.
    """
    from fer_bench.contract.plugins import plugins
    from fer_bench.record.home import Home

    card = plugins(plugin_dirs).dataset_card(name)
    from fer_bench.fetching.fetch import fetch  # imported after the name is checked: it takes a second

    fetch(Home.find(home), card, say=click.echo, meter=_meter())


def _meter() -> Meter:
    """A progress bar with bytes, speed and remaining time on a terminal; otherwise silent."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from fer_bench.fetching.fetch import silent

    console = Console(stderr=True)
    if not console.is_terminal:
        return silent

    @contextlib.contextmanager
    def bar_of(name: str) -> Iterator[Tick]:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), DownloadColumn())
        with Progress(*columns, TransferSpeedColumn(), TimeRemainingColumn(), console=console, transient=True) as bar:
            task = bar.add_task(name, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    return bar_of
