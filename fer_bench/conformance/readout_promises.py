"""Promises of a method that trains nothing: it adjusts logits that the run of another method has stored."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from torch import nn

from fer_bench.conformance import method_cards, sealed
from fer_bench.conformance.images import COUNTS
from fer_bench.conformance.method_cards import accepted_values
from fer_bench.conformance.promise import Broken, DoesNotApply, Promise
from fer_bench.conformance.training_promises import pack_and_unpack
from fer_bench.conformance.world import World, first_difference
from fer_bench.contract.batch import TrainView, ValOutputs
from fer_bench.contract.method import Method
from fer_bench.rng import numpy_generator, seed_all
from fer_bench.runs.probe import PROCESSES, judge, order_of
from fer_bench.runs.readout_worker import check_readout
from fer_bench.training.evaluate import adjusted

PAGE = "docs/methods.md, 'Another read-out of the same network'"


def stored(classes: int, spread: float = 2.0) -> ValOutputs:
    """Logits of 40 images that are right more often than not, with labels of every class, and no features."""
    rng = numpy_generator(0, "conformance", "stored", classes)
    labels = np.arange(max(40, classes)) % classes
    logits = rng.normal(size=(len(labels), classes))
    logits[np.arange(len(labels)), labels] += 1
    return ValOutputs(logits=(spread * logits).astype(np.float32), labels=labels)


def fitted(world: World, view: TrainView, outputs: ValOutputs, **params: object) -> Method:
    """A fresh instance that has been fitted."""
    method = world.method(view, params=params)
    method.fit_posthoc(nn.Identity(), ValOutputs(logits=outputs.logits.copy(), labels=outputs.labels))
    return method


def check_network(world: World) -> str:
    """It overrides nothing but the hooks of a read-out."""
    base = world.plugins.method(world.card.readout_of)
    check_readout(world.cls, base.load(), where=str(world.plugin.path))
    return f"reads out '{base.card.name}'"


def check_deterministic(world: World) -> None:
    """Fitted twice on the same logits, it adjusts alike."""
    outputs, made = stored(len(COUNTS)), []
    for k in range(2):
        seed_all(k, "conformance", "elsewhere")
        made.append(adjusted(fitted(world, world.fold(), outputs), outputs.logits, None))
    if difference := first_difference(made[0], made[1], "adjusted logits"):
        raise Broken("fitted twice on the same logits, it adjusts them differently", example=difference)


def check_state(world: World) -> None:
    """A fresh instance with the saved state adjusts bitwise alike."""
    outputs = stored(len(COUNTS))
    method, other = fitted(world, world.fold(), outputs), world.method(world.fold())
    other.load_state_dict(pack_and_unpack(method.state_dict()))
    made = [adjusted(m, outputs.logits, None) for m in (method, other)]
    if difference := first_difference(made[0], made[1], "adjusted logits"):
        what = "a fresh instance with the saved state adjusts otherwise than the one that was fitted"
        raise Broken(what, example=f"{difference} (fitted, fresh)")


def check_classes(world: World, counts: Sequence[int], spread: float = 2.0) -> None:
    """Fit and adjust where the training fold has `counts` images a class."""
    outputs = stored(len(counts), spread)
    adjusted(fitted(world, world.fold(tuple(counts)), outputs), outputs.logits, None)


def check_batches(world: World) -> None:
    """Each row is adjusted from its own row alone."""
    outputs = stored(len(COUNTS))
    made: list[list[np.ndarray | str]] = []
    for number, passes in enumerate(PROCESSES):
        method = fitted(world, world.fold(), outputs)
        seed_all(0, "probe", number)
        rows: list[np.ndarray | str] = []
        for name, size in passes:
            order = order_of(name, len(outputs.logits), 0, outputs.logits)
            parts = np.array_split(outputs.logits[order], range(size, len(order), size))
            restored = np.empty_like(outputs.logits)
            restored[order] = np.concatenate([adjusted(method, part, None) for part in parts])
            rows.append(restored)
        made.append(rows)
    verdict = judge(made)
    if verdict["transductive"] and not world.card.transductive:
        check = max(verdict["checks"], key=lambda c: c["max_difference"])
        example = f"{len(outputs.labels)} rows, {check['name']}: a logit moves by {check['max_difference']:.4g}"
        raise Broken("the adjustment of a row depends on the other rows", example=example)


def check_values(world: World) -> str:
    """Fit and adjust with each value that the card offers."""
    outputs, tried = stored(len(COUNTS)), 0
    for name, param in world.card.params.items():
        for value in accepted_values(param):
            adjusted(fitted(world, world.fold(), outputs, **{name: value}), outputs.logits, None)
            tried += 1
    if not tried:
        raise DoesNotApply("the card has no parameters")
    return f"{tried} values"


CLASSES = (
    ("extreme logits", "logits of tens of thousands are adjusted to finite ones", COUNTS, 1e4),
    ("empty class", "a class without training images does no harm", (10, 4, 0, 2), 2.0),
    ("rare class", "a class with one training image does no harm", (10, 4, 1, 1), 2.0),
    ("two classes", "two classes are enough", (10, 6), 2.0),
    ("fifty classes", "fifty classes are not too many", (2,) * 50, 2.0),
)

PROMISES: tuple[Promise[World], ...] = (
    *method_cards.PROMISES,
    Promise(
        name="network",
        says="it overrides nothing but what a read-out may",
        check=check_network,
        page=PAGE,
        after=("card", "hooks"),
    ),
    Promise(
        name="deterministic",
        says="fitted twice on the same logits, it adjusts them alike",
        check=check_deterministic,
        look="fit_posthoc, adjust",
        after=("network",),
    ),
    Promise(
        name="state",
        says="a fresh instance with the saved state adjusts as the fitted one does",
        check=check_state,
        look="state_dict, load_state_dict",
        after=("network",),
    ),
    *(
        Promise(
            name=name,
            says=says,
            check=partial(check_classes, counts=counts, spread=spread),
            look="fit_posthoc, adjust: self.ctx.counts may hold zeros",
            after=("network",),
        )
        for name, says, counts, spread in CLASSES
    ),
    Promise(
        name="batches",
        says="a row is adjusted from its own row alone, unless the card says otherwise",
        check=check_batches,
        look="adjust; or say transductive=True in the card",
        after=("network",),
    ),
    Promise(
        name="values",
        says="every value that the card offers can be fitted and adjusted with",
        check=check_values,
        look="card, params",
        after=("network", "parameters"),
    ),
    *sealed.PROMISES,
)
