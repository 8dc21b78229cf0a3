"""Promises about a method's card, its parameters and its hooks' names: nothing is trained."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from fer_bench.conformance.promise import Broken, DoesNotApply, Promise
from fer_bench.conformance.world import World
from fer_bench.contract.cards import Card
from fer_bench.contract.method import Method
from fer_bench.contract.params import Choice, Float, Int, Param, Scale, within
from fer_bench.contract.sources import parsed
from fer_bench.errors import FerBenchError, SpecError, nearest

CARD_PAGE = "docs/methods.md, 'The card'"


def check_card(world: World) -> None:
    """The card answers what tables print, the class carries it, and no entry is a string that lost its comma."""
    card = world.card
    for field in ("title", "changes"):
        if not getattr(card, field).strip():
            raise Broken(f"the card's {field} is empty", look=f"card, {field}=")
    for field in ("deviations", "needs"):
        value = getattr(card, field)
        if not isinstance(value, tuple) or not all(isinstance(entry, str) and entry for entry in value):
            example = f"{field}={value!r:.80}; a tuple of one entry ends in a comma"
            raise Broken(f"{field} is not a tuple of texts", example=example, look=f"card, {field}=")
    if world.cls.card != card:
        example = next(f for f in vars(card) if getattr(world.cls.card, f) != getattr(card, f))
        raise Broken("the imported card differs from the one that is read from the file", example=f"field {example}")
    for name, param in card.params.items():
        if not param.help.strip():
            raise Broken(f"parameter {name} has no help", look=f"card, params, {name}")


def check_hooks(world: World) -> str | None:
    """Overridden hooks take the arguments that the harness gives, and no public name is a hook misspelt."""
    hooks = {n: v for n, v in vars(Method).items() if inspect.isfunction(v) and not n.startswith("_")}
    for name in dir(world.cls):
        value = inspect.getattr_static(world.cls, name)
        if not inspect.isfunction(value) or name.startswith("_"):
            continue
        if name in hooks:
            _check_arguments(name, value, hooks[name])
        elif (close := [c for c in nearest(name, hooks, 1) if _one_edit(name, c)]) and name not in _called(world.cls):
            what = f"nothing calls {name}(); the hook is called {close[0]}()"
            raise Broken(what, look=f"{world.cls.__name__}.{name}")
    for name in ("batch_loss", "weighted_mean"):
        if getattr(world.cls, name) is not getattr(Method, name):
            raise Broken(f"{name}() is overridden", look="criterion and image_weights are the hooks for that")
    return None


def _called(cls: type[Method]) -> set[str]:
    """Names that the files of a class and of those it derives from call or hand on: ``self.stage()``."""
    files = {inspect.getfile(base) for base in cls.__mro__ if base not in Method.__mro__}
    nodes = (node for file in sorted(files) for node in ast.walk(parsed(Path(file))))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def _check_arguments(name: str, given: Any, hook: Any) -> None:
    """Raise Broken unless `given` can be called as the harness calls the hook."""
    asked = list(inspect.signature(hook).parameters.values())
    try:
        inspect.signature(given).bind(*[p.name for p in asked if p.kind is not p.VAR_POSITIONAL])
    except TypeError as error:
        names = ", ".join(p.name for p in asked)
        raise Broken(
            f"{name}() can't be called with ({names}): {error}", look=f"{name}{inspect.signature(given)}"
        ) from None


def _one_edit(one: str, other: str) -> bool:
    """Whether two names differ by a swap, or by one or two letters: ``training_setp``, ``on_batchs``."""
    same = sorted(one) == sorted(other)
    return same or (abs(len(one) - len(other)) <= 1 and len(set(one) ^ set(other)) <= 1 and one[:3] == other[:3])


class Carded(Protocol):
    """A world whose plug-in has a card, of a method or a data set."""

    @property
    def card(self) -> Card:
        """What the plug-in says about itself."""


def check_parameters(world: Carded) -> str | None:
    """Defaults, ends and choices are accepted, other values refused, and tuning searches within them."""
    if not world.card.params:
        raise DoesNotApply("the card has no parameters")
    for name, param in world.card.params.items():
        look = f"card, params, {name}"
        if isinstance(param.default, (int, float)) and not isinstance(param.default, bool) and param.choices is None:
            if param.low is None and param.high is None:
                raise Broken(f"{name} is a number without a range", example=f"default {param.default}", look=look)
            if param.low is not None and param.high is not None and param.low > param.high:
                raise Broken(f"the range of {name} is empty", example=f"low={param.low}, high={param.high}", look=look)
        for value in accepted_values(param):
            _parse(world.card, name, value, look)
        for value in refused_values(param):
            try:
                world.card.resolve({name: value})
            except SpecError:
                continue
            raise Broken(f"{name} accepts a value outside its range", example=f"{name}={value!r}", look=look)
        _check_space(world.card, name, param, look)
    return None


def _parse(card: Card, name: str, value: Any, look: str) -> None:
    for given in (value, str(value)):
        try:
            taken = card.resolve({name: given})[name]
        except FerBenchError as error:
            raise Broken(
                f"{name} refuses a value of its own: {error.what}", example=f"{name}={value!r}", look=look
            ) from None
        if taken != value:
            raise Broken(f"{name} turns a value into another", example=f"{given!r} becomes {taken!r}", look=look)


def accepted_values(param: Param) -> list[Any]:
    """The default, all choices, special numbers and words, and both ends of the range."""
    if param.choices is not None:
        values = [param.default, *param.choices]
    elif isinstance(param.default, bool):
        values = [param.default, not param.default]
    else:
        ends = [v for v in (param.low, param.high) if v is not None]
        whole = isinstance(param.default, int)
        values = [param.default, *param.special, *param.words, *(int(v) if whole else float(v) for v in ends)]
    seen: list[Any] = []
    for value in values:
        if not any(value == s and isinstance(value, bool) == isinstance(s, bool) for s in seen):
            seen.append(value)
    return seen


def refused_values(param: Param) -> Iterator[Any]:
    """One value below the range, one above it, one that is not among the choices."""
    if param.choices is not None:
        yield "no such choice"
        return
    if isinstance(param.default, bool) or param.default is None:
        return
    step = 1 if isinstance(param.default, int) else 0.5
    for end, value in ((param.low, (param.low or 0) - step), (param.high, (param.high or 0) + step)):
        if end is not None and value not in param.special:
            yield value


def _check_space(card: Card, name: str, param: Param, look: str) -> None:
    space = param.space
    if space is None:
        return
    values: tuple[Any, ...] = ()
    if isinstance(space, Choice):
        if not space.options:
            raise Broken(f"the search space of {name} is empty", look=look)
        values = space.options
    elif isinstance(space, (Float, Int, Scale)):
        if space.low > space.high:
            raise Broken(f"the search space of {name} is empty", example=f"{space}", look=look)
        if space.low <= 0 and (isinstance(space, Scale) or space.log):
            raise Broken(f"the search space of {name} has a logarithm, but begins at {space.low}", look=look)
        by = float(param.default) if isinstance(space, Scale) else 1.0
        values = (space.low * by, space.high * by) if isinstance(space, Scale) else (space.low, space.high)
    for value in values:
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and param.choices is None
        if number and not within(value, param.low, param.high, param.special):
            example = f"tuning may draw {name}={value}; accepted: {param.accepts}"
            raise Broken(f"the search space of {name} leaves its range", example=example, look=look)
        _parse(card, name, value, look)


PROMISES = (
    Promise(
        name="card",
        says="the card is complete, and equal whether it is read or imported",
        check=check_card,
        look="card",
        page=CARD_PAGE,
    ),
    Promise(
        name="hooks",
        says="every hook takes what the harness gives it, and none is misspelt",
        check=check_hooks,
        page="docs/methods.md, 'All hooks, in the order in which they run'",
        after=("card",),
    ),
    Promise(
        name="parameters",
        says="defaults, ends and choices are accepted, other values refused, and tuning stays within them",
        check=check_parameters,
        page=CARD_PAGE,
    ),
)
