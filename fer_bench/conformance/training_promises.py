"""Promises about training as a whole: numbers are finite, the same seed gives the same weights, nothing leaks in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from fer_bench.conformance.images import COUNTS, repeated, validation
from fer_bench.conformance.promise import Broken, DoesNotApply, Promise
from fer_bench.conformance.world import (
    ONE_STEP,
    RECIPE,
    Copying,
    Training,
    World,
    first_difference,
    weights_of,
)
from fer_bench.contract.batch import ValOutputs
from fer_bench.errors import SpecError
from fer_bench.rng import seed_all
from fer_bench.training.evaluate import adjusted, adjusts
from fer_bench.training.job import Fold, Listener
from fer_bench.training.plain import pack, unpack

RULES = "docs/methods.md, 'Rules that the harness enforces'"
LEARNED = 0.9
"""Share of 32 training images that must be predicted right after they have been seen 40 times.

The pictures of a class share a pattern that a linear model could read, so plain cross-entropy gets all of them.
A method may trade a little of that for the rare classes or against wrong labels, but not more than one image in ten.
"""
LEARNING = replace(RECIPE, batch_size=32, optimizer="adamw", lr=8e-3, weight_decay=0.02, flip=0.0, shift=0.0, epochs=5)


def check_trains(world: World) -> str:
    """Two epochs go through, with finite losses and gradients and weights."""
    training = world.reference
    for name, value in training.job.model.state_dict().items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise Broken(f"{name} is not finite after training", example="two epochs; the losses were finite")
    steps = len(training.watch.steps)
    note = f"{steps} steps in {len(world.stages)} stages" if len(world.stages) > 1 else f"{steps} steps"
    return note + (f"; it refuses folds of few images, so all have {world.times} times as many" * (world.times > 1))


def check_bf16(world: World) -> None:
    """One step under bfloat16 autocast, which some processors only imitate: it takes ten times as long there."""
    need_steps(world)
    world.train(world.fold((6, 5, 3, 2)), recipe=replace(ONE_STEP, precision="bf16"))


def need_steps(world: World) -> None:
    """Raise DoesNotApply for a method that trains nothing by gradient descent."""
    if not world.has_steps:
        raise DoesNotApply("no stage trains by gradient descent")


# -- the same again --------------------------------------------------------------------------------------------------


def state_of(training: Training) -> Mapping[str, Any]:
    """Everything that two equal trainings have in common, as plain data."""
    progress, method = training.progress, training.job.method
    kept = ("train_loss", "train_accuracy", "lr")
    return {
        "losses of training": [{k: e.get(k) for k in kept} for e in progress.history],
        "weights": weights_of(training.job.model),
        "state_dict()": pack(method.state_dict()),
    }


def check_deterministic(world: World) -> None:
    """The same seed gives bitwise the same weights, whatever the global generators held before.

    The second training has other validation images and labels, which must not matter either; where it ends in other
    weights, a third one tells whether that is why.
    """
    seed_all(1, "conformance", "elsewhere")
    labels = np.repeat(np.arange(len(COUNTS)), (1, 2, 3, 9))
    val = validation(len(COUNTS), side=world.side, name="other val", labels=labels)
    moved = world.train(world.fold(), val=val)
    if first_difference(state_of(world.reference), state_of(moved), "run") is None:
        world.unmoved = True
        return
    again = world.train(world.fold())
    if difference := first_difference(state_of(world.reference), state_of(again), "run"):
        raise Broken("two trainings with the same seed differ", example=f"{difference}; two epochs")


def check_validation(world: World) -> None:
    """Trainings that differ only in their validation images end alike."""
    labels = world.reference.job.val.labels
    val = validation(len(COUNTS), side=world.side, name="other val", labels=labels)
    _check_unmoved(world, val, "the validation images")


def check_counts(world: World) -> None:
    """Trainings that differ only in the labels of the validation images end alike."""
    val = world.reference.job.val
    labels = np.repeat(np.arange(len(COUNTS)), (1, 1, 1, len(val.labels) - 3))
    example = f"validation labels {labels.tolist()} in place of {val.labels.tolist()}; "
    _check_unmoved(world, Fold(images=val.images, labels=labels), "the labels of validation", example)


def _check_unmoved(world: World, val: Fold, what: str, example: str = "") -> None:
    if world.unmoved:
        return
    moved = world.train(world.fold(), val=val)
    if difference := first_difference(state_of(world.reference), state_of(moved), "run"):
        raise Broken(f"the trained weights depend on {what}", example=example + difference)


# -- interruptions and states ----------------------------------------------------------------------------------------


class _Interrupted(Exception):
    """What ends a training in the middle."""


class _Stop(Listener):
    """Ends a training after an epoch."""

    def __init__(self, after: int):
        self.after = after

    def epoch(self, entry: Mapping[str, Any]) -> None:
        if entry["epoch"] == self.after:
            raise _Interrupted


def check_resume(world: World) -> str:
    """A training that is interrupted after every epoch, and goes on in a fresh instance, ends bitwise alike.

    Its first epoch is that of the usual training, whose files were copied then.
    """
    need_steps(world)
    assert world.reference
    epochs, work = sum(stage.length(RECIPE.epochs) for stage in world.stages), world.interrupted
    for k in range(1, max(2, epochs)):
        seed_all(k, "conformance", "another process")
        last = k + 1 >= epochs
        try:
            resumed = world.train(
                world.fold(), work=work, listener=Listener() if last else _Stop(k), keeps=partial(_is, k)
            )
        except _Interrupted:
            continue
    if difference := first_difference(state_of(world.reference), state_of(resumed), "run"):
        example = f"interrupted after each of {epochs} epochs; {difference} (without and with interruptions)"
        raise Broken("a training that was interrupted ends otherwise than one that was not", example=example)
    return f"interrupted {epochs - 1} times"


def _is(epoch: int, other: int) -> bool:
    return epoch == other


def check_state(world: World) -> None:
    """A fresh instance with the weights and the state predicts bitwise what the trained instance predicts.

    Its module is imported anew, as in the process that scores the test. An adjustment is fitted twice, since each epoch
    that may be selected has its own, with the state of that epoch loaded before it.
    """
    training = world.reference
    method, model = world.fresh(training, cls=world.imported_anew())
    images, labels = training.job.val.images, training.job.val.labels
    pairs = ((training.job.method, training.job.model), (method, model))
    logits = [world.predict(m, net, images) for m, net in pairs]
    if difference := first_difference(logits[0].logits, logits[1].logits, "logits"):
        what = "a fresh instance with the saved state predicts otherwise than the trained one"
        raise Broken(what, example=f"{difference} (trained, fresh); {len(labels)} validation images")
    if not adjusts(world.cls):
        return
    outputs = ValOutputs(logits=logits[0].logits, labels=labels, features=logits[0].features)
    before = pack_and_unpack(method.state_dict())
    method.fit_posthoc(model, outputs)
    other, _ = world.fresh(training, cls=world.imported_anew())
    other.load_state_dict(pack_and_unpack(method.state_dict()))
    changed = [adjusted(m, outputs.logits, outputs.features) for m in (method, other)]
    if difference := first_difference(changed[0], changed[1], "adjusted logits"):
        what = "a fresh instance with the saved state adjusts otherwise than the one that was fitted"
        raise Broken(what, example=f"{difference} (fitted, fresh)", look="fit_posthoc, adjust, state_dict")
    method.load_state_dict(before)
    method.fit_posthoc(model, outputs)
    if difference := first_difference(changed[0], adjusted(method, outputs.logits, outputs.features), "adjusted"):
        what = "an adjustment that is fitted again to the same outputs is another one"
        raise Broken(what, example=f"{difference} (first fit, second fit)", look="fit_posthoc: start afresh each time")


def pack_and_unpack(state: Mapping[str, Any]) -> Any:
    """A state as it comes back from a file."""
    return unpack(pack(state))


LATE = replace(RECIPE, epochs=10, batch_size=7)


def check_late(world: World) -> str:
    """Ten epochs on a fold with an empty class, interrupted after the ninth: what starts late is held to the same."""
    need_steps(world)
    epochs = sum(stage.length(LATE.epochs) for stage in world.stages)
    work, copy, last = world.folder / "late", world.folder / "late, interrupted", max(0, epochs - 2)
    copying = Copying(work, copy, after=last)
    for third in (0, 3):
        view = world.fold((8, 4, third, 2), name="late")
        try:
            whole = world.train(view, recipe=LATE, work=work, listener=copying, keeps=partial(_is, last))
            break
        except SpecError:  # it may refuse a fold with an empty class, but not this one without
            if third:
                raise
    seed_all(1, "conformance", "another process")
    resumed = world.train(view, recipe=LATE, work=copy)
    if difference := first_difference(state_of(whole), state_of(resumed), "run"):
        raise Broken(
            "a training that was interrupted late ends otherwise than one that was not",
            example=f"interrupted after {epochs - 1} of {epochs} epochs; {difference} (without and with)",
        )
    return f"{epochs} epochs"


class _Learned(Exception):
    """Ends a training that has learned enough."""


class _Watching(Listener):
    """Ends a training once the images are predicted right, from an epoch on."""

    def __init__(self, since: int):
        self.since = since

    def epoch(self, entry: Mapping[str, Any]) -> None:
        if entry["epoch"] >= self.since and entry["val_accuracy"] >= LEARNED:
            raise _Learned(f"{entry['val_accuracy']:.0%} of 32 images after {entry['epoch'] + 1} epochs of 8 passes")


def check_learns(world: World) -> str:
    """32 images, eight of each class, are predicted right after they have been seen 40 times, or sooner.

    The images that are learned are scored as validation after every epoch, so that most trainings end early. Where
    something comes after the last epoch, an estimator or an adjustment, it is judged by that.
    """
    few = world.exactly((8, 8, 8, 8), name="few")
    later = adjusts(world.cls) or world.stages[-1].kind != "gradient"
    since = sum(s.length(LEARNING.epochs) for s in world.stages)
    since -= 0 if later else world.stages[-1].length(LEARNING.epochs)
    val = Fold(images=few.images, labels=few.labels)
    try:
        training = world.train(repeated(few, 8), recipe=LEARNING, val=val, listener=_Watching(since))
    except _Learned as reached:
        return str(reached)
    method, model = training.job.method, training.job.model
    predicted = world.predict(method, model, few.images)
    logits = predicted.logits
    if adjusts(world.cls):
        outputs = ValOutputs(logits=logits, labels=few.labels, features=predicted.features)
        method.fit_posthoc(model, outputs)
        logits = adjusted(method, logits, predicted.features)
    right = float((logits.argmax(1) == few.labels).mean())
    if right < LEARNED:
        recalls = [float((logits.argmax(1) == few.labels)[few.labels == c].mean()) for c in range(4)]
        example = f"{right:.0%} of 32 images right, {LEARNED:.0%} asked for; by class: "
        example += ", ".join(f"{r:.0%}" for r in recalls)
        raise Broken("it does not learn 32 images by heart", example=example)
    return f"{right:.0%} of 32 images"


PROMISES: tuple[Promise[World], ...] = (
    Promise(
        name="trains",
        says="two epochs go through, with finite losses, gradients and weights",
        check=check_trains,
        look="training_step, criterion",
        page="docs/methods.md, 'All hooks, in the order in which they run'",
        after=("card", "hooks", "parameters"),
    ),
    Promise(
        name="bf16",
        says="losses and gradients are finite under bfloat16 autocast",
        check=check_bf16,
        look="criterion: compute the loss in float32, output.logits.float()",
        after=("trains",),
    ),
    Promise(
        name="deterministic",
        says="the same seed gives bitwise the same weights",
        check=check_deterministic,
        look="draw from batch.generator, self.ctx.generator(name) or self.ctx.numpy_rng(name), never from the clock",
        after=("trains",),
    ),
    Promise(
        name="validation",
        says="the trained weights do not depend on the validation images",
        check=check_validation,
        look="a hook is given the training fold alone: self.ctx and TrainView",
        after=("deterministic",),
    ),
    Promise(
        name="counts",
        says="class counts come from the training fold alone",
        check=check_counts,
        look="self.ctx.counts, TrainView.counts",
        after=("validation",),
    ),
    Promise(
        name="resume",
        says="a training that was interrupted ends in bitwise the same weights",
        check=check_resume,
        look="state_dict, load_state_dict",
        after=("deterministic",),
    ),
    Promise(
        name="state",
        says="a fresh instance with the saved state predicts what the trained one predicts",
        check=check_state,
        look="state_dict, load_state_dict; buffers of the model",
        after=("trains",),
    ),
    Promise(
        name="learns",
        says="32 images are learned by heart",
        check=check_learns,
        look="criterion, predict, adjust",
        after=("trains",),
        slow=True,
    ),
)

AFTER_CLASSES: tuple[Promise[World], ...] = (
    Promise(
        name="late",
        says="what starts late in training is finite with an empty class, and resumes",
        check=check_late,
        look="what depends on batch.epoch or self.ctx.epochs; state_dict",
        after=("resume", "empty class"),
        slow=True,
    ),
)
"""What is judged once the promises about classes are."""
