"""What `run` and `tune` share: opening the workplace, mirroring to MLflow, and finishing a study."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from fer_bench.base.addresses import absolute, check_uri, is_server
from fer_bench.base.credentials import holds_secret, public_address
from fer_bench.base.memory import free_memory
from fer_bench.base.next_command import complete
from fer_bench.base.quantities import human_size, plural
from fer_bench.cli.listing import warn_of_broken
from fer_bench.cli.options import cluster_of, dataset_params, machine_of, runtime_of, share_of, template_of
from fer_bench.contract.cards import DatasetCard
from fer_bench.contract.plugins import Plugins
from fer_bench.data.fold_rows import roles_of
from fer_bench.data.prepare import ensure_store
from fer_bench.data.splits import protocol_that_fits
from fer_bench.data.store import Store
from fer_bench.launch.jobs import Jobs
from fer_bench.launch.shares import devices_for, threads_for
from fer_bench.record.home import Home
from fer_bench.runs.executor import Workplace
from fer_bench.runs.forkserver import SERVER
from fer_bench.runs.live import Live, say, warn
from fer_bench.runs.machine import this_machine
from fer_bench.runs.pool import Here, Pool
from fer_bench.tracking.background import try_sync

if TYPE_CHECKING:
    from fer_bench.doctor.near_duplicates import Progress

EVERY = 60.0  # seconds between updates of the MLflow mirror while a study runs


def open_workplace(options: dict[str, Any], available: Plugins) -> Workplace:
    """The home and the prepared data named by a command's options; built-in data are generated if missing."""
    home = Home.find(options["home"])
    warn_of_broken(available)
    home.require_writable()
    if options.get("executor") == "ray":
        machine_of(options)  # a cluster that can't be used is told at once
    SERVER.start()  # its imports take seconds; meanwhile the data are prepared
    if options["device"] not in ("auto", "cpu"):
        for device in options["device"].split(","):
            machine_of(options).check(device)
    params = dataset_params(options, available.dataset_card(options["dataset"]))
    dataset = available.dataset(options["dataset"], params)
    store = ensure_store(home, dataset)
    _fit_protocol(options, store, dataset.card)
    template, _ = template_of(options, available)
    _ensure_clean(home, store, dataset.card, template["protocol"], available.folders)
    _look_for_copies(home, store, dataset.card)
    profile = template["profile"]
    roles = roles_of(store, dataset.card, home, protocol=template["protocol"], fold=0, profile=profile)
    first = roles.counts["train"]
    rarest = (first.index(min(first)), roles.classes[first.index(min(first))])

    quiet: dict[str, Any] = {} if options["quiet"] else {"listener": Live(rarest)}
    return Workplace(home=home, plugins=available, runtime=runtime_of(options), **quiet)


def open_pool(options: dict[str, Any], work: Workplace) -> Pool:
    """What carries out the runs of a study: one after the other here, several at once, or the nodes of a cluster."""
    if options["executor"] == "ray":
        return _ray_pool(options, work)
    jobs, device = options["jobs"] or 1, options["device"]
    gpus = this_machine().gpus if jobs > 1 and device in ("auto", "cuda") else 0
    devices = devices_for(device, jobs, gpus)
    if jobs == 1:
        return Here()
    threads = threads_for(jobs, options["threads"])
    on = f", spread over {', '.join(devices)}" if len(devices) > 1 else ""
    free = free_memory()
    memory = free.bytes // jobs
    parts = [plural(threads, "CPU thread")] if threads else []
    if device == "cpu" or not this_machine().has_gpu(device):
        parts.append(f"{human_size(memory)} of the {human_size(free.bytes)} that are free {free.where}")
    say(f"{jobs} runs at once{', each with ' if parts else ''}{' and '.join(parts)}{on}")
    return Jobs(jobs, threads=threads, devices=devices, memory=memory)


def _ray_pool(options: dict[str, Any], work: Workplace) -> Pool:
    from fer_bench.launch.parcel import plugin_parcel
    from fer_bench.launch.ray_pool import RayPool

    plugin_parcel(work.plugins.folders, work.home)  # what can't be sent is told before anything begins
    cluster, share = cluster_of(options), share_of(options)
    places = cluster.places(share)
    jobs = options["jobs"] or places
    nodes = plural(sum(1 for node in cluster.nodes if share.fits(node)), "node")
    say(f"{plural(jobs, 'run')} at once on {nodes} of a Ray cluster, each with {share}")
    return RayPool(partial(cluster_of, options), jobs, share, say)


