"""Parameters of methods, data sets and recipes: default, help, accepted values, and where ``fer-bench tune`` looks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fer_bench.base.variants import assignments, literal
from fer_bench.errors import SpecError, abbreviated, unknown


@dataclass(frozen=True)
class Float:
    """A real search interval [low, high], uniform in the value or in its logarithm."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Int:
    """An integer search interval [low, high], both ends included."""

    low: int
    high: int
    log: bool = False


@dataclass(frozen=True)
class Scale:
    """A real search interval around the study's own value: [low x value, high x value], logarithmic."""

    low: float
    high: float


@dataclass(frozen=True)
class Choice:
    """A finite set of values to search."""

    options: tuple

    def __post_init__(self) -> None:
        object.__setattr__(self, "options", tuple(self.options))


Space = Float | Int | Scale | Choice


@dataclass(frozen=True)
class Param:
    """One parameter of a method or dataset.

    Parameters
    ----------
    default : bool, int, float, str or None
        The value used when none is given; its type is the parameter's type.
    help : str
        What it does, with its source or reason.
    choices : tuple, optional
        The only accepted values. Numbers may be listed beside names.
    space : Float, Int, Scale or Choice, optional
        Where ``fer-bench tune`` looks; a parameter without one is not tuned.
    low, high : float, optional
        Accepted range of a number, ends included. Every number of a plug-in should have one: it is shown beside the
        default, and a typing error is reported before anything is trained.
    special : tuple, optional
        Numbers that are accepted beside the range, such as 0 for "none".
    words : tuple of str, optional
        Words that are accepted in place of a real number, such as "auto". The default may be one of them.
    when : tuple of mappings, optional
        Beside which values of other parameters it has an effect: ``({"mix": ("mixup", "cutmix")},)``. All entries of a
        mapping must hold, and one mapping is enough. Elsewhere only the default is accepted, and a search does not pass
        on what it draws.
    """

    default: Any
    help: str
    choices: tuple | None = None
    space: Space | None = None
    low: float | None = None
    high: float | None = None
    special: tuple = ()
    words: tuple = ()
    when: tuple[Mapping[str, tuple], ...] = ()

    def lacks(self, values: Mapping[str, Any]) -> Mapping[str, tuple]:
        """What to change in `values` so that it has an effect: wanted values by name; empty where it has one."""
        missing = [{n: wanted for n, wanted in case.items() if values[n] not in wanted} for case in self.when]
        return min(missing, key=len, default={})

    @property
    def accepts(self) -> str:
        """The accepted values in words; empty where any value of the type is."""
        if self.choices is not None:
            return ", ".join(map(str, self.choices))
        if isinstance(self.default, bool):
            return "true or false"
        return in_words(self.low, self.high, (*self.special, *self.words))

    def parse(self, text: Any, *, name: str, owner: str) -> Any:
        """Convert command-line text (or a YAML value) to this parameter's type.

        Raises
        ------
        SpecError
            The value has the wrong type, is not one of the choices, or lies outside the range.
        """
        if text in self.words:
            return text
        model = 0.0 if self.default in self.words else self.default
        value = _convert(text, model) if isinstance(text, str) else text
        typed = abbreviated(text)
        where = f"{owner}[{name}={typed}]"
        if self.choices is not None:
            value = next((c for c in self.choices if c == value or str(c) == str(text)), value)
            if value not in self.choices:
                raise SpecError(f"{name} can't be '{typed}'", where=where, hint=f"accepted: {self.accepts}")
            return value
        hint = f"accepted: {self.accepts}; " if self.accepts else ""
        hint += f"the default is {'empty' if self.default == '' else self.default}"
        if not _same_kind(value, model):
            raise SpecError(f"{name} must be {KIND_NAMES[type(model)]}, not '{typed}'", where=where, hint=hint)
        if isinstance(value, str) and not value.isprintable():
            raise SpecError(f"{name} can't be '{typed}'", where=where, hint="only characters that can be printed")
        if value is None or isinstance(value, (str, bool)):
            return value
        if not within(value, self.low, self.high, self.special):
            raise SpecError(f"{name}={typed} is out of range", where=where, hint=hint)
        return float(value) if isinstance(model, float) else value


def idle(params: Mapping[str, Param], values: Mapping[str, Any]) -> list[str]:
    """Parameters whose values are not the defaults, although they have no effect beside the others."""
    return [n for n, param in params.items() if values[n] != param.default and param.lacks(values)]


def require_effects(params: Mapping[str, Param], values: Mapping[str, Any], owner: str) -> None:
    """Raise SpecError where a value has no effect beside the others; the message says what it would need."""
    for name in idle(params, values):
        missing = params[name].lacks(values)
        beside = " and ".join(f"{n}={values[n]}" for n in missing)
        needs = " and ".join(f"{n} to {_one_of(wanted)}" for n, wanted in missing.items())
        raise SpecError(
            f"{name}={values[name]} has no effect with {beside}",
            where=f"method {owner}",
            hint=f"leave {name} out, or set {needs}",
            next=f"fer-bench show {owner}",
        )


def _one_of(values: tuple) -> str:
    *others, last = map(str, values)
    return f"{', '.join(others)} or {last}" if others else last


def check_when(params: Mapping[str, Param], where: str) -> None:
    """Raise UnknownNameError or SpecError where some ``when`` names no parameter, or a value that it can't have."""
    for name, param in params.items():
        for other, wanted in (pair for case in param.when for pair in case.items()):
            if other not in params:
                raise unknown("parameter", other, params, where=f"{where}, {name}, when")
            for value in wanted:
                params[other].parse(value, name=other, owner=f"{where}, {name}, when")


KIND_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def within(value: float, low: float | None, high: float | None, special: tuple = ()) -> bool:
    """Whether a number is finite and from `low` to `high`, or one of the special ones."""
    if value in special:
        return True
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return (low is None or value >= low) and (high is None or value <= high)


def in_words(low: float | None, high: float | None, special: tuple = ()) -> str:
    """An accepted range as a person reads it: ``16 to 1,024, or 0``."""
    first, last = (None if end is None else f"{end:,}" if isinstance(end, int) else f"{end:g}" for end in (low, high))
    if first is None and last is None:
        return ""
    text = f"up to {last}" if first is None else f"{first} or more" if last is None else f"{first} to {last}"
    return ", or ".join([text, *map(str, special)])


@dataclass(frozen=True)
class Variant:
    """A method with given parameters, as typed: ``rasn[share.source=ema]``."""

    method: str
    given: Mapping[str, Any] = field(default_factory=dict)


def parse_variant(text: str) -> Variant:
    """Parse ``name`` or ``name[key=value,key=value]``.

    Raises
    ------
    SpecError
        The brackets or an assignment are malformed.
    """
    name, bracket, rest = text.partition("[")
    if not bracket:
        return Variant(text.strip())
    if not rest.endswith("]"):
        raise SpecError(f"'{abbreviated(text)}' has no closing bracket", hint="quote it: 'METHOD[name=value]'")
    return Variant(name.strip(), assignments(rest[:-1], where=abbreviated(text)))


def _convert(text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text
    return literal(text)


def _same_kind(value: Any, default: Any) -> bool:
    if default is None:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, (int, float))
    return isinstance(value, type(default))
