"""Promises about single steps and single predictions: labels, classes, batches, draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from fer_bench.conformance.images import COUNTS, validation
from fer_bench.conformance.promise import Broken, DoesNotApply, Promise
from fer_bench.conformance.training_promises import need_steps
from fer_bench.conformance.world import ONE_STEP, Watch, World
from fer_bench.contract.batch import Batch, Output, ValOutputs
from fer_bench.contract.method import Method
from fer_bench.errors import SpecError
from fer_bench.rng import seed_all
from fer_bench.runs.probe import PROCESSES, judge, order_of
from fer_bench.training.evaluate import adjusted, adjusts, insight_of, predict_exactly
from fer_bench.training.fit import has_estimator

EXTREME = 1e4


# -- labels ----------------------------------------------------------------------------------------------------------


def check_labels(world: World) -> str | None:
    """A step with labels and the same step with one-hot targets have the same loss and gradient."""
    need_steps(world)
    if "votes" in world.card.needs:
        raise DoesNotApply("the method needs votes, so it is never given labels alone")
    view = world.fold((6, 5, 3, 2))
    hard = world.train(view, recipe=ONE_STEP).watch
    made_soft: list[bool] = []

    def one_hot(batch: Batch) -> Batch:
        made_soft.append(batch.soft is None)
        aux = {name: one_hot(other) for name, other in batch.aux.items()}
        return batch.with_(soft=batch.soft_target(view.num_classes), aux=aux)

    soft = world.train(view, recipe=ONE_STEP, watch=Watch(on_batch=one_hot)).watch
    for one, other in zip(hard.steps, soft.steps, strict=True):
        for what in ("loss", "gradient"):
            a, b = getattr(one, what), getattr(other, what)
            if not np.isclose(a, b, rtol=1e-3, atol=1e-5):
                example = f"{what} {a:.6g} with labels, {b:.6g} with one-hot targets; {one.where}"
                raise Broken("labels and one-hot targets train differently", example=example)
    return None if any(made_soft) else "on_batch gives soft targets itself, so labels never reach the loss"


def check_votes(world: World) -> str | None:
    """Training images with soft labels, and without known people; whether soft labels make a difference is told."""
    need_steps(world)
    groups = "groups" in world.card.needs
    view = world.fold((6, 5, 3, 2), votes=True, groups=groups)
    soft = world.train(view, recipe=ONE_STEP, watch=Watch()).watch.steps

    def hard(batch: Batch) -> Batch:
        return batch.with_(soft=None)

    if "votes" in world.card.needs:
        return None
    steps = world.train(view, recipe=ONE_STEP, watch=Watch(on_batch=hard)).watch.steps
    alike = all(np.isclose(a.loss, b.loss, rtol=1e-6) for a, b in zip(soft, steps, strict=False))
    return "soft labels train like their labels: votes, mixing and smoothing have no effect" if alike else None


def check_extremes(world: World) -> str | None:
    """A step in which the network's logits are ±10,000, some for the label and some against it."""
    need_steps(world)
    seen: list[str] = []

    def extreme(logits: Tensor) -> Tensor:
        rows, columns = (torch.arange(n, device=logits.device) for n in logits.shape[:2])
        at = (rows[:, None] + columns) % logits.shape[1] == 0
        return logits + torch.where(at, EXTREME, -EXTREME)

    def hook(module: nn.Module, given: object, output: object) -> object:
        if module.training and isinstance(output, Output) and output.logits.ndim == 2:
            seen.append("model")
            return replace(output, logits=extreme(output.logits))
        return None

    world.train(
        world.fold((6, 5, 3, 2)), recipe=ONE_STEP, watch=Watch(model=lambda m: m.register_forward_hook(hook))
    )  # fmt: skip
    if not seen:
        raise DoesNotApply("training_step does not call the model itself, so its logits can't be replaced")
    return None


# -- classes ---------------------------------------------------------------------------------------------------------


def check_classes(world: World, counts: Sequence[int]) -> None:
    """One epoch on a fold with `counts` images a class; a method may say with a SpecError that it can't take that."""
    view = world.exactly(counts) if 1 in counts else world.fold(counts)
    recipe = replace(ONE_STEP, batch_size=min(50, len(view)))
    try:
        training = world.train(view, recipe=recipe, watch=Watch())
    except SpecError as reason:
        raise DoesNotApply(f"it refuses such a fold: {reason.what}") from reason
    if adjusts(world.cls):
        fit_and_adjust(world, training.job.method, training.job.model, view.num_classes)


def fit_and_adjust(world: World, method: Method, model: nn.Module, classes: int) -> None:
    """Fit the adjustment on validation, as the harness does after an epoch is selected, and apply it."""
    val = validation(classes, side=world.side)
    predicted = world.predict(method, model, val.images)
    method.fit_posthoc(model, ValOutputs(logits=predicted.logits, labels=val.labels, features=predicted.features))
    adjusted(method, predicted.logits, predicted.features)


def check_one_image(world: World) -> None:
    """Steps on batches of one image each."""
    need_steps(world)
    if "two images" in world.card.needs:
        raise DoesNotApply("the card says that it needs batches of two images")
    world.train(world.fold((2, 2, 2, 2)), recipe=replace(ONE_STEP, batch_size=1), watch=Watch())


# -- draws and predictions -------------------------------------------------------------------------------------------


