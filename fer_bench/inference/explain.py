"""What a finished run's network looks at and draws on: faces with maps and shares, and the numbers that follow.

Test images are read here after the run's scores are written, to be looked at. The record is not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fer_bench.contract.plugins import Plugins
from fer_bench.data.store import Store
from fer_bench.errors import FerBenchError, LedgerError, StoreError
from fer_bench.inference.faces import Faces
from fer_bench.inference.grad_cam import grad_cam
from fer_bench.inference.places import Places, measured
from fer_bench.inference.trained import BATCH, Trained, blaming
from fer_bench.record.home import Home
from fer_bench.runs.probe import chosen_rows
from fer_bench.stats.probabilities import softmax
from fer_bench.training.evaluate import insight_of
from fer_bench.training.fit import has_estimator

PREDICTED, TRUE = "Grad-CAM of the predicted class", "Grad-CAM of the true class"
ELSEWHERE = "elsewhere"
THIRDS = ("upper third", "middle third", "lower third")
MOST_FACES = 200
Told = Callable[[str, float], object]


@dataclass(frozen=True, kw_only=True)
class ShownFace:
    """One face, and what the network makes of it.

    Attributes
    ----------
    name : str
        Its path, or its name in the source of the data.
    row : int or None
        Its row in the store, for a test image.
    true : int or None
        Its class, for a test image.
    predicted : int
    probability : float
        Of the predicted class.
    image : uint8 [C, H, W]
        What the network is given.
    maps : mapping of str to float array [H, W]
        Not negative; stretched over the image.
    shares : float array [S] or None
    """

    name: str
    row: int | None
    true: int | None
    predicted: int
    probability: float
    image: np.ndarray
    maps: Mapping[str, np.ndarray]
    shares: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Everything that the page shows.

    Attributes
    ----------
    regions : mapping of str to bool array [H, W]
        Disjoint parts of an image; what is in none is "elsewhere".
    layout : bool
        Whether the regions are parts of a face, which the data set knows for its own images, or thirds of the image.
    affinity : float array [K, S] or None
        Mean shares of the validation images of each class; NaN for a class without any.
    validated : int
        Validation images behind it.
    sizes : mapping of str to (h, w)
        Places of each map before it was stretched over the image.
    notes : tuple of str
        What is missing, and why.
    """

    classes: tuple[str, ...]
    faces: list[ShownFace]
    regions: Mapping[str, np.ndarray]
    layout: bool
    sources: tuple[str, ...] = ()
    affinity: np.ndarray | None = None
    validated: int = 0
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def region_shares(self, face: ShownFace, name: str) -> dict[str, float]:
        """Share of the mass of a face's map in each region, and elsewhere; NaN for a map that is 0 everywhere."""
        mass = face.maps[name].astype(np.float64)
        total = float(mass.sum())
        parts = {region: float(mass[mask].sum()) for region, mask in self.regions.items()}
        parts[ELSEWHERE] = total - sum(parts.values())
        return {region: max(part, 0.0) / total if total > 0 else float("nan") for region, part in parts.items()}

    @property
    def areas(self) -> dict[str, float]:
        """Share of the image that each region covers: what a map without any preference has there."""
        covered = {region: float(mask.mean()) for region, mask in self.regions.items()}
        return {**covered, ELSEWHERE: 1.0 - sum(covered.values())}


@dataclass
class _Chosen:
    """Images to be shown."""

    names: list[str] = field(default_factory=list)
    rows: list[int | None] = field(default_factory=list)
    true: list[int | None] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)


def explain_files(trained: Trained, faces: Faces, home: Home, told: Told) -> Explanation:
    """Faces from files; what they draw on is set beside the run's validation images, if these are here.

    Their regions are thirds of the image: the data set knows where the parts of its own faces lie, not of these.
    """
    if len(faces.faces) > MOST_FACES:
        hint = "name fewer images; predict takes any number"
        raise FerBenchError(f"{len(faces.faces):,} images are too many to draw, at most {MOST_FACES}", hint=hint)
    chosen = _Chosen()
    for some, images in faces.batches(trained.fit, BATCH):
        chosen.names += [face.name for face in some]
        chosen.images += list(images)
    chosen.rows = chosen.true = [None] * len(chosen.names)
    try:
        store = open_store(trained, home)
    except StoreError:
        store = None
    return _explain(trained, chosen, store, {}, told)


