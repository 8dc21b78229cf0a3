"""One door for methods and datasets: built-in folders, entry points and ``--plugins DIR``.

Finding reads cards from syntax trees (:mod:`fer_bench.contract.card_reader`) and imports nothing. A file that can't be
read is named in :attr:`Plugins.broken` and skipped; two plug-ins of one name raise.

A plug-in is a file, or a folder whose ``__init__.py`` holds the card and the class. Files and folders whose name starts
with an underscore are shared pieces of the plug-ins beside them; a folder without ``__init__.py`` is not looked into,
nor are ``tests`` and ``conftest.py``.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fer_bench.base.names import DATASET, PLUGIN, checked
from fer_bench.contract.card_reader import Reader, name_in, read_card
from fer_bench.contract.cards import Card, DatasetCard, MethodCard
from fer_bench.contract.sources import KINDS, Tree, code_hash
from fer_bench.errors import PluginError, VariantNameError, unknown

if TYPE_CHECKING:
    from fer_bench.contract.dataset import Dataset

C = TypeVar("C", bound=Card)
FOLDERS = ("raw", "splits")  # lie among the stores
NO_PLUGINS = ("tests", "conftest")  # what tests of plug-ins lie in, which is often the folder of the plug-ins itself


@dataclass(frozen=True)
class Plugin(Generic[C]):
    """One plug-in.

    Attributes
    ----------
    kind : str
        "methods" or "datasets".
    card : MethodCard or DatasetCard
        What it says about itself.
    path : Path
        Its file.
    module : str
        The module that its file is imported as.
    origin : str
        Where it was found, in words; the folder for one of ``--plugins DIR``.
    tree : Tree
        The files among which it lies.
    """

    kind: str
    card: C
    path: Path
    module: str
    origin: str
    tree: Tree

    def load(self) -> type:
        """Import the module and return its class.

        Raises
        ------
        PluginError
            The import fails, or the module does not hold exactly one class with this card.
        """
        try:
            module = _import(self.module, self.path, self.origin)
        except PluginError:
            raise
        except Exception as error:
            raise PluginError(
                f"'{self.card.name}' can't be imported: {type(error).__name__}: {error}", where=str(self.path)
            ) from error
        return _class_of(module, self)

    def source_hash(self) -> str:
        """Hash of the plug-in's code and of every file of its tree that it can reach.

        Raises
        ------
        PluginError
            An import can't be followed (:func:`fer_bench.contract.sources.files_of`).
        """
        return code_hash(self.path, self.tree)


@dataclass
class Plugins:
    """Everything that was found, and what was broken."""

    methods: dict[str, Plugin[MethodCard]] = field(default_factory=dict)
    datasets: dict[str, Plugin[DatasetCard]] = field(default_factory=dict)
    broken: list[PluginError] = field(default_factory=list)
    folders: tuple[str, ...] = ()
    _broken_names: dict[str, PluginError] = field(default_factory=dict)
    _readers: dict[Tree, Reader] = field(default_factory=dict, repr=False)

    def add(self, path: Path, module: str, origin: str, tree: Tree, kind: str | None = None) -> None:
        """Read one file's card and enter it; a broken file is noted, a taken name raises."""
        try:
            card = read_card(path, tree, self._readers)
            checked(card.name, PLUGIN, where=str(path), error=PluginError)
            if card.name in FOLDERS:
                raise PluginError(
                    f"a plug-in can't be called '{card.name}', as a folder of the home is", where=str(path)
                )
            own = "methods" if isinstance(card, MethodCard) else "datasets"
            if kind is not None and kind != own:
                raise PluginError(f"'{card.name}' is offered under {kind}, but its card is for {own}", where=str(path))
        except PluginError as error:
            self.skip(error, module.rpartition(".")[2], name_in(path))
            return
        if isinstance(card, MethodCard):
            _enter(self.methods, Plugin("methods", card, path, module, origin, tree))
        else:
            _enter(self.datasets, Plugin("datasets", card, path, module, origin, tree))

    def skip(self, error: PluginError, *names: str | None) -> None:
        """Note a broken plug-in, under every name by which somebody may ask for it."""
        self.broken.append(error)
        self._broken_names.update({name: error for name in names if name})

    def method(self, name: str) -> Plugin[MethodCard]:
        """The method plug-in called `name`.

        Raises
        ------
        VariantNameError
            The name is that of a variant of another method.
        UnknownNameError
            There is no such method; the nearest names are given.
        """
        variants = self.variants()
        if name in variants:
            raise VariantNameError(name, variants)
        return self._find("method", name, self.methods, others=variants)

    def variants(self) -> dict[str, tuple[str, str]]:
        """Names under which variants of methods are known, with the method and its parameters, as on its card.

        A plug-in of that name comes first, and so does the first method that claims it.
        """
        cards = [plugin.card for _, plugin in sorted(self.methods.items(), reverse=True)]
        claimed = {name: (card.name, params) for card in cards for name, params in card.also_known.items()}
        return {name: variant for name, variant in sorted(claimed.items()) if name not in self.methods}

    def plugin(self, name: str) -> Plugin:
        """The method or data set called `name`; raises as :meth:`method`."""
        if name in self.datasets:
            return self.datasets[name]
        variants = self.variants()
        if name in self.methods or name in variants or name in self._broken_names:
            return self.method(name)
        known = [*self.methods, *self.datasets, *variants]
        raise unknown("method or data set", name, known, next="fer-bench list methods")

    def dataset_plugin(self, name: str) -> Plugin[DatasetCard]:
        """The plug-in of the dataset called `name` or `name:label`; raises UnknownNameError with the nearest names."""
        return self._find("dataset", name.partition(":")[0], self.datasets)

    def dataset_card(self, name: str) -> DatasetCard:
        """The card of a dataset. A label (``folder:mine``) names a store of its own, so that a home can hold several.

        Raises
        ------
        UnknownNameError
            There is no such dataset.
        SpecError
            The label has characters that no name may have (:mod:`fer_bench.base.names`).
        """
        return replace(self.dataset_plugin(name).card, name=checked(name, DATASET))

    def dataset(self, name: str, params: Mapping[str, Any] | None = None, *, lenient: bool = False) -> Dataset:
        """An instance of the dataset called `name` or `name:label`; `lenient` as in :class:`fer_bench.Dataset`."""
        card = self.dataset_card(name)
        dataset = self.dataset_plugin(name).load()(params, lenient=lenient)
        dataset.card = card
        dataset.plugin_dirs = self.folders
        return dataset

    def relabellers(self, base: str) -> list[str]:
        """Names of the datasets that label the images of the dataset called `base` anew."""
        cards = [plugin.card for plugin in self.datasets.values()]
        return sorted(card.name for card in cards if card.relabels is not None and card.relabels.of == base)

    def _find(self, kind: str, name: str, table: Mapping[str, Plugin[C]], others: Iterable[str] = ()) -> Plugin[C]:
        if name in table:
            return table[name]
        if name in self._broken_names:
            error = self._broken_names[name]
            raise PluginError(f"{kind} '{name}' is broken: {error.what}", where=error.where, hint=error.hint)
        raise unknown(kind, name, [*table, *others], next=f"fer-bench list {kind}s")


