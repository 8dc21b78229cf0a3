"""``fer-bench tune``: search each method's best configuration, with equal budgets."""

from __future__ import annotations

import shlex
from typing import Any

import click

from fer_bench.cli.options import home_option, plugins_option, profiles_of, template_of, training_options


@click.command()
@click.argument("methods", nargs=-1, required=True)
@training_options
@click.option("--trials", type=int, default=20, show_default=True, metavar="N", help="Trials for every method alike.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the search and of its trainings.")
@click.option("--name", metavar="NAME", help="Name of the study  [default: made from what is tuned]")
@plugins_option
@home_option
def tune(methods: tuple[str, ...], **options: Any) -> None:
    """Search the best configuration of METHODS on validation; the test is never opened.

    Every method gets the same number of trials; trial 0 is its default configuration. A search that was stopped goes on
    where it was. `fer-bench run --tuned` uses what it found.
    """
    from fer_bench.cli.workplace import Mirror, open_workplace
    from fer_bench.console import say
    from fer_bench.credentials import command_line
    from fer_bench.errors import SpecError
    from fer_bench.spec import parse_variant
    from fer_bench.tune import build_search
    from fer_bench.tune import tune as search_all

    if options["trials"] < 1:
        raise SpecError("at least one trial is needed", where=f"--trials {options['trials']}")
    if len(profiles_of(options)) > 1:
        raise SpecError("a search has one imbalance profile", where="--imbalance", hint="search each by itself")
    work = open_workplace(options, methods)
    mirror = Mirror(work, options)
    template, preset = template_of(options, work.plugins)
    searches = [build_search(work, parse_variant(text), template, preset) for text in methods]
    labels = [s.label for s in searches]
    if len(set(labels)) != len(labels):
        raise SpecError("a method is listed twice", where=", ".join(labels))
    name = options["name"] or f"tune-{template['dataset']}-{'-'.join(s.name for s in searches)}"[:120]
    say(f"tuning {', '.join(labels)} on {template['dataset']}/{template['protocol']}: {options['trials']} trials each")
    if work.plugins.dataset_card(template["dataset"]).protocol(template["protocol"]).folds > 1:
        say("the search uses fold 0, whose training images are test images of other folds: see docs/data.md")
    best = search_all(
        searches, options["trials"], work, command=command_line(), name=name,
        seed=options["seed"], say=say, after_run=mirror,
    )  # fmt: skip
    mirror.update(work.home.ledger.study(name))
    _tell(best, methods, say)


# Where and how runs are carried out, which is no part of what they are.
RUNTIME = ("device", "compile_", "deterministic", "threads", "tracking_uri", "no_track", "quiet", "plugin_dirs", "home")


def _tell(best: list[dict], methods: tuple[str, ...], say: Any) -> None:
    from fer_bench.cli.again import ADDRESS_LEFT_OUT, address_left_out, again, carried
    from fer_bench.cli.run import run

    rest = shlex.join(carried(run, leave=[p.name for p in run.params if p.name and p.name not in RUNTIME]))
    for found in best:
        default = found["default_value"]
        gain = "" if default is None else f", {100 * (found['value'] - default):+.1f} points over the default"
        say(
            f"\n{found['label']}: {100 * found['value']:.1f} % validation mean recall (trial {found['trial'] + 1} of "
            f"{found['trials']}, {found['pruned']} stopped early{gain})"
        )
        say(f"  {found['command']} {rest}")
    if address_left_out():
        say(f"\n{ADDRESS_LEFT_OUT}")
    say("\nall of them, tuned, under one harness:\n  " + again("run", run, *methods, "--tuned", leave=["name"]))
