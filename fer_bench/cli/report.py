"""``fer-bench report [STUDY]``: tables and figures from the ledger; needs no GPU."""

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
    help="Add accuracy for another class distribution: uniform, train, forward:RATIO, backward:RATIO; repeatable.",
)
@format_option
@click.option("--out", metavar="DIR", help="Output folder  [default: results/STUDY in the home folder]")
@force_option
def report(
    study: str | None, home: str | None, priors: tuple[str, ...], formats: str, out: str | None, force: bool
) -> None:
    """Write the report of STUDY (default: the most recent one) and print its main table."""
    from fer_bench.record.home import Home

    place = Home.find(home)
    record = place.ledger.study(study)
    from rich.console import Console  # imported after the name is checked, because they take a second

    from fer_bench.reports import beside, build_report, study_table
    from fer_bench.reports.build import parse_formats
    from fer_bench.reports.facts.priors import parse_prior

    test_priors, chosen = [parse_prior(text) for text in priors], parse_formats(formats)
    folder = out or place.results(record["name"])
    path = build_report(place.ledger, record, folder, priors=test_priors, formats=chosen, force=force)
    console = Console()
    console.print(study_table(place.ledger, record))
    for what, page in {"report": path, **beside(record, path)}.items():
        console.print(f"{what}: {page}", soft_wrap=True, markup=False, highlight=False)
