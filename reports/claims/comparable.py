"""Our numbers beside published ones, and whether the two are comparable at all.

They are if both come from the same protocol, both epochs were selected in the same honest (or the same dishonest) way,
and nothing on record about either forbids it. Every obstacle is stated in words; see :data:`~.published.FLAGS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fer_bench.errors import unknown
from fer_bench.reports.claims.published import FACES, FLAGS, PRETRAINING, Claim, canonical
from fer_bench.reports.facts.records import PEEKING_RULES


@dataclass(frozen=True, kw_only=True)
class Ours:
    """How our numbers were obtained, as far as a comparison needs it.

    Parameters
    ----------
    dataset, protocol : str
        Names as users see them: "fer2013", "fer2013/official".
    selection_rule : str
        The rule in the run's record ("val", "last", ...).
    val_is_test : bool
        Whether the protocol's selection reads the test rows.
    split : str
        Test split or splits ("PublicTest + PrivateTest"); empty where the protocol makes its own split.
    classes : int
        Number of classes; 0 leaves them unchecked.
    watermark : str
        The protocol's watermark; empty for a sound one.
    pretraining : str
        One of :data:`~.published.PRETRAINING`.
    transductive : bool
        Whether our predictions depend on the other test images.
    blocked : bool
        Whether our runs tried to open sealed files.
    profile : str
        Imbalance profile of the training images; "natural" for all of them.
    folds, folds_run : int
        Folds that the protocol has, and how many of them are ours.
    backbone : str
        Our network; empty leaves it unchecked.
    """

    dataset: str
    protocol: str
    selection_rule: str = "val"
    val_is_test: bool = False
    split: str = ""
    classes: int = 0
    watermark: str = ""
    pretraining: str = ""
    transductive: bool = False
    blocked: bool = False
    profile: str = "natural"
    folds: int = 1
    folds_run: int = 1
    backbone: str = ""

    def __post_init__(self) -> None:
        if self.pretraining not in PRETRAINING:
            raise unknown("pretraining", self.pretraining, PRETRAINING)

    @classmethod
    def recorded(cls, dataset: str, protocol: Mapping[str, Any], **others: Any) -> Ours:
        """From the protocol as a run's ``data.json`` holds it."""
        return cls(
            dataset=dataset,
            protocol=protocol["name"],
            val_is_test=bool(protocol.get("val_is_test")),
            split=" + ".join(protocol.get("test") or ()),
            watermark=protocol.get("watermark") or "",
            folds=protocol.get("folds") or 1,
            **others,
        )

    @property
    def peeks(self) -> bool:
        """Whether our epoch was selected on the test set."""
        return self.selection_rule in PEEKING_RULES or (self.val_is_test and self.selection_rule == "val")


@dataclass(frozen=True)
class Verdict:
    """Whether two numbers are comparable, the reasons why not, and cautions where they are."""

    ok: bool
    reasons: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()


def comparable(claim: Claim, ours: Ours, metric: str) -> Verdict:
    """Whether our `metric`, obtained as `ours` describes, is comparable with a claim."""
    same = claim.dataset == ours.dataset and bool(claim.protocol) and claim.protocol == ours.protocol
    reasons = [*_setting_reasons(claim, ours, metric, same), *_selection_reasons(claim, ours)]
    reasons += [FLAGS[f].words for f in claim.flags if _bars(f, ours, same)]
    reasons += ["the number is from memory: verify it in its source"] if claim.tag == "recalled" else []
    reasons += _our_reasons(claim, ours, same)
    reasons = list(dict.fromkeys(reasons))
    return Verdict(not reasons, tuple(reasons), tuple(_cautions(claim, ours, same)))


def _bars(flag: str, ours: Ours, same: bool) -> bool:
    if flag == "face-pretrained" and ours.pretraining in FACES:
        return False
    return FLAGS[flag].bars == "always" or (FLAGS[flag].bars == "elsewhere" and not same)


def _setting_reasons(claim: Claim, ours: Ours, metric: str, same: bool) -> Iterator[str]:
    """A different data set, metric, number of classes, split or protocol."""
    if claim.dataset != ours.dataset:
        yield f"different data set: {claim.dataset}"
        return
    if claim.metric != canonical(metric):
        yield f"different metric: {claim.metric}"
    if claim.classes and ours.classes and claim.classes != ours.classes:
        yield f"different number of classes: {claim.classes}"
    if same or "protocol-unknown" in claim.flags:  # the flag gives the reason itself
        return
    if claim.split and ours.split and claim.split != ours.split:
        yield f"different split: {claim.split}"
    elif claim.protocol:
        yield f"different protocol: {claim.protocol}"
    elif claim.selection in ("val", "last", "test-best"):
        yield "no protocol here matches theirs"


