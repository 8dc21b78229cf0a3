"""The best configuration of each search: plain JSON in the tuning folder, and what ``fer-bench run --tuned`` reads."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_bench.base.files import read_json, write_json
from fer_bench.base.names import folder_of, locate
from fer_bench.contract.params import Variant
from fer_bench.errors import SpecError
from fer_bench.runs.executor import Workplace
from fer_bench.runs.spec import label_of
from fer_bench.training.recipe import Recipe
from fer_bench.tuning.search import Search, build_search, file_name, fixed_part, method_part, recipe_part, short_hash

FACTS = ("label", "trials", "pruned", "space", "seed", "epochs", "objective", "values", "value", "default_value")


def write_best(work: Workplace, search: Search, best: Mapping[str, Any]) -> None:
    """Keep the best configuration of a search, in place of one that an earlier search left."""
    write_json(_best_file(work, search.label, search.template), best)


@dataclass(frozen=True)
class Tuned:
    """Variants at their best configurations, with what belongs to each by its label.

    `recipes` are run fields that replace the study's, `facts` how each was found: trials, space, seed, metric, values.
    """

    variants: list[Variant]
    recipes: dict[str, dict[str, Any]]
    facts: dict[str, dict[str, Any]]


def use_tuned(work: Workplace, variants: Sequence[Variant], template: Mapping[str, Any], preset: str,
              tune_command: Callable[[str], str] | None = None) -> Tuned:  # fmt: skip
    """Find the best configuration of each variant.

    Parameters
    ----------
    work, variants, template, preset
        As the runs will be.
    tune_command : callable, optional
        The command that tunes a variant, given as it is typed; named where one has not been tuned.

    Raises
    ------
    SpecError
        A variant has not been tuned for this data set, protocol, backbone and recipe.
    """
    tuned = Tuned([], {}, {})
    for variant in variants:
        search = build_search(work, variant, template, preset)
        best = read_best(work, search, tune_command)
        values = search.used(best["values"])
        given = {n: v for n, v in variant.given.items() if n not in search.idle(values)}
        better = Variant(variant.method, {**given, **method_part(values)})
        card = work.plugins.method(variant.method).card
        label = label_of(card, card.resolve(better.given))
        recipe = Recipe.build(template["recipe"].to_dict(), recipe_part(values))
        tuned.variants.append(better)
        tuned.recipes[label] = {"recipe": recipe}
        tuned.facts[label] = {k: best[k] for k in FACTS if k in best}
    return tuned


def read_best(work: Workplace, search: Search, tune_command: Callable[[str], str] | None = None) -> dict[str, Any]:
    """The best configuration of a search; raises SpecError where there is none, with the command that tunes."""
    file = _best_file(work, search.label, search.template)
    if file.exists():
        return read_json(file)
    dataset = search.template["dataset"]
    have = ", ".join(sorted(_known(work, dataset))) or "none"
    if tune_command is None:
        again = f"fer-bench tune {shlex.quote(search.label)} --dataset {shlex.quote(dataset)} --trials 20"
    else:
        again = tune_command(search.label)
    raise SpecError(
        f"'{search.label}' has not been tuned for this data set, protocol, backbone and recipe",
        where="--tuned",
        hint=f"tuned on {dataset} (perhaps with another recipe): {have}",
        next=again,
    )


def _known(work: Workplace, dataset: str) -> Iterator[str]:
    for spelling in {dataset, folder_of(dataset)}:
        for file in work.home.tuning.glob(f"{spelling}-*.json"):
            yield read_json(file)["label"]


def _best_file(work: Workplace, label: str, template: Mapping[str, Any]) -> Path:
    return locate(
        work.home.tuning, f"{template['dataset']}-{file_name(label)}-{short_hash(fixed_part(template))}", ".json"
    )
