"""Variants of methods as people type them, ``rasn[share.source=ema,loss.tau=1]``, and as runs are labelled.

A label lists the parameters that differ from their defaults, sorted, with values as Python prints them
(``loss.tau=1.0``). What is typed may list them in another order, write values otherwise (``1``, ``true``), and name
parameters at their defaults. :func:`names_variant` says whether it means the same.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from fer_bench.errors import SpecError, abbreviated


def assignments(text: str, *, where: str) -> dict[str, str]:
    """The texts in ``key=value,key=value``, which stand in the brackets of a variant.

    Raises
    ------
    SpecError
        A part has no ``=``, or a key comes twice.
    """
    given: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        key, sign, value = (piece.strip() for piece in part.partition("="))
        if not sign:
            raise SpecError(f"'{abbreviated(part)}' is not key=value", where=where)
        if key in given:
            raise SpecError(f"'{key}' is given twice", where=where)
        given[key] = value
    return given


def literal(text: str) -> Any:
    """The number, or true, false or none, that a text stands for; other texts as they are."""
    try:
        return ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text.lower(), text))
    except (ValueError, SyntaxError, MemoryError, RecursionError):  # the last two: thousands of brackets
        return text


def names_variant(text: str, label: str, params: Mapping[str, Any]) -> bool:
    """Whether a typed text means the variant of a run.

    Parameters
    ----------
    text : str
        As typed.
    label : str
        The run's label.
    params : mapping
        All parameters of the run's method, defaults included.
    """
    if text == label:
        return True
    (name, given), (method, changed) = _parts(text), _parts(label)
    if name != method or given is None or changed is None or not changed.keys() <= given.keys():
        return False
    return all(key in params and _means(value, params[key]) for key, value in given.items())


def _parts(text: str) -> tuple[str, dict[str, str] | None]:
    """The method's name and the assignments in brackets; None for brackets that can't be read."""
    name, bracket, rest = text.partition("[")
    if bracket and not rest.endswith("]"):
        return name, None
    try:
        return name.strip(), assignments(rest[:-1], where=text)
    except SpecError:
        return name, None


def _means(text: str, value: Any) -> bool:
    if isinstance(value, str) or text == str(value):
        return text == str(value)
    typed = literal(text)
    return isinstance(typed, bool) == isinstance(value, bool) and bool(typed == value)
