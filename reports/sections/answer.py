"""Section "Answer"."""

from __future__ import annotations

from fer_bench.reports.facts import answer, phrases
from fer_bench.reports.render.blocks import Bullets
from fer_bench.reports.sections import missing
from fer_bench.reports.sections.section import Context, Section


def build(context: Context) -> list:
    """The summary, one line per method, methods that hardly classify, and caveats."""
    study, numbers = context.study, context.numbers
    remarks = phrases.count(len(study.notes), "remark")
    family = answer.family_in_words(numbers)
    two = family and study.ablation is not None and context.links
    return [
        answer.missing_folds(study),
        answer.summary(numbers),
        Bullets(tuple(answer.headline(numbers, m) for m in numbers.compared)),
        Bullets(tuple(answer.no_classifiers(numbers))),
        " ".join(answer.cautions(numbers)),
        answer.detectable_in_words(numbers),
        " ".join(filter(None, [family, answer.two_families("The page on each module") if two else ""])),
        phrases.conditions(study),
        phrases.sampling(study),
        f"{remarks} on missing or unusable records: see the section *{missing.SECTION.title}*." if study.notes else "",
    ]


SECTION = Section("answer", "Answer", build)
