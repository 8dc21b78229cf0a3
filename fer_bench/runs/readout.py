"""Runs that train nothing: read out of the logits that the finished run of another method stored.

The card of such a method names the method whose network it reads out (``MethodCard.readout_of``). Its run is made from
the record of that method's run with the same data, fold, profile, subset, backbone, recipe, seed and selection. That
run is carried out first if the ledger lacks it, and has a record of its own. The read-out's record can be read without
it.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from fer_bench.base.files import copy_file, sha256_file
from fer_bench.contract.cards import MethodCard
from fer_bench.contract.plugins import Plugin, Plugins
from fer_bench.errors import LedgerError, PluginError
from fer_bench.record.ledger import Ledger, RunRecord, RunWriter
from fer_bench.runs.probe import IMAGES, chosen_rows
from fer_bench.runs.spec import RunSpec
from fer_bench.training.job import fitted_file

NEEDED = ("history.json", "selection.json", "val_rows.npy", "val_labels.npy", "val_logits.npy")
NEEDED_OF_TEST = ("test_rows.npy", "test_labels.npy", "test_logits.npy")
NETWORKS_ALONE = ("model.pt", "val_epochs.npy", "test_epochs.npy")
OWN = ("spec.json", "data.json", "method.json", "seal.json", "probe.json", "val_logits.npy", "test_logits.npy")


class Carrier(Protocol):
    """What carries out a run (:mod:`fer_bench.runs.executor`), as far as a read-out needs it."""

    spec: RunSpec
    writer: RunWriter
    plugin: Plugin[MethodCard]
    messages: dict[str, dict[str, Any]]

    def call(self, role: str, arrays: Mapping[str, np.ndarray], **order: Any) -> None:
        """Have a fresh process play a role."""

    def probe(self, role: str, arrays: Mapping[str, np.ndarray], images: int, **order: Any) -> dict[str, Any]:
        """Have the passes of the probe done."""

    def output(self, name: str, shape: tuple[int, ...], kind: str) -> np.ndarray:
        """What a process left in the work folder."""


def base_of(spec: RunSpec, plugins: Plugins) -> RunSpec | None:
    """The run that a run is read out of; None for a method that trains its own network.

    Raises
    ------
    UnknownNameError
        There is no method of the name that the card gives.
    PluginError
        That method is itself read out of another one.
    """
    plugin = plugins.method(spec.method)
    if not plugin.card.readout_of:
        return None
    card = plugins.method(plugin.card.readout_of).card
    if card.readout_of:
        raise PluginError(
            f"'{spec.method}' reads out '{card.name}', which trains no network",
            where=str(plugin.path),
            hint=f"name the method that '{card.name}' reads out: '{card.readout_of}'",
        )
    return dataclasses.replace(spec, method=card.name, params=card.resolve({}))


def plugin_facts(plugin: Plugin) -> dict[str, Any]:
    """A plug-in as plain data, for another process."""
    return {
        "path": str(plugin.path),
        "module": plugin.module,
        "origin": plugin.origin,
        "tree": [str(plugin.tree.root), plugin.tree.package],
    }


def read_out(run: Carrier, base: RunRecord, network: Plugin) -> None:
    """Write what belongs to the read-out of `base` into the run's record.

    Raises
    ------
    LedgerError
        The record of `base` has changed, or lacks outputs.
    """
    writer, tested = run.writer, run.spec.test
    _check(base, [*NEEDED, *(NEEDED_OF_TEST if tested else ())], run.spec.method)
    for name in sorted(set(base.json("done")["files"]) - {*OWN, *NETWORKS_ALONE}):
        copy_file(base.path / name, writer.path / name)  # rows, labels, history, ...: what is true of both
    epoch, card = base.json("selection")["epoch"], run.plugin.card
    writer.put("method", {**card.facts, "parameters": base.json("method").get("parameters")})
    order = {"epoch": epoch, "network": plugin_facts(network)}
    logits = {"val": base.array("val_logits")}
    weights = str(base.path / "model.pt") if base.has("model.pt") else None
    arrays = {"val_logits": logits["val"], "val_labels": base.array("val_labels")}
    run.call("fit_readout", arrays, weights=weights, **order)
    learned = run.messages["fitted"]["learned"]
    writer.put("val_logits", run.output("val_logits.npy", logits["val"].shape, "f"))
    if tested:
        logits["test"] = base.array("test_logits")
        run.call("apply_readout", {"test_logits": logits["test"]}, **order)
        writer.put("probe", _probe(run, base, logits, order))
        writer.put("test_logits", run.output("test_logits.npy", logits["test"].shape, "f"))
    if weights:
        copy_file(fitted_file(writer.work, epoch), writer.path / "model.pt")
    writer.put("derived", _derived(base, learned))


def _derived(base: RunRecord, learned: Mapping[str, Any]) -> dict[str, Any]:
    """Content of ``derived.json``."""
    return {"run_id": base.id, "method": base.spec["method"], "done": _mark(base), "learned": learned}


def read_out_pruned(run: Carrier, base: RunRecord) -> None:
    """The record of a read-out of a tuning trial that was stopped early: its history."""
    copy_file(base.path / "history.json", run.writer.path / "history.json")
    run.writer.put("derived", _derived(base, {}))


def check_fresh(record: RunRecord, ledger: Ledger) -> None:
    """Raise LedgerError if a finished read-out was made from another record than the ledger now holds of that run."""
    if not record.has("derived.json"):
        return
    derived = record.json("derived")
    base = ledger.run(derived["run_id"])
    if base.status == "finished" and _mark(base) != derived["done"]:
        raise LedgerError(
            f"run {record.id} was read out of an earlier record of run {base.id}",
            where=str(record.path),
            hint=f"run {base.id} has been trained again since; remove the read-out, which takes no time to compute",
            next=shlex.join(["rm", "-r", str(record.path)]),
        )


def _mark(record: RunRecord) -> str:
    """What tells a finished record from another one of the same run: the hash of its hashes."""
    return sha256_file(record.path / "done.json")


def _check(base: RunRecord, needed: list[str], method: str) -> None:
    lacks = [name for name in needed if not base.has(name)]
    if lacks:
        raise LedgerError(
            f"'{method}' can't be computed from run {base.id}, which lacks {', '.join(lacks)}",
            where=str(base.path),
            hint="published ledgers leave validation outputs out; in a home without this record (--home DIR) the "
            "network is trained again",
            next="the same command with --no-second-reference",
        )
    base.verify(spared=NETWORKS_ALONE)


def _probe(run: Carrier, base: RunRecord, logits: Mapping[str, np.ndarray], order: Mapping[str, Any]) -> dict[str, Any]:
    """The network's probe, and that of the adjustment: the stored logits again, alone, in other batches and orders."""
    parts = [of[chosen_rows(np.arange(len(of)), IMAGES // 2)] for of in logits.values()]
    sample = np.concatenate(parts)
    own = run.probe("probe_readout", {"logits": sample}, len(sample), **order)
    network = base.json("probe")
    note = (
        f"the network's predictions were probed by run {base.id}; here its stored logits were adjusted again, alone, "
        "in other batches and in other orders"
    )
    return {
        **own,
        "transductive": bool(own["transductive"] or network["transductive"]),
        "checks": [*network["checks"], *({**c, "name": f"adjustment {c['name']}"} for c in own["checks"])],
        "base": base.id,
        "note": note,
    }