def _enter(table: dict[str, Plugin[C]], plugin: Plugin[C]) -> None:
    name, path = plugin.card.name, plugin.path
    if name in table and table[name].path.resolve() != path.resolve():
        raise PluginError(
            f"two plug-ins are called '{name}'",
            where=f"{table[name].path} and {path}",
            hint="rename one of them: a result must not depend on which is found first",
        )
    table[name] = plugin


def plugins(extra_dirs: Iterable[str | Path] = ()) -> Plugins:
    """Find all plug-ins: built-in, from entry points, and from the given folders.

    Raises
    ------
    PluginError
        Two plug-ins share a name, or a given folder does not exist.
    """
    folders = tuple(str(Path(f).resolve()) for f in extra_dirs)
    result = Plugins(folders=folders)
    offered = entry_points()
    for kind in KINDS:
        spec = importlib.util.find_spec(f"fer_bench.{kind}")
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            tree = Tree(Path(folder), f"fer_bench.{kind}")
            result._readers[tree] = _reader_of(tree)
            for name, path in _modules(Path(folder)):
                result.add(path, f"fer_bench.{kind}.{name}", "built in", tree, kind)
            if result.broken:  # what was read of a broken file is not remembered
                _READERS.pop(tree, None)
        for point in offered.select(group=f"fer_bench.{kind}"):
            _add_entry_point(result, point, kind)
    for extra in map(Path, folders):
        if not os.path.isdir(extra):  # unlike Path.is_dir it says no to a name that is too long
            raise PluginError("the plug-in folder does not exist", where=str(extra))
        place = extra.resolve()
        for name, path in _modules(place):
            result.add(path, name, str(place), Tree(place))
    return result


