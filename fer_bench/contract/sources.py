"""The files that a plug-in's code consists of, found by reading import statements; nothing is imported.

A plug-in lies in a :class:`Tree`: a folder of plug-ins, or an installed package. :func:`files_of` follows its imports
inside that tree, wherever they stand in a file, and :func:`code_hash` hashes those files. A run's id therefore
changes with any code of the tree that the plug-in can reach. The record of the environment covers what lies outside.

Data files that a plug-in opens itself are not followed.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

from fer_bench.errors import PluginError

KINDS = ("methods", "datasets")
COMPILED = (".so", ".pyd")  # endings of extension modules, which are hashed byte by byte
IMPORTERS = ("import_module", "__import__")
HINT = "write the import as `from .module import name`, so that a change of that file changes the run's id"


@dataclass(frozen=True)
class Tree:
    """A folder whose files may import each other.

    Attributes
    ----------
    root : Path
        The folder of the top package, or of the plug-ins.
    package : str
        The name under which code imports the folder; empty for a folder of plug-ins, which has none.
    """

    root: Path
    package: str = ""

    def parts(self, file: Path) -> tuple[str, ...]:
        """The place of a file below the root: ``("inner", "module")``; a package's own is that of its folder."""
        inner = file.relative_to(self.root).with_suffix("").parts
        return inner[:-1] if inner[-1:] == ("__init__",) else inner

    def absolute(self, name: str) -> tuple[str, ...] | None:
        """The place of a module that is imported by its full name; None if that leads out of the tree."""
        if self.package:
            own, given = self.package.split("."), name.split(".")
            return tuple(given[len(own) :]) if given[: len(own)] == own else None
        parts = tuple(name.split("."))  # a folder of plug-ins may lie on Python's path as well
        return parts if self.module(parts) else None

    def module(self, parts: tuple[str, ...]) -> Path | None:
        """The file of a module or package, the folder of a package without ``__init__.py``, or None."""
        place = self.root.joinpath(*parts)
        candidates = [place / "__init__.py"]
        if parts:
            candidates.append(place.with_name(place.name + ".py"))
            candidates += [p for p in sorted(place.parent.glob(f"{place.name}.*")) if p.suffix in COMPILED]
        for candidate in candidates:
            if candidate.is_file():
                return candidate
        return place if place.is_dir() else None


def class_hash(kind: type) -> str:
    """The :func:`code_hash` of the file that defines a class; empty for one that was typed in and has no file."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return code_hash(Path(file), tree_of(kind.__module__)) if file else ""


def tree_of(module: str) -> Tree:
    """The tree of a plug-in's module that is imported already, by the module's full name."""
    parts = module.split(".")
    package = ".".join(parts[:2]) if parts[0] == "fer_bench" and parts[1:2] and parts[1] in KINDS else parts[0]
    places = list(getattr(sys.modules.get(package), "__path__", ()))
    if places:
        return Tree(Path(places[0]), package)
    return Tree(Path(str(sys.modules[module].__file__)).parent)


class Import(NamedTuple):
    """One import: where it stands, and what it names."""

    line: int
    text: str
    level: int  # leading dots
    module: str
    names: tuple[str, ...]  # what is taken from the module, "*" for all; empty for ``import module``
    optional: bool  # an ImportError is caught


def imports_of(file: Path) -> list[Import]:
    """Every import of a file, in functions and branches too.

    Raises
    ------
    PluginError
        The file can't be read, or it imports a module whose name is computed.
    """
    tree = parsed(file)
    if tree not in _IMPORTS:
        _IMPORTS[tree] = list(_imports(tree, file))
    return _IMPORTS[tree]


def _imports(tree: ast.AST, file: Path, optional: bool = False) -> Iterator[Import]:
    for node in ast.iter_child_nodes(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Import):
            yield from (Import(line, ast.unparse(node), 0, a.name, (), optional) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = tuple(a.name for a in node.names)
            yield Import(line, ast.unparse(node), node.level, node.module or "", names, optional)
        elif isinstance(node, ast.Call):
            yield from _called(node, file, optional)
        guarded = isinstance(node, ast.Try) and any(map(_catches_import_errors, node.handlers))
        yield from _imports(node, file, optional or guarded)


def _catches_import_errors(handler: ast.ExceptHandler) -> bool:
    caught = "" if handler.type is None else ast.unparse(handler.type)
    return not caught or any(n in caught for n in ("ImportError", "ModuleNotFoundError", "Exception"))


def _called(call: ast.Call, file: Path, optional: bool) -> Iterator[Import]:
    """``importlib.import_module(".x", __package__)`` and ``__import__("x")``."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name not in IMPORTERS:
        return
    target = call.args[0] if call.args else next((k.value for k in call.keywords if k.arg == "name"), None)
    if not (isinstance(target, ast.Constant) and isinstance(target.value, str)):
        raise PluginError(
            f"the module that `{ast.unparse(call)[:60]}` imports is known only when it runs",
            where=f"{file}:{call.lineno}",
            hint=HINT,
        )
    bare = target.value.lstrip(".")
    yield Import(call.lineno, ast.unparse(call), len(target.value) - len(bare), bare, (), optional)


def resolve(imported: Import, file: Path, tree: Tree) -> list[tuple[str, ...]]:
    """The modules of the tree that one import runs, by their places; packages on the way come first.

    Raises
    ------
    PluginError
        A relative import leads out of the tree, or there is no such file.
    """
    target = target_of(imported, file, tree)
    if target is None:
        return []
    place = tree.module(target)
    if place is None:
        return _missing(imported, file, target, tree)
    modules = [target[:n] for n in range(1, len(target) + 1)]
    if place.is_dir() or place.name == "__init__.py":
        modules += _from_package(imported, file, target, tree)
    return modules


