"""``fer-bench ablate``: train the arms that a method's card lists, and tell what each module contributes."""

from __future__ import annotations

from typing import Any

import click

from fer_bench.cli.options import study_options
from fer_bench.cli.run import train


@click.command()
@click.argument("method")
@click.option("--arms", metavar="LIST", help="Arms of the card, separated by commas  [default: all]")
@study_options
def ablate(method: str, arms: str | None, **options: Any) -> int:
    """Train the arms that the card of METHOD lists, and tell what each of its modules contributes.

    `fer-bench show METHOD` lists its arms; the first is the reference. They become a study like any other: finished
    runs are reused, interrupted ones are resumed. The page `ablation.html` stands beside its report.
    """
    from fer_bench.contract.plugins import plugins
    from fer_bench.runs.ablation import chosen_ablation

    ablation = chosen_ablation(plugins(options["plugin_dirs"]), method, arms)
    return train([arm.variant for arm in ablation.arms.values()], options, ablation)