def check_draws(world: World) -> None:
    """Hooks of a step leave the global generators alone, so that a step can be replayed."""
    need_steps(world)
    world.train(world.fold((6, 5, 3, 2)), recipe=ONE_STEP, watch=Watch(draws=True))


def check_batches(world: World) -> str | None:
    """The passes of the probe: other batches, other orders, fresh instances."""
    training = world.reference
    images = validation(len(COUNTS), side=world.side, labels=np.arange(24) % len(COUNTS)).images
    adjust = adjusts(world.cls)
    outputs: list[list[np.ndarray | str]] = []
    for number, passes in enumerate(PROCESSES):
        method, model = world.fresh(training)
        if adjust:
            fit_and_adjust(world, method, model, len(COUNTS))
        seed_all(0, "probe", number)
        first: np.ndarray | None = None
        made: list[np.ndarray | str] = []
        for name, size in passes:
            order = order_of(name, len(images), 0, first)
            try:
                logits = predict_exactly(
                    method, model, images[torch.as_tensor(order)], training.job.recipe, batch=size, adjust=adjust,
                    estimator=has_estimator(method.stages()),
                )  # fmt: skip
            except Exception as error:
                made.append(f"{type(error).__name__}: {error}")
                continue
            restored = np.empty_like(logits)
            restored[order] = logits
            first = restored if first is None else first
            made.append(restored)
        outputs.append(made)
    verdict = judge(outputs)
    if not verdict["transductive"]:
        return "the card says transductive, but nothing moved here" if world.card.transductive else None
    if world.card.transductive:
        raise DoesNotApply("the card says that it reads other test images")
    moved = [c for c in verdict["checks"] if c["max_difference"] is None or c["max_difference"] > verdict["tolerance"]]
    check = moved[0]
    example = (
        check.get("error") or f"a logit moves by {check['max_difference']:.4g} ({verdict['tolerance']:.2g} allowed)"
    )
    raise Broken(
        "predictions depend on the other images of the batch, or on what was predicted before",
        example=f"24 images, {check['name']}: {example}",
    )


def check_insight(world: World) -> str:
    """Maps and shares of six images in one batch, and of each image alone."""
    if world.cls.insight is Method.insight:
        raise DoesNotApply("the method has no insight()")
    method, model = world.fresh(world.reference)
    recipe, images = world.reference.job.recipe, validation(len(COUNTS), labels=np.arange(6) % len(COUNTS)).images[:]
    together = insight_of(method, model, images, recipe)
    alone = [insight_of(method, model, image[None], recipe) for image in images]
    pairs = {f"map '{name}'": (whole, [one.maps.get(name) for one in alone]) for name, whole in together.maps.items()}
    if together.shares is not None:
        pairs["shares"] = (together.shares, [one.shares for one in alone])
    for name, (whole, parts) in pairs.items():
        single = [part for part in parts if part is not None]
        if len(single) < len(images) or any(part.shape[1:] != whole.shape[1:] for part in single):
            raise Broken(f"{name} has another shape, or is missing, where an image is read alone")
        gap = float((torch.cat(single) - whole).abs().max())
        if gap > 1e-3 * float(whole.abs().max()) and not world.card.transductive:
            example = f"6 images, one at a time: a value moves by {gap:.4g}"
            raise Broken(f"{name} of an image depends on the other images of the batch", example=example)
    return ", ".join(pairs) or "nothing to show"


CLASSES = (
    ("empty class", "a class without training images does no harm", (10, 4, 0, 2)),
    ("rare class", "a class with one training image does no harm", (10, 4, 1, 1)),
    ("two classes", "two classes are enough", (10, 6)),
    ("fifty classes", "fifty classes are not too many", (2,) * 50),
)

PROMISES: tuple[Promise[World], ...] = (
    Promise(
        name="labels",
        says="labels and one-hot targets have the same loss and gradient",
        check=check_labels,
        look="criterion, training_step",
        after=("deterministic",),
    ),
    Promise(
        name="votes",
        says="training images with soft labels, and without people, are taken",
        check=check_votes,
        look="criterion, image_weights, training_step: batch.target may be [B, K]",
        after=("labels",),
    ),
    Promise(
        name="extreme logits",
        says="losses and gradients are finite for logits of 10,000 and -10,000",
        check=check_extremes,
        look="criterion: log_softmax, logsumexp and clamp in place of log(softmax)",
        after=("trains",),
    ),
    *(
        Promise(
            name=name,
            says=says,
            check=partial(check_classes, counts=counts),
            look="streams, criterion, image_weights: self.ctx.counts may hold zeros",
            after=("trains",),
        )
        for name, says, counts in CLASSES
    ),
    Promise(
        name="one image",
        says="a batch of one image can be trained on",
        check=check_one_image,
        look="training_step; the card may say needs=('two images',)",
        page="docs/methods.md, 'What it needs'",
        after=("trains",),
    ),
    Promise(
        name="draws",
        says="a step draws from its own generators, so that it can be replayed",
        check=check_draws,
        look="on_batch, training_step",
        after=("trains",),
    ),
    Promise(
        name="batches",
        says="a prediction does not depend on the rest of its batch, nor on the order, unless the card says so",
        check=check_batches,
        look="predict, adjust; or say transductive=True in the card",
        after=("state",),
    ),
    Promise(
        name="insight",
        says="maps and shares of insight() have sound shapes and values, and each image is read alone",
        check=check_insight,
        look="insight",
        page="docs/methods.md, 'All hooks, in the order in which they run'",
        after=("state",),
    ),
)