_READERS: dict[Tree, tuple[object, Reader]] = {}


def _reader_of(tree: Tree) -> Reader:
    """The reader of a built-in folder; the same one again while its files are as they were."""
    files = sorted(tree.root.rglob("*.py"))
    seen = [(file, info.st_mtime_ns, info.st_size, info.st_ino) for file in files for info in [file.stat()]]
    if tree not in _READERS or _READERS[tree][0] != seen:
        _READERS[tree] = (seen, Reader(tree))
    return _READERS[tree][1]


def load_plugin(path: str | Path) -> type:
    """The class of the plug-in in a file (or in a folder with ``__init__.py``), for tests of the plug-in.

    It is imported as ``--plugins`` imports it, so files beside it may be imported relatively.

    Raises
    ------
    PluginError
        There is no such file, its card can't be read, or it can't be imported.
    """
    place = Path(path).resolve()
    file = place / "__init__.py" if place.is_dir() else place
    home = file.parent.parent if file.name == "__init__.py" else file.parent
    name = file.parent.name if file.name == "__init__.py" else file.stem
    found = Plugins(folders=(str(home),))
    found.add(file, name, str(home), Tree(home))
    if found.broken:
        raise found.broken[0]
    plugins_of_file: list[Plugin] = [*found.methods.values(), *found.datasets.values()]
    return plugins_of_file[0].load()


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """(module name, file) of everything in a folder that may be a plug-in, by name.

    Raises
    ------
    PluginError
        A file and a folder have one name, so that Python would import the folder for both.
    """
    modules = {p.stem: p for p in sorted(folder.glob("*.py"))}
    for inner in sorted(folder.glob("*/__init__.py")):
        name = inner.parent.name
        if name in modules:
            raise PluginError(
                f"a file and a folder are both called '{name}'",
                where=f"{modules[name]} and {inner.parent}",
                hint="rename one of them: Python imports the folder for both",
            )
        modules[name] = inner
    left_out = (*NO_PLUGINS, *(name for name in modules if name.startswith(("_", "."))))
    return [(name, path) for name, path in sorted(modules.items()) if name not in left_out]


def _add_entry_point(result: Plugins, point: EntryPoint, kind: str) -> None:
    module = point.value.split(":")[0]
    place = _module_file(module)
    if place is None:
        result.skip(PluginError(f"entry point '{point.name}' names no module", where=point.value), point.name)
    else:
        result.add(place[0], module, f"entry point {point.value}", place[1], kind)


def _module_file(dotted: str) -> tuple[Path, Tree] | None:
    """The file of a module and its tree, found without importing its parents (they might import torch)."""
    top, *rest = dotted.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not spec.submodule_search_locations:
        file = Path(spec.origin) if spec.origin and not rest else None
        return (file, Tree(file.parent, top)) if file else None
    for base in spec.submodule_search_locations:
        tree = Tree(Path(base), top)
        file = tree.module(tuple(rest))
        if file is not None and file.is_file():
            return file, tree
    return None


def _import(name: str, path: Path, origin: str) -> ModuleType:
    if origin == "built in" or origin.startswith("entry point"):
        return importlib.import_module(name)
    package = "fer_bench_plugins_" + hashlib.sha256(origin.encode()).hexdigest()[:8]
    if package not in sys.modules:  # a package of its own, so that files of the folder can import each other
        parent = ModuleType(package)
        parent.__path__ = [origin]
        sys.modules[package] = parent
    full = f"{package}.{name}"
    if full in sys.modules:
        return sys.modules[full]
    inner = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(full, path, submodule_search_locations=inner)
    if spec is None or spec.loader is None:
        raise PluginError("is not a Python module", where=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[full]
        raise
    return module


def _class_of(module: ModuleType, plugin: Plugin) -> type:
    from fer_bench.contract.dataset import Dataset

    base: type = Dataset
    if plugin.kind == "methods":
        from fer_bench.contract.method import Method

        base = Method
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    own = [c for c in own if getattr(c, "card", None) is getattr(module, "card", plugin.card)]
    if len(own) != 1:
        raise PluginError(
            f"'{plugin.card.name}' must define one {base.__name__} class with `card = card`, found {len(own)}",
            where=str(plugin.path),
        )
    return own[0]
