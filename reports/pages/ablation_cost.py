"""The table of an ablation's page on parameters and training time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fer_bench.reports.facts import phrases
from fer_bench.reports.facts.ablation import Ablation, Arm
from fer_bench.reports.facts.numbers import MethodNumbers
from fer_bench.reports.render.blocks import TableBlock
from fer_bench.reports.render.table import Column, tabulate
from fer_bench.reports.sections.compared import weights
from fer_bench.reports.sections.repeat import devices, training_seconds


def arm_name(ablation: Ablation, arm: Arm) -> str:
    """An arm's name with the signs that stand beside its method."""
    return phrases.code(arm.name) + ablation.of(arm).mark


def _parameters(ablation: Ablation, arm: Arm) -> float | None:
    number = ablation.of(arm).runs.card.get("parameters")
    return float(number) if isinstance(number, (int, float)) and number > 0 else None


def size_ratio(ablation: Ablation, arm: Arm, other: Arm) -> float | None:
    """How many times as many parameters an arm has as another one."""
    mine, theirs = _parameters(ablation, arm), _parameters(ablation, other)
    return None if mine is None or theirs is None else mine / theirs


def cost_table(ablation: Ablation) -> TableBlock:
    """Parameters and training time of every arm, as they are and beside the baseline."""
    baseline = ablation.baseline

    def of_arm(cell: Callable[[MethodNumbers], str]) -> Callable[[Arm], str]:
        return lambda arm: cell(ablation.of(arm))

    def size(arm: Arm) -> str:
        ratio = size_ratio(ablation, arm, baseline) if baseline in ablation.trained else None
        return phrases.UNKNOWN if ratio is None else f"{ratio:.3f}"

    def time(arm: Arm) -> str:
        if baseline not in ablation.trained:
            return phrases.UNKNOWN
        mine, theirs = (training_seconds(ablation.of(of).runs) for of in (arm, baseline))
        same = devices(ablation.of(arm).runs) == devices(ablation.of(baseline).runs)
        return f"{mine / theirs:.2f}" if mine is not None and theirs and same else phrases.UNKNOWN

    columns = [
        Column("Arm", lambda arm: arm_name(ablation, arm), right=False),
        Column("Variant", lambda arm: phrases.code(arm.label), right=False),
        Column("Adds", lambda arm: f"{arm.adds} to {phrases.code(arm.to)}" if arm.adds else "", right=False),
        Column("Control", lambda arm: phrases.code(arm.control) if arm.control else "", right=False),
        Column("Weights", of_arm(lambda method: weights(method.runs))),
        Column("× baseline", size),
        Column("Time × baseline", time),
    ]
    trained_on = dict.fromkeys(devices(ablation.of(arm).runs) for arm in ablation.trained)
    if len(trained_on) > 1:
        columns.append(Column("Device", of_arm(lambda method: devices(method.runs)), right=False))
    caption = (
        f"The baseline is {phrases.code(baseline.name)}{_all_on(trained_on)}. Training time: ratio of the medians over "
        "runs. The runs of a study are not timed side by side, and a machine that had other work makes some of them "
        "slower, so small differences mean nothing; `fer-bench check` measures what a step costs beside plain "
        "cross-entropy."
    )
    return TableBlock(
        tabulate(columns, ablation.trained, caption), "ablation-cost", "Parameters and training time", stacked=True
    )


def _all_on(trained_on: Mapping[str, None]) -> str:
    """ "; all arms were trained on cpu", as the end of a sentence; empty where devices differ or are unknown."""
    device = next(iter(trained_on), phrases.UNKNOWN)
    return "" if len(trained_on) > 1 or device == phrases.UNKNOWN else f"; all arms were trained on {device}"
