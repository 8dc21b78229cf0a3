"""Runs and studies as plain data, checked on entry."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fer_bench.base.files import canonical_json
from fer_bench.base.names import LONGEST, shortened
from fer_bench.base.variants import names_variant
from fer_bench.contract.cards import MethodCard
from fer_bench.contract.params import Variant
from fer_bench.contract.plugins import Plugins
from fer_bench.data.imbalance import Profile
from fer_bench.errors import SpecError, abbreviated, unknown
from fer_bench.stats.confusion import SCORES
from fer_bench.training.recipe import Recipe

RULES = ("val", "last")


@dataclass(frozen=True, kw_only=True)
class Selection:
    """How the reported epoch is chosen: by a validation metric ("val"), or simply the last one ("last")."""

    rule: str = "val"
    metric: str = "mean_recall"

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise unknown("selection rule", self.rule, RULES)
        if self.metric not in SCORES:
            raise unknown("metric", self.metric, SCORES)


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One training, completely described. Its canonical form takes part in the run's id.

    `params` holds every parameter of the method, defaults included, so that a changed default makes a new run.
    `profile` is the text of a :class:`fer_bench.data.imbalance.Profile`, `subset` the number of its draw of the
    training images. Draw 0 is not written down, so that records and ids are those of versions that knew one draw; nor
    is `test_flip` of a recipe without it.
    `test` is False for tuning trials: they never open the test.
    """

    method: str
    dataset: str
    protocol: str
    backbone: str
    recipe: Recipe
    params: Mapping[str, Any] = field(default_factory=dict)
    dataset_params: Mapping[str, Any] = field(default_factory=dict)
    fold: int = 0
    profile: str = "natural"
    subset: int = 0
    pretrained: bool = False
    seed: int = 0
    selection: Selection = field(default_factory=Selection)
    test: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "profile", str(Profile.parse(self.profile)))  # one spelling, so that ids agree
        if min(self.seed, self.fold, self.subset) < 0:
            given = f"seed {self.seed}, fold {self.fold}, subset {self.subset}"
            raise SpecError(f"seed, fold and subset must not be negative ({given})")
        if self.subset and Profile.parse(self.profile).natural:
            raise SpecError(f"a natural training set has one draw, so it has no subset {self.subset}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data with sorted parameters."""
        data = dataclasses.asdict(self)
        data["params"] = dict(sorted(self.params.items()))
        data["dataset_params"] = dict(sorted(self.dataset_params.items()))
        if not self.subset:
            del data["subset"]
        if not self.recipe.test_flip:
            del data["recipe"]["test_flip"]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RunSpec:
        """The inverse of :meth:`to_dict`; unknown keys raise with the nearest name."""
        _check_names("run field", data, cls)
        values = dict(data)
        selection = values.get("selection", {})
        _check_names("selection field", selection, Selection)
        values["recipe"] = Recipe.build({}, values["recipe"])
        values["selection"] = Selection(**selection)
        return cls(**values)


def _check_names(kind: str, data: Mapping[str, Any], cls: type) -> None:
    """Raise unless the keys are fields of the dataclass `cls` and none without a default is missing."""
    known = {f.name: f for f in dataclasses.fields(cls)}
    for name in data:
        if name not in known:
            raise unknown(kind, name, known)
    unset = dataclasses.MISSING
    needed = [n for n, f in known.items() if f.default is unset and f.default_factory is unset]
    if missing := [n for n in needed if n not in data]:
        raise SpecError(f"the run lacks {', '.join(missing)}")


def parse_folds(text: str | None, folds: int) -> tuple[int, ...]:
    """Fold numbers from text such as ``0,2`` or ``0-4``; all of them for None.

    Raises
    ------
    SpecError
        It is not a list of numbers, or the protocol has no such fold.
    """
    if text is None:
        return tuple(range(folds))
    given, numbers = f"--folds {abbreviated(text)}", set()
    for part in (p.strip() for p in text.split(",")):
        ends = re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?", part, re.ASCII)
        if ends is None:
            raise SpecError(f"'{abbreviated(part)}' is neither a fold nor a range", where=given, hint="as 0,2 or 0-4")
        first, last = (int(end) if len(end) < 8 else folds for end in (ends[1], ends[2] or ends[1]))
        if not first <= last < folds:
            many = f"folds 0 to {folds - 1}" if folds > 1 else "one fold, 0"
            raise SpecError(f"there is no fold {abbreviated(part)}", where=given, hint=f"the protocol has {many}")
        numbers |= set(range(first, last + 1))
    return tuple(sorted(numbers))


def subset_in_words(subset: int) -> str:
    """ ", subset 2", as a part of a run's title; draw 0 is the usual one and goes without saying."""
    return f", subset {subset}" if subset else ""


def label_of(card: MethodCard, params: Mapping[str, Any]) -> str:
    """The method's name with its non-default parameters, in canonical order."""
    changed = [f"{k}={params[k]}" for k in sorted(params) if k in card.params and params[k] != card.params[k].default]
    return f"{card.name}[{','.join(changed)}]" if changed else card.name


@dataclass(frozen=True, kw_only=True)
class StudySpec:
    """A set of runs that are compared.

    `labels` are the methods in the order asked, `reference` the one that gains are measured against,
    `second_reference` the one that reads the reference's network out at another operating point. `tuned` says by label
    how a configuration was searched for, where it was; `ablation` is what :mod:`fer_bench.runs.ablation` remembers.
    """

    name: str
    command: str
    runs: tuple[RunSpec, ...]
    labels: tuple[str, ...]
    reference: str | None
    second_reference: str | None = None
    kind: str = "run"
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ablation: Mapping[str, Any] = field(default_factory=dict)

    def record(self, run_ids: Sequence[str]) -> dict[str, Any]:
        """The study's record for the ledger."""
        tuned = {"tuned": {k: dict(v) for k, v in self.tuned.items()}} if self.tuned else {}
        return {
            "name": self.name,
            "command": self.command,
            "dataset": self.runs[0].dataset,
            "protocol": self.runs[0].protocol,
            "runs": list(run_ids),
            "methods": list(self.labels),
            "reference": self.reference,
            "second_reference": self.second_reference,
            "kind": self.kind,
            **tuned,
            **({"ablation": dict(self.ablation)} if self.ablation else {}),
        }


def expand(
    plugins: Plugins, variants: Sequence[Variant], seeds: Sequence[int], template: Mapping[str, Any],
    *, folds: Sequence[int] = (0,), subsets: Sequence[int] = (0,),
    per_label: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[tuple[RunSpec, ...], tuple[str, ...]]:  # fmt: skip
    """All runs of variants x folds x subsets x seeds, and the variants' labels.

    `template` holds the fields shared by all runs; `per_label` replaces some of them for a variant (tuned recipes).
    Seeds vary slowest: a study that is interrupted has compared all methods on its first seeds.
    """
    specs: dict[str, dict[str, Any]] = {}
    for variant in variants:
        card = plugins.method(variant.method).card
        params = card.choose(variant.given)
        label = label_of(card, params)
        if label in specs:
            raise SpecError(f"'{label}' is listed twice", hint="give each method once, or vary a parameter")
        specs[label] = {"method": card.name, "params": params}
    extra = per_label or {}
    runs = tuple(
        RunSpec(**{**template, **specs[label], **extra.get(label, {}), "fold": fold, "subset": subset, "seed": seed})
        for seed, subset, fold, label in itertools.product(seeds, subsets, folds, specs)
    )
    return runs, tuple(specs)


def choose_reference(plugins: Plugins, labels: Sequence[str], runs: Sequence[RunSpec], given: str | None) -> str | None:
    """The label that gains are measured against: the given one, else the first baseline, else the first method."""
    by_label = dict(zip(labels, runs, strict=False))  # the first seed's runs come in the order of the labels
    if given is not None:
        meant = [label for label, run in by_label.items() if names_variant(given, label, run.params)]
        if not meant:
            raise unknown("reference", given, labels, where="--reference")
        return meant[0]
    baselines = [n for n in labels if getattr(plugins.method(by_label[n].method).card, "tier", "") == "baseline"]
    plain = [n for n in baselines if not by_label[n].params]
    return (plain or baselines or list(labels))[0]


def second_reference(plugins: Plugins, reference: RunSpec) -> str | None:
    """The name of the method that is the second reference where `reference` is a run of the first.

    It is found by the cards alone: the second reference that reads out the reference's method, which must have its
    default parameters. None where there is no such method.

    Raises
    ------
    SpecError
        Two methods claim to be it.
    """
    card = plugins.method(reference.method).card
    if dict(reference.params) != card.resolve({}):
        return None
    cards = [p.card for p in plugins.methods.values()]
    claims = sorted(c.name for c in cards if c.tier == "second reference" and c.readout_of == card.name)
    if len(claims) > 1:
        raise SpecError(
            f"{' and '.join(claims)} claim to be the second reference beside '{card.name}'",
            hint='give all but one of their cards the tier "method"',
            next="the same command with --no-second-reference",
        )
    return claims[0] if claims else None


def study_name(dataset: str, labels: Sequence[str], runs: Sequence[RunSpec]) -> str:
    """A readable name that is unique to the set of runs."""
    digest = hashlib.sha256(canonical_json([r.to_dict() for r in runs]).encode()).hexdigest()[:6]
    plain = "-".join(n.split("[")[0] for n in labels[:3]) + ("-etc" if len(labels) > 3 else "")
    return f"{shortened(f'{dataset}-{plain}', LONGEST - 30)}-{digest}"
