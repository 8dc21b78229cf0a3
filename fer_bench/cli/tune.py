"""``fer-bench tune``: tune the hyperparameters of each method, with equal budgets."""

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
@number_option("--trials", int, 1, 10_000, "Trials per method, the same for all.", default=20)
@number_option("--seed", int, 0, 2**31 - 1, "Seed of the search and of its training runs.", default=0)
@click.option("--name", metavar="NAME", help="Name of the study  [default: derived from data set and methods]")
@plugins_option
@home_option
def tune(methods: tuple[str, ...], **options: Any) -> None:
    """Tune the hyperparameters of METHODS on the validation set; the test set is never opened.

    Every method gets the same number of trials; the first is its default configuration. An interrupted search resumes
    where it stopped. `fer-bench run --tuned` uses the results.
    """
    from fer_bench.cli.preflight import preflight

    available = preflight(methods, options, searching=True)
    from fer_bench.base.credentials import command_line
    from fer_bench.base.names import shortened
    from fer_bench.cli.workplace import Mirror, open_workplace  # imported late: these take seconds
    from fer_bench.contract.params import parse_variant
    from fer_bench.runs.live import say
    from fer_bench.tuning.search import build_search
    from fer_bench.tuning.tune import tune as search_all

    work = open_workplace(options, available)
    mirror = Mirror(work, options)
    template, preset = template_of(options, work.plugins)
    searches = [build_search(work, parse_variant(text), template, preset) for text in methods]
    labels = [s.label for s in searches]
    name = options["name"] or shortened(f"tune-{template['dataset']}-{'-'.join(s.name for s in searches)}")
    _check_name(name, labels, template, work.home.ledger)
    say(f"tuning {', '.join(labels)} on {template['dataset']}/{template['protocol']}: {options['trials']} trials each")
    if work.plugins.dataset_card(template["dataset"]).protocol(template["protocol"]).folds > 1:
        say("the search uses fold 0, whose training images are test images in other folds; see docs/data.md")
    best = search_all(
        searches, options["trials"], work, command=command_line(), name=name,
        seed=options["seed"], say=say, after_run=mirror,
    )  # fmt: skip
    mirror.update(work.home.ledger.study(name))
    _print_best(best, methods, say)


def _check_name(name: str, labels: list[str], template: dict[str, Any], ledger: Ledger) -> None:
    """Raise SpecError if the name belongs to a different study; a search may gain trials and methods."""
    existing = ledger.study(name) if name in ledger.studies() else None
    if existing is None:
        return
    same = {"kind": "tune", "dataset": template["dataset"], "protocol": template["protocol"]}
    grows = set(existing["methods"]) <= set(labels)
    if grows and all(existing.get(key, value) == value for key, value in same.items()):
        return
    content = f"{', '.join(existing['methods'])} on {existing['dataset']}/{existing['protocol']}"
    raise SpecError(
        f"the study '{name}' already exists and is not this search",
        where=f"--name {name}, which contains {content}",
        hint="trials and methods may be added to an existing search, but nothing else may change",
        next="rerun with another --name, or without one",
    )


# Options that say where and how runs are carried out; they are not part of a run's specification.
RUNTIME = (
    *("device", "compile_", "deterministic", "threads", "images"),
    *("tracking_uri", "no_track", "quiet", "plugin_dirs", "home"),
)


def _print_best(best: list[dict], methods: tuple[str, ...], say: Any) -> None:
    from fer_bench.cli.follow_up import ADDRESS_LEFT_OUT, address_left_out, carried_options, follow_up
    from fer_bench.cli.run import run

    rest = shlex.join(carried_options(run, leave=[p.name for p in run.params if p.name and p.name not in RUNTIME]))
    for result in best:
        default = result["default_value"]
        gain = "" if default is None else f", {100 * (result['value'] - default):+.1f} points over the default"
        say(
            f"\n{result['label']}: {100 * result['value']:.1f} % validation mean recall "
            f"(trial {result['trial'] + 1} of {result['trials']}, {result['pruned']} stopped early{gain})"
        )
        say(f"  {result['command']} {rest}")
    if address_left_out():
        say(f"\n{ADDRESS_LEFT_OUT}")
    compare = follow_up("run", run, *methods, "--tuned", leave=["name"])
    say(f"\nto compare the tuned methods under the same conditions:\n  {compare}")
