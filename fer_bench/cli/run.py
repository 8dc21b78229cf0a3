"""``fer-bench run``: train methods under the same conditions and compare them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from fer_bench.base.quantities import plural
from fer_bench.cli.options import fast_precision, profiles_of, study_options, template_of

if TYPE_CHECKING:
    from fer_bench.cli.workplace import Mirror
    from fer_bench.contract.cards import Protocol
    from fer_bench.contract.params import Variant
    from fer_bench.runs.ablation import Ablation
    from fer_bench.runs.executor import Workplace
    from fer_bench.runs.pool import Pool
    from fer_bench.runs.spec import StudySpec
    from fer_bench.runs.study import Outcome
    from fer_bench.tuning.best import Tuned


@click.command()
@click.argument("methods", nargs=-1, required=True)
@study_options
def run(methods: tuple[str, ...], **options: Any) -> int:
    """Train METHODS under the same conditions and compare them.

    A method may have parameters: 'rasn[share.source=ema]'. Finished runs are reused, interrupted ones are resumed.
    Each of several imbalance profiles becomes a separate study. With --subsets, every seed trains on every draw.
    """
    return train(methods, options)


def train(methods: Sequence[str], options: dict[str, Any], ablation: Ablation | None = None) -> int:
    """Check, train and report what :func:`run` and ``fer-bench ablate`` are asked for; returns the exit code.

    Parameters
    ----------
    methods : sequence of str
        Methods as they are typed; of an ablation, the variants of its arms.
    options : dict
        The values of :func:`fer_bench.cli.options.study_options`.
    ablation : Ablation, optional
        What the study remembers of the arms.
    """
    from fer_bench.cli.preflight import preflight

    available = preflight(methods, options)
    from fer_bench.runs.forkserver import SERVER  # imported late, as all that takes long

    SERVER.start()  # its imports take seconds; meanwhile this process makes its own, and those of the report
    from fer_bench.cli.workplace import Mirror, open_pool, open_workplace

    import_module("fer_bench.reports.build")
    work = open_workplace(options, available)
    mirror, pool = Mirror(work, options), open_pool(options, work)
    template, preset = template_of(options, work.plugins)
    profiles = profiles_of(options)
    any_failed, reported = False, []
    for profile in profiles:
        one, several = {**template, "profile": profile}, len(profiles) > 1
        study = _study(methods, options, one, preset, work, several=several, ablation=ablation)
        _announce(study, options, preset, work)
        outcome = _carry_out(study, work, mirror, pool, options)
        any_failed = any_failed or bool(outcome.failed)
        reported += [outcome.study] if outcome.finished and not outcome.left else []
    if len(reported) > 1:
        _curves(reported, options["name"] or reported[0]["name"], work)
    return int(any_failed)


def _curves(studies: list[dict[str, Any]], name: str, work: Workplace) -> None:
    from fer_bench.reports import build_response
    from fer_bench.runs.live import say

    page = build_response(work.home.ledger, studies, work.home.results(f"{name}-response"))
    say(f"imbalance-response curves: {page}")


def _study(
    methods: Sequence[str], options: dict[str, Any], template: dict[str, Any], preset: str, work: Workplace, *,
    several: bool, ablation: Ablation | None = None,
) -> StudySpec:  # fmt: skip
    """The study of one imbalance profile."""
    from fer_bench.base.credentials import command_line
    from fer_bench.base.names import shortened
    from fer_bench.contract.params import Variant, parse_variant
    from fer_bench.data.imbalance import file_name
    from fer_bench.runs.spec import StudySpec, choose_reference, expand, parse_folds, second_reference, study_name

    variants = [parse_variant(text) for text in methods]
    tuned = _tuned(variants, template, preset, work) if options["tuned"] else None
    variants = tuned.variants if tuned else variants
    folds = parse_folds(options["folds"], _protocol(template, work).folds)
    subsets = range(1 if template["profile"] == "natural" else options["subsets"])
    recipes, seeds = dict(tuned.recipes) if tuned else {}, range(options["seeds"])
    crossed = {"folds": folds, "subsets": subsets}
    runs, labels = expand(work.plugins, variants, seeds, template, **crossed, per_label=recipes)
    name = options["name"] and shortened(options["name"] + (f"-{file_name(template['profile'])}" if several else ""))
    name = name or study_name(template["dataset"], [f"{ablation.method}-ablation"] if ablation else labels, runs)
    arms: dict[str, Any] = {}
    if ablation is not None:
        arms = {"kind": "ablation", "ablation": ablation.record(dict(zip(ablation.arms, labels, strict=True)))}
    first = labels[0] if ablation else None  # the baseline
    reference = choose_reference(work.plugins, labels, runs, options["reference"] or first)
    second: str | None = None
    if reference is not None and not options["no_second_reference"]:
        second = second_reference(work.plugins, runs[labels.index(reference)])
    if second is not None and second not in labels:
        recipes[second] = recipes.get(str(reference), {})  # a tuned reference's, so that its own runs are read out
        both = [*variants, Variant(second)]
        runs, labels = expand(work.plugins, both, seeds, template, **crossed, per_label=recipes)
    return StudySpec(
        name=name,
        command=command_line(),
        runs=runs,
        labels=labels,
        reference=reference,
        second_reference=second,
        tuned=tuned.facts if tuned else {},
        **arms,
    )


def _tuned(variants: list[Variant], template: dict[str, Any], preset: str, work: Workplace) -> Tuned:
    from fer_bench.cli.follow_up import command_named, follow_up
    from fer_bench.tuning.best import use_tuned

    imbalance = [] if template["profile"] == "natural" else ["--imbalance", template["profile"]]
    leave = ("imbalance", "total", "class_order")

    def command(label: str) -> str:
        return follow_up("tune", command_named("tune"), label, "--trials", "20", *imbalance, leave=leave)

    return use_tuned(work, variants, template, preset, command)


def _protocol(template: dict[str, Any], work: Workplace) -> Protocol:
    return work.plugins.dataset_card(template["dataset"]).protocol(template["protocol"])


def _announce(study: StudySpec, options: dict[str, Any], preset: str, work: Workplace) -> None:
    from fer_bench.runs.live import say, warn

    first, recipe = study.runs[0], study.runs[0].recipe
    card = work.plugins.dataset_card(first.dataset)
    protocol = card.protocol(first.protocol)
    folds, subsets = len({r.fold for r in study.runs}), len({r.subset for r in study.runs})
    trained = [label for label in study.labels if label != study.second_reference]
    parts = f"{plural(len(trained), 'method')} x {plural(options['seeds'], 'seed')}"
    parts += f" x {subsets} subsets" if subsets > 1 else ""
    parts += f" x {folds} folds" if folds > 1 else ""
    profile = "" if first.profile == "natural" else f", imbalance {first.profile}"
    say(f"study {study.name}: {parts} on {card.full_name(protocol)}{profile}")
    if study.ablation:
        say(f"arms of {study.ablation['method']}: {', '.join(arm['name'] for arm in study.ablation['arms'])}")
    if protocol.watermark:
        warn(f"{card.full_name(protocol)} is watermarked: {protocol.watermark}")
    if study.second_reference is not None:
        say(f"second reference: {study.second_reference}, read out of the logits of {study.reference}, not trained")
    say(f"recipe {preset}: {first.backbone}, {plural(recipe.epochs, 'epoch')}, {recipe.optimizer}, lr {recipe.lr}")
    if recipe.precision == "bf16" and fast_precision(options) != "bf16":
        warn("bf16 is several times slower on this machine; use --precision auto for the faster precision")


def _carry_out(study: StudySpec, work: Workplace, mirror: Mirror, pool: Pool, options: dict[str, Any]) -> Outcome:
    from fer_bench.cli.relabel import add_labels
    from fer_bench.cli.workplace import finish_study
    from fer_bench.runs.live import say, warn
    from fer_bench.runs.study import run_study

    how: dict[str, Any] = {"replace": options["replace"], "pool": pool, "wait": not options["no_wait"]}
    outcome = run_study(study, work, say=say, after_run=mirror, **how)
    if outcome.left:
        say(f"left to other processes: {plural(outcome.left, 'run')}; the last to end writes the report")
    elif outcome.finished:
        add_labels(study.runs[0].dataset, work)
        finish_study(outcome.study, work, mirror)
    if outcome.failed:
        warn(f"{len(outcome.failed)} of {len(study.runs)} runs failed. Rerun the command to retry them.")
    return outcome
