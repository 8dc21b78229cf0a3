"""``fer-bench check NAME|PATH``: the conformance kit."""

from __future__ import annotations

import json
import sys

import click

from fer_bench.cli.options import plugins_option
from fer_bench.printable import printable


@click.command("check")
@click.argument("what", metavar="NAME|PATH")
@plugins_option
@click.option("--only", multiple=True, metavar="PROMISE", help="Check this promise alone; repeatable.")
@click.option("--quick", is_flag=True, help="Leave out the promises that take longest, and the cost.")
@click.option("--from", "source", type=click.Path(), help="Files of a data set, to check what is read from them.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
def check(what: str, plugin_dirs: tuple[str, ...], only: tuple[str, ...], quick: bool, source: str | None, form: str
          ) -> None:  # fmt: skip
    """Check that a method or data set keeps what every plug-in must.

    NAME is that of a method or data set, PATH a plug-in's file or a folder of plug-ins. The exit code is 1 if a promise
    is broken.
    """
    from fer_bench.conformance import report as text
    from fer_bench.conformance.check import Terms
    from fer_bench.conformance.check import check as run

    def say(line: str) -> None:
        if form == "text":
            click.echo(printable(line))

    terms = Terms(
        folders=plugin_dirs, only=only, quick=quick, source=source, costs=not (only or quick),
        started=lambda r: say(text.heading(r)), told=lambda v: say(text.line(v)),
    )  # fmt: skip
    reports = run(what, terms)
    for report in reports:
        say(f"{report.name}: {text.summary(report)}")
        for line in text.costs(report):
            say(line)
        for verdict in report.broken:
            for failure in verdict.failures:
                say("\n" + text.block(verdict.promise, failure, report))
    if form == "json":
        click.echo(json.dumps([text.plain(report) for report in reports], indent=2))
    if any(report.broken for report in reports):
        sys.exit(1)
