"""``fer-bench show``: the card of a method or data set, read without importing torch."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable
from typing import Any

import click

from fer_bench.base.next_command import complete
from fer_bench.cli.columns import table
from fer_bench.cli.method_card import arms_of, commands_of, cost_in_words, default_of, facts_of, space_in_words
from fer_bench.cli.options import plugins_option
from fer_bench.contract.cards import DatasetCard, MethodCard
from fer_bench.contract.costs import cost_of, how_measured
from fer_bench.contract.plugins import Plugin, Plugins, plugins
from fer_bench.printable import printable

MOST = 120  # columns of folded text


@click.command()
@click.argument("name")
@plugins_option
def show(name: str, plugin_dirs: tuple[str, ...]) -> None:
    """Show the card of a method or data set.

    A method's card says where it comes from, what it changes, how it deviates from its paper, its parameters with the
    source of their defaults, the arms of its ablation, what a step costs, and the commands that run and tune it.
    """
    available = plugins(plugin_dirs)
    plugin = available.plugin(name)
    if plugin.kind == "methods":
        _show_method(plugin, available)
    else:
        _show_dataset(plugin.card)
        _show_relabellers(available, name)


def _show_method(plugin: Plugin[MethodCard], available: Plugins) -> None:
    card = plugin.card
    click.secho(f"{card.name}: {card.title}", bold=True)
    cost = cost_in_words(plugin)
    measured = cost_of(plugin) is not None
    how = f"; {how_measured(plugin)}" * measured
    _folded([*facts_of(card), ("cost", f"{cost}{how}" if cost else "not measured")])
    _show_params(card)
    if card.arms:
        click.echo("\narms of its ablation")
        _folded((f"  {name}", text) for name, text in arms_of(card))
    click.echo("")
    for what, command in commands_of(card, available, measured=bool(cost)):
        click.echo(f"to {what.ljust(9)}{complete(command, plugins=available.folders)}")


def _folded(rows: Iterable[tuple[str, str]]) -> None:
    """Print rows of a word and a text; the text is folded at the width of the terminal, and stands in a column."""
    rows = [(word, printable(text)) for word, text in rows]
    column = max(len(word) for word, _ in rows) + 2
    for word, text in rows:
        click.echo("\n".join(_fold(text, word.ljust(column), " " * column)))


def _fold(text: str, first: str, then: str) -> list[str]:
    width = min(MOST, shutil.get_terminal_size((MOST, 0)).columns)
    wrapper = textwrap.TextWrapper(
        max(width, 40), initial_indent=first, subsequent_indent=then, break_long_words=False, break_on_hyphens=False
    )
    return wrapper.wrap(text)


def _show_params(card: MethodCard | DatasetCard) -> None:
    if not card.params:
        return
    click.echo("\nparameters")
    for name, param in card.params.items():
        tuned = f"  tuned over {space_in_words(param.space)}" if param.space else ""
        click.echo(printable(f"  {name} = {default_of(param)}{tuned}"))
        click.echo("\n".join(_fold(printable(param.help), " " * 6, " " * 6)))


def _show_relabellers(available: Plugins, name: str) -> None:
    for other in available.relabellers(name):
        click.echo(f"\n{other} labels the same images anew: once it is prepared, fer-bench relabel STUDY has")
        click.echo(f"reports score runs on {name} against its labels as well")


def _show_dataset(card: Any) -> None:
    click.secho(f"{card.name}: {card.title}", bold=True)
    table((n, getattr(card, n)) for n in ("paper", "url", "licence", "image", "get") if getattr(card, n))
    click.echo("\nlayouts")
    table((f"  {n}", text) for n, text in card.layouts.items())
    click.echo("\nprotocols")
    for p in (*card.protocols, card.cleaned()):
        mark = f"\n      WATERMARKED: {p.watermark}" if p.watermark else ""
        title = f"\n      {p.title}" if p.title not in ("", p.in_words) else ""
        click.echo(f"  {card.full_name(p)}: {p.in_words}{title}{mark}")
    if card.counts:
        click.echo("\nimages per class")
        table([("  split", *card.classes), *((f"  {s}", *map(str, n)) for s, n in card.counts.items())])
    _show_params(card)
