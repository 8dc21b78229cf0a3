"""``fer-bench run``: train methods under one harness and compare them."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import click

from fer_bench.cli.options import home_option, plugins_option, template_of, training_options


@click.command()
@click.argument("methods", nargs=-1, required=True)
@training_options
@click.option("--seeds", default=3, show_default=True, metavar="N", help="Seeds 0 to N-1 for every method.")
@click.option("--folds", metavar="LIST", help="Folds of the protocol, e.g. 0,1 or 0-4  [default: all]")
@click.option("--reference", metavar="METHOD", help="What gains are measured against  [default: a baseline]")
@click.option("--tuned", is_flag=True, help="Use the best configuration that `fer-bench tune` found for each method.")
@click.option("--name", metavar="NAME", help="Name of the study  [default: made from what is run]")
@plugins_option
@home_option
def run(methods: tuple[str, ...], **options: Any) -> int:
    """Train METHODS under one harness and compare them.

    A method may carry parameters: 'rasn[share.source=ema]'. Finished runs are reused, killed ones go on.
    """
    from fer_bench.cli.workplace import Mirror, finish_study, open_workplace
    from fer_bench.console import say, warn
    from fer_bench.errors import SpecError
    from fer_bench.spec import StudySpec, choose_reference, expand, parse_folds, parse_variant, study_name
    from fer_bench.study import run_study

    if options["seeds"] < 1:
        raise SpecError("at least one seed is needed", where=f"--seeds {options['seeds']}")
    work = open_workplace(options, methods)
    mirror = Mirror(work, options)
    template, preset = template_of(options, work.plugins)
    variants = [parse_variant(text) for text in methods]
    per_label: dict[str, Any] = {}
    if options["tuned"]:
        from fer_bench.tune import tuned_variants

        variants, per_label = tuned_variants(work, variants, template, preset)
    seeds = range(options["seeds"])
    card = work.plugins.dataset_card(template["dataset"])
    protocol = card.protocol(template["protocol"])
    folds = parse_folds(options["folds"], protocol.folds)
    runs, labels = expand(work.plugins, variants, seeds, template, folds=folds, per_label=per_label)
    study = StudySpec(
        name=options["name"] or study_name(template["dataset"], labels, runs),
        command="fer-bench " + shlex.join(sys.argv[1:]),
        runs=runs,
        labels=labels,
        reference=choose_reference(work.plugins, labels, runs, options["reference"]),
    )
    recipe = template["recipe"]
    parts = f"{len(labels)} methods x {options['seeds']} seeds" + (f" x {len(folds)} folds" if len(folds) > 1 else "")
    profile = "" if template["profile"] == "natural" else f", imbalance {template['profile']}"
    say(f"study {study.name}: {parts} on {card.full_name(protocol)}{profile}")
    if protocol.watermark:
        warn(f"{card.full_name(protocol)} is watermarked: {protocol.watermark}")
    say(f"recipe {preset}: {template['backbone']}, {recipe.epochs} epochs, {recipe.optimizer}, lr {recipe.lr}")
    outcome = run_study(study, work, say=say, after_run=mirror)
    if outcome.finished:
        finish_study(outcome.study, work, mirror)
    if outcome.failed:
        warn(f"{len(outcome.failed)} of {len(runs)} runs failed; the same command tries them again")
    return int(bool(outcome.failed))
