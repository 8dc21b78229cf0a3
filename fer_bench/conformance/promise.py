"""Promises, what became of them for one plug-in, and how one is told that it is broken."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from fer_bench.errors import FerBenchError
from fer_bench.runs.blame import frame_to_blame

W = TypeVar("W", contravariant=True)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One way in which a promise is broken.

    Attributes
    ----------
    what : str
        What is wrong, one sentence.
    example : str
        The smallest example that shows it: shapes, labels, values.
    look : str
        The hook or the line to look at.
    page : str
        The section of the documentation that says what is asked for.
    """

    what: str
    example: str = ""
    look: str = ""
    page: str = ""


class Broken(Exception):
    """Raised by a promise's function, or by a hook that it watches, at the first failure."""

    def __init__(self, what: str, *, example: str = "", look: str = "", page: str = ""):
        super().__init__(what)
        self.failure = Failure(what=what, example=example, look=look, page=page)


class DoesNotApply(Exception):
    """Raised by a promise's function where there is nothing that it could be about; the text is the reason."""


class NotChecked(Exception):
    """Raised by a promise's function where something is missing that it needs; the text says what."""


@dataclass(frozen=True, kw_only=True)
class Promise(Generic[W]):
    """One thing that every plug-in of a kind keeps.

    Attributes
    ----------
    name : str
        By which ``--only`` names it.
    says : str
        What is promised, one sentence.
    check : callable
        Given the world (what the plug-in is tried in), returns notes for the reader, or raises what is above. Any other
        exception is a failure too: the plug-in raised it.
    look : str
        The hook to look at, unless the failure knows better.
    page : str
        Where the documentation explains it.
    after : tuple of str
        Promises without which this one can't be judged.
    slow : bool
        Whether ``--quick`` leaves it out.
    """

    name: str
    says: str
    check: Callable[[W], str | None]
    look: str = ""
    page: str = "docs/methods.md, 'Rules that the harness enforces'"
    after: tuple[str, ...] = ()
    slow: bool = False


KEPT, FAILED, NOTHING, UNCHECKED = "kept", "broken", "does not apply", "not checked"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of one promise; `note` says why it was not checked, or else what is worth knowing."""

    promise: str
    says: str
    state: str
    note: str = ""
    failures: tuple[Failure, ...] = ()
    seconds: float = 0.0

    @property
    def broken(self) -> bool:
        """Whether the plug-in fails it."""
        return self.state == FAILED


@dataclass(kw_only=True)
class Report:
    """What became of all promises for one plug-in, and what it costs where that was measured.

    `source` is where the files of a data set were looked for.
    """

    name: str
    title: str
    kind: str
    path: str
    source: str = ""
    verdicts: list[Verdict] = field(default_factory=list)
    cost: dict[str, Any] | None = None

    @property
    def broken(self) -> list[Verdict]:
        """The promises that it fails."""
        return [v for v in self.verdicts if v.broken]


def judge_all(promises: Sequence[Promise[W]], world: W, plugin: Path, *, only: Iterable[str] = (), quick: bool = False,
              told: Callable[[Verdict], object] = lambda verdict: None) -> list[Verdict]:  # fmt: skip
    """Check promises in order.

    Parameters
    ----------
    plugin : Path
        The plug-in's file, to name the line that raised.
    only : names
        Check these alone, and those that they can't be judged without; empty: all.
    quick : bool
        Leave out the slow ones that are not named.
    told : callable
        Receives each verdict as soon as it is known.
    """
    wanted = _with_preconditions(promises, set(only)) if only else {p.name for p in promises}
    verdicts: dict[str, Verdict] = {}
    for promise in promises:
        if promise.name not in wanted:
            continue
        missing = [n for n in promise.after if n in verdicts and verdicts[n].state in (FAILED, UNCHECKED)]
        if missing:
            fate = "broken" if verdicts[missing[0]].broken else "not checked"
            note = f"needs '{missing[0]}', which is {fate}"
            verdict = Verdict(promise=promise.name, says=promise.says, state=UNCHECKED, note=note)
        elif quick and promise.slow and promise.name not in only:
            verdict = Verdict(promise=promise.name, says=promise.says, state=UNCHECKED, note="left out by --quick")
        else:
            verdict = _judged(promise, world, plugin)
        verdicts[promise.name] = verdict
        told(verdict)
    return list(verdicts.values())


def _with_preconditions(promises: Sequence[Promise], names: set[str]) -> set[str]:
    known = {p.name: p for p in promises}
    todo, wanted = list(names), set()
    while todo:
        name = todo.pop()
        if name in known and name not in wanted:
            wanted.add(name)
            todo.extend(known[name].after)
    return wanted


def _judged(promise: Promise[W], world: W, plugin: Path) -> Verdict:
    started, note, state = time.process_time(), "", KEPT
    failures: tuple[Failure, ...] = ()
    try:
        note = promise.check(world) or ""
    except DoesNotApply as reason:
        state, note = NOTHING, str(reason)
    except NotChecked as reason:
        state, note = UNCHECKED, str(reason)
    except Exception as error:
        state, failures = FAILED, (_completed(failure_of(error, plugin), promise),)
    seconds = time.process_time() - started
    return Verdict(
        promise=promise.name, says=promise.says, state=state, note=note, failures=failures, seconds=seconds
    )  # fmt: skip


def _completed(failure: Failure, promise: Promise) -> Failure:
    return Failure(
        what=failure.what,
        example=failure.example,
        look=failure.look or promise.look,
        page=failure.page or promise.page,
    )


def failure_of(error: Exception, plugin: Path) -> Failure:
    """What an exception says of a plug-in: its own line, where it raised, or else the last line of the harness."""
    if isinstance(error, Broken):
        return error.failure
    example = "; ".join(getattr(error, "__notes__", ()))
    frame = frame_to_blame(error, plugin)
    if isinstance(error, FerBenchError):
        place = f"{frame.filename}:{frame.lineno}, in {frame.name}" if frame else ""
        look = "; ".join(text for text in (error.where, place) if text)
        return Failure(what=error.what + (f" ({error.hint})" if error.hint else ""), example=example, look=look)
    frame = frame or traceback.extract_tb(error.__traceback__)[-1]
    text = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
    return Failure(what=what, example=example, look=f"{frame.filename}:{frame.lineno}, in {frame.name}")
