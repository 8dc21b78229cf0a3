"""What `run` and `tune` share: opening the workplace, mirroring, and the end of a study."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fer_bench.cli.listing import tell_broken
from fer_bench.cli.options import runtime_of
from fer_bench.console import LiveListener, say, warn
from fer_bench.executor import Workplace
from fer_bench.fit import Listener
from fer_bench.home import Home
from fer_bench.plugins import plugins
from fer_bench.prepare import ensure_store
from fer_bench.recipe import parse_assignments
from fer_bench.spec import RunSpec


def open_workplace(options: dict[str, Any]) -> Workplace:
    """The home, the plug-ins and the prepared data that a command's options name; built-in data are made if missing."""
    home = Home.find(options["home"])
    found = plugins(options["plugin_dirs"])
    tell_broken(found)
    dataset = found.dataset(options["dataset"], parse_assignments(options["dataset_set"], "--dataset-set"))
    store = ensure_store(home, dataset)
    first = store.manifest["counts"][dataset.card.protocol(options["protocol"]).train[0]]
    rarest = (first.index(min(first)), store.classes[first.index(min(first))])

    def listen(spec: RunSpec, label: str) -> Listener:
        return Listener() if options["quiet"] else LiveListener(f"{label}, seed {spec.seed}", rarest)

    return Workplace(home=home, plugins=found, runtime=runtime_of(options), listener=listen)


def mirror(work: Workplace, options: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """A callback that brings MLflow up to date with a study, and warns where it can't."""

    def after_run(study: dict[str, Any]) -> None:
        if options["no_track"]:
            return
        from fer_bench.track import try_sync

        sentence = try_sync(work.home.ledger, study["name"], options["tracking_uri"] or work.home.tracking_uri)
        if sentence:
            warn(sentence)

    return after_run


def finish_study(study: dict[str, Any], work: Workplace, options: dict[str, Any]) -> None:
    """Write the report, show the table, bring the mirror up to date, and say where everything is."""
    from rich.console import Console

    from fer_bench.reports import build_report, study_table

    page = build_report(work.home.ledger, study, work.home.results(study["name"]))
    Console().print(study_table(work.home.ledger, study))
    mirror(work, options)(study)
    say(f"report: {page}")
    if not options["no_track"]:
        say("MLflow: fer-bench ui" + (f" --home {options['home']}" if options["home"] else ""))
