"""Published numbers as data; whether ours are comparable with them is decided in :mod:`.comparable`.

The numbers are in the TOML files beside this module, one file per data set. A file holds the name of its data set and
entries, one by one or in groups. The fields of a group apply to all its entries, unless an entry says otherwise:

::

    dataset = "toy"

    [[claim]]                                   [[group]]
    id = "net"                                  split = "test"
    method = "Net"                              source = "owner/name, README"
    accuracy = 71.3                             claim = [{ id = "a", method = "A", accuracy = 70.2 }]
    mean_recall = [64.0, 0.8]
    recall = { angry = 65, disgust = 64 }

An entry is one model measured in one way; each number in it becomes a :class:`Claim`. ``[value, spread]`` gives the
standard deviation, ``tags`` another tag for single metrics (``{ mean_recall = "computed" }``).
"""

from __future__ import annotations

import csv
import io
import shlex
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from pathlib import Path
from typing import Any

from fer_bench.errors import DataError, FerBenchError, UnknownNameError, nearest, unknown

FOLDER = Path(__file__).parent

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral", "contempt")
SAME_CLASS = {"anger": "angry", "happiness": "happy", "sadness": "sad"}
SCORES = ("accuracy", "mean_recall", "macro_f1")
METRICS = (*SCORES, *(f"recall:{name}" for name in CLASSES))
SELECTIONS = {
    "val": "on images outside the test set",
    "last": "the last epoch",
    "test-best": "the best epoch on the test set",
    "none stated": "the source states no rule",
    "unknown": "unknown",
}
TAGS = {
    "read": "read in code, README, figure or paper",
    "abstract": "read in an abstract, a leaderboard or an issue",
    "computed": "computed from printed numbers",
    "recalled": "from memory; verify before citing",
    "inferred": "inferred",
}
FACES = ("faces", "MS-Celeb-1M")
PRETRAINING = ("", "none", "ImageNet", *FACES)


@dataclass(frozen=True)
class Flag:
    """What a flag says about a claim, and whether that forbids a comparison.

    `bars` is "always", "elsewhere" (only under a different protocol: within the same protocol it applies to both sides)
    or "never" (a caution only).
    """

    words: str
    bars: str = "always"


