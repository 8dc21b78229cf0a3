"""``fer-bench compare STUDY STUDY...``: the same methods over several data sets."""

from __future__ import annotations

import click

from fer_bench.cli.options import format_option, home_option


@click.command("compare")
@click.argument("studies", nargs=-1, required=True)
@home_option
@format_option
@click.option("--out", metavar="DIR", help="Where to write  [default: results/FIRST_STUDY-compare in the home folder]")
def compare(studies: tuple[str, ...], home: str | None, formats: str, out: str | None) -> None:
    """Show the same methods on several data sets, one study each of STUDIES, and rank them over all."""
    from fer_bench.home import Home

    found = Home.find(home)
    records = [found.ledger.study(name) for name in studies]
    from fer_bench.reports import build_comparison  # after the names: these take a second
    from fer_bench.reports.build import parse_formats

    chosen = parse_formats(formats)
    path = build_comparison(found.ledger, records, out or found.results(f"{studies[0]}-compare"), formats=chosen)
    click.echo(f"report: {path}")
