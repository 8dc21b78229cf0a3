"""States of methods and models as plain data: what a file may hold that is read without running code.

A checkpoint or a received record is loaded with ``weights_only=True``, which knows tensors, numbers, strings and their
lists, tuples and dicts. :func:`pack` brings NumPy arrays, sets and fitted scikit-learn or imbalanced-learn estimators
into that form, and :func:`unpack` brings them back. Estimators go through skops, whose files hold arrays and names of
types, and which are loaded only where every type belongs to these two libraries.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fer_bench.errors import TrainingError

_KIND = "fer-bench kind"  # marks a dict that stands for something else
_LIBRARIES = ("sklearn", "imblearn")
_KEPT = "tensors, NumPy arrays, numbers, strings, None, and lists, tuples, sets and dicts of them"


def pack(value: Any, where: str = "state") -> Any:
    """`value` as tensors, numbers, strings, lists, tuples and dicts; equal values give equal bytes when saved.

    Raises
    ------
    TrainingError
        It holds something else; the message names the place and the type.
    """
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, str):
        return sys.intern(str(value))  # equal strings become one object, as a pickle notes repetitions by identity
    if isinstance(value, Tensor):
        return _own(value.detach())
    if isinstance(value, np.generic):
        return {_KIND: "scalar", "value": _tensor(np.asarray(value), where)}
    if isinstance(value, np.ndarray):
        return {_KIND: "array", "value": _tensor(value, where)}
    if isinstance(value, Mapping):
        return {pack(k, where): pack(v, f"{where}[{k!r}]") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [pack(v, f"{where}[{k}]") for k, v in enumerate(value)]
        return parts if isinstance(value, list) else tuple(parts)
    if isinstance(value, (set, frozenset)):
        return {_KIND: type(value).__name__, "value": sorted((pack(v, where) for v in value), key=repr)}
    if isinstance(value, bytes):
        return {_KIND: "bytes", "value": _bytes(value)}
    if type(value).__module__.split(".")[0] in _LIBRARIES and hasattr(value, "get_params"):
        return {_KIND: "estimator", "value": _bytes(_dump_estimator(value, where))}
    raise TrainingError(
        f"a state may not hold {type(value).__module__}.{type(value).__qualname__}",
        where=where,
        hint=f"what state_dict() may return: {_KEPT}, and fitted scikit-learn or imbalanced-learn estimators",
    )


def unpack(value: Any) -> Any:
    """What :func:`pack` was given.

    Raises
    ------
    TrainingError
        An estimator in it names a type of another library.
    """
    if isinstance(value, dict):
        kind = value.get(_KIND)
        if kind is None:
            return {k: unpack(v) for k, v in value.items()}
        inner = value["value"]
        if kind == "array":
            return inner.cpu().numpy()
        if kind == "scalar":
            return inner.cpu().numpy()[()]
        if kind in ("set", "frozenset"):
            return (set if kind == "set" else frozenset)(unpack(v) for v in inner)
        data = inner.cpu().numpy().tobytes()
        return data if kind == "bytes" else _load_estimator(data)
    if isinstance(value, (list, tuple)):
        return type(value)(unpack(v) for v in value)
    return value


def _own(tensor: Tensor) -> Tensor:
    """The tensor with a storage of its own size: a view would take along all that it is a view of."""
    size = tensor.untyped_storage().nbytes() if tensor.layout == torch.strided else 0
    return tensor.clone() if size > tensor.numel() * tensor.element_size() else tensor


def _tensor(array: np.ndarray, where: str) -> Tensor:
    try:
        return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape).copy())
    except TypeError as error:
        what = f"a state may not hold an array of {array.dtype}"
        raise TrainingError(what, where=where, hint="numbers or bool; texts as a list of str") from error


def _bytes(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())


# -- estimators ------------------------------------------------------------------------------------------------------


def _dump_estimator(estimator: Any, where: str) -> bytes:
    """A skops file without the addresses and times that it holds: equal estimators give equal bytes."""
    import skops.io

    name = type(estimator).__name__
    try:
        data = skops.io.dumps(estimator)
    except Exception as error:
        raise TrainingError(f"the fitted {name} can't be saved without code: {error}", where=where) from error
    if strange := _strange(data):
        raise TrainingError(f"the fitted {name} holds types that can't be saved: {', '.join(strange)}", where=where)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        schema = json.loads(old.read("schema.json"))
        for number, node in enumerate(_nodes(schema)):
            node.pop("__id__", None)
            if "file" in node:
                file, node["file"] = node["file"], f"{number}.{node['file'].rsplit('.', 1)[-1]}"
                new.writestr(zipfile.ZipInfo(node["file"]), old.read(file))
        new.writestr(zipfile.ZipInfo("schema.json"), json.dumps(schema))
    return out.getvalue()


def _nodes(value: Any) -> list[dict[str, Any]]:
    """All dicts of a JSON value, in their order."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [*([value] if isinstance(value, dict) else []), *(n for v in inner for n in _nodes(v))]


def _load_estimator(data: bytes) -> Any:
    import skops.io

    if strange := _strange(data):
        raise TrainingError(
            f"a saved estimator holds types of other libraries: {', '.join(strange)}",
            hint="the file may come from somebody else; it was not loaded",
        )
    return skops.io.loads(data, trusted=skops.io.get_untrusted_types(data=data))


def _strange(data: bytes) -> list[str]:
    """What neither skops trusts nor is a class of scikit-learn or imbalanced-learn (functions are not called)."""
    import skops.io

    return [t for t in skops.io.get_untrusted_types(data=data) if not _is_class_of_theirs(t)]


def _is_class_of_theirs(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    if module.split(".")[0] not in _LIBRARIES:
        return False
    try:
        return isinstance(getattr(importlib.import_module(module), attribute), type)
    except (ImportError, AttributeError):
        return False
