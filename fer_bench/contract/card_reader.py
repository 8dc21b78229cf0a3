"""Reading a plug-in's card from its syntax tree, so that listing plug-ins imports nothing.

A card may use literals, constants of its own file, and constants of files that it imports from its tree
(:mod:`fer_bench.contract.sources`)::

    from ._shared.parameters import SIZE

    COMMON = {"size": SIZE}
    card = DatasetCard(name="mine", title="Mine", params={**COMMON, "strict": Param(True, "refuse doubtful labels")})

What can't be read that way is an error with its file and line. Nothing is left out silently: a constant that other
statements change (``COMMON.update(...)``, an assignment inside ``if``) counts as unreadable.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from fer_bench.contract.arms import Arm
from fer_bench.contract.cards import Card, DatasetCard, Fetch, MethodCard, Protocol, Relabelling
from fer_bench.contract.params import Choice, Float, Int, Param, Scale
from fer_bench.contract.sources import Import, Tree, parsed, target_of
from fer_bench.errors import FerBenchError, PluginError

PARTS = (MethodCard, Arm, DatasetCard, Protocol, Fetch, Relabelling, Param, Float, Int, Scale, Choice)
PUBLIC: dict[str, Any] = {c.__name__: c for c in PARTS}
BUILT_IN: dict[str, Any] = {"dict": dict, "tuple": tuple, "list": list}
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.BitOr: operator.or_,
}
CONVERSIONS: dict[int, Callable[[Any], str]] = {ord("s"): str, ord("r"): repr, ord("a"): ascii}
HINT = (
    "a card is read without running its file: use literals, constants of this file or of a file beside it, "
    f"and {', '.join(PUBLIC)}"
)


@dataclass(frozen=True)
class _Unreadable:
    """A name whose value is known only when the file runs."""

    node: ast.AST
    why: str = "is computed"

    @property
    def line(self) -> int:
        """Where it stands."""
        return getattr(self.node, "lineno", 0)

    @property
    def text(self) -> str:
        """Its first line, written only when it is asked for: that takes longer than reading the file."""
        return ast.unparse(self.node).splitlines()[0]


@dataclass(frozen=True)
class _Namespace:
    """What a file, or the public interface, calls its constants."""

    file: Path
    names: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Imported:
    """A name that comes from another file of the tree. That file is read when somebody asks for the value."""

    read: Callable[[], Any]
    unknown: _Unreadable

    def value(self) -> Any:
        """The value; unreadable while it is being read, so that files which import each other come to an end."""
        read, self.read = self.read, lambda: self.unknown
        result = read()
        self.read = lambda: result
        return result


class _Failure(Exception):
    """An expression that can't be read, and where it stands."""

    def __init__(self, file: Path, node: ast.expr, why: str = "is computed", cause: _Unreadable | None = None):
        super().__init__(file, node, why)
        self.file, self.node, self.why, self.cause = file, node, why, cause

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self.file}:{self.node.lineno}"

    @property
    def what(self) -> str:
        """The expression, and what is wrong with it."""
        why = self.why if self.cause is None else f"can't be read: `{self.cause.text[:60]}` {self.cause.why}"
        return f"`{ast.unparse(self.node)[:60]}` {why}"


def read_card(path: str | Path, tree: Tree | None = None, readers: dict[Tree, Reader] | None = None) -> Card:
    """Read the card of the plug-in file at `path` without importing it.

    Parameters
    ----------
    path : str or Path
        The file.
    tree : Tree, optional
        Where it lies; the folder of the file if left out.
    readers : dict, optional
        What has been read of trees, and is entered here; given again for the next card, shared files are read once.

    Raises
    ------
    PluginError
        The file can't be parsed, has no ``card = ...``, or its card needs more than constants.
    """
    path = Path(path)
    tree = tree or Tree(path.parent)
    reader = Reader(tree) if readers is None else readers.setdefault(tree, Reader(tree))
    space = reader.namespace(path)
    if "card" not in space.names:
        raise PluginError("has no card", where=str(path), hint="assign `card = MethodCard(...)` or `DatasetCard(...)`")
    card = _looked_up(space.names, "card")
    if isinstance(card, _Unreadable):
        raise PluginError(
            f"its card can't be read: `{card.text[:60]}` {card.why}", where=f"{path}:{card.line}", hint=HINT
        )
    if isinstance(card, PluginError):
        raise card
    if not isinstance(card, (MethodCard, DatasetCard)):
        raise PluginError("its card is neither a MethodCard nor a DatasetCard", where=str(path))
    return card