FLAGS = {
    "quarantined": Flag("theirs is quarantined: not confirmed, or known to be wrong"),
    "transductive": Flag("theirs reads the test batch"),
    "oracle": Flag("theirs is an upper bound that needs test labels"),
    "ensemble": Flag("theirs is an ensemble"),
    "extra-data": Flag("theirs is trained on additional data"),
    "best-run": Flag("theirs is the best of several runs, not their mean"),
    "trained-on-val": Flag("theirs is also trained on the validation images"),
    "other-alignment": Flag("theirs aligns faces differently in training and test"),
    "human": Flag("theirs is human performance"),
    "face-pretrained": Flag("theirs is pretrained on faces"),
    "protocol-unknown": Flag("protocol not stated"),
    "validation": Flag("its source calls it validation accuracy"),
    "subject-leak": Flag("the same people are in training and test", "elsewhere"),
    "frame-leak": Flag("frames of the same sequence are in training and test", "elsewhere"),
    "swapped": Flag("the public splits are swapped: selected on PrivateTest, measured on PublicTest", "elsewhere"),
    "approximate": Flag("theirs is rounded or reported in passing", "never"),
    "third-party": Flag("theirs was trained or measured by a third party", "never"),
}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One published number.

    Parameters
    ----------
    dataset, entry : str
        The data set, and the id of the entry in its file.
    method : str
    metric : str
        "accuracy", "mean_recall", "macro_f1" or "recall:<class>".
    value : float
        In percent.
    source : str
        Where the number is printed.
    tag : str
        How it was obtained: a key of :data:`TAGS`.
    decimals : int
        Digits after the point, as printed.
    spread : float, optional
        Standard deviation as printed, in percent.
    paper, year : str, int
        Short reference, where certain; year 0 where not.
    split : str
        What it was measured on, in our names where we have them.
    protocol : str
        Our protocol that divides and selects as theirs; empty for none or unknown.
    selection : str
        How the reported epoch was selected: a key of :data:`SELECTIONS`.
    seeds, classes, input : int
        Number of runs, number of classes, side length in pixels; 0 for unknown.
    backbone, pretraining, tta, note : str
        Empty for unknown; `pretraining` is one of :data:`PRETRAINING`.
    flags : tuple of str
        Keys of :data:`FLAGS`.

    Raises
    ------
    DataError
        A value is invalid.
    UnknownNameError
        A metric, selection, tag, flag or pretraining is unknown.
    """

    dataset: str
    entry: str
    method: str
    metric: str
    value: float
    source: str
    tag: str
    decimals: int = 2
    spread: float | None = None
    paper: str = ""
    year: int = 0
    split: str = ""
    protocol: str = ""
    selection: str = "unknown"
    seeds: int = 0
    classes: int = 0
    backbone: str = ""
    pretraining: str = ""
    input: int = 0
    tta: str = ""
    flags: tuple[str, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        where = f"claim '{self.id}'"
        closed = (("metric", METRICS), ("selection", SELECTIONS), ("tag", TAGS), ("pretraining", PRETRAINING))
        for kind, known in closed:
            if getattr(self, kind) not in known:
                raise unknown(kind, getattr(self, kind), known, where=where)
        for flag in self.flags:
            if flag not in FLAGS:
                raise unknown("flag", flag, FLAGS, where=where)
        for fault in self._faults():
            raise DataError(fault, where=where)

    def _faults(self) -> Iterator[str]:
        needed = ("dataset", "entry", "method", "source")
        yield from (f"'{name}' is empty" for name in needed if not getattr(self, name))
        if not 0 < self.value <= 100:
            yield f"{self.metric} {self.value:g} is not a percentage above 0"
        if self.spread is not None and not 0 <= self.spread < 100:
            yield f"spread {self.spread:g} is not a percentage"
        if min(self.year, self.seeds, self.classes, self.input) < 0:
            yield "year, seeds, classes and input can't be negative"
        if (self.pretraining in FACES) != ("face-pretrained" in self.flags):
            yield f"the flag face-pretrained is for pretraining {' or '.join(FACES)}, and required there"
        if self.protocol and "protocol-unknown" in self.flags:
            yield f"protocol {self.protocol} and the flag protocol-unknown contradict each other"

    @property
    def id(self) -> str:
        """Unique name: ``dataset/entry:metric``."""
        return f"{self.dataset}/{self.entry}:{self.metric}"

    @property
    def text(self) -> str:
        """The number as printed, with its spread: "70.2 ± 0.7"."""
        number = f"{self.value:.{self.decimals}f}"
        return number if self.spread is None else f"{number} ± {self.spread:.{self.decimals}f}"

    @property
    def by_class(self) -> bool:
        """Whether it is the recall of one class."""
        return self.metric.startswith("recall:")

    @property
    def quarantined(self) -> bool:
        """Whether it is kept apart from all others."""
        return "quarantined" in self.flags


# -- reading ---------------------------------------------------------------------------------------------------------

NUMBERS = (*SCORES, "recall")
COMMON = tuple(
    f.name for f in fields(Claim) if f.name not in ("dataset", "entry", "metric", "value", "decimals", "spread")
)
ENTRY_FIELDS = ("id", "tags", *COMMON, *NUMBERS)
TEXTS = ("id", *(f.name for f in fields(Claim) if f.type == "str" and f.name in COMMON))
INTEGERS = tuple(f.name for f in fields(Claim) if f.type == "int" and f.name in COMMON)


def load(folder: str | Path | None = None) -> tuple[Claim, ...]:
    """All claims of the TOML files in `folder` (default: those that ship).

    They come file by file, within a file the single entries first, then the groups.

    Raises
    ------
    DataError
        The folder or a file can't be read, an entry is invalid, or an id occurs twice.
    UnknownNameError
        A field, metric, class, selection, tag or flag is unknown.
    """
    folder = FOLDER if folder is None else Path(folder)
    paths = sorted(folder.glob("*.toml"))
    if not paths:
        raise DataError("no claims found", where=str(folder), hint="one TOML file per data set")
    claims: dict[str, Claim] = {}
    for path in paths:
        for claim, where in _read(path):
            if claim.id in claims:
                raise DataError(f"'{claim.dataset}/{claim.entry}' occurs twice", where=where)
            claims[claim.id] = claim
    return tuple(claims.values())


def _read(path: Path) -> Iterator[tuple[Claim, str]]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)  # keeps the digits as printed
    except (OSError, ValueError) as error:
        raise DataError(f"can't be read: {error}", where=str(path)) from error
    _known(data, ("dataset", "claim", "group"), path.name)
    if not isinstance(data.get("dataset"), str):
        raise DataError("names no data set", where=path.name, hint='dataset = "NAME"')
    for number, (given, entry) in enumerate(_entries(data, path.name), start=1):
        where = f"{path.name}, entry {number} ('{entry.get('id', '')}')"
        try:
            _known(entry, ENTRY_FIELDS, where)
            for claim in _claims(data["dataset"], {**given, **entry}):
                yield claim, where
        except FerBenchError as error:
            raise type(error)(error.what, where=where, hint=error.hint) from error


def _known(data: Mapping[str, Any], names: Iterable[str], where: str, kind: str = "field") -> None:
    for name in data:
        if name not in names:
            raise unknown(kind, name, names, where=where)


def _entries(data: Mapping[str, Any], where: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Fields of the group (none outside groups) and of the entry."""
    yield from (({}, entry) for entry in _tables(data, "claim", where))
    for group in _tables(data, "group", where):
        _known(group, (*COMMON, "claim"), where)
        given = {name: value for name, value in group.items() if name != "claim"}
        yield from ((given, entry) for entry in _tables(group, "claim", where))


