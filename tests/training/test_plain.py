"""States as plain data: they come back as they were, equal ones are equal bytes, and no file runs code."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from fer_bench.errors import LedgerError, TrainingError
from fer_bench.training.checkpoint import load_plain, save_plain
from fer_bench.training.plain import pack, unpack

NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.booleans() | st.none() | st.text()
STATES = st.recursive(
    NUMBERS | st.binary(max_size=9) | st.frozensets(st.integers(), max_size=4),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=12,
)


def types_of(value):
    """The types of a value and of all that it holds."""
    if isinstance(value, dict):
        return dict, [(types_of(k), types_of(v)) for k, v in value.items()]
    return type(value), [types_of(v) for v in value] if isinstance(value, (list, tuple)) else None


@given(STATES)
def test_plain_values_come_back_with_their_types(state):
    file = io.BytesIO()
    torch.save(pack(state), file)
    file.seek(0)
    back = unpack(torch.load(file, weights_only=True))
    assert back == state
    assert types_of(back) == types_of(state)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64, bool, np.int16])
@pytest.mark.parametrize("shape", [(), (0,), (3, 2), (2, 0, 4)])
def test_arrays_come_back_bitwise(tmp_path: Path, dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    save_plain(tmp_path / "a.pt", {"array": array, "turned": array.T, "number": dtype(1)})
    back = load_plain(tmp_path / "a.pt")
    for name, expected in (("array", array), ("turned", array.T)):
        assert back[name].dtype == expected.dtype
        assert back[name].shape == expected.shape
        assert back[name].tobytes() == expected.tobytes()
    assert back["number"] == dtype(1)


def test_a_view_is_saved_without_what_it_is_a_view_of(tmp_path: Path):
    save_plain(tmp_path / "a.pt", {"row": torch.zeros(1000, 1000)[3]})
    assert (tmp_path / "a.pt").stat().st_size < 20_000


def test_equal_states_make_equal_bytes(tmp_path: Path):
    def state(text: str):
        return OrderedDict([("weight", torch.ones(3)), (text, {"layer": text, "other": "".join(["lay", "er"])})])

    save_plain(tmp_path / "one.pt", state("layer"))
    save_plain(tmp_path / "two.pt", state("".join(["la", "yer"])))
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "two.pt").read_bytes()


def fitted(seed: int = 0) -> LogisticRegression:
    draw = np.random.default_rng(seed)
    return LogisticRegression().fit(draw.normal(size=(40, 3)), np.arange(40) % 3)


@pytest.mark.slow
def test_estimators_come_back_and_predict_the_same(tmp_path: Path):
    from imblearn.over_sampling import SMOTE
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(60, 3)), np.arange(60) % 3
    chain = make_pipeline(StandardScaler(), KNeighborsClassifier(3)).fit(x, y)
    save_plain(tmp_path / "a.pt", {"chain": chain, "smote": SMOTE(k_neighbors=3, random_state=1)})
    back = load_plain(tmp_path / "a.pt")
    assert (back["chain"].predict_proba(x) == chain.predict_proba(x)).all()
    assert back["smote"].get_params() == SMOTE(k_neighbors=3, random_state=1).get_params()


def test_equal_estimators_make_equal_bytes_also_after_a_resume(tmp_path: Path):
    save_plain(tmp_path / "one.pt", {"it": fitted()})
    save_plain(tmp_path / "two.pt", {"it": fitted()})
    save_plain(tmp_path / "three.pt", {"it": load_plain(tmp_path / "one.pt")["it"]})
    one, two, three = ((tmp_path / f"{n}.pt").read_bytes() for n in ("one", "two", "three"))
    assert one == two == three


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (object(), r"may not hold builtins\.object\n  where: state\['deep'\]\[1\]"),
        (print, r"may not hold builtins\.builtin_function_or_method"),
        (np.array([object()]), r"may not hold an array of object"),
        (np.array(["a"]), r"may not hold an array of <U1"),
    ],
)
def test_what_is_not_plain_is_refused_with_its_place(tmp_path: Path, value, said):
    with pytest.raises(TrainingError, match=said):
        save_plain(tmp_path / "a.pt", {"deep": [1, value]})
    assert not list(tmp_path.iterdir())


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return (Path.touch, (self.file,))


def test_a_file_with_code_is_refused_and_the_code_not_run(tmp_path: Path):
    torch.save({"format": 2, "state": Bomb(tmp_path / "ran")}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(LedgerError, match=rf"{name} (holds code, which is not run|is damaged)"):
            load_plain(tmp_path / name)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(LedgerError, match=r"a\.pt holds code, which is not run"):
        load_plain(tmp_path / "a.pt")


@pytest.mark.parametrize(("module", "function"), [('"os"', '"system"'), ('"sklearn.utils"', '"shuffle"')])
def test_an_estimator_of_another_library_is_not_loaded(tmp_path: Path, module: str, function: str):
    """A skops file may name any importable type; the one here would be called while it is built."""
    save_plain(tmp_path / "a.pt", {"it": fitted()})
    packed = pack({"it": fitted()})["it"]
    data = packed["value"].numpy().tobytes()
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            text = old.read(name)
            if name == "schema.json":
                text = text.replace(b'"sklearn.linear_model._logistic"', module.encode())
                text = text.replace(b'"LogisticRegression"', function.encode())
            new.writestr(name, text)
    packed["value"] = torch.from_numpy(np.frombuffer(out.getvalue(), dtype=np.uint8).copy())
    torch.save({"format": 2, "state": {"it": packed}}, tmp_path / "a.pt")
    with pytest.raises(TrainingError, match=f"of other libraries: {module}.{function}".replace('"', "")):
        load_plain(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", b"nothing of the kind"])
def test_a_damaged_file_is_called_damaged(tmp_path: Path, content: bytes):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(LedgerError, match=r"a\.pt is damaged|holds code"):
        load_plain(tmp_path / "a.pt")
