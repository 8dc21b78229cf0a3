"""Check a command that trains before anything heavy is imported, generated or written.

Names are checked against cards, recipes and timm's source, so a misspelt name is reported at once: this module imports
neither torch nor timm, MLflow or Optuna.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fer_bench.cli.options import check_device, profiles_of, template_of
from fer_bench.contract.plugins import Plugins, plugins
from fer_bench.errors import SpecError, unknown

EXECUTORS = ("local", "ray")
OF_RAY = ("ray_address", "cpus_per_run", "gpus_per_run")  # options that mean something there alone
OF_NODES = ("auto", "cpu", "cuda")  # devices that can be asked for on a cluster


def preflight(methods: Sequence[str], options: dict[str, Any], *, searching: bool = False) -> Plugins:
    """Check every name and value of a command that trains, and return all plug-ins.

    Parameters
    ----------
    searching : bool
        For ``tune``, which takes one imbalance profile and neither folds nor a reference.

    Raises
    ------
    FerBenchError
        The first invalid name or value, with the nearest valid name or the accepted range.
    """
    from fer_bench.base.names import STUDY, checked
    from fer_bench.contract.params import parse_variant
    from fer_bench.runs.spec import choose_reference, expand, parse_folds

    if options["name"] is not None:
        checked(options["name"], STUDY, where="--name")
    available = plugins(options["plugin_dirs"])
    variants = [parse_variant(text) for text in methods]
    for variant in variants:
        available.method(variant.method)
    check_device(options["device"], several=not searching)
    template, _ = template_of(options, available, detect=False)
    if searching and len(profiles_of(options)) > 1:
        raise SpecError("a search takes one imbalance profile", where="--imbalance", hint="run one search for each")
    runs, labels = expand(available, variants, (0,), template)
    if searching:
        return available
    _check_subsets(options)
    _check_executor(options)
    parse_folds(options["folds"], available.dataset_card(template["dataset"]).protocol(template["protocol"]).folds)
    if not options["tuned"]:  # tuned methods have other labels, known only after reading the searches
        choose_reference(available, labels, runs, options["reference"])
    return available


def _check_subsets(options: dict[str, Any]) -> None:
    """Raise SpecError if several draws are asked of training sets that are not thinned."""
    if options["subsets"] > 1 and set(profiles_of(options)) == {"natural"}:
        raise SpecError(
            "a natural training set has only one draw: all images of the fold",
            where=f"--subsets {options['subsets']}",
            hint="subsets are draws of a training set that --imbalance thins, as with --imbalance exp:50; other "
            "natural training sets are the folds of a protocol (`fer-bench show DATASET` lists those with folds)",
        )


def _check_executor(options: dict[str, Any]) -> None:
    """Raise SpecError for options that have no meaning where the runs are carried out."""
    if options["executor"] not in EXECUTORS:
        raise unknown("executor", options["executor"], EXECUTORS, where="--executor")
    if options["executor"] != "ray":
        given = [f"--{name.replace('_', '-')}" for name in OF_RAY if options[name] is not None]
        if given:
            raise SpecError(f"{given[0]} needs --executor ray", hint="without it, runs are carried out on this machine")
        return
    if options["device"] not in OF_NODES:
        raise SpecError(
            "on a cluster Ray chooses the device of each run",
            where=f"--device {options['device']}",
            hint=f"{', '.join(OF_NODES)}; --gpus-per-run says what each run gets",
        )
    if options["device"] == "cpu" and options["gpus_per_run"]:
        raise SpecError(
            "a run on the CPU needs no GPU", where=f"--device cpu --gpus-per-run {options['gpus_per_run']:g}"
        )
    if options["device"] == "cuda" and options["gpus_per_run"] == 0:
        raise SpecError("a run on a GPU needs one, or a part of one", where="--device cuda --gpus-per-run 0")