def _selection_reasons(claim: Claim, ours: Ours) -> Iterator[str]:
    if "human" in claim.flags:  # people have no epochs
        return
    if claim.selection in ("none stated", "unknown"):
        yield "epoch selection not stated"
    elif claim.selection == "test-best" and not ours.peeks:
        yield "theirs was selected on the test set"
    elif claim.selection != "test-best" and ours.peeks:
        yield "ours was selected on the test set"


def _our_reasons(claim: Claim, ours: Ours, same: bool) -> Iterator[str]:
    if ours.transductive:
        yield "ours reads other test images"
    if ours.blocked:
        yield "ours tried to open sealed files"
    if ours.watermark and not same:
        yield f"ours is watermarked: {ours.watermark}"
    if ours.pretraining in FACES and claim.pretraining not in FACES:
        yield "ours is pretrained on faces"
    if ours.profile != "natural":
        yield f"ours is trained on a subset of the training images: {ours.profile}"
    if ours.folds_run < ours.folds:
        yield f"ours covers {ours.folds_run} of the {ours.folds} folds"


def _cautions(claim: Claim, ours: Ours, same: bool) -> Iterator[str]:
    if same and ours.watermark:
        yield f"both: {ours.watermark}"
    yield from (FLAGS[f].words for f in claim.flags if FLAGS[f].bars == "never")
    if claim.tag == "inferred":
        yield "theirs is inferred"
    if claim.seeds < 2:
        yield "theirs is a single run" if claim.seeds else "theirs gives no number of runs"
    if claim.backbone and ours.backbone and _plain(claim.backbone) != _plain(ours.backbone):
        yield f"different network: theirs {claim.backbone}, ours {ours.backbone}"
    if claim.pretraining not in FACES and claim.pretraining != ours.pretraining:
        theirs, own = (p or "unknown" for p in (claim.pretraining, ours.pretraining))
        yield f"different pretraining: theirs {theirs}, ours {own}"
    if claim.tta:
        yield f"theirs uses test-time augmentation: {claim.tta}"


def _plain(network: str) -> str:
    """A network's name without differences in spelling: "ResNet-18" and "resnet18" are the same."""
    return "".join(filter(str.isalnum, network)).casefold()


@dataclass(frozen=True)
class Comparison:
    """Our number beside theirs, in percent; `difference` is ours minus theirs, in points."""

    claim: Claim
    ours: float
    low: float
    high: float
    verdict: Verdict

    @property
    def difference(self) -> float:
        """Ours minus theirs, points."""
        return self.ours - self.claim.value

    @property
    def within(self) -> bool:
        """Whether their number lies in our interval."""
        return self.low <= self.claim.value <= self.high


def compare(
    claims: Iterable[Claim], values: Mapping[str, tuple[float, float, float]], ours: Ours, *,
    include_quarantined: bool = False,
) -> tuple[Comparison, ...]:  # fmt: skip
    """Our numbers beside all claims of the same data set and metric.

    Parameters
    ----------
    values : mapping of metric to (value, low, high)
        In percent; "recall:<class>" under our class names. Metrics without claims are ignored.
    include_quarantined : bool
        Show quarantined claims as well: after all others, and never comparable.

    Returns
    -------
    tuple of Comparison
        Comparable ones first, then those that are not, then quarantined ones; within each in the order of `values`,
        higher claims first.
    """
    named = {canonical(metric): value for metric, value in values.items()}
    order = {metric: place for place, metric in enumerate(named)}
    rows = [
        Comparison(claim, *named[claim.metric], comparable(claim, ours, claim.metric))
        for claim in claims
        if claim.dataset == ours.dataset and claim.metric in named and (include_quarantined or not claim.quarantined)
    ]

    def place(row: Comparison) -> tuple:
        claim = row.claim
        return claim.quarantined, not row.verdict.ok, order[claim.metric], -claim.value, claim.id

    return tuple(sorted(rows, key=place))
