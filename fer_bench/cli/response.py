"""``fer-bench response STUDY...``: imbalance-response curves from studies with different ratios."""

from __future__ import annotations

import click

from fer_bench.cli.options import force_option, format_option, home_option


@click.command("response")
@click.argument("studies", nargs=-1, required=True)
@home_option
@format_option
@click.option("--out", metavar="DIR", help="Output folder  [default: results/FIRST_STUDY-response in the home folder]")
@force_option
def response(studies: tuple[str, ...], home: str | None, formats: str, out: str | None, force: bool) -> None:
    """Plot the recall of rare and frequent classes against training imbalance, from STUDIES with different profiles."""
    from fer_bench.record.home import Home

    place = Home.find(home)
    names = place.ledger.known_studies(studies)
    from fer_bench.reports import build_response  # imported after the names are checked: it takes a second
    from fer_bench.reports.build import parse_formats

    chosen = parse_formats(formats)
    folder = out or place.results(f"{names[0]}-response")
    path = build_response(place.ledger, names, folder, formats=chosen, force=force)
    click.echo(f"report: {path}")
