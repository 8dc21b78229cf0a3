"""What is wrong with a command is told before anything heavy is imported, drawn or written.

Cards, recipes and timm's source are read, so a misspelt name is answered at once: neither torch nor timm, MLflow or
Optuna is imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fer_bench.cli.options import check_device, profiles_of, template_of
from fer_bench.contract.plugins import Plugins, plugins
from fer_bench.errors import SpecError


def preflight(methods: Sequence[str], options: dict[str, Any], *, searching: bool = False) -> Plugins:
    """All plug-ins, after checking every name and value of a command that trains.

    Parameters
    ----------
    searching : bool
        For ``tune``, which has one imbalance profile, and neither folds nor a reference.

    Raises
    ------
    FerBenchError
        The first thing that is wrong, with the nearest valid name or the accepted range.
    """
    from fer_bench.base.names import STUDY, checked
    from fer_bench.runs.spec import choose_reference, expand, parse_folds, parse_variant

    if options["name"] is not None:
        checked(options["name"], STUDY, where="--name")
    found = plugins(options["plugin_dirs"])
    variants = [parse_variant(text) for text in methods]
    for variant in variants:
        found.method(variant.method)
    check_device(options["device"])
    template, _ = template_of(options, found, look=False)
    if searching and len(profiles_of(options)) > 1:
        raise SpecError("a search has one imbalance profile", where="--imbalance", hint="search each by itself")
    runs, labels = expand(found, variants, (0,), template)
    if searching:
        return found
    parse_folds(options["folds"], found.dataset_card(template["dataset"]).protocol(template["protocol"]).folds)
    if not options["tuned"]:  # tuned methods have other labels, which only the searches know
        choose_reference(found, labels, runs, options["reference"])
    return found
