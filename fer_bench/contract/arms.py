"""The arms of a card: variants of a method that differ in one module each, and what is compared with what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fer_bench.base.names import ARM, checked
from fer_bench.contract.params import parse_variant
from fer_bench.errors import SpecError, unknown


@dataclass(frozen=True)
class Arm:
    """One arm of an ablation: a variant that ``fer-bench ablate`` trains, and what the comparison with another tells.

    Parameters
    ----------
    variant : str
        The method with its parameters, as typed on the command line: ``"rasn[share.source=none]"``. It may be another
        method, such as plain cross-entropy.
    to : str
        Name of the arm that it is compared with; empty for the baseline.
    adds : str
        What it adds to that arm: the name of the module whose contribution the difference is.
    control : str
        Name of an arm that has as many parameters and no such module. What the arm gains beyond it is not due to extra
        capacity.
    """

    variant: str
    to: str = ""
    adds: str = ""
    control: str = ""


def check_arms(
    arms: Mapping[str, Arm], *, where: str, own: str, resolve: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> None:
    """Raise unless every arm can be told apart from the others and is compared with arms of this card.

    Parameters
    ----------
    arms : mapping of str to Arm
    where : str
        The card, in words.
    own : str
        The method of the card.
    resolve : callable
        Checks parameters of that method. Those of other methods are checked when the command runs, because cards are
        read one by one.

    Raises
    ------
    UnknownNameError
        An arm is compared with one that the card does not have, or a parameter does not exist.
    SpecError
        A variant is malformed, two arms train the same, or the arms are compared in a circle.
    """
    variants: dict[Any, str] = {}
    for number, (name, arm) in enumerate(arms.items()):
        place = f"{where}, arm '{checked(name, ARM, where=f'{where}, arms')}'"
        variant = parse_variant(arm.variant)
        params = resolve(variant.given) if variant.method == own else variant.given
        same = variants.setdefault((variant.method, tuple(sorted(params.items()))), name)
        if same != name:
            raise SpecError(f"it trains the same as the arm '{same}'", where=place)
        for role, other in (("to", arm.to), ("control", arm.control)):
            if other and other not in arms:
                raise unknown("arm", other, arms, where=f"{place}, {role}")
        if name in (arm.to, arm.control):
            raise SpecError("an arm can't be compared with itself", where=place)
        if number == 0 and arm.to:
            raise SpecError("the first arm is the baseline, which is compared with none", where=f"{place}, to")
        if not arm.to and (arm.adds or arm.control):
            raise SpecError("it says what it adds, but not to which arm", where=place, hint="name that arm in `to`")
    for name in arms:
        path = [name]
        while (following := arms[path[-1]].to) and following not in path:
            path.append(following)
        if following:
            raise SpecError(f"the arms are compared in a circle: {' -> '.join([*path, following])}", where=where)