def _fit_protocol(options: dict[str, Any], store: Store, card: DatasetCard) -> None:
    """Choose another protocol for a person's own images if the default does not fit the store.

    Only if no protocol, or the de-duplicated variant of the default, was requested.
    """
    cleaned, asked = card.cleaned(), options["protocol"]
    if asked not in (None, cleaned.name, card.full_name(cleaned)) or card.classes:
        return
    if chosen := protocol_that_fits(store, card):
        chosen = card.cleaned(chosen) if asked else chosen
        options["protocol"] = chosen.name
        splits = ", ".join(sorted(set(store.columns("split")["split"].tolist())))
        say(
            f"protocol {card.full_name(chosen)}: {chosen.in_words}\n"
            f"  (the store has the splits {splits}, so {card.full_name(card.protocols[0])} can't be used;"
            " choose another with --protocol)"
        )


def _ensure_clean(home: Home, store: Store, card: DatasetCard, protocol: str, folders: Sequence[str]) -> None:
    """Let the doctor write the clean manifest if the protocol needs one and there is none."""
    from fer_bench.cli.progress import Steps
    from fer_bench.data.clean_manifest import has_clean
    from fer_bench.doctor.examine import examine

    folder = home.splits(store.path.name, store.fingerprint)
    if not card.protocol(protocol).clean or has_clean(folder):
        return
    check = complete(f"fer-bench data check {shlex.quote(card.name)}", home=home.root, plugins=folders)
    say(f"{card.name}: checking the data set first; see the findings with {check}")
    with Steps(card.name) as steps:
        diagnosis = examine(store, card, progress=steps)
    say(f"{card.name}: {diagnosis.save(folder)} leaves out {len(diagnosis.dropped):,} rows")


def _look_for_copies(home: Home, store: Store, card: DatasetCard) -> None:
    """Find the copies in the store before the first run needs them, and show progress."""
    from fer_bench.cli.progress import Steps
    from fer_bench.doctor.copies import known_copies

    with contextlib.ExitStack() as shown:

        def announce() -> Progress:
            say(f"{card.name}: looking for copies among the images (once for these data)")
            return shown.enter_context(Steps(card.name))

        known_copies(store, card, home.splits(store.path.name, store.fingerprint), announce)


class Mirror:
    """Keeps MLflow up to date while a study runs, without delaying it.

    An update takes seconds, so the first comes after a minute, and then at most one per minute until the study ends.
    After a failure there are no further attempts until then.
    """

    def __init__(self, work: Workplace, options: dict[str, Any]):
        self.ledger, self.off = work.home.ledger, options["no_track"]
        self.uri = options["tracking_uri"] or work.home.tracking_uri
        self.failed = False
        self.last = time.monotonic()
        if not self.off:
            check_uri(self.uri)

    def __call__(self, study: dict[str, Any]) -> None:
        """Update MLflow if the last update is long enough ago."""
        if not self.off and not self.failed and time.monotonic() - self.last > EVERY:
            self.update(study)

    def update(self, study: dict[str, Any]) -> None:
        """Update MLflow now; prints a one-sentence warning if that fails."""
        if self.off:
            return
        failure = try_sync(self.ledger, study["name"], self.uri, warn=warn)
        self.failed, self.last = bool(failure), time.monotonic()
        if failure:
            warn(failure)

    @property
    def place(self) -> str:
        """Where to see the mirrored runs: a server's address, or the command that starts one."""
        if is_server(self.uri):
            return public_address(self.uri)
        home = Home(self.ledger.root.parent)
        words = ["fer-bench", "ui", "--home", str(home.root)]
        if self.uri == home.tracking_uri:
            return shlex.join(words)
        if holds_secret(self.uri):
            return f"{shlex.join(words)}, with MLFLOW_TRACKING_URI set to the store's address"
        return shlex.join([*words, "--tracking-uri", absolute(self.uri)])


def finish_study(study: dict[str, Any], work: Workplace, mirror: Mirror) -> None:
    """Write the report, print the table, update the mirror, and print where everything is.

    The mirror is updated even if the report or the terminal fails.
    """
    from rich.console import Console

    from fer_bench.reports import beside, build_report, study_table

    try:
        page = build_report(work.home.ledger, study, work.home.results(study["name"]))
        Console().print(study_table(work.home.ledger, study))
    finally:
        mirror.update(study)
    for what, path in {"report": page, **beside(study, page)}.items():
        say(f"{what}: {path}")
    if not mirror.off and not mirror.failed:
        say(f"MLflow: {mirror.place}")