def _tables(data: Mapping[str, Any], name: str, where: str) -> list[dict[str, Any]]:
    tables = data.get(name, [])
    if not isinstance(tables, list) or not all(isinstance(item, dict) for item in tables):
        raise DataError(f"'{name}' is not a list of tables", where=where, hint=f"[[{name}]]")
    return tables


def _claims(dataset: str, entry: Mapping[str, Any]) -> Iterator[Claim]:
    """The claims of one entry, one per number."""
    _check_types(entry)
    numbers = {name: entry[name] for name in SCORES if name in entry}
    numbers |= {f"recall:{name}": value for name, value in entry.get("recall", {}).items()}
    if not numbers:
        raise DataError("contains no number", hint=f"one of {', '.join(NUMBERS)}")
    tags = entry.get("tags", {})
    _known(tags, numbers, "tags", "metric among the tags")
    shared = {name: entry[name] for name in COMMON if name in entry and name not in ("flags", "tag")}
    missing = [name for name in ("id", "method", "source", "tag") if not entry.get(name)]
    if missing:
        raise DataError(f"lacks {', '.join(missing)}")
    for metric, number in numbers.items():
        value, spread, decimals = _number(metric, number)
        yield Claim(
            dataset=dataset, entry=entry["id"], metric=metric, value=value, spread=spread, decimals=decimals,
            tag=tags.get(metric, entry["tag"]), flags=tuple(entry.get("flags", ())), **shared,
        )  # fmt: skip


def _check_types(entry: Mapping[str, Any]) -> None:
    kinds: dict[str, tuple[type, str]] = dict.fromkeys(TEXTS, (str, "text"))
    kinds |= dict.fromkeys(INTEGERS, (int, "a whole number"))
    kinds |= {"flags": (list, "a list"), "tags": (dict, "a table"), "recall": (dict, "a table")}
    for name, (kind, words) in kinds.items():
        if name in entry and (not isinstance(entry[name], kind) or isinstance(entry[name], bool)):
            raise DataError(f"'{name}' is not {words}: {entry[name]!r}")
    for name, words in (("flags", entry.get("flags", ())), ("tags", entry.get("tags", {}).values())):
        if not all(isinstance(word, str) for word in words):
            raise DataError(f"'{name}' may contain only text: {entry[name]!r}")


