"""What the processes of a read-out do: fit it on validation, apply it to the test's logits, and probe it.

They are given logits that the network's own run stored, and never an image. Only the process that fits is given labels,
those of validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fer_bench.base.files import write_array
from fer_bench.contract.batch import ValOutputs
from fer_bench.contract.method import Method
from fer_bench.errors import PluginError
from fer_bench.runs.order import Order, plugin_of
from fer_bench.runs.passes import run_passes
from fer_bench.training.checkpoint import load_plain, save_plain
from fer_bench.training.evaluate import adjusted, adjusts
from fer_bench.training.job import fitted_file

OWN = ("fit_posthoc", "adjust", "state_dict", "load_state_dict")


def fit_readout(order: Order) -> None:
    """Fit the read-out on validation, and keep it beside the network's weights, where those were kept."""
    arrays, given = order.arrays, order.given
    weights = given["weights"]
    network = load_plain(Path(weights)) if weights else {"model": {}, "method": {}}
    method = _method(order)
    method.fit_posthoc(nn.Identity(), ValOutputs(logits=arrays["val_logits"].copy(), labels=arrays["val_labels"]))
    logits = adjusted(method, arrays["val_logits"], None)
    own = dict(method.state_dict())
    state = {"model": network["model"], "method": {**network["method"], **own}}
    save_plain(fitted_file(order.record.work, given["epoch"]), state, f"{method.card.name}.state_dict()")
    write_array(order.record.work / "val_logits.npy", logits.astype(np.float32))
    order.line.tell("fitted", learned=_told(own))


def apply_readout(order: Order) -> None:
    """Test logits through the fitted read-out."""
    logits = adjusted(_fitted(order), order.arrays["test_logits"], None)
    write_array(order.record.work / "test_logits.npy", logits.astype(np.float32))


def probe_readout(order: Order) -> None:
    """Adjust the probe's logits in the passes of one process; see :mod:`fer_bench.runs.probe`."""
    logits, method = order.arrays["logits"], _fitted(order)

    def logits_of(places: np.ndarray, batch: int) -> np.ndarray:
        parts = np.array_split(logits[places], range(batch, len(logits), batch))
        return np.concatenate([adjusted(method, part, None) for part in parts]).astype(np.float32)

    run_passes(order, len(logits), logits_of)


def _fitted(order: Order) -> Method:
    state = load_plain(fitted_file(order.record.work, order.given["epoch"]))["method"]
    method = _method(order)
    method.load_state_dict(state)
    return method


def _method(order: Order) -> Method:
    """The read-out, imported under guard; raises PluginError where :func:`check_readout` does."""
    method = order.method(torch.device("cpu"))
    check_readout(type(method), plugin_of(order.given["network"]).load(), where=str(order.plugin.path))
    return method


def check_readout(own: type[Method], base: type[Method], *, where: str) -> None:
    """Whether the class `own` can read out the network of `base`, from logits alone.

    Raises
    ------
    PluginError
        It overrides a hook of training or prediction, so the stored logits are not those of its network; or the method
        that it reads out adjusts its logits already.
    """
    name, network = own.card.name, base.card.name
    hooks = [n for n, value in vars(Method).items() if callable(value) and not n.startswith("_") and n not in OWN]
    if changed := [n for n in hooks if getattr(own, n) is not getattr(base, n)]:
        raise PluginError(
            f"'{name}' reads out the network of '{network}', so it may not override {', '.join(changed)}",
            where=where,
            hint=f"a read-out may override {', '.join(OWN)}; derive it from the class of '{network}', "
            "or leave readout_of out of its card to train a network of its own",
        )
    if adjusts(base):
        raise PluginError(
            f"'{name}' can't read out '{network}', which adjusts its logits itself", where=where,
            hint="leave readout_of out of its card, and adjust the logits in one method",
        )  # fmt: skip


def _told(state: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers, words and short lists of a state: what the record can say of it in plain text."""
    plain: dict[str, Any] = {}
    for name, value in state.items():
        content = value.tolist() if isinstance(value, (np.ndarray, np.generic, torch.Tensor)) else value
        few = content if isinstance(content, list) and len(content) <= 1000 else [content]
        if all(item is None or isinstance(item, (bool, int, float, str)) for item in few):
            plain[str(name)] = content
    return plain
