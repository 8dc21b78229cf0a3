"""``fer-bench response STUDY...``: imbalance-response curves from studies of several ratios."""

from __future__ import annotations

import click

from fer_bench.cli.options import force_option, format_option, home_option


@click.command("response")
@click.argument("studies", nargs=-1, required=True)
@home_option
@format_option
@click.option("--out", metavar="DIR", help="Where to write  [default: results/FIRST_STUDY-response in the home folder]")
@force_option
def response(studies: tuple[str, ...], home: str | None, formats: str, out: str | None, force: bool) -> None:
    """Draw recall of rare and frequent classes against the imbalance of training, from STUDIES of several profiles."""
    from fer_bench.record.home import Home

    found = Home.find(home)
    names = found.ledger.known_studies(studies)
    from fer_bench.reports import build_response  # after the names: these take a second
    from fer_bench.reports.build import parse_formats

    chosen = parse_formats(formats)
    place = out or found.results(f"{names[0]}-response")
    path = build_response(found.ledger, names, place, formats=chosen, force=force)
    click.echo(f"report: {path}")
