"""``fer-bench track``: fill MLflow from the ledger."""

from __future__ import annotations

from functools import partial

import click

from fer_bench.cli.options import home_option, number_option, tracking_option
from fer_bench.errors import TrackingError
from fer_bench.record.home import Home


@click.group("track")
def track() -> None:
    """Mirror the ledger into MLflow."""


@track.command("sync")
@click.argument("study", required=False)
@home_option
@tracking_option
@click.option("--all", "every", is_flag=True, help="Every study of the ledger.")
@click.option("--restore", is_flag=True, help="Bring back experiments that were deleted in MLflow.")
@number_option("--timeout", float, 0.1, 3600, "Seconds that a server may stay silent.", default=10.0, metavar="SECONDS")
def sync(
    study: str | None, home: str | None, tracking_uri: str | None, every: bool, restore: bool, timeout: float
) -> None:
    """Bring MLflow up to date with STUDY, or with the study written last.

    What is there already is left alone, and what was interrupted is completed, so this can be typed at any time.
    """
    from fer_bench.base.credentials import hide, hiding_output, without_secrets
    from fer_bench.tracking import sync as mirror

    if study and every:
        raise click.UsageError("give STUDY or --all, not both")
    place = Home.find(home)
    uri = tracking_uri or place.tracking_uri
    name = None if every else place.ledger.study(study)["name"]
    with hiding_output(uri):  # MLflow and its libraries print addresses with their passwords
        done = mirror.sync(
            place.ledger,
            name,
            uri,
            timeout=timeout,
            restore=restore,
            say=click.echo,
            warn=partial(click.echo, err=True),
        )
    click.echo(f"{without_secrets(uri)}: {done}")
    if done.failed:
        reasons = "; ".join(f"{run}: {reason}" for run, reason in list(done.failed.items())[:5])
        what = "studies" if all(name.startswith("study ") for name in done.failed) else "runs"
        what = f"{len(done.failed)} {what} were not mirrored"
        raise TrackingError(what, where=without_secrets(uri), hint=hide(reasons, uri))
