"""``fer-bench compare STUDY STUDY...``: the same methods over several data sets."""

from __future__ import annotations

import click

from fer_bench.cli.options import force_option, format_option, home_option


@click.command("compare")
@click.argument("studies", nargs=-1, required=True)
@home_option
@format_option
@click.option("--out", metavar="DIR", help="Where to write  [default: results/FIRST_STUDY-compare in the home folder]")
@force_option
def compare(studies: tuple[str, ...], home: str | None, formats: str, out: str | None, force: bool) -> None:
    """Show the same methods on several data sets, one study each of STUDIES, and rank them over all."""
    from fer_bench.record.home import Home

    found = Home.find(home)
    names = found.ledger.known_studies(studies)
    from fer_bench.reports import build_comparison  # after the names: these take a second
    from fer_bench.reports.build import parse_formats

    chosen = parse_formats(formats)
    place = out or found.results(f"{names[0]}-compare")
    path = build_comparison(found.ledger, names, place, formats=chosen, force=force)
    click.echo(f"report: {path}")
