"""The kit's door: what a name or a path means, which promises apply to it, and what became of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fer_bench.base.scratch import scratch
from fer_bench.conformance.promise import NOTHING, Promise, Report, Verdict, judge_all
from fer_bench.conformance.report import in_words
from fer_bench.contract.cards import MethodCard
from fer_bench.contract.plugins import Plugin, Plugins, plugins
from fer_bench.errors import ConformanceError, PluginError, unknown

Told = Callable[[Verdict], object]


def conforms(plugin: str | Path, *, plugins: Iterable[str | Path] = (), only: Iterable[str] = (), quick: bool = False
             ) -> None:  # fmt: skip
    """Check that a plug-in keeps what every plug-in must; for one line in its own tests.

    ::

        def test_it_keeps_what_every_method_must():
            fer_bench.conforms(Path(__file__).parents[1] / "my_method.py")

    Parameters
    ----------
    plugin : str or Path
        A name, a plug-in's file, or a folder of plug-ins.
    plugins : paths
        Folders with your own plug-ins, as ``--plugins`` on the command line.
    only : names
        Check these promises alone.
    quick : bool
        Leave out the promises that take longest.

    Raises
    ------
    ConformanceError
        A promise is broken; the message names it, with the smallest example and where to look.
    UnknownNameError, PluginError
        There is no such plug-in, or it can't be read.
    """
    broken = [r for r in check(plugin, folders=plugins, only=only, quick=quick) if r.broken]
    if broken:
        count = sum(len(r.broken) for r in broken)
        text = "\n\n".join(in_words(report) for report in broken)
        noun = "promise is" if count == 1 else "promises are"
        raise ConformanceError(f"{count} {noun} broken\n\n{text}", next=f"fer-bench check {broken[0].path}")


def check(what: str | Path, *, folders: Iterable[str | Path] = (), only: Iterable[str] = (), quick: bool = False,
          started: Callable[[Report], object] = lambda report: None, told: Told = lambda verdict: None
          ) -> list[Report]:  # fmt: skip
    """One report for each plug-in that a name or a path means.

    Parameters
    ----------
    started, told : callable
        Receive each report before its first promise is checked, and each verdict as soon as it is known.

    Raises
    ------
    UnknownNameError
        There is no such plug-in, or no such promise.
    PluginError
        The plug-in can't be read.
    """
    found, available = find(what, folders)
    return [_checked(plugin, available, tuple(only), quick, started, told) for plugin in found]


def find(what: str | Path, folders: Iterable[str | Path] = ()) -> tuple[list[Plugin], Plugins]:
    """The plug-ins that a name, a file or a folder means, and all that were found beside them."""
    folders = list(folders)
    path = Path(what)
    if not (os.sep in str(what) or path.suffix == ".py" or path.is_dir()) or not path.exists():
        available = plugins(folders)
        return [available.plugin(str(what))], available
    path = path.resolve()
    available = plugins(folders)
    found = _inside(available, path)
    if not found:
        package = path if path.is_dir() and (path / "__init__.py").exists() else None
        folder = path.parent if path.is_file() or package else path
        available = plugins([*folders, folder])
        found = _inside(available, path)
    broken = [e for e in available.broken if _lies_in(Path((e.where or "").partition(":")[0]), path)]
    if broken:
        raise broken[0]
    if not found:
        raise PluginError("there is no plug-in here", where=str(path), hint="a plug-in's file assigns `card = ...`")
    return found, available


def _inside(available: Plugins, path: Path) -> list[Plugin]:
    everything: list[Plugin] = [*available.methods.values(), *available.datasets.values()]
    return [plugin for plugin in everything if _lies_in(plugin.path, path)]


def _lies_in(file: Path, path: Path) -> bool:
    """Whether a plug-in's file is `path`, its ``__init__.py``, or of a plug-in directly in that folder."""
    file = file.resolve()
    inner = file.parent if file.name == "__init__.py" else file
    return path in (file, inner, inner.parent)


def _checked(plugin: Plugin, available: Plugins, only: Sequence[str], quick: bool,
             started: Callable[[Report], object], told: Told) -> Report:  # fmt: skip
    card = plugin.card
    report = Report(name=card.name, title=card.title, kind=plugin.kind, path=str(plugin.path))
    if not isinstance(card, MethodCard):
        raise PluginError("data sets can't be checked yet", where=str(plugin.path))
    from fer_bench.conformance import methods, readout_promises  # with torch

    promises = readout_promises.PROMISES if card.readout_of else methods.PROMISES
    known = {p.name: p for p in (*promises, *methods.PROMISES)}
    for name in only:
        if name not in known:
            raise unknown("promise", name, known, where="--only")
    started(report)
    with scratch() as folder, _one_thread():
        world = methods.World(plugin=plugin, plugins=available, folder=folder)
        report.verdicts = judge_all(promises, world, plugin.path, only=only, quick=quick, told=told)
    for promise in _others(methods.PROMISES, promises, only):
        verdict = Verdict(
            promise=promise.name, says=promise.says, state=NOTHING,
            note=f"it trains no network of its own, but reads out '{card.readout_of}'",
        )  # fmt: skip
        report.verdicts.append(verdict)
        told(verdict)
    return report


def _others(every: Sequence[Promise], applied: Sequence[Promise], only: Sequence[str]) -> Iterator[Promise]:
    names = {p.name for p in applied}
    yield from (p for p in every if p.name not in names and (not only or p.name in only))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Networks this small lose more time to the switching of threads than they gain."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
