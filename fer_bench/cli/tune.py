"""``fer-bench tune``: search each method's best configuration, with equal budgets."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from fer_bench.cli.options import home_option, number_option, plugins_option, template_of, training_options
from fer_bench.errors import SpecError

if TYPE_CHECKING:
    from fer_bench.record.ledger import Ledger


@click.command()
@click.argument("methods", nargs=-1, required=True)
@training_options
@number_option("--trials", int, 1, 10_000, "Trials for every method alike.", default=20)
@number_option("--seed", int, 0, 2**31 - 1, "Seed of the search and of its trainings.", default=0)
@click.option("--name", metavar="NAME", help="Name of the study  [default: made from what is tuned]")
@plugins_option
@home_option
def tune(methods: tuple[str, ...], **options: Any) -> None:
    """Search the best configuration of METHODS on validation; the test is never opened.

    Every method gets the same number of trials; trial 0 is its default configuration. A search that was stopped goes on
    where it was. `fer-bench run --tuned` uses what it found.
    """
    from fer_bench.cli.request import check_request

    found = check_request(methods, options, searching=True)
    from fer_bench.base.credentials import command_line
    from fer_bench.base.names import shortened
    from fer_bench.cli.workplace import Mirror, open_workplace  # these take seconds
    from fer_bench.runs.live import say
    from fer_bench.runs.spec import parse_variant
    from fer_bench.tuning.search import build_search
    from fer_bench.tuning.tune import tune as search_all

    work = open_workplace(options, found)
    mirror = Mirror(work, options)
    template, preset = template_of(options, work.plugins)
    searches = [build_search(work, parse_variant(text), template, preset) for text in methods]
    labels = [s.label for s in searches]
    name = options["name"] or shortened(f"tune-{template['dataset']}-{'-'.join(s.name for s in searches)}")
    _check_name(name, labels, template, work.home.ledger)
    say(f"tuning {', '.join(labels)} on {template['dataset']}/{template['protocol']}: {options['trials']} trials each")
    if work.plugins.dataset_card(template["dataset"]).protocol(template["protocol"]).folds > 1:
        say("the search uses fold 0, whose training images are test images of other folds: see docs/data.md")
    best = search_all(
        searches, options["trials"], work, command=command_line(), name=name,
        seed=options["seed"], say=say, after_run=mirror,
    )  # fmt: skip
    mirror.update(work.home.ledger.study(name))
    _tell(best, methods, say)


def _check_name(name: str, labels: list[str], template: dict[str, Any], ledger: Ledger) -> None:
    """Raise SpecError where a study of this name is another one; a search may grow by trials and by methods."""
    there = ledger.study(name) if name in ledger.studies() else None
    if there is None:
        return
    same = {"kind": "tune", "dataset": template["dataset"], "protocol": template["protocol"]}
    if all(there.get(key, value) == value for key, value in same.items()) and set(there["methods"]) <= set(labels):
        return
    held = f"{', '.join(there['methods'])} on {there['dataset']}/{there['protocol']}"
    raise SpecError(
        f"there is a study '{name}' already, which is not this search",
        where=f"--name {name}, which holds {held}",
        hint="a search may grow by trials and by methods",
        next="the same command with another --name, or without one",
    )


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
