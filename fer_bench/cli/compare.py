"""``fer-bench compare STUDY STUDY...``: the same methods over several data sets."""

from __future__ import annotations

import click

from fer_bench.cli.options import force_option, format_option, home_option


@click.command("compare")
@click.argument("studies", nargs=-1, required=True)
@home_option
@format_option
@click.option("--out", metavar="DIR", help="Output folder  [default: results/FIRST_STUDY-compare in the home folder]")
@force_option
def compare(studies: tuple[str, ...], home: str | None, formats: str, out: str | None, force: bool) -> None:
    """Compare the same methods on several data sets (one of the STUDIES each) and rank them across all."""
    from fer_bench.record.home import Home

    place = Home.find(home)
    names = place.ledger.known_studies(studies)
    from fer_bench.reports import build_comparison  # imported after the names are checked: it takes a second
    from fer_bench.reports.build import parse_formats

    chosen = parse_formats(formats)
    folder = out or place.results(f"{names[0]}-compare")
    path = build_comparison(place.ledger, names, folder, formats=chosen, force=force)
    click.echo(f"report: {path}")
