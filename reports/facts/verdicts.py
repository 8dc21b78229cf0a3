"""What may be claimed: verdicts, and the one family of hypotheses of a study (:mod:`fer_bench.stats.hierarchy`).

The family belongs to the study and not to a section: every page takes its verdicts from here, so none can contradict
another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from fer_bench.stats.hierarchy import Hierarchy
from fer_bench.stats.intervals import Interval

ADVISED_SEEDS = 5  # a study with fewer may claim what it shows, but detects less


class Verdict(Enum):
    """The verdict on a gain; only GAIN and LOSS are claims."""

    GAIN = "gain"
    LOSS = "loss"
    NOISE = "within noise"
    ONE_SEED = "one seed: nothing is claimed, because the variation between trainings is unknown"
    NOT_ADJUSTED = "not claimed: the unadjusted interval excludes 0, the simultaneous one does not"
    BEHIND = "not claimed: the unadjusted interval excludes 0, but the primary endpoint shows no difference"
    CHANCE = "not counted: the better side has collapsed or is not significantly better than chance"
    SHIFT = "not counted: a shift of the decision"
    NOT_RANKED = "not ranked"
    UNKNOWN = "not measurable"


EXCLUDES_0 = (Verdict.GAIN, Verdict.LOSS, Verdict.ONE_SEED, Verdict.NOT_ADJUSTED, Verdict.BEHIND)
CLAIMS = (Verdict.GAIN, Verdict.LOSS)


@dataclass(frozen=True)
class Judgement:
    """A verdict and what it rests on; the rest is None where the hypothesis is not tested.

    Attributes
    ----------
    verdict : Verdict
    raw, p : float or None
        Two-sided p-value against zero, as it is and adjusted for the whole family.
    interval : Interval or None
        The simultaneous interval: at the level of the test.
    """

    verdict: Verdict
    raw: float | None = None
    p: float | None = None
    interval: Interval | None = None


@dataclass(frozen=True, kw_only=True)
class Family:
    """All hypotheses that a study tests together.

    Attributes
    ----------
    methods : tuple of str
        Methods about which something may be claimed.
    primary : str
        Key of the gain that is the primary endpoint of each.
    secondary : tuple of str
        Keys of its secondary endpoints.
    same : mapping
        Keys of gains that equal an endpoint, to that endpoint: the recall of the only class of the tail is the mean
        recall of the tail.
    """

    methods: tuple[str, ...]
    primary: str
    secondary: tuple[str, ...]
    same: Mapping[str, str] = field(default_factory=dict)

    @property
    def hierarchy(self) -> Hierarchy:
        """The levels of its tests."""
        return Hierarchy(methods=len(self.methods), secondary=len(self.secondary))

    def alpha(self, key: str) -> float | None:
        """The level at which an endpoint is tested; None for what is no endpoint."""
        endpoint = self.same.get(key, key)
        if endpoint == self.primary:
            return self.hierarchy.primary_alpha
        return self.hierarchy.secondary_alpha if endpoint in self.secondary else None

    def judge(
        self, method: str, gains: Mapping[str, Interval], corrected: Mapping[str, Interval], *, ranked: bool
    ) -> dict[str, Judgement]:
        """Judgements of a method's endpoints by key, before it is asked whether both sides classify at all.

        Parameters
        ----------
        gains, corrected : mapping
            Paired gains with their unadjusted and their simultaneous intervals.
        ranked : bool
            Whether anything could be claimed of the method if it had seeds enough.
        """
        tested = method in self.methods
        open_gate = tested and corrected[self.primary].known and not corrected[self.primary].covers(0.0)
        first = gains[self.primary].p
        out = {}
        for key in (self.primary, *self.secondary):
            if key not in gains:
                continue
            of = corrected[key] if tested else None
            verdict = _verdict(gains[key], of, ranked=ranked, open_gate=open_gate or key == self.primary)
            p = self.hierarchy.adjusted_primary(first)
            if key != self.primary:
                p = self.hierarchy.adjusted_secondary(first, gains[key].p)
            out[key] = Judgement(verdict, gains[key].p, p, of) if tested else Judgement(verdict)
        return out | {key: out[endpoint] for key, endpoint in self.same.items() if endpoint in out}


def _verdict(gain: Interval, corrected: Interval | None, *, ranked: bool, open_gate: bool) -> Verdict:
    if not gain.known:
        return Verdict.UNKNOWN
    if not ranked:
        return Verdict.NOT_RANKED
    if gain.covers(0.0):
        return Verdict.NOISE
    if corrected is None:
        return Verdict.ONE_SEED
    if not open_gate:
        return Verdict.BEHIND
    if corrected.covers(0.0):
        return Verdict.NOT_ADJUSTED
    return Verdict.GAIN if corrected.low > 0 else Verdict.LOSS
