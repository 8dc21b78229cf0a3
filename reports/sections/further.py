"""Section "Further scores"."""

from __future__ import annotations

from fer_bench.reports.facts import phrases
from fer_bench.reports.render.blocks import Block, Bullets
from fer_bench.reports.sections.calibration import CALIBRATION
from fer_bench.reports.sections.metric_tables import by_metric, metric_blocks
from fer_bench.reports.sections.section import Context, Section


def build(context: Context) -> list[Block]:
    """Every registered metric that is in no other section; reasons for those that can't be computed."""
    numbers, results = context.numbers, context.results
    metrics, reasons = by_metric(results, [n for n in results.metrics if n not in CALIBRATION])
    blocks = metric_blocks(numbers, metrics, "further")
    classes, members = numbers.study.classes, numbers.groups.members
    if members:
        groups = "; ".join(f"{name}: {phrases.listed([classes[i] for i in of])}" for name, of in members.items())
        blocks.append(Bullets((f"Groups of classes by training images: {groups}.",)))
    return [*blocks, Bullets((*reasons, *results.broken))]


SECTION = Section("further", "Further scores", build, slow=True)