def target_of(imported: Import, file: Path, tree: Tree) -> tuple[str, ...] | None:
    """The place of the module that an import names; None if it lies outside the tree.

    Raises
    ------
    PluginError
        A relative import leads out of the tree.
    """
    if imported.level:
        here = tree.parts(file)
        package = here if file.name == "__init__.py" else here[:-1]
        if imported.level > len(package) + 1:
            raise PluginError(
                f"`{imported.text}` leaves the folder of its plug-in",
                where=f"{file}:{imported.line}",
                hint=f"keep what it needs below {tree.root}",
            )
        base = package[: len(package) - imported.level + 1]
        return (*base, *(imported.module.split(".") if imported.module else ()))
    return tree.absolute(imported.module)


def _from_package(imported: Import, file: Path, target: tuple[str, ...], tree: Tree) -> list[tuple[str, ...]]:
    """Modules that ``from package import names`` takes; a name that is not a module must come from ``__init__.py``."""
    folder = tree.root.joinpath(*target)
    modules: list[tuple[str, ...]] = []
    for name in imported.names:
        if name == "*":  # `__all__` may name any module of the package
            modules += [(*target, p.stem) for p in sorted(folder.glob("*.py")) if p.name != "__init__.py"]
        elif tree.module((*target, name)) is not None:
            modules.append((*target, name))
        elif not (folder / "__init__.py").is_file():
            _missing(imported, file, (*target, name), tree)
    return modules


def _missing(imported: Import, file: Path, target: tuple[str, ...], tree: Tree) -> list[tuple[str, ...]]:
    if imported.optional:
        return []
    place = tree.root.joinpath(*target)
    raise PluginError(
        f"`{imported.text}` names no file: there is neither {place}.py nor a folder {place}",
        where=f"{file}:{imported.line}",
        hint=HINT,
    )


def files_of(path: Path, tree: Tree) -> list[Path]:
    """A plug-in's file and every file of its tree that importing or running it can import.

    Parameters
    ----------
    path : Path
        The plug-in's file.
    tree : Tree
        Where it lies.

    Raises
    ------
    PluginError
        A file can't be read, or an import can't be followed; the message names file and line.
    """
    seen: set[Path] = set()
    todo = [path]
    if tree.package:  # importing a module runs the packages it lies in
        parts = tree.parts(path)
        todo += [f for n in range(len(parts)) if (f := tree.root.joinpath(*parts[:n], "__init__.py")).is_file()]
    while todo:
        file = todo.pop()
        if file in seen or file.is_dir():
            continue
        seen.add(file)
        if file.suffix == ".py":
            modules = (m for imported in imports_of(file) for m in resolve(imported, file, tree))
            todo += [place for m in modules if (place := tree.module(m)) is not None]
    return sorted(seen, key=lambda f: f.relative_to(tree.root).as_posix())


def code_hash(path: Path, tree: Tree) -> str:
    """Hash of the code of :func:`files_of`; blind to comments, docstrings, layout and the card.

    Raises
    ------
    PluginError
        As :func:`files_of`.
    """
    digest = hashlib.sha256()
    for file in files_of(path, tree):
        digest.update(f"{file.relative_to(tree.root).as_posix()}\n".encode())
        digest.update(file.read_bytes() if file.suffix in COMPILED else _code(file).encode())
        digest.update(b"\n")
    return digest.hexdigest()[:16]


def _code(file: Path) -> str:
    """What the hash covers of a file."""
    tree = parsed(file)
    if tree not in _CODE:
        _CODE[tree] = _shape(_bare(tree))
    return _CODE[tree]


# as long as a syntax tree is remembered
_IMPORTS: WeakKeyDictionary[ast.Module, list[Import]] = WeakKeyDictionary()
_CODE: WeakKeyDictionary[ast.Module, str] = WeakKeyDictionary()


def parsed(file: Path, *, keep: bool = True) -> ast.Module:
    """The syntax tree of a file; with `keep`, remembered for whoever asks next.

    Raises
    ------
    PluginError
        The file can't be read, or is not Python.
    """
    try:
        text = file.read_text(encoding="utf-8")
        return _parsed(text) if keep else ast.parse(text)
    except (SyntaxError, ValueError, OSError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise PluginError(f"can't be read: {error}", where=f"{file}{line}") from error


@lru_cache(maxsize=256)
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _bare(tree: ast.Module) -> ast.Module:
    """The tree without its card; docstrings are left out by :func:`_shape`."""
    kept = [n for n in tree.body if not (isinstance(n, (ast.Assign, ast.AnnAssign)) and _assigned(n) == ["card"])]
    return ast.Module(kept, [])


def _assigned(node: ast.Assign | ast.AnnAssign) -> list[str]:
    return [ast.unparse(t) for t in (node.targets if isinstance(node, ast.Assign) else [node.target])]


def _shape(node: object) -> str:
    """A text of a syntax tree that every version of Python writes alike: fields that are set, in their order."""
    if isinstance(node, list):
        return "[" + ",".join(map(_shape, node)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = []
    for name, value in ast.iter_fields(node):
        if name == "body" and isinstance(node, DOCUMENTED):
            value = _without_docstring(value)
        if (value is None and name != "value") or value == [] or name in ("type_comment", "kind", "type_ignores"):
            continue
        fields.append(f"{name}={_shape(value)}")
    return f"{type(node).__name__}({','.join(fields)})"


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
        return body[1:]
    return body
