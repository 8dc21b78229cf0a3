"""Cards: what a plug-in says about itself, readable without importing it.

Each plug-in module assigns its card to the name ``card``::

    card = MethodCard(
        name="baseline_focal",
        title="Focal loss",
        params={"gamma": Param(2.0, "focusing exponent", space=Float(0.0, 5.0))},
    )

:mod:`fer_bench.contract.card_reader` evaluates that expression from the syntax tree. So listing a hundred methods costs
milliseconds, imports no torch, and runs nobody's code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fer_bench.base.names import PLUGIN, PROTOCOL, checked
from fer_bench.base.variants import assignments
from fer_bench.contract.arms import Arm, check_arms
from fer_bench.contract.params import Param, check_when, idle, require_effects
from fer_bench.errors import SpecError, unknown

# What sets a method apart. One of several kinds goes by what its paper calls the contribution.
FAMILIES = {
    "baseline": "plain training",
    "loss": "another loss: focusing terms, margins, label smoothing",
    "reweighting": "class or sample weights on the loss",
    "resampling": "which images are drawn, and how often",
    "augmentation": "how images are changed before they are seen",
    "mixing": "images, features or labels mixed in the batch",
    "optimisation": "how the steps of training are taken",
    "logit adjustment": "class priors added to the logits, in training or afterwards",
    "two-stage": "a representation first, then another classifier",
    "multi-expert": "several heads or branches with different views of the classes",
    "contrastive": "a representation learned from pairs of images",
    "architecture": "another network: attention, sharing, landmarks",
    "noisy labels": "ambiguous or wrong labels: uncertainty, relabelling, label distributions, consistency",
    "generative": "training images or features that are synthesised",
    "classical": "hand-made features, or a classical estimator on features",
    "ensemble": "several models, each trained on its own part or balance of the data",
    "other": "none of these",
}
# What a method can't do without. A study that lacks it is refused with a SpecError by the method itself.
NEEDS = {
    "feature map": "a backbone whose last map is [B, D, H, W]: a ResNet or a ConvNeXt, but not a plain ViT",
    "ResNet": "a backbone with the stages of a ResNet (`layer1` to `layer4`)",
    "stages": "a backbone that can be divided between its stages: a ResNet, RegNet, ConvNeXt, EfficientNet or vision "
    "transformer",
    "votes": "training images with soft labels (`TrainView.soft`)",
    "groups": "training images whose person or sequence is known (`TrainView.groups`)",
    "two images": "batches of at least two images",
    "memory": "all training images in memory at once; they can't be streamed from disk",
}
PIXELS = re.compile(r"([1-9]\d{0,3}) pixels")  # "48 pixels" is a need as well
TIERS = ("baseline", "second reference", "method")


@dataclass(frozen=True, kw_only=True)
class MethodCard:
    """What a method says about itself.

    Parameters
    ----------
    name, title : str
        The name by which it is run, and a line for people.
    paper, url : str
    year : int, optional
        Its source.
    family : str
        What sets it apart: a key of :data:`FAMILIES`.
    changes : str
        What differs from plain cross-entropy.
    deviations : tuple of str
        What differs from the paper.
    calibration : str
        What the method does to confidences by design, said where reports show calibration.
    params : mapping of name to Param
    also_known : mapping of name to str
        Names under which variants of this method are known, with the parameters that make them:
        ``{"balanced_softmax": "tau=1"}``. Whoever asks for such a name is told the variant.
    tier : {"baseline", "second reference", "method"}
        A study's reference is taken from its baselines. A "second reference" joins every study whose reference it
        reads out, with default parameters on both sides.
    transductive : bool
        It reads other test images; its results are watermarked.
    needs : tuple of str
        What it can't do without, with default parameters: keys of :data:`NEEDS`, and "48 pixels" for images of at
        least that side. It refuses anything else with a SpecError that says so. (The harness refuses for "memory".)
    arms : mapping of name to Arm
        The variants that ``fer-bench ablate`` trains, by short names for tables. The first is the baseline.
    readout_of : str
        The method whose trained network this one reads out; empty for a method that trains its own. Its runs are made
        from the logits that the finished runs of that method stored (with default parameters, and the same data,
        recipe and seed), without images and without training. So it may override ``fit_posthoc``, ``adjust`` and the
        two hooks of its state, and nothing else; ``fit_posthoc`` gets an empty module in place of the network, and no
        features.

    Raises
    ------
    UnknownNameError
        `family`, `tier` or an entry of `needs` is none of those.
    SpecError
        It reads itself out, or is a second reference that reads no other method out, or a name in `also_known` can't
        be one or stands for parameters that it does not have,
        or its arms can't be compared with each other.
    """

    name: str
    title: str
    family: str = "other"
    paper: str = ""
    year: int | None = None
    url: str = ""
    changes: str = ""
    deviations: tuple = ()
    calibration: str = ""
    params: Mapping[str, Param] = field(default_factory=dict)
    also_known: Mapping[str, str] = field(default_factory=dict)
    tier: str = "method"
    transductive: bool = False
    needs: tuple = ()
    readout_of: str = ""
    arms: Mapping[str, Arm] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"the card of '{self.name}'"
        if self.family not in FAMILIES:
            raise unknown("family", self.family, FAMILIES, where=where)
        if self.tier not in TIERS:
            raise unknown("tier", self.tier, TIERS, where=where)
        for need in self.needs:
            if need not in NEEDS and not PIXELS.fullmatch(str(need)):
                raise unknown("need", need, [*NEEDS, "48 pixels"], where=f"{where}, needs")
        if self.readout_of == self.name:
            raise SpecError("a method can't read itself out", where=f"{where}, readout_of")
        if self.tier == "second reference" and not self.readout_of:
            raise SpecError("a second reference must say which method it reads out", where=f"{where}, readout_of")
        check_when(self.params, where)
        for name, text in self.also_known.items():
            if checked(name, PLUGIN, where=f"{where}, also_known") == self.name:
                raise SpecError(f"'{name}' is its own name", where=f"{where}, also_known")
            self.choose(assignments(text, where=f"{where}, also_known '{name}'"))
        check_arms(self.arms, where=where, own=self.name, resolve=self.choose)

    @property
    def pixels(self) -> int:
        """Side of the smallest images that it takes; 0 where it says nothing of that."""
        return max((int(found[1]) for need in self.needs if (found := PIXELS.fullmatch(need))), default=0)

    @property
    def facts(self) -> dict[str, Any]:
        """What the record of a run says of its method."""
        kept = ("name", "title", "paper", "year", "url", "changes", "deviations", "calibration", "transductive", "tier")
        facts = {k: getattr(self, k) for k in (*kept, "family")}
        return {**facts, "readout_of": self.readout_of} if self.readout_of else facts

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters with their values: the given ones checked, the others at their defaults.

        Raises
        ------
        UnknownNameError
            A given name is not a parameter of this method.
        SpecError
            A value does not fit.
        """
        return _resolve(self.name, self.params, given)

    def choose(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """As :meth:`resolve`, for a variant that somebody asks for.

        Raises
        ------
        UnknownNameError
            A given name is not a parameter of this method.
        SpecError
            A value does not fit, or has no effect beside the others.
        """
        params = self.resolve(given)
        require_effects(self.params, params, self.name)
        return params

    def idle(self, params: Mapping[str, Any]) -> list[str]:
        """Parameters whose values are not the defaults, although they have no effect beside the others."""
        return idle(self.params, params)


FETCH_KINDS = ("url", "kaggle", "kaggle_competition", "huggingface")


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """One thing that ``fer-bench data fetch`` can download.

    Parameters
    ----------
    kind : {"url", "kaggle", "kaggle_competition", "huggingface"}
        By plain HTTP, through `kagglehub`, or through `huggingface_hub`.
    ref : str
        The address; the Kaggle handle (``owner/name``, ``owner/name/versions/2``, or the competition's name); the hub's
        data set (``owner/name``, or ``owner/name@revision``).
    files : tuple of str
        Which files of it, each kept under this name below the raw files of the data set. Empty: all of them, in a
        directory called as the end of `ref`; of a "url", the one file under the address's last part.
    sha256 : mapping of file to str
        Known hashes; a file that differs is refused.
    unpack : bool
        Unpack archives after the download; ``faces.tar.gz`` becomes the directory ``faces``.
    licence : str
        Who permits what.
    """

    kind: str
    ref: str
    files: tuple = ()
    sha256: Mapping[str, str] = field(default_factory=dict)
    unpack: bool = False
    licence: str = ""

    def __post_init__(self) -> None:
        where = f"what is fetched from '{self.ref}'"
        if self.kind not in FETCH_KINDS:
            raise unknown("kind of source", self.kind, FETCH_KINDS, where=where)
        if self.kind == "url" and len(self.files) > 1:
            raise SpecError("an address gives one file", where=where)
        for file in self.sha256:
            if self.files and file not in self.files:
                raise unknown("file", file, self.files, where=f"{where}, sha256")


@dataclass(frozen=True, kw_only=True)
class Relabelling:
    """Says that a data set labels the images of another one anew, so that runs on those can be scored with its labels.

    Parameters
    ----------
    of : str
        The data set whose images these are. They are recognised by their pixels.
    title : str
        What tables call the labels.
    rule : str
        What makes a label, in a few words that can stand in brackets.
    names : mapping of str to str
        Classes of this data set whose counterpart in the other one has another name, with that name. The others go by
        their own; a class that the other data set does not know has no counterpart.
    votes : mapping of str to str
        Each answer that annotators could give, classes by the other data set's names, with the column of its votes;
        empty where there are no votes.
    label : str
        Column of the labels: positions in `classes` of the card, -1 for none.
    """

    of: str
    title: str
    rule: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    votes: Mapping[str, str] = field(default_factory=dict)
    label: str = "label"


SCHEMES = ("splits", "kfold", "shuffle", "blocks")
CLEANED = "dedup"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A named way to split a data set and to select a checkpoint; :mod:`fer_bench.data.splits` turns it into rows.

    Parameters
    ----------
    name : str
        Short name; shown as ``dataset/name``, or alone where it begins with the data set's name.
    train, val, test : tuple of str
        Values of the store's `split` column that make up each role. Schemes other than "splits" pool the rows of all
        three and divide them anew; where all are empty, they pool the whole store.
    title : str
        One line for people.
    watermark : str
        Empty for a sound protocol; otherwise the reason printed wherever its results are shown.
    source : str
        The paper or code it comes from.
    scheme : {"splits", "kfold", "shuffle", "blocks"}
        "splits": the source's own parts. "kfold": `folds` parts; part k is the test, the next one validation, the rest
        training. "shuffle": `folds` random divisions by `shares`. "blocks": test rows are taken from each class in
        its order, `take[c]` of them for fold 0, the next ones for fold 1, the last ones for the last fold.
    folds : int
        How many divisions there are; each is a run.
    holdout : float
        Share of the training rows, class by class, that becomes validation ("splits" with an empty `val`, and
        "blocks").
    shares : tuple of float
        Train, validation and test parts of "shuffle"; they sum to 1.
    take : tuple of int
        Test rows by class and fold of "blocks".
    stratify : bool
        Draw class by class, so that every part has the classes' proportions.
    group : str
        Column whose equal values stay in one part (a subject, a sequence); empty for none.
    val_is_test : bool
        Select on the test rows themselves, as papers did; such a protocol needs a watermark.
    label : str
        Column of the labels.
    classes : tuple of str
        The classes that take part, in order; empty for all. Rows of other classes are left out.
    soft : tuple of str
        Columns of votes, in the order of the classes; the training targets are their shares in the row's sum.
    unlabelled : {"error", "drop"}
        What happens to rows without a label.
    clean : bool
        Leave out the rows that the doctor's clean manifest names (``fer-bench data check``), after dividing.
    of : str
        The protocol whose division this one takes, less those rows; empty for one of its own. Set by
        :meth:`DatasetCard.cleaned`.
    select : str
        Validation metric that the protocol selects by; empty for the run's own.
    """

    name: str
    train: tuple = ()
    val: tuple = ()
    test: tuple = ()
    title: str = ""
    watermark: str = ""
    source: str = ""
    scheme: str = "splits"
    folds: int = 1
    holdout: float = 0.0
    shares: tuple = ()
    take: tuple = ()
    stratify: bool = True
    group: str = ""
    val_is_test: bool = False
    label: str = "label"
    classes: tuple = ()
    soft: tuple = ()
    unlabelled: str = "error"
    clean: bool = False
    of: str = ""
    select: str = ""

    def __post_init__(self) -> None:
        where = f"protocol '{checked(self.name, PROTOCOL)}'"
        if self.scheme not in SCHEMES:
            raise unknown("scheme", self.scheme, SCHEMES, where=where)
        if self.scheme == "shuffle" and (len(self.shares) != 3 or abs(sum(self.shares) - 1) > 1e-9):
            raise SpecError("a shuffle needs three shares that sum to 1", where=where)
        if self.scheme == "kfold" and self.folds < 3:
            raise SpecError("kfold needs at least three folds: training, validation, test", where=where)
        if self.scheme == "splits" and (not self.train or not self.test or self.folds != 1):
            raise SpecError("'splits' needs train and test, and makes one fold", where=where)
        if self.val_is_test and not self.watermark:
            raise SpecError("selecting on the test needs a watermark", where=where)
        if self.scheme in ("splits", "blocks") and bool(self.val) + bool(self.holdout) + self.val_is_test != 1:
            raise SpecError("validation is exactly one of val, holdout, val_is_test", where=where)

    @property
    def in_words(self) -> str:
        """How it divides the images and selects, in one line."""
        chosen = "the next fold" if self.scheme == "kfold" else " + ".join(self.val)
        if self.holdout:
            chosen = f"{100 * self.holdout:g} % of the training images"
        select = f"select on {'the test itself' if self.val_is_test else chosen}"
        if self.scheme == "splits":
            text = f"train on {' + '.join(self.train)}, {select}, report {' + '.join(self.test)}"
        elif self.scheme == "shuffle":
            text = f"{self.folds} random division{'s' * (self.folds > 1)} into "
            text += "/".join(f"{100 * s:g}" for s in self.shares) + " % for training, selection and test"
        else:
            text = f"{self.folds} folds: report one, {select}, train on the others"
        text += f"; each {self.group} in one part" if self.group else ""
        text += f"; labels: {self.label}" if self.label != "label" else ""
        text += f"; {len(self.classes)} classes" if self.classes else ""
        text += "; targets: shares of votes" if self.soft else ""
        return text + ("; without the rows that the doctor rejects" if self.clean else "")


@dataclass(frozen=True, kw_only=True)
class DatasetCard:
    """What a data set says about itself.

    Parameters
    ----------
    classes : tuple of str
        Class names in label order; empty where the source itself names them (:attr:`fer_bench.Reading.classes`).
    protocols : tuple of Protocol
        The first one is the default.
    counts : mapping of split to tuple of int
        Expected images per class, in the order of `classes`.
    shares : mapping of split to tuple of int
        Images per class that are published but not expected to the last one (copies of the set differ). Only their
        proportions are used, as those of `counts` are where there are no `shares`: to tell labels in another order.
    orders : mapping of name to tuple of str
        Other numberings of the same classes that are in circulation. Sources that number their classes have a
        parameter called `classes`, which takes such an order.
    unlabelled : int
        Expected images without a label.
    digests : mapping
        Known SHA-256 of the original: "pixels" (uint8 [N, C, H, W] in row order) and "labels" (little-endian int64).
    layouts : mapping of name to str
        The forms it can be read from.
    sequence : int
        Images every sequence (column `sequence`) should have; 0 where there are none.
    get : str
        How to obtain it.
    fetch : tuple of Fetch
        What ``fer-bench data fetch`` downloads, where a licence allows it.
    relabels : Relabelling, optional
        The data set whose images this one labels anew.
    """

    name: str
    title: str
    classes: tuple
    protocols: tuple
    counts: Mapping[str, tuple] = field(default_factory=dict)
    shares: Mapping[str, tuple] = field(default_factory=dict)
    orders: Mapping[str, tuple] = field(default_factory=dict)
    unlabelled: int = 0
    digests: Mapping[str, str] = field(default_factory=dict)
    layouts: Mapping[str, str] = field(default_factory=dict)
    sequence: int = 0
    paper: str = ""
    url: str = ""
    licence: str = ""
    get: str = ""
    fetch: tuple = ()
    params: Mapping[str, Param] = field(default_factory=dict)
    built_in: bool = False
    image: str = ""
    relabels: Relabelling | None = None

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters with their values, as :meth:`MethodCard.resolve`."""
        return _resolve(self.name, self.params, given)

    @property
    def base(self) -> str:
        """The plug-in's name: that of the store without its label (``folder`` of ``folder:mine``)."""
        return self.name.partition(":")[0]

    def full_name(self, protocol: Protocol) -> str:
        """How a protocol is shown: ``dataset/name``, or its name alone where that says the data set already."""
        return protocol.name if protocol.name.startswith(self.base) else f"{self.name}/{protocol.name}"

    def cleaned(self, protocol: Protocol | None = None) -> Protocol:
        """A protocol (the default for None) without the rows that the doctor rejects."""
        protocol = protocol or self.protocols[0]
        kept = "without duplicates, near-duplicates, conflicting labels and constant images"
        return replace(
            protocol,
            name=CLEANED if protocol is self.protocols[0] else f"{protocol.name}-{CLEANED}",
            title=f"{protocol.name}, {kept}",
            source=f"fer-bench data check {self.name}",
            clean=True,
            of=protocol.name,
        )

    def protocol(self, name: str | None) -> Protocol:
        """The protocol called `name` (with or without the data set's name before it); the default for None.

        Besides those of the card there are those without the rows that the doctor rejects: "dedup" is the default
        protocol's, "NAME-dedup" that of another one.
        """
        if name is None:
            return self.protocols[0]
        cleaned = [self.cleaned(p) for p in self.protocols if not p.clean]
        for protocol in (*self.protocols, *cleaned):
            if name in (protocol.name, self.full_name(protocol), f"{protocol.of}-{CLEANED}" * bool(protocol.of)):
                return protocol
        known = [self.full_name(p) for p in (*self.protocols, *cleaned[:1])]
        raise unknown("protocol", name, known, next=f"fer-bench show {self.base}")


def _resolve(owner: str, params: Mapping[str, Param], given: Mapping[str, Any]) -> dict[str, Any]:
    for name in given:
        if name not in params:
            again = f"fer-bench show {owner.partition(':')[0]}"  # the card of folder:mine is that of folder
            raise unknown("parameter", name, params, where=owner, next=again)
    return {
        name: param.parse(given[name], name=name, owner=owner) if name in given else param.default
        for name, param in sorted(params.items())
    }


Card = MethodCard | DatasetCard
