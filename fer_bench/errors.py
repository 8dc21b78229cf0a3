"""Every error a user can see, rooted in :class:`FerBenchError`.

Where possible, a message answers four questions: what is wrong, where, which valid name is nearest, and which command
to type next. The command line prints exactly these lines; a traceback reaches the user only for our own bugs.
"""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable, Mapping

from fer_bench.printable import printable

MANY = 40  # most names that a message lists
LONG = 60  # most characters of the user's input that a message repeats


class FerBenchError(Exception):
    """Root of all expected errors.

    Parameters
    ----------
    what : str
        What is wrong, one sentence.
    where : str, optional
        The file, row, option or plug-in concerned.
    hint : str, optional
        The nearest valid name, or the accepted values.
    next : str, optional
        The command to type next.
    """

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None, next: str | None = None):
        self.what, self.where, self.hint, self.next = what, where, hint, next
        super().__init__(self.render())

    def render(self) -> str:
        """The message as printed in the terminal, one line per answer."""
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.hint:
            lines.append(f"  hint:  {self.hint}")
        if self.next:
            lines.append(f"  next:  {self.next}")
        return printable("\n".join(lines))


class UnknownNameError(FerBenchError, LookupError):
    """A method, data set, backbone, protocol, recipe or parameter that does not exist."""


class VariantNameError(UnknownNameError):
    """A name under which a variant of a method is known, but not run (``MethodCard.also_known``).

    Parameters
    ----------
    name : str
        What was asked for.
    variants : mapping of str to (str, str)
        Every such name, with the method and the parameters that are meant.
    """

    def __init__(self, name: str, variants: Mapping[str, tuple[str, str]]):
        method, params = variants[name]
        self.variants = variants
        shown = f"{method}[{params}]" if params else method
        super().__init__(f"'{name}' is {shown}", next=f"fer-bench show {method}")


class SpecError(FerBenchError, ValueError):
    """A run or study description with invalid values."""


class DataError(FerBenchError, ValueError):
    """Source files that are missing, malformed or not what they claim to be."""


class StoreError(FerBenchError):
    """A prepared store that is missing, damaged or stale."""


class ChangedStoreError(StoreError):
    """A prepared store whose files have changed since they were written, so that it is no longer the same data."""


class SealError(FerBenchError, PermissionError):
    """An attempt to read test data before the selection is locked."""


class WeightsError(FerBenchError):
    """Pretrained weights that do not exist or can't be loaded."""


class PluginError(FerBenchError):
    """A plug-in that can't be loaded, or two plug-ins with the same name."""


class ConformanceError(FerBenchError, AssertionError):
    """A plug-in that does not keep what every plug-in must (:func:`fer_bench.conforms`)."""


class TrainingError(FerBenchError, RuntimeError):
    """A training that can't continue: non-finite loss, wrong shapes from a hook, out of memory."""


class OutOfMemoryError(TrainingError):
    """A training for which memory did not suffice, or whose process the system killed, as it does then."""


class LedgerError(FerBenchError):
    """A run record that is missing, unfinished, locked or damaged."""


class LockedError(LedgerError):
    """A run that another process is currently training."""


class TrackingError(FerBenchError):
    """The MLflow mirror can't be reached or written."""


class ClusterError(FerBenchError):
    """A cluster that can't be reached, or whose nodes can't carry out runs as this machine would."""


class PrunedTrial(FerBenchError):
    """A tuning trial stopped early by the pruner; not a failure."""


def abbreviated(value: object) -> str:
    """The text of a value, cut if it is long."""
    text = str(value)
    return text if len(text) <= LONG else f"{text[: LONG - 3]}..."


def missing_library(
    need: str, error: ImportError, *, install: str, kind: type[FerBenchError] = FerBenchError, where: str | None = None
) -> FerBenchError:
    """Build the error for a library that can't be imported, naming the import that actually failed and its location.

    Parameters
    ----------
    need : str
        What needs which library, such as "oversampling needs imbalanced-learn".
    error : ImportError
        The exception of the import. It may be about another library that the needed one imports.
    install : str
        Arguments for ``pip install``.
    kind : type
        Class of the error.
    where : str, optional
        The file, option or plug-in that needs the library.
    """
    frames = traceback.extract_tb(error.__traceback__)
    deep = len(frames) > 1 and not frames[-1].filename.startswith("<frozen")
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if deep else ""
    hint = f"the failed import: {str(error) or type(error).__name__}{place}"
    return kind(f"{need}, which can't be imported", where=where, hint=hint, next=f"pip install {install}")


def nearest(name: str, known: Iterable[str], limit: int = 3) -> list[str]:
    """The known names most similar to `name`, best first; case is ignored."""
    by_lower = {k.lower(): k for k in known}
    matches = difflib.get_close_matches(name.lower(), list(by_lower), n=limit, cutoff=0.5)
    matches += [k for k in by_lower if name and name.lower() in k and k not in matches]
    return [by_lower[k] for k in matches[:limit]]


def unknown(
    kind: str, name: str, known: Iterable[str], *, where: str | None = None, next: str | None = None
) -> UnknownNameError:
    """Build the error for a name that does not exist, with the nearest valid names."""
    known = sorted(known)
    close = nearest(name, known)
    if close:
        hint = "did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
    else:
        more = f" and {len(known) - MANY} more" if len(known) > MANY else ""
        hint = f"known {kind}{'es' if kind.endswith('s') else 's'}: {', '.join(known[:MANY]) or 'none'}{more}"
    return UnknownNameError(f"unknown {kind} '{abbreviated(name)}'", where=where, hint=hint, next=next)