def name_in(path: Path) -> str | None:
    """The name that a file gives its card, even if the rest of the card can't be read; None if there is none."""
    try:
        tree = parsed(path)
    except PluginError:
        return None
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "card" and isinstance(node.value, ast.Call):
            for keyword in node.value.keywords:
                if keyword.arg == "name" and isinstance(keyword.value, ast.Constant):
                    return str(keyword.value.value)
    return None


def _looked_up(names: dict[str, Any], name: str) -> Any:
    found = names[name]
    return found.value() if isinstance(found, _Imported) else found


@dataclass
class Reader:
    """Reads the constants of files of one tree; each file once, and only if a constant of it is used."""

    tree: Tree
    files: dict[Path, _Namespace] = field(default_factory=dict)

    def namespace(self, file: Path) -> _Namespace:
        """The constants of a file, in the order of its statements."""
        if file not in self.files:
            space = self.files[file] = _Namespace(file)
            for node in parsed(file, keep=False).body:  # many trees in memory slow Python's garbage collector down
                self._statement(node, space)
        return self.files[file]

    # -- statements --------------------------------------------------------------------------------------------------

    def _statement(self, node: ast.stmt, space: _Namespace) -> None:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                space.names[name] = self._value(value, space, wanted=name == "card")
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                space.names[name] = self._value(value, space, wanted=name == "card")
            case ast.ImportFrom():
                self._import_from(node, space)
            case ast.Import():
                self._import(node, space)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                pass
            case _:
                for name in _touched(node):
                    space.names[name] = _Unreadable(_head(node), f"may change `{name}`")

    def _value(self, node: ast.expr, space: _Namespace, wanted: bool) -> Any:
        try:
            return self._evaluate(node, space)
        except _Failure as failure:
            if wanted:
                return PluginError(f"its card can't be read: {failure.what}", where=failure.where, hint=HINT)
            for name in _owners(node) & set(space.names):  # `rest = COMMON.pop("size")` changes COMMON
                if not isinstance(_looked_up(space.names, name), _Namespace):
                    space.names[name] = _Unreadable(node, f"may change `{name}`")
            return failure.cause or _Unreadable(node)
        except PluginError:  # of another file, which it names
            raise
        except (ValueError, TypeError, ArithmeticError, LookupError, AttributeError, FerBenchError) as error:
            if wanted:
                what = error.what if isinstance(error, FerBenchError) else f"{type(error).__name__}: {error}"
                return PluginError(f"its card can't be made: {what}", where=f"{space.file}:{node.lineno}")
            return _Unreadable(node)

    def _import_from(self, node: ast.ImportFrom, space: _Namespace) -> None:
        for alias in node.names:
            name = alias.asname or alias.name
            if node.level == 0 and node.module == "fer_bench":
                public = PUBLIC if alias.name == "*" else {name: PUBLIC.get(alias.name, self._unknown(node))}
                space.names.update(public)
            elif node.level == 0 and (node.module, alias.name) == ("dataclasses", "replace"):
                space.names[name] = replace
            else:
                self._from_tree(node, alias, name, space)

    def _from_tree(self, node: ast.ImportFrom, alias: ast.alias, name: str, space: _Namespace) -> None:
        """A constant, or a whole file, of the tree."""
        if alias.name == "*":
            whole = self._constants(self._target(node, alias, space))
            space.names.update({k: v for k, v in whole.items() if not k.startswith("_")})
            return
        unknown = self._unknown(node)

        def read() -> Any:
            target = self._target(node, alias, space)
            whole = self._constants(target)
            if alias.name in whole:
                return _looked_up(whole, alias.name)
            inner = None if target is None else self.tree.module((*target, alias.name))
            return unknown if inner is None or inner.suffix != ".py" else self.namespace(inner)

        space.names[name] = _Imported(read, unknown)

    def _target(self, node: ast.ImportFrom, alias: ast.alias, space: _Namespace) -> tuple[str, ...] | None:
        """The place in the tree from which something is imported; None outside it."""
        wanted = Import(node.lineno, "", node.level, node.module or "", (alias.name,), False)
        try:
            return target_of(wanted, space.file, self.tree)
        except PluginError:
            return None

    def _constants(self, target: tuple[str, ...] | None) -> dict[str, Any]:
        file = None if target is None else self.tree.module(target)
        return self.namespace(file).names if file is not None and file.suffix == ".py" else {}

    def _import(self, node: ast.Import, space: _Namespace) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            public = alias.name == "fer_bench"
            space.names[name] = _Namespace(space.file, dict(PUBLIC)) if public else self._unknown(node)
            if alias.name == "dataclasses":
                space.names[name] = _Namespace(space.file, {"replace": replace})

    def _unknown(self, node: ast.stmt) -> _Unreadable:
        return _Unreadable(node, "brings a value that is not a constant of a file beside it")

    # -- expressions -------------------------------------------------------------------------------------------------

    def _evaluate(self, node: ast.expr, space: _Namespace) -> Any:
        def value(inner: ast.expr) -> Any:
            return self._evaluate(inner, space)

        match node:
            case ast.Constant(value=constant):
                return constant
            case ast.Tuple(elts=items):
                return tuple(self._items(items, space))
            case ast.List(elts=items):
                return self._items(items, space)
            case ast.Dict(keys=keys, values=values):
                result: dict[Any, Any] = {}
                for key, inner in zip(keys, values, strict=True):
                    result.update(value(inner) if key is None else {value(key): value(inner)})
                return result
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -value(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
                return ARITHMETIC[type(op)](value(left), value(right))
            case ast.JoinedStr(values=parts):
                return "".join(self._part(part, space) for part in parts)
            case ast.Subscript(value=whole, slice=key):
                return value(whole)[value(key)]
            case ast.Name() | ast.Attribute():
                return self._named(node, space)
            case ast.Call(func=func, args=args, keywords=keywords):
                return self._call(func, args, keywords, space)
        raise _Failure(space.file, node)

    def _items(self, items: list[ast.expr], space: _Namespace) -> list[Any]:
        result: list[Any] = []
        for item in items:
            if isinstance(item, ast.Starred):
                result += self._evaluate(item.value, space)
            else:
                result.append(self._evaluate(item, space))
        return result

    def _part(self, part: ast.expr, space: _Namespace) -> str:
        """One piece of an f-string."""
        if not isinstance(part, ast.FormattedValue):
            return str(self._evaluate(part, space))
        content = self._evaluate(part.value, space)
        if part.conversion in CONVERSIONS:
            content = CONVERSIONS[part.conversion](content)
        return format(content, self._evaluate(part.format_spec, space) if part.format_spec else "")

    def _named(self, node: ast.Name | ast.Attribute, space: _Namespace) -> Any:
        if isinstance(node, ast.Name):
            known, name = space.names, node.id
            if name not in known:
                known = PUBLIC  # a file that forgets the import fails when it is loaded, with Python's own message
        else:
            owner, name = self._evaluate(node.value, space), node.attr
            known = owner.names if isinstance(owner, _Namespace) else {}
            if isinstance(owner, PARTS):
                known = {f.name: getattr(owner, f.name) for f in fields(owner)}
        if name not in known:
            raise _Failure(space.file, node, "has no value that can be read")
        result = _looked_up(known, name)
        if isinstance(result, _Unreadable):
            raise _Failure(space.file, node, cause=result)
        return result

    def _call(self, func: ast.expr, args: list[ast.expr], keywords: list[ast.keyword], space: _Namespace) -> Any:
        if isinstance(func, ast.Name) and func.id in BUILT_IN and func.id not in space.names:
            function = BUILT_IN[func.id]
        else:
            function = self._named(func, space) if isinstance(func, (ast.Name, ast.Attribute)) else None
        if not callable(function):
            raise _Failure(space.file, func, "is called, but is neither a card nor a part of one")
        named: dict[str, Any] = {}
        for keyword in keywords:
            content = self._evaluate(keyword.value, space)
            named.update(content if keyword.arg is None else {keyword.arg: content})
        return function(*self._items(args, space), **named)


def _head(node: ast.stmt) -> ast.stmt:
    """The statement; of a function or class its first line, so that its body need not be kept."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        node = copy(node)
        node.body = [ast.Pass()]
    return node


def _touched(node: ast.stmt) -> set[str]:
    """Names that a statement may give another value, or whose value it may change."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {node.name}
    names = set()
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        names |= {a.id for a in node.value.args if isinstance(a, ast.Name)}
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, (ast.Store, ast.Del)):
            names.add(inner.id)
        elif isinstance(inner, (ast.Subscript, ast.Attribute)) and isinstance(inner.ctx, (ast.Store, ast.Del)):
            names.add(_root(inner))
    return (names | _owners(node)) - {""}


def _owners(node: ast.AST) -> set[str]:
    """Names whose methods are called."""
    calls = (n.func for n in ast.walk(node) if isinstance(n, ast.Call))
    return {_root(func) for func in calls if isinstance(func, ast.Attribute)}


def _root(node: ast.expr) -> str:
    while isinstance(node, (ast.Subscript, ast.Attribute)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
