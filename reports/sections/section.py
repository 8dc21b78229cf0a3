"""What a section of a report is: a function from :class:`Context` to blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fer_bench.reports.facts.numbers import Numbers
from fer_bench.reports.facts.records import StudyData
from fer_bench.reports.facts.scoring import Results, Scoring, begin
from fer_bench.reports.facts.second_process import Work
from fer_bench.reports.render.blocks import Figure, Link

if TYPE_CHECKING:
    from fer_bench.reports.facts.priors import Prior


@dataclass(frozen=True)
class Context:
    """What a section may read: the numbers, the test priors asked for, and remarks on the report itself.

    `scoring` is the scoring of the study's logits, where it has begun already; `links` lead to pages beside the report.
    """

    numbers: Numbers
    priors: tuple[Prior, ...] = ()
    remarks: tuple[str, ...] = ()
    scoring: Scoring | None = None
    links: tuple[Link, ...] = ()

    @property
    def study(self) -> StudyData:
        """The study that is reported."""
        return self.numbers.study

    @cached_property
    def results(self) -> Results:
        """Scores of the stored logits, waited for or computed for the first section that asks."""
        return (self.scoring or begin(self.study, Work())).results()

    def figure(self, name: str, draw: Callable[[Numbers], Any], alt: str) -> Figure | None:
        """The figure that `draw` makes of the numbers; None where there is nothing to draw."""
        drawn = draw(self.numbers)
        return None if drawn is None else Figure(name, alt, drawn)


@dataclass(frozen=True)
class Section:
    """One section of the report.

    Attributes
    ----------
    name : str
        Its name in code and in anchors.
    title : str
        Its heading.
    build : callable
        From :class:`Context` to a block, a text (a paragraph), or a list of both. None and empty ones are left out, and
        so is a section without blocks.
    after : str
        Name of the section after which it comes; if empty, it comes last.
    slow : bool
        It needs what a second process computes, so it is built after all others.
    origin : str
        The entry point that provides it; empty for built-in ones.
    """

    name: str
    title: str
    build: Callable[[Context], Any]
    after: str = ""
    slow: bool = False
    origin: str = ""
