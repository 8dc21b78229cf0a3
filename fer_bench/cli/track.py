"""``fer-bench track``: update MLflow from the ledger."""

from __future__ import annotations

from functools import partial

import click

from fer_bench.cli.group import Group
from fer_bench.cli.options import home_option, number_option, tracking_option
from fer_bench.errors import TrackingError
from fer_bench.record.home import Home


@click.group("track", cls=Group)
def track() -> None:
    """Mirror the ledger into MLflow."""


@track.command("sync")
@click.argument("study", required=False)
@home_option
@tracking_option
@click.option("--all", "every", is_flag=True, help="Mirror every study in the ledger.")
@click.option("--restore", is_flag=True, help="Restore experiments that were deleted in MLflow.")
@number_option(
    "--timeout", float, 0.1, 3600, "Seconds to wait for the server's answer.", default=10.0, metavar="SECONDS"
)
def sync(
    study: str | None, home: str | None, tracking_uri: str | None, every: bool, restore: bool, timeout: float
) -> None:
    """Update MLflow with STUDY (default: the most recent one).

    Complete runs in MLflow are left unchanged and interrupted ones are completed, so this is safe at any time.
    """
    from fer_bench.base.credentials import hide, hiding_output, public_address
    from fer_bench.tracking import sync as mirror

    if study and every:
        raise click.UsageError("give either STUDY or --all, not both")
    place = Home.find(home)
    uri = tracking_uri or place.tracking_uri
    name = None if every else place.ledger.study(study)["name"]
    with hiding_output(uri):  # MLflow and its libraries print addresses with passwords
        result = mirror.sync(
            place.ledger,
            name,
            uri,
            timeout=timeout,
            restore=restore,
            say=click.echo,
            warn=partial(click.echo, err=True),
        )
    click.echo(f"{public_address(uri)}: {result}")
    if result.failed:
        reasons = "; ".join(f"{run}: {reason}" for run, reason in list(result.failed.items())[:5])
        what = "studies" if all(name.startswith("study ") for name in result.failed) else "runs"
        what = f"{len(result.failed)} {what} were not mirrored"
        raise TrackingError(what, where=public_address(uri), hint=hide(reasons, uri))
