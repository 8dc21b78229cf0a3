"""The command that was typed, with the names of variants replaced by the methods and parameters that they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from fer_bench.base.credentials import command_line

WITH_PARAMETERS = ("run", "tune")  # commands that take METHOD[NAME=VALUE]; others take a bare name


def typed_again(typed: Sequence[str], variants: Mapping[str, tuple[str, str]]) -> str:
    """The command line that does what was meant.

    Parameters
    ----------
    typed : sequence of str
        The words after ``fer-bench``.
    variants : mapping of str to (str, str)
        Names of variants, with their methods and parameters (``fer_bench.contract.plugins.Plugins.variants``).
    """
    bare = typed[0] not in WITH_PARAMETERS
    pairs = pairwise(typed)
    return command_line([typed[0], *(w if before == "--name" else _meant(w, variants, bare) for before, w in pairs)])


def _meant(word: str, variants: Mapping[str, tuple[str, str]], bare: bool) -> str:
    name, _, given = word.partition("[")
    if name not in variants:
        return word
    method, params = variants[name]
    changed = {part.partition("=")[0].strip() for part in given.removesuffix("]").split(",")}
    kept = [part for part in params.split(",") if part and part.partition("=")[0].strip() not in changed]
    inside = ",".join([*kept, *filter(None, [given.removesuffix("]")])])
    return f"{method}[{inside}]" if inside and not bare else method
