"""An exception as plain data, for the process that asked for the work, and back."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

from fer_bench import errors
from fer_bench.errors import FerBenchError


class ChildFailed(RuntimeError):
    """A fault of the harness itself in another process; its traceback is the message."""


def failure_of(error: Exception, cause: BaseException | None = None) -> dict[str, Any]:
    """What :func:`error_of` needs to make the exception again; the traceback is that of `cause`, if it is given."""
    return {
        "type": type(error).__name__,
        "what": error.what if isinstance(error, FerBenchError) else str(error),
        **{part: getattr(error, part, None) for part in ("where", "hint", "next")},
        "traceback": "".join(traceback.format_exception(cause or error)),
    }


def error_of(failure: Mapping[str, Any]) -> Exception:
    """The exception that another process reported."""
    kind = getattr(errors, str(failure["type"]), None)
    if not (isinstance(kind, type) and issubclass(kind, FerBenchError)):
        return ChildFailed(f"{failure['type']}: {failure['what']}\n\n{failure['traceback']}")
    error = kind(failure["what"], where=failure["where"], hint=failure["hint"], next=failure["next"])
    error.__cause__ = ChildFailed(failure["traceback"])
    return error
