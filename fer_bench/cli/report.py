"""``fer-bench report [STUDY]``: tables and figures from the ledger, without a GPU."""

from __future__ import annotations

import click

from fer_bench.cli.options import force_option, format_option, home_option


@click.command("report")
@click.argument("study", required=False)
@home_option
@click.option(
    "--test-prior",
    "priors",
    multiple=True,
    metavar="PRIOR",
    help="Add accuracy under other class shares: uniform, train, forward:RATIO, backward:RATIO; repeatable.",
)
@format_option
@click.option("--out", metavar="DIR", help="Where to write  [default: results/STUDY in the home folder]")
@force_option
def report(
    study: str | None, home: str | None, priors: tuple[str, ...], formats: str, out: str | None, force: bool
) -> None:
    """Write the report of STUDY (default: the one written last) and print its tables."""
    from fer_bench.record.home import Home

    found = Home.find(home)
    record = found.ledger.study(study)
    from rich.console import Console  # after the name is known to be right: these take a second

    from fer_bench.reports import build_report, study_table
    from fer_bench.reports.build import parse_formats
    from fer_bench.reports.sections.priors import parse_prior

    asked, chosen = [parse_prior(text) for text in priors], parse_formats(formats)
    place = out or found.results(record["name"])
    path = build_report(found.ledger, record, place, priors=asked, formats=chosen, force=force)
    console = Console()
    console.print(study_table(found.ledger, record))
    console.print(f"report: {path}", soft_wrap=True, markup=False, highlight=False)