def _number(metric: str, given: Any) -> tuple[float, float | None, int]:
    """Value, spread and decimals of ``71.3`` or ``[71.3, 0.4]``."""
    parts = given if isinstance(given, list) else [given]
    plain = all(isinstance(p, (int, Decimal)) and not isinstance(p, bool) for p in parts)
    if not plain or len(parts) not in (1, 2) or not all(Decimal(p).is_finite() for p in parts):
        raise DataError(f"'{metric}' is not a number: {given!r}", hint="accepted: 71.3 or [71.3, 0.4]")
    exponent = Decimal(parts[0]).as_tuple().exponent
    decimals = -exponent if isinstance(exponent, int) and exponent < 0 else 0
    return float(parts[0]), float(parts[1]) if len(parts) == 2 else None, decimals


# -- choosing --------------------------------------------------------------------------------------------------------


def canonical(metric: str) -> str:
    """A metric under the name used here: "recall:anger" -> "recall:angry"; others stay."""
    head, colon, name = metric.partition(":")
    return f"{head}:{SAME_CLASS.get(name, name)}" if colon else metric


def select(
    claims: Sequence[Claim] | None = None, *, dataset: str = "", method: str = "", metric: str = "",
    include_quarantined: bool = False,
) -> tuple[Claim, ...]:  # fmt: skip
    """Claims (default: all that ship) of a data set, with a method whose name contains a text in any case, of a metric.

    Raises
    ------
    UnknownNameError
        There is no claim about this data set, no method with such a name, or no such metric.
    """
    claims = load() if claims is None else tuple(claims)
    chosen = claims
    if dataset:
        chosen = tuple(c for c in chosen if c.dataset == dataset)
        if not chosen:
            raise _no_dataset(dataset, sorted({c.dataset for c in claims}))
    if method:
        named = tuple(c for c in chosen if method.casefold() in c.method.casefold())
        if not named:
            raise _no_method(method, dataset, chosen, claims)
        chosen = named
    if metric:
        if canonical(metric) not in METRICS:
            raise unknown("metric", metric, METRICS, where="published claims")
        chosen = tuple(c for c in chosen if c.metric == canonical(metric))
    return tuple(c for c in chosen if include_quarantined or not c.quarantined)


def _no_dataset(name: str, known: Sequence[str]) -> UnknownNameError:
    close = nearest(name, known, limit=1)
    hint = (f"did you mean '{close[0]}'? " if close else "") + f"there are numbers for {', '.join(known)}"
    return UnknownNameError(
        f"no published numbers for data set '{name}'",
        where="published claims",
        hint=hint,
        next=f"fer-bench claims --dataset {(close or known)[0]}",
    )


def _no_method(name: str, dataset: str, here: Sequence[Claim], everywhere: Sequence[Claim]) -> UnknownNameError:
    others = sorted({c.dataset for c in everywhere if name.casefold() in c.method.casefold()})
    close = nearest(name, {c.method for c in here})
    hint, following = (
        "give any part of a method's name, in upper or lower case",
        f"--dataset {dataset}" if dataset else "",
    )
    if others:
        hint, following = f"there are some for {', '.join(others)}", f"--method {shlex.quote(name)}"
    elif close:
        hint = "did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
        following = f"{following} --method {shlex.quote(close[0])}".strip()
    return UnknownNameError(
        f"no published numbers for method '{name}'" + f" on {dataset}" * bool(dataset),
        where="published claims",
        hint=hint,
        next=f"fer-bench claims {following}".strip(),
    )


def as_csv(claims: Iterable[Claim]) -> str:
    """A table with one line per number and all fields; values as printed, flags separated by spaces."""
    out = io.StringIO()
    names = ["id", *(f.name for f in fields(Claim) if f.name != "decimals")]
    writer = csv.DictWriter(out, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for claim in claims:
        exact = {"id": claim.id, "value": f"{claim.value:.{claim.decimals}f}", "flags": " ".join(claim.flags)}
        empty = {name: "" for name in ("year", "seeds", "classes", "input", "spread") if not getattr(claim, name)}
        writer.writerow({**asdict(claim), **exact, **empty})
    return out.getvalue()
