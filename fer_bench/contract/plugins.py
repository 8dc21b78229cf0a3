"""One door for methods and datasets: built-in folders, entry points and ``--plugins DIR``.

Finding reads cards from syntax trees (:mod:`fer_bench.contract.cards`) and imports nothing. A file that can't be read
is named in :attr:`Plugins.broken` and skipped; two plug-ins of one name raise. Files whose name starts with an
underscore are shared pieces of their folder, not plug-ins.
"""

from __future__ import annotations

import ast
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
from typing import TYPE_CHECKING, Any

from fer_bench.base.names import DATASET, PLUGIN, checked
from fer_bench.contract.cards import Card, DatasetCard, MethodCard, read_card
from fer_bench.errors import FerBenchError, PluginError, unknown

if TYPE_CHECKING:
    from fer_bench.contract.dataset import Dataset
    from fer_bench.contract.method import Method

KINDS = ("methods", "datasets")
FOLDERS = ("raw", "splits")  # lie among the stores


@dataclass(frozen=True)
class Plugin:
    """One plug-in: its card, its file, the module it is imported as, and where it was found."""

    kind: str
    card: Card
    path: Path
    module: str
    origin: str

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
        """Hash of the plug-in's code and of the shared files it imports; blind to comments, docstrings and the card."""
        digest = hashlib.sha256()
        for file in sorted(_closure(self.path), key=lambda p: p.name):
            digest.update(f"{file.name}\n{_code_text(file)}\n".encode())
        return digest.hexdigest()[:16]


@dataclass
class Plugins:
    """Everything that was found, and what was broken."""

    methods: dict[str, Plugin] = field(default_factory=dict)
    datasets: dict[str, Plugin] = field(default_factory=dict)
    broken: list[PluginError] = field(default_factory=list)
    folders: tuple[str, ...] = ()

    def add(self, path: Path, module: str, origin: str, kind: str | None = None) -> None:
        """Read one file's card and enter it; a broken file is noted, a taken name raises."""
        try:
            card = read_card(path)
            checked(card.name, PLUGIN, where=str(path), error=PluginError)
            if card.name in FOLDERS:
                raise PluginError(
                    f"a plug-in can't be called '{card.name}', as a folder of the home is", where=str(path)
                )
            found = "methods" if isinstance(card, MethodCard) else "datasets"
            if kind is not None and kind != found:
                raise PluginError(f"'{card.name}' is offered under {kind} but its card is of {found}", where=str(path))
        except PluginError as error:
            self.broken.append(error)
            return
        table: dict[str, Plugin] = getattr(self, found)
        if card.name in table and table[card.name].path.resolve() != path.resolve():
            raise PluginError(
                f"two plug-ins are called '{card.name}'",
                where=f"{table[card.name].path} and {path}",
                hint="rename one of them: a result must not depend on which is found first",
            )
        table[card.name] = Plugin(found, card, path, module, origin)

    def method(self, name: str) -> Plugin:
        """The method plug-in called `name`; raises UnknownNameError with the nearest names."""
        return self._find("method", name, self.methods)

    def dataset_plugin(self, name: str) -> Plugin:
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
        card = self.dataset_plugin(name).card
        assert isinstance(card, DatasetCard)
        return replace(card, name=checked(name, DATASET))

    def dataset(self, name: str, params: Mapping[str, Any] | None = None, *, lenient: bool = False) -> Dataset:
        """An instance of the dataset called `name` or `name:label`; `lenient` as in :class:`fer_bench.Dataset`."""
        card = self.dataset_card(name)
        dataset = self.dataset_plugin(name).load()(params, lenient=lenient)
        dataset.card = card
        dataset.plugin_dirs = self.folders
        return dataset

    def build_method(self, name: str, params: Mapping[str, Any]) -> Method:
        """An instance of the method called `name` with resolved parameters."""
        return self.method(name).load()(params)

    def _find(self, kind: str, name: str, table: Mapping[str, Plugin]) -> Plugin:
        if name in table:
            return table[name]
        error: FerBenchError = unknown(kind, name, table, next=f"fer-bench list {kind}s")
        for other in self.broken:
            if name in Path(str(other.where).split(":")[0]).stem:
                error = PluginError(f"{kind} '{name}' is broken: {other.what}", where=other.where, hint=other.hint)
        raise error


def plugins(extra_dirs: Iterable[str | Path] = ()) -> Plugins:
    """Find all plug-ins: built-in, from entry points, and from the given folders.

    Raises
    ------
    PluginError
        Two plug-ins share a name, or a given folder does not exist.
    """
    folders = tuple(str(Path(f).resolve()) for f in extra_dirs)
    found = Plugins(folders=folders)
    for kind in KINDS:
        spec = importlib.util.find_spec(f"fer_bench.{kind}")
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for path in _files(Path(folder)):
                found.add(path, f"fer_bench.{kind}.{path.stem}", "built in", kind)
        for point in entry_points(group=f"fer_bench.{kind}"):
            _add_entry_point(found, point, kind)
    for extra in map(Path, folders):
        if not os.path.isdir(extra):  # unlike Path.is_dir it says no to a name that is too long
            raise PluginError("the plug-in folder does not exist", where=str(extra))
        for path in _files(extra):
            found.add(path.resolve(), path.stem, str(extra.resolve()))
    return found


def _files(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.glob("*.py")) if not p.name.startswith("_")]


def _add_entry_point(found: Plugins, point: EntryPoint, kind: str) -> None:
    path = _module_file(point.value.split(":")[0])
    if path is None:
        found.broken.append(PluginError(f"entry point '{point.name}' names no module", where=point.value))
    else:
        found.add(path, point.value.split(":")[0], f"entry point {point.value}", kind)


def _module_file(dotted: str) -> Path | None:
    """The file of a module, found without importing its parents (they might import torch)."""
    top, *rest = dotted.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin else None
    for base in spec.submodule_search_locations or ():
        stem = Path(base).joinpath(*rest)
        for candidate in (stem.with_suffix(".py"), stem / "__init__.py"):
            if candidate.is_file():
                return candidate
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
    spec = importlib.util.spec_from_file_location(full, path)
    if spec is None or spec.loader is None:
        raise PluginError("is no Python module", where=str(path))
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


def _closure(path: Path) -> set[Path]:
    """The file and the sibling files it imports relatively, and theirs."""
    todo, seen = [path], set()
    while todo:
        file = todo.pop()
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                names = [node.module.split(".")[0]] if node.module else [a.name for a in node.names]
                todo += [file.with_name(f"{n}.py") for n in names]
    return seen


def _code_text(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [n for n in tree.body if not (isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "card")]
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and body:
            first = body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = body[1:] or [ast.Pass()]
    return ast.unparse(tree)