def explain_test(
    trained: Trained, home: Home, plugins: Plugins, per_class: int, classes: int, told: Told
) -> Explanation:
    """Test images of the rarest classes, right and wrong ones in equal numbers where there are enough.

    Raises
    ------
    LedgerError
        The run stored no test predictions.
    StoreError
        The images of the run are not in this home.
    """
    record = trained.record
    if not record.has("test_logits.npy"):
        hint = "a trial of tuning never opens the test; name images of your own"
        raise LedgerError(f"run {record.id} has no test predictions", where=str(record.path), hint=hint)
    store = open_store(trained, home)
    rows, labels = record.array("test_rows"), record.array("test_labels")
    rarest = np.argsort(record.data["counts"]["train"], kind="stable")[:classes]
    places = choose(labels, record.array("test_logits").argmax(1), [int(c) for c in rarest], per_class)
    picked = rows[places]
    names = store.columns("source")["source"].astype(str)[picked].tolist()
    chosen = _Chosen(names, [int(r) for r in picked], [int(c) for c in labels[places]], list(store.images(picked)))
    return _explain(trained, chosen, store, _layout(trained, plugins), told)


def choose(labels: np.ndarray, predicted: np.ndarray, classes: Sequence[int], per_class: int) -> np.ndarray:
    """Positions of test images to show: for each class in turn, right ones, then wrong ones.

    Half of `per_class` are wrong ones, rounded up; where one kind has too few, the other fills the rest. Those of a
    kind are evenly spaced in the order of the test, so the choice draws nothing.
    """
    places: list[np.ndarray] = []
    for label in classes:
        right = np.flatnonzero((labels == label) & (predicted == label))
        wrong = np.flatnonzero((labels == label) & (predicted != label))
        few = min(len(wrong), max(-(-per_class // 2), per_class - len(right)))
        places += [
            of[:0] if not n else chosen_rows(of, n) for of, n in ((right, per_class - few), (wrong, few)) if len(of)
        ]
    return np.concatenate(places) if places else np.zeros(0, dtype=np.int64)


def open_store(trained: Trained, home: Home) -> Store:
    """The store that the run was trained on; raises StoreError where this home does not hold it."""
    name = str(trained.record.data["dataset"])
    store = Store.open(home.store(name))
    if store.fingerprint != trained.record.data["fingerprint"]:
        raise StoreError(
            f"the prepared '{name}' holds other data than run {trained.record.id} was trained on",
            where=f"fingerprint {store.fingerprint}, the run's {trained.record.data['fingerprint']}",
            hint="name images to be explained, or prepare the data of the run",
            next=f"fer-bench data prepare {name}",
        )
    return store


def _explain(
    trained: Trained, chosen: _Chosen, store: Store | None, layout: Mapping[str, np.ndarray], told: Told
) -> Explanation:
    images = np.stack(chosen.images)
    share = softmax(trained.logits(images).astype(np.float64))
    predicted = share.argmax(1)
    told("maps", 0.1)
    maps, notes = _cams(trained, images, predicted, chosen.true)
    told("maps", 0.3)
    more, shares, sources = _insights(trained, images)
    maps |= more
    affinity, validated = None, 0
    if shares is not None:
        affinity, validated = _affinity(trained, store, sources, told)
        if affinity is None:
            notes.append("the run's validation images are not in this home, so there is no mean over them")
    last = measured(trained, images)
    stretched = {name: _stretched(values, images.shape[2:], last) for name, values in maps.items()}
    faces = [
        ShownFace(
            name=chosen.names[k],
            row=chosen.rows[k],
            true=chosen.true[k],
            predicted=int(predicted[k]),
            probability=float(share[k, predicted[k]]),
            image=images[k],
            maps={
                name: values[k]
                for name, values in stretched.items()
                if name != TRUE or _wrong(chosen.true[k], predicted[k])
            },
            shares=None if shares is None else shares[k],
        )
        for k in range(len(images))
    ]
    return Explanation(
        classes=trained.classes,
        faces=faces,
        regions=layout or _thirds(trained),
        layout=bool(layout),
        sources=sources,
        affinity=affinity,
        validated=validated,
        sizes={name: tuple(values.shape[1:]) for name, values in maps.items()},
        notes=tuple(notes),
    )


def _wrong(true: int | None, predicted: int) -> bool:
    return true is not None and true != predicted


def _cams(
    trained: Trained, images: np.ndarray, predicted: np.ndarray, true: Sequence[int | None]
) -> tuple[dict[str, Tensor], list[str]]:
    """Grad-CAM of the predicted class, and of the true one if some face is predicted wrongly; or why there is none."""
    if has_estimator(trained.method.stages()):
        return {}, ["no Grad-CAM: a fitted estimator predicts the classes, not the network"]
    own = grad_cam(trained, images, predicted)
    if own is None:
        return {}, ["no Grad-CAM: the network's output holds no map from which its logits are computed"]
    maps = {PREDICTED: own}
    wanted = np.array([p if t is None else t for p, t in zip(predicted, true, strict=True)])
    if (wanted != predicted).any():
        other = grad_cam(trained, images, wanted)
        maps |= {} if other is None else {TRUE: other}
    return maps, []


def _insights(trained: Trained, images: np.ndarray) -> tuple[dict[str, Tensor], np.ndarray | None, tuple[str, ...]]:
    """Maps, shares [n, S] and sources that the method tells of images.

    Raises
    ------
    TrainingError
        What it tells has wrong shapes or values.
    """
    maps: dict[str, list[Tensor]] = {}
    shares: list[np.ndarray] = []
    sources: tuple[str, ...] = ()
    with blaming(trained.plugin):
        for some in trained.batches(images):
            insight = insight_of(trained.method, trained.model, trained.on_device(some), trained.spec.recipe)
            for name, values in insight.maps.items():
                maps.setdefault(name, []).append(values.float().cpu())
            if insight.shares is not None:
                shares.append(insight.shares.float().cpu().numpy())
                sources = insight.sources
    whole = {name: torch.cat(parts) for name, parts in maps.items()}
    return whole, np.concatenate(shares) if shares else None, sources


def _affinity(
    trained: Trained, store: Store | None, sources: tuple[str, ...], told: Told
) -> tuple[np.ndarray | None, int]:
    """Mean shares [K, S] of the validation images of each class, and how many images there are.

    It is computed on validation: a number that people may act on must not come from the test.
    """
    record = trained.record
    if store is None or not (record.has("val_rows.npy") and record.has("val_labels.npy")):
        return None, 0
    rows, labels = record.array("val_rows"), record.array("val_labels")
    sums, counts = np.zeros((len(trained.classes), len(sources))), np.bincount(labels, minlength=len(trained.classes))
    for start in range(0, len(rows), BATCH):
        _, shares, _ = _insights(trained, store.images(rows[start : start + BATCH]))
        if shares is None:
            return None, 0
        np.add.at(sums, labels[start : start + BATCH], shares)
        told("validation images", min(1.0, (start + BATCH) / len(rows)))
    with np.errstate(invalid="ignore"):
        return sums / counts[:, None], len(rows)


def _stretched(values: Tensor, size: tuple[int, ...], last: Places | None) -> np.ndarray:
    """Maps [n, h, w] over images of `size`, float32 [n, H, W]; those with the places of the last map lie where it does.

    Where other maps lie is not known: they are stretched from edge to edge.
    """
    if tuple(values.shape[1:]) == tuple(size):
        return values.clamp_min(0).numpy()
    places = last if last is not None and last.fits(values) else Places.even(tuple(values.shape[1:]), size)
    return places.stretched(values, size)


def _layout(trained: Trained, plugins: Plugins) -> dict[str, np.ndarray]:
    """Parts of the face, bool [H, W], where the data set knows them for its own images; else empty."""
    try:
        dataset = plugins.dataset(trained.spec.dataset, trained.spec.dataset_params)
    except FerBenchError:  # its plug-in is not here, or has other parameters now
        return {}
    known = dataset.face_regions(trained.fit.height, trained.fit.width)
    return {name: np.asarray(mask, dtype=bool) for name, mask in known.items()}


def _thirds(trained: Trained) -> dict[str, np.ndarray]:
    height, width = trained.fit.height, trained.fit.width
    third = np.arange(height) * 3 // height
    return {name: np.repeat((third == k)[:, None], width, axis=1) for k, name in enumerate(THIRDS)}
