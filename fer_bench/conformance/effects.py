"""The promise that no parameter of a method is there for nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import numpy as np

from fer_bench.conformance.method_cards import accepted_values
from fer_bench.conformance.promise import Broken, DoesNotApply, Promise
from fer_bench.conformance.training_promises import LATE, state_of
from fer_bench.conformance.world import FEWEST, ONE_STEP, Training, Tried, World, first_difference
from fer_bench.contract.batch import Params, ValOutputs
from fer_bench.contract.sources import files_of, parsed
from fer_bench.errors import SpecError
from fer_bench.training.evaluate import adjusted, adjusts
from fer_bench.training.recipe import Recipe

MOST_PARTNERS = 8
SOME = replace(LATE, epochs=4)


def try_with(world: World, params: Mapping[str, Any], recipe: Recipe = ONE_STEP) -> Tried:
    """Train with some parameters, in one step or in more epochs, and note what was read and what is left.

    What is left are losses and gradients of the steps, weights, state, and predictions.
    """
    for tried in world.tried:
        if (tried.params, tried.recipe) == (params, recipe):
            return tried
    view = world.fold(FEWEST) if recipe is ONE_STEP else world.fold((8, 4, 3, 2), name="late")
    read: set[str] = set()
    with _noting_reads(read):
        training = world.train(view, recipe=recipe, params=params)
        predicted = _predictions(world, training)
    steps = training.watch.steps
    left = {**state_of(training), "steps": [(s.stage, s.epoch, s.step) for s in steps], "predictions": predicted}
    left["losses"] = np.array([(s.loss, s.gradient) for s in steps])
    tried = Tried(dict(params), recipe, read, left)
    world.tried.append(tried)
    return tried


def _predictions(world: World, training: Training) -> np.ndarray:
    method, model, val = training.job.method, training.job.model, training.job.val
    predicted = world.predict(method, model, val.images)
    if not adjusts(world.cls):
        return predicted.logits
    outputs = ValOutputs(logits=predicted.logits, labels=val.labels, features=predicted.features)
    method.fit_posthoc(model, outputs)
    return adjusted(method, predicted.logits, predicted.features)


def differ(one: Tried, other: Tried) -> bool:
    """Whether two trainings left anything different."""
    return first_difference(one.left, other.left, "") is not None


@contextmanager
def _noting_reads(names: set[str]) -> Iterator[None]:
    """While it is open, every parameter that is read from ``self.params`` is noted."""
    plain = Params.__getitem__

    def noting(self: Params, key: str) -> Any:
        names.add(key)
        return plain(self, key)

    Params.__getitem__ = noting  # type: ignore[method-assign]
    try:
        yield
    finally:
        Params.__getitem__ = plain  # type: ignore[method-assign]


def other_values(world: World, params: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every value but the default that the card offers for a parameter which `params` does not hold."""
    for name, param in world.card.params.items():
        if name not in params:
            yield from ({name: v} for v in accepted_values(param) if v != param.default)


def in_turns(cases: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Cases of one parameter each, in the order of their parameters, which take turns."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for case in cases:
        rows.setdefault(next(iter(case)), []).append(case)
    return [case for turn in zip_longest(*rows.values()) for case in turn if case is not None]


def in_brackets(params: Mapping[str, Any]) -> str:
    """Parameters as they are typed."""
    return ", ".join(f"{name}={value}" for name, value in params.items())


def check_effects(world: World) -> str | None:
    """Each parameter is read somewhere. One that changes nothing here is told, for it may need another world.

    What changes nothing in one step beside the defaults is tried in more epochs, and beside those values of other
    parameters with which it is read. Where nobody reads the notes, only a parameter that nothing has read yet is.
    """
    if not world.card.params:
        raise DoesNotApply("the card has no parameters")
    silent = [name for name in world.card.params if name not in world.changed]
    if not world.notes:
        silent = [name for name in silent if not _was_read(world, name)]
    quiet = [name for name in silent if not _has_effect(world, name)]
    for name in quiet:
        if not _was_read(world, name) and not _mentioned(world, name):
            raise Broken(
                f"nothing reads the parameter {name}",
                example=f"{len(world.tried)} trainings with other values of it, and of other parameters",
                look=f'card, params, {name}; self.params["{name}"]',
            )
    if not quiet:
        return None
    noun = "it matters" if len(quiet) == 1 else "they matter"
    return f"no value that was tried of {', '.join(quiet)} changed anything: does the help say when {noun}?"


def _was_read(world: World, name: str) -> bool:
    return any(name in tried.read for tried in world.tried)


def _has_effect(world: World, name: str) -> bool:
    """Whether a value of a parameter changes anything, beside the defaults or values of other parameters."""
    param = world.card.params[name]
    values = [v for v in accepted_values(param) if v != param.default]
    return bool(values) and any(
        _changes(world, name, value, other, recipe)
        for other, recipes in _partners(world, name)
        for recipe in recipes
        for value in ((values[0], values[-1]) if recipe is SOME else values[:1])
    )


def _changes(world: World, name: str, value: Any, other: Mapping[str, Any], recipe: Recipe) -> bool:
    try:
        return differ(try_with(world, other, recipe), try_with(world, {**other, name: value}, recipe))
    except SpecError:
        return False


def _partners(world: World, name: str) -> Iterator[tuple[Mapping[str, Any], tuple[Recipe, ...]]]:
    """Beside which parameters another one is tried, and in which trainings.

    Where one step with the defaults doesn't read it, beside a value or two of others that do, then in more epochs; and
    else beside all others for one step.
    """
    untried = in_turns(other_values(world, {name: None}))
    untried.sort(key=lambda case: not any(isinstance(value, (str, bool)) for value in case.values()))
    if name in try_with(world, {}).read:
        yield {}, (ONE_STEP, SOME, LATE)
        yield from ((other, (ONE_STEP,)) for other in untried[: MOST_PARTNERS // 2])
        return
    found = [tried.params for tried in world.tried if name not in tried.params and name in tried.read]
    for other in untried[:MOST_PARTNERS]:
        if found:
            break
        with suppress(SpecError):
            found = [other] if name in try_with(world, other).read else []
    yield from ((other, (ONE_STEP, SOME, LATE)) for other in found[:2])
    yield {}, (SOME, LATE)


def _mentioned(world: World, name: str) -> bool:
    """Whether the code has the name of a parameter outside the card, or reads parameters whose names it computes."""
    for file in files_of(world.plugin.path, world.plugin.tree):
        for node in (
            node for statement in parsed(file).body if not _is_card(statement) for node in ast.walk(statement)
        ):
            match node:
                case ast.Constant(value=value) if value == name:
                    return True
                case ast.Subscript(value=ast.Attribute(attr="params"), slice=key) if not isinstance(key, ast.Constant):
                    return True
    return False


def _is_card(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "card"


PARAMETER_PROMISES: tuple[Promise[World], ...] = (
    Promise(
        name="effects",
        says="every parameter is read",
        check=check_effects,
        look="card, params",
        page="docs/methods.md, 'The card'",
        after=("values",),
        slow=True,
    ),
)
