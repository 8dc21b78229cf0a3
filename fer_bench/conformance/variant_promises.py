"""Promises about what else a method is run with: every value of its parameters, and other networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from fer_bench.conformance.effects import PARAMETER_PROMISES, differ, in_brackets, in_turns, other_values, try_with
from fer_bench.conformance.images import validation
from fer_bench.conformance.method_cards import accepted_values
from fer_bench.conformance.promise import Broken, DoesNotApply, Promise
from fer_bench.conformance.world import FEWEST, NETWORK_SIDE, NETWORKS, ONE_STEP, Watch, World
from fer_bench.contract.params import Choice, Float, Int
from fer_bench.errors import SpecError
from fer_bench.training.job import Fold

MOST_VALUES = 12
LARGE_SIDE = 48  # pixels; the last map of the kit's ResNet is 3x3
WITHOUT = {"ResNet": (), "ConvNeXt": ("ResNet",), "ViT": ("ResNet", "feature map")}
"""Family of networks to the needs that it does not meet."""


def values_to_try(world: World) -> list[dict[str, Any]]:
    """Each accepted value of each parameter, and both ends of where tuning looks, beside the other defaults.

    Parameters take turns, so that a limit on the number leaves every one of them with some.
    """
    cases: list[dict[str, Any]] = []
    for name, param in world.card.params.items():
        space: tuple[Any, ...] = ()
        if isinstance(param.space, Choice):
            space = param.space.options
        elif isinstance(param.space, (Float, Int)):
            space = (param.space.low, param.space.high)
        values = [*accepted_values(param), *space]
        cases += ({name: v} for k, v in enumerate(values) if v != param.default and v not in values[:k])
    return in_turns(cases)


def check_values(world: World) -> str:
    """One step with each value; a value that is refused beside the defaults must be taken beside something else."""
    cases = values_to_try(world)
    if not cases:
        raise DoesNotApply("there is no value but the defaults")
    refused, plain = [], try_with(world, {})
    for params in cases[:MOST_VALUES]:
        try:
            if differ(plain, try_with(world, params)):
                world.changed |= set(params)
        except SpecError as reason:
            refused.append(_beside(world, params, reason))
            world.changed |= set(params)
    note = f"{len(cases[:MOST_VALUES])} values" + (f" of {len(cases)}" if len(cases) > MOST_VALUES else "")
    return "; ".join([note, *refused])


def _beside(world: World, params: Mapping[str, Any], reason: SpecError) -> str:
    """Where a refused value is taken: with larger images, or another value of one more parameter; or raises Broken."""
    view = world.fold(FEWEST, side=max(LARGE_SIDE, world.side))
    for other in ({}, *other_values(world, params)):
        both = {**params, **other}
        try:
            world.model(world.method(view, ONE_STEP, both))
        except SpecError:
            continue
        world.train(view, recipe=ONE_STEP, params=both, watch=Watch())
        return f"{in_brackets(params)} needs " + (in_brackets(other) or f"images of more than {world.side} pixels")
    raise Broken(
        f"the card offers {in_brackets(params)}, but the method refuses it: {reason.what}",
        example=f"refused with images of {world.side} and {LARGE_SIDE} pixels, and with every other value of one more",
        look="card, params; build_model",
        page="docs/methods.md, 'The card'",
    )


def check_networks(world: World) -> str:
    """One step on each family of networks, or a SpecError where the card says that it needs another; and in colour."""
    works, refuses, side = [], [], max(NETWORK_SIDE, world.side)
    for family, build in NETWORKS.items():
        lacking = [need for need in world.card.needs if need in WITHOUT[family]]
        view = world.fold((6, 5, 3, 2), side=side)
        try:
            world.train(view, recipe=ONE_STEP, trunk=partial(build, side), watch=Watch())
        except SpecError as reason:
            if not lacking:
                raise Broken(
                    f"it refuses a {family}, but its card does not say what it needs: {reason.what}",
                    example=f"a {family}, images of {side} pixels",
                    look="card, needs=",
                ) from None
            refuses.append(family)
        except Exception as error:
            if not lacking:
                error.add_note(f"a {family}")
                raise
            raise Broken(
                f"its card needs a {lacking[0]}, but a {family} is not refused with a SpecError",
                example=f"it raised {type(error).__name__}: {error}",
                look="build_model",
            ) from error
        else:
            if lacking:
                what = f"its card needs a {lacking[0]}, but it works with a {family}"
                raise Broken(what, example=f"one step, images of {side} pixels", look="card, needs=")
            works.append(family)
    grey = world.fold((6, 5, 3, 2), side=side)
    colour = replace(grey, images=grey.images.repeat(1, 3, 1, 1))
    val = validation(grey.num_classes, side=side)
    val = Fold(images=val.images.repeat(1, 3, 1, 1), labels=val.labels)
    world.train(colour, recipe=ONE_STEP, val=val, watch=Watch())
    return f"works with {', '.join(works)}" + (f"; refuses {', '.join(refuses)}, as its card says" if refuses else "")


PROMISES: tuple[Promise[World], ...] = (
    Promise(
        name="networks",
        says="it works with a ResNet, a ConvNeXt and a ViT, or its card says which it needs",
        check=check_networks,
        look="build_model",
        page="docs/methods.md, 'What it needs'",
        after=("trains",),
    ),
    Promise(
        name="values",
        says="every value that the card offers can be trained with",
        check=check_values,
        look="card, params",
        page="docs/methods.md, 'The card'",
        after=("trains", "parameters"),
        slow=True,
    ),
    *PARAMETER_PROMISES,
)
