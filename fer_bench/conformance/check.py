"""The kit's door: what a name or a path means, which promises apply to it, and what became of them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fer_bench.base.scratch import scratch
from fer_bench.conformance.promise import NOTHING, DoesNotApply, Promise, Report, Verdict, judge_all
from fer_bench.conformance.report import in_words
from fer_bench.contract.card_reader import name_in
from fer_bench.contract.cards import MethodCard
from fer_bench.contract.plugins import Plugin, Plugins, plugins
from fer_bench.errors import ConformanceError, PluginError, abbreviated, nearest, unknown


def conforms(plugin: str | Path, *, plugins: Iterable[str | Path] = (), only: Iterable[str] = (), quick: bool = False,
             source: str | Path | None = None) -> None:  # fmt: skip
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
    source : path, optional
        The files of a data set that is not built in.

    Raises
    ------
    ConformanceError
        A promise is broken; the message names it, with the smallest example and where to look.
    UnknownNameError, PluginError
        There is no such plug-in, or it can't be read.
    """
    terms = Terms(tuple(plugins), tuple(only), quick, source, notes=False)
    broken = [report for report in check(plugin, terms) if report.broken]
    if broken:
        count = sum(len(r.broken) for r in broken)
        text = "\n\n".join(in_words(report) for report in broken)
        noun = "promise is" if count == 1 else "promises are"
        raise ConformanceError(f"{count} {noun} broken\n\n{text}", next=f"fer-bench check {broken[0].path}")


@dataclass(frozen=True)
class Terms:
    """What is checked, and how.

    Attributes
    ----------
    folders : paths
        Folders with plug-ins.
    only : names
        Promises; empty for all.
    quick : bool
        Leave out the slow ones.
    source : path, optional
        The files of a data set.
    costs : bool
        Measure what a method costs beside plain cross-entropy as well.
    notes : bool
        Look for what is worth knowing of promises that are kept, too.
    started, told : callable
        Receive each report before its first promise is checked, and each verdict as soon as it is known.
    """

    folders: tuple[str | Path, ...] = ()
    only: tuple[str, ...] = ()
    quick: bool = False
    source: str | Path | None = None
    costs: bool = False
    notes: bool = True
    started: Callable[[Report], object] = lambda report: None
    told: Callable[[Verdict], object] = lambda verdict: None


def check(what: str | Path, terms: Terms | None = None) -> list[Report]:
    """One report for each plug-in that a name or a path means.

    Raises
    ------
    UnknownNameError
        There is no such plug-in, or no such promise.
    PluginError
        The plug-in can't be read.
    """
    terms = terms or Terms()
    found, available = find(what, terms.folders)
    return [
        _of_method(plugin, available, terms)
        if isinstance(plugin.card, MethodCard)
        else _of_dataset(plugin, available, terms)
        for plugin in found
    ]


def find(what: str | Path, folders: Iterable[str | Path] = ()) -> tuple[list[Plugin], Plugins]:
    """The plug-ins that a name, a file or a folder means, and all that were found beside them."""
    folders = list(folders)
    path = Path(what)
    is_path = os.sep in str(what) or path.suffix == ".py" or os.path.isdir(path)
    if is_path and not os.path.exists(path):
        raise _missing(path)
    if not is_path:
        available = plugins(folders)
        return [available.plugin(str(what))], available
    path = path.resolve()
    available = plugins(folders)
    found = _inside(available, path)
    if not found:
        is_plugin = path.is_file() or name_in(path / "__init__.py") is not None
        folder = path.parent if is_plugin else path
        available = plugins([*folders, folder])
        found = _inside(available, path)
    broken = [e for e in available.broken if _lies_in(_file_of(e), path)]
    if path.is_dir():  # files beside the plug-ins, which never meant to be any
        broken = [e for e in broken if name_in(_file_of(e)) is not None]
    if broken:
        raise broken[0]
    if not found:
        raise PluginError("there is no plug-in here", where=str(path), hint="a plug-in's file assigns `card = ...`")
    return found, available


def _missing(path: Path) -> PluginError:
    """The error for a path that leads nowhere, with what lies nearest to it."""
    there = next((p for p in path.parents if os.path.isdir(p)), Path("."))
    step = path.relative_to(there).parts[0]
    beside = [p.name for p in there.iterdir() if p.suffix == ".py" or p.is_dir()]
    near = [there / name / Path(*path.relative_to(there).parts[1:]) for name in nearest(step, beside, 1)]
    hint = f"did you mean {near[0]}?" if near else f"{there.resolve()} has nothing of a similar name"
    again = f"fer-bench check {shlex.quote(str(near[0]))}" if near and near[0].exists() else None
    return PluginError(f"there is no file or folder {abbreviated(path)}", hint=hint, next=again)


def _inside(available: Plugins, path: Path) -> list[Plugin]:
    everything: list[Plugin] = [*available.methods.values(), *available.datasets.values()]
    return [plugin for plugin in everything if _lies_in(plugin.path, path)]


def _file_of(error: PluginError) -> Path:
    return Path((error.where or "").partition(":")[0])


def _lies_in(file: Path, path: Path) -> bool:
    """Whether a plug-in's file is `path`, its ``__init__.py``, or of a plug-in directly in that folder."""
    file = file.resolve()
    inner = file.parent if file.name == "__init__.py" else file
    return path in (file, inner, inner.parent)


def _of_dataset(plugin: Plugin, available: Plugins, terms: Terms) -> Report:
    from fer_bench.conformance import datasets  # with torch, as parameters are checked like those of methods

    report = Report(name=plugin.card.name, title=plugin.card.title, kind=plugin.kind, path=str(plugin.path))
    _check_names(terms.only, datasets.PROMISES)
    terms.started(report)
    with scratch() as folder:
        source = None if terms.source is None else Path(terms.source).resolve()
        report.source = "" if source is None else str(source)
        world = datasets.DataWorld(plugin=plugin, plugins=available, folder=folder, source=source)
        report.verdicts = judge_all(
            datasets.PROMISES, world, plugin.path, only=terms.only, quick=terms.quick, told=terms.told
        )  # fmt: skip
    return report


def _of_method(plugin: Plugin, available: Plugins, terms: Terms) -> Report:
    from fer_bench.conformance import methods, readout_promises

    card, only = plugin.card, terms.only
    report = Report(name=card.name, title=card.title, kind=plugin.kind, path=str(plugin.path))
    promises: Sequence[Promise] = methods.PROMISES
    if card.readout_of:
        promises = readout_promises.PROMISES
    _check_names(only, (*promises, *methods.PROMISES))
    terms.started(report)
    with scratch() as folder, _one_thread():
        world = methods.World(plugin=plugin, plugins=available, folder=folder, notes=terms.notes)
        report.verdicts = judge_all(promises, world, plugin.path, only=only, quick=terms.quick, told=terms.told)
    for promise in _others(methods.PROMISES, promises, only):
        verdict = Verdict(
            promise=promise.name, says=promise.says, state=NOTHING,
            note=f"it trains no network of its own, but reads out '{card.readout_of}'",
        )  # fmt: skip
        report.verdicts.append(verdict)
        terms.told(verdict)
    if terms.costs and not any(v.promise == "trains" and v.broken for v in report.verdicts):
        with suppress(DoesNotApply), _one_thread():
            report.cost = methods.cost(plugin, available).to_dict()
    return report


def _check_names(only: Iterable[str], promises: Iterable[Promise]) -> None:
    known = {p.name: p for p in promises}
    for name in only:
        if name not in known:
            raise unknown("promise", name, known, where="--only")


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
