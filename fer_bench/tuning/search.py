"""What a search is: a method variant, what is fixed, what is searched, and the command that trains a configuration."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fer_bench.base.files import canonical_json
from fer_bench.base.names import shortened, slug
from fer_bench.contract.cards import MethodCard
from fer_bench.contract.params import Choice, Float, Param, Scale, Space, Variant
from fer_bench.runs.executor import Workplace
from fer_bench.runs.spec import RunSpec, Selection, label_of
from fer_bench.training.recipe import PRESETS, Recipe
from fer_bench.tuning.journal import in_words

OBJECTIVE = "mean_recall"


@dataclass(frozen=True, kw_only=True)
class Search:
    """One method's search: what is fixed, what is searched, and the name under which Optuna keeps it."""

    label: str
    card: MethodCard
    params: Mapping[str, Any]
    given: Mapping[str, Any]
    template: Mapping[str, Any]
    preset: str
    space: Mapping[str, Space]

    @property
    def method(self) -> str:
        """The method's name."""
        return self.card.name

    @property
    def name(self) -> str:
        """Readable and unique: the label and a hash of everything that is fixed, the training's length included."""
        key = {**fixed_part(self.template), "epochs": self.template["recipe"].epochs, "space": repr(self.space)}
        return f"{file_name(self.label)}-{short_hash(key)}"

    def study(self, seed: int) -> str:
        """The name of the search with a seed, in the journal and in the ledger."""
        return f"{self.name}-seed{seed}"

    def defaults(self) -> dict[str, Any]:
        """The default configuration, in the search's own coordinates: trial 0."""
        recipe = self.template["recipe"].to_dict()
        return {n: recipe[n[7:]] if n.startswith("recipe.") else self.params[n] for n in self.space}

    def spec(self, values: Mapping[str, Any], seed: int) -> RunSpec:
        """The run of a trial; it never opens the test."""
        drawn, idle = {**self.params, **method_part(values)}, self.idle(values)
        params = {n: self.card.params[n].default if n in idle else v for n, v in drawn.items()}
        recipe = Recipe.build(self.template["recipe"].to_dict(), recipe_part(values))
        fields = {**self.template, "method": self.method, "params": params, "recipe": recipe}
        return RunSpec(**fields, seed=seed, test=False)

    def idle(self, values: Mapping[str, Any]) -> list[str]:
        """Parameters, fixed or searched, that have no effect beside searched values: they keep the default."""
        return self.card.idle({**self.params, **method_part(values)})

    def used(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Searched values without those that have no effect."""
        idle = self.idle(values)
        return {n: v for n, v in values.items() if n not in idle}


def method_part(values: Mapping[str, Any]) -> dict[str, Any]:
    """The method's parameters among searched values."""
    return {n: v for n, v in values.items() if not n.startswith("recipe.")}


def recipe_part(values: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe fields among searched values, without their prefix."""
    return {n.removeprefix("recipe."): v for n, v in values.items() if n.startswith("recipe.")}


def build_search(work: Workplace, variant: Variant, template: Mapping[str, Any], preset: str) -> Search:
    """The search of one variant: its card's space and the shared recipe space, less what the user fixed.

    What has no effect beside what the user fixed is not searched either.

    Raises
    ------
    UnknownNameError, SpecError
        The method or a given parameter does not exist or does not fit.
    """
    card = work.plugins.method(variant.method).card
    params = card.choose(variant.given)
    recipe = template["recipe"].to_dict()
    space: dict[str, Space] = {}
    for name, param in Recipe.options().items():
        if param.space is not None:
            space[f"recipe.{name}"] = _absolute(param, recipe[name])
    searched = {n for n, param in card.params.items() if param.space is not None} - set(variant.given)
    for name, param in card.params.items():
        fixed = [{n: wanted for n, wanted in case.items() if n not in searched} for case in param.when]
        if name in searched and param.space is not None and not replace(param, when=tuple(fixed)).lacks(params):
            space[name] = param.space
    return Search(
        label=label_of(card, params), card=card, params=params, given=dict(variant.given), template=template,
        preset=preset, space=space,
    )  # fmt: skip


def _absolute(param: Param, value: Any) -> Space:
    if isinstance(param.space, Scale):
        if not value:
            return Choice((value,))
        return Float(param.space.low * value, param.space.high * value, log=True)
    assert param.space is not None
    if isinstance(param.space, Choice) and value not in param.space.options:
        return Choice((value, *param.space.options))
    return param.space


def terms_of(search: Search, seed: int) -> dict[str, Any]:
    """What a reader must know of a search."""
    space = {n: in_words(s) for n, s in search.space.items()}
    epochs = search.template["recipe"].epochs
    return {"method": search.method, "objective": f"val_{OBJECTIVE}", "seed": seed, "epochs": epochs, "space": space}


def command_of(search: Search, values: Mapping[str, Any]) -> str:
    """The ``fer-bench run`` command that trains one configuration; where and on what it runs is for others to add."""
    template = search.template
    changed, idle = {**search.given, **method_part(values)}, search.idle(values)
    changed = {n: v for n, v in changed.items() if n not in idle and (n in search.given or v != search.params[n])}
    method = search.method + (f"[{','.join(f'{k}={v}' for k, v in sorted(changed.items()))}]" if changed else "")
    words = ["fer-bench", "run", method, "--dataset", template["dataset"], "--protocol", template["protocol"]]
    words += ["--backbone", template["backbone"], *(["--pretrained"] if template["pretrained"] else [])]
    words += ["--imbalance", template["profile"]] if template.get("profile", "natural") != "natural" else []
    for name, value in template["dataset_params"].items():
        words += ["--dataset-set", f"{name}={value}"]
    words += ["--recipe", search.preset]
    preset = Recipe.build(PRESETS[search.preset].recipe, {"epochs": template["recipe"].epochs}).to_dict()
    recipe = {**template["recipe"].to_dict(), **recipe_part(values)}
    if recipe["epochs"] != PRESETS[search.preset].recipe.get("epochs"):
        words += ["--epochs", str(recipe["epochs"])]
    for name, value in recipe.items():
        if value != preset[name]:
            words += ["--set", f"{name}={value}"]
    selection = template.get("selection", Selection())
    if selection != Selection():
        words += ["--select", "last" if selection.rule == "last" else selection.metric]
    return shlex.join(words)


def fixed_part(template: Mapping[str, Any]) -> dict[str, Any]:
    """What a tuned configuration belongs to. The training's length may differ between search and final runs."""
    recipe = {n: v for n, v in template["recipe"].to_dict().items() if n not in ("epochs", "warmup_epochs")}
    kept = ("dataset", "dataset_params", "protocol", "backbone", "pretrained")
    return {**{k: template[k] for k in kept}, "profile": template.get("profile", "natural"), "recipe": recipe}


def short_hash(key: Any) -> str:
    """Eight hexadecimal digits that tell plain values apart."""
    return hashlib.sha256(canonical_json(key).encode()).hexdigest()[:8]


def file_name(label: str) -> str:
    """A method's label as part of a file's name."""
    return shortened(slug(label), 80)
