"""``fer-bench list`` and ``fer-bench show``: what is available, read from cards without importing torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from fer_bench.cli.columns import table
from fer_bench.cli.options import home_option, plugins_option
from fer_bench.contract.cards import FAMILIES, MethodCard
from fer_bench.contract.params import Choice, Scale, Space, in_words
from fer_bench.contract.plugins import Plugins, plugins
from fer_bench.errors import FerBenchError, unknown

FILTERS = ("method", "dataset", "study", "status")


def _methods(available: Plugins, options: dict[str, Any]) -> None:
    families = list(FAMILIES)
    cards = sorted((p.card for p in available.methods.values()), key=lambda c: (families.index(c.family), c.name))
    table((c.name, c.family, c.tier, c.title) for c in cards)


def _datasets(available: Plugins, options: dict[str, Any]) -> None:
    table((n, p.card.title) for n, p in sorted(available.datasets.items()))


def _protocols(available: Plugins, options: dict[str, Any]) -> None:
    cards = [p.card for _, p in sorted(available.datasets.items())]
    pairs = [(c, p) for c in cards for p in (*c.protocols, c.cleaned())]
    marks = [f"WATERMARKED: {p.watermark}" if p.watermark else "" for _, p in pairs]
    table((c.full_name(p), p.title or p.in_words, mark) for (c, p), mark in zip(pairs, marks, strict=True))
    click.echo("\nNAME-dedup is protocol NAME without duplicates and other rejected rows (see fer-bench data check)")


def _recipes(available: Plugins, options: dict[str, Any]) -> None:
    from fer_bench.training.recipe import PRESETS, Recipe

    table((name, f"{preset.title} ({preset.backbone})") for name, preset in PRESETS.items())
    click.echo("\nrecipe fields (--set NAME=VALUE), with defaults and accepted values")
    table((f"  {name}", param.default, param.accepts, param.help) for name, param in Recipe.options().items())


def _backbones(available: Plugins, options: dict[str, Any]) -> None:
    from fer_bench.contract.backbone_names import backbone_names

    click.echo("\n".join(backbone_names(options["pattern"])))


def _runs(available: Plugins, options: dict[str, Any]) -> None:
    from fer_bench.cli.list_runs import list_runs
    from fer_bench.record.home import Home

    list_runs(Home.find(options["home"]).ledger, {name: options[name] for name in FILTERS})


def _studies(available: Plugins, options: dict[str, Any]) -> None:
    from fer_bench.record.home import Home

    ledger = Home.find(options["home"]).ledger
    rows = []
    for name in ledger.studies():
        try:
            study = ledger.study(name)
            rows.append((name, f"{len(study['runs'])} runs", study.get("command", "")))
        except FerBenchError as error:
            rows.append((name, "unreadable", error.what))
    table(rows)


LISTS: dict[str, Callable[[Plugins, dict[str, Any]], None]] = {
    "methods": _methods,
    "datasets": _datasets,
    "protocols": _protocols,
    "recipes": _recipes,
    "backbones": _backbones,
    "runs": _runs,
    "studies": _studies,
}


@click.command("list")
@click.argument("what", default="methods", metavar="[methods|datasets|protocols|recipes|backbones|runs|studies]")
@click.argument("pattern", default="")
@click.option("--method", metavar="NAME", help="Only runs of this method, or of one variant: 'NAME[PARAMETER=VALUE]'.")
@click.option("--dataset", metavar="NAME", help="Only runs on this data set.")
@click.option("--study", metavar="NAME", help="Only runs of this study.")
@click.option("--status", metavar="STATUS", help="Only runs with this status: finished, failed, unfinished or pruned.")
@plugins_option
@home_option
def list_(what: str, pattern: str, plugin_dirs: tuple[str, ...], home: str | None, **filters: str | None) -> None:
    """List what is available (default: methods).

    PATTERN filters backbones:

    \b
    fer-bench list backbones 'resnet18*'

    The list of runs shows the validation score by which the epoch was selected, and that epoch's test scores. Filter it
    with --method, --dataset, --study and --status.
    """
    if what not in LISTS:
        raise unknown("list", what, LISTS, next="fer-bench list methods")
    given = [name for name in FILTERS if filters[name] is not None]
    if given and what != "runs":
        raise click.UsageError(f"--{given[0]} applies to the list of runs: fer-bench list runs --{given[0]} ...")
    available = plugins(plugin_dirs)
    LISTS[what](available, {"pattern": pattern, "home": home, **filters})
    warn_of_broken(available)


def warn_of_broken(available: Plugins) -> None:
    """Print a warning for every plug-in that was skipped."""
    for error in available.broken:
        click.secho(f"skipped a broken plug-in: {error.where}: {error.what}", fg="yellow", err=True)


@click.command()
@click.argument("name")
@plugins_option
def show(name: str, plugin_dirs: tuple[str, ...]) -> None:
    """Show the card of a method or data set."""
    available = plugins(plugin_dirs)
    if name in available.methods:
        _show_method(available.methods[name].card)
    elif name in available.datasets:
        _show_dataset(available.datasets[name].card)
        _show_relabellers(available, name)
    else:
        raise unknown(
            "method or data set", name, [*available.methods, *available.datasets], next="fer-bench list methods"
        )


def _facts(card: Any, names: tuple[str, ...]) -> None:
    table((n, getattr(card, n)) for n in names if getattr(card, n))


def _show_method(card: Any) -> None:
    click.secho(f"{card.name}: {card.title}", bold=True)
    _facts(card, ("family", "tier", "paper", "year", "url", "changes", "readout_of", "calibration"))
    for line in card.deviations:
        click.echo(f"deviation  {line}")
    _show_params(card)


def _show_params(card: Any) -> None:
    if not card.params:
        return
    click.echo("\nparameters")
    for name, param in card.params.items():
        extra = f"  ({'one of ' * bool(param.choices)}{param.accepts})" if param.accepts else ""
        tuned = f"  tuned over {_space(param.space)}" if param.space else ""
        click.echo(f"  {name} = {param.default}{extra}{tuned}\n      {param.help}")
    first = next(iter(card.params))
    if isinstance(card, MethodCard):
        click.echo(f"\nto change one: fer-bench run '{card.name}[{first}={card.params[first].default}]' --dataset NAME")


def _space(space: Space) -> str:
    """A search space in words: ``0.5 to 0.99, log scale``."""
    if isinstance(space, Choice):
        return ", ".join(map(str, space.options))
    if isinstance(space, Scale):
        return f"{space.low:g} to {space.high:g} times the default, log scale"
    return in_words(space.low, space.high) + ", log scale" * space.log


def _show_relabellers(available: Plugins, name: str) -> None:
    for other in available.relabellers(name):
        click.echo(f"\n{other} labels the same images anew: once it is prepared, fer-bench relabel STUDY has")
        click.echo(f"reports score runs on {name} against its labels as well")


def _show_dataset(card: Any) -> None:
    click.secho(f"{card.name}: {card.title}", bold=True)
    _facts(card, ("paper", "url", "licence", "image", "get"))
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
