"""Every error a user can meet, rooted in :class:`FerBenchError`.

A message answers four questions where it can: what is wrong, where, which valid name is nearest, and which command to
type next. The command line prints exactly these lines; a traceback reaches the user only for our own bugs.
"""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable

from fer_bench import harmless

MANY = 40  # names that an answer lists at most
LONG = 60  # characters of what was typed that an answer repeats at most


class FerBenchError(Exception):
    """Root of all expected errors.

    Parameters
    ----------
    what : str
        What is wrong, one sentence.
    where : str, optional
        File, row, option or plug-in in which it is wrong.
    hint : str, optional
        The nearest valid name, or what would be accepted.
    next : str, optional
        The command to type next.
    """

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None, next: str | None = None):
        self.what, self.where, self.hint, self.next = what, where, hint, next
        super().__init__(self.render())

    def render(self) -> str:
        """The message as the terminal shows it, one line an answer."""
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.hint:
            lines.append(f"  hint:  {self.hint}")
        if self.next:
            lines.append(f"  next:  {self.next}")
        return harmless.shown("\n".join(lines))


class UnknownNameError(FerBenchError, LookupError):
    """A method, dataset, backbone, protocol, recipe or parameter that does not exist."""


class SpecError(FerBenchError, ValueError):
    """A run or study description whose values do not fit."""


class DataError(FerBenchError, ValueError):
    """Source files that are missing, malformed or not what they claim to be."""


class StoreError(FerBenchError):
    """A prepared store that is missing, damaged or stale."""


class ChangedStoreError(StoreError):
    """A prepared store whose files are not those that were written; using it would call other data by its name."""


class SealError(FerBenchError, PermissionError):
    """An attempt to read test data before selection is locked."""


class WeightsError(FerBenchError):
    """Pretrained weights that do not exist or can't be loaded."""


class PluginError(FerBenchError):
    """A plug-in that can't be loaded, or two that claim one name."""


class TrainingError(FerBenchError, RuntimeError):
    """A training that can't go on: non-finite loss, wrong shapes from a hook, out of memory."""


class LedgerError(FerBenchError):
    """A run record that is missing, unfinished, locked or damaged."""


class LockedError(LedgerError):
    """A run that another process is training at this moment."""


class TrackingError(FerBenchError):
    """The MLflow mirror can't be reached or written."""


class PrunedTrial(FerBenchError):
    """A tuning trial stopped early by the pruner; not a failure."""


def shown(value: object) -> str:
    """A value as it was typed; a long one is cut."""
    text = str(value)
    return text if len(text) <= LONG else f"{text[: LONG - 3]}..."


def missing_library(
    need: str, error: ImportError, *, install: str, kind: type[FerBenchError] = FerBenchError, where: str | None = None
) -> FerBenchError:
    """Build the error for a library that can't be imported, with the import that really failed and its place.

    Parameters
    ----------
    need : str
        What needs which library: "oversampling needs imbalanced-learn".
    error : ImportError
        What the import raised. It may be about another library, which the one that is needed imports in turn.
    install : str
        What ``pip install`` is told.
    kind : type
        Class of the error.
    where : str, optional
        File, option or plug-in that needs the library.
    """
    frames = traceback.extract_tb(error.__traceback__)
    deep = len(frames) > 1 and not frames[-1].filename.startswith("<frozen")
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if deep else ""
    hint = f"the import that failed: {str(error) or type(error).__name__}{place}"
    return kind(f"{need}, which can't be imported", where=where, hint=hint, next=f"pip install {install}")


def nearest(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """Known names that look most like `name`, best first (case is ignored)."""
    by_lower = {k.lower(): k for k in known}
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=limit, cutoff=0.5)
    found += [k for k in by_lower if name and name.lower() in k and k not in found]
    return [by_lower[k] for k in found[:limit]]


def unknown(
    kind: str, name: str, known: Iterable[str], *, where: str | None = None, next: str | None = None
) -> UnknownNameError:
    """Build the error for a name that does not exist, with the nearest ones."""
    known = sorted(known)
    close = nearest(name, known)
    if close:
        hint = "did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
    else:
        more = f" and {len(known) - MANY} more" if len(known) > MANY else ""
        hint = f"known {kind}{'es' if kind.endswith('s') else 's'}: {', '.join(known[:MANY]) or 'none'}{more}"
    return UnknownNameError(f"unknown {kind} '{shown(name)}'", where=where, hint=hint, next=next)
