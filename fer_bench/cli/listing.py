"""``fer-bench list``: what is available, read from cards without importing torch."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import click

from fer_bench.cli.columns import table
from fer_bench.cli.method_card import by_family, variants_of
from fer_bench.cli.options import home_option, plugins_option
from fer_bench.contract.cards import FAMILIES, MethodCard
from fer_bench.contract.plugins import Plugins, plugins
from fer_bench.errors import FerBenchError, unknown

FILTERS = ("method", "dataset", "study", "status")


def _methods(available: Plugins, options: dict[str, Any]) -> None:
    family = options["family"]
    if family is not None and family not in FAMILIES:
        raise unknown("family", family, FAMILIES, where="--family")
    cards = [c for c in by_family(available) if family in (None, c.family) and _matches(c, options["pattern"])]
    if not cards:
        click.echo("no method matches; all of them: fer-bench list methods")
    rows: list[tuple[str, ...]] = []
    for card in cards:
        rows.append((card.name, card.family, card.tier, card.title))
        rows += [(f"  {name}", "", "", f"is {variant}") for name, variant in variants_of(card).items()]
    table(rows)


def _matches(card: MethodCard, pattern: str) -> bool:
    """Whether a card's name, family, title or the name of a variant has the pattern, or is it, with ``*``."""
    texts = [text.lower() for text in (card.name, card.family, card.title, *card.also_known)]
    wild = any(c in pattern for c in "*?[")
    return any(fnmatchcase(text, pattern.lower()) if wild else pattern.lower() in text for text in texts)


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
@click.option("--family", metavar="NAME", help="Only methods of this family, such as mixing.")
@click.option("--method", metavar="NAME", help="Only runs of this method, or of one variant: 'NAME[PARAMETER=VALUE]'.")
@click.option("--dataset", metavar="NAME", help="Only runs on this data set.")
@click.option("--study", metavar="NAME", help="Only runs of this study.")
@click.option("--status", metavar="STATUS", help="Only runs with this status: finished, failed, unfinished or pruned.")
@plugins_option
@home_option
def list_(what: str, pattern: str, plugin_dirs: tuple[str, ...], home: str | None, **filters: str | None) -> None:
    """List what is available (default: methods).

    PATTERN filters backbones by name, and methods by name, family or title:

    \b
    fer-bench list methods logit
    fer-bench list methods --family mixing
    fer-bench list backbones 'resnet18*'

    The list of runs shows the validation score by which the epoch was selected, and that epoch's test scores. Filter it
    with --method, --dataset, --study and --status.
    """
    if what not in LISTS:
        raise unknown("list", what, LISTS, next="fer-bench list methods")
    given = [name for name in FILTERS if filters[name] is not None]
    if given and what != "runs":
        raise click.UsageError(f"--{given[0]} applies to the list of runs: fer-bench list runs --{given[0]} ...")
    if filters["family"] is not None and what != "methods":
        raise click.UsageError("--family applies to the list of methods: fer-bench list methods --family ...")
    available = plugins(plugin_dirs)
    LISTS[what](available, {"pattern": pattern, "home": home, **filters})
    warn_of_broken(available)


def warn_of_broken(available: Plugins) -> None:
    """Print a warning for every plug-in that was skipped."""
    for error in available.broken:
        click.secho(f"skipped a broken plug-in: {error.where}: {error.what}", fg="yellow", err=True)
