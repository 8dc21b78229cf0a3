"""The samplers of imbalanced-learn by name, made fit for small classes.

Their defaults are kept, but for what small classes need:

- The number of neighbours is at most the size of the smallest class, less one. A class with a single image is doubled
  first where a sampler looks for neighbours within classes.
- Where KMeansSMOTE finds no dense cluster of a class, or ADASYN nothing to start from, SMOTE takes its place, with a
  warning.
- A class that a cleaning sampler would empty stays as it is.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from fer_bench import Param, SpecError, missing_library

# name -> class of imbalanced-learn, its arguments, and the arguments that are numbers of neighbours within a class
_OVER: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "random_oversample": ("RandomOverSampler", {}, ()),
    "smote": ("SMOTE", {}, ("k_neighbors",)),
    "borderline_smote_1": ("BorderlineSMOTE", {"kind": "borderline-1"}, ("k_neighbors",)),
    "borderline_smote_2": ("BorderlineSMOTE", {"kind": "borderline-2"}, ("k_neighbors",)),
    "svm_smote": ("SVMSMOTE", {}, ("k_neighbors",)),
    "kmeans_smote": ("KMeansSMOTE", {}, ("k_neighbors",)),
    "adasyn": ("ADASYN", {}, ("n_neighbors",)),
}
_COMBINED: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "smote_enn": ("SMOTEENN", {}, ("k_neighbors",)),
    "smote_tomek": ("SMOTETomek", {}, ("k_neighbors",)),
}
_UNDER: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "random_undersample": ("RandomUnderSampler", {}, ()),
    "near_miss_1": ("NearMiss", {"version": 1}, ("n_neighbors",)),
    "near_miss_2": ("NearMiss", {"version": 2}, ("n_neighbors",)),
    "near_miss_3": ("NearMiss", {"version": 3}, ("n_neighbors", "n_neighbors_ver3")),
    "tomek_links": ("TomekLinks", {}, ()),
    "edited_nn": ("EditedNearestNeighbours", {}, ()),
    "repeated_edited_nn": ("RepeatedEditedNearestNeighbours", {}, ()),
    "all_knn": ("AllKNN", {}, ()),
    "condensed_nn": ("CondensedNearestNeighbour", {}, ()),
    "one_sided_selection": ("OneSidedSelection", {}, ()),
    "neighbourhood_cleaning": ("NeighbourhoodCleaningRule", {}, ()),
    "instance_hardness": ("InstanceHardnessThreshold", {}, ()),
    "cluster_centroids": ("ClusterCentroids", {}, ()),
}
_ALL = {**_OVER, **_COMBINED, **_UNDER}
_NEIGHBOURS = {"n_neighbors": {"NearMiss": 3}, "n_neighbors_ver3": {"NearMiss": 3}}

RESAMPLERS = (
    "random_oversample", "smote", "borderline_smote_1", "borderline_smote_2", "svm_smote", "kmeans_smote", "adasyn",
    "smote_enn", "smote_tomek",
    "random_undersample", "near_miss_1", "near_miss_2", "near_miss_3", "tomek_links", "edited_nn", "repeated_edited_nn",
    "all_knn", "condensed_nn", "one_sided_selection", "neighbourhood_cleaning", "instance_hardness",
    "cluster_centroids",
)  # fmt: skip
"""Names of samplers: those that add, those that do both, those that take away."""

NEIGHBOURS = {
    "neighbours": Param(
        5,
        "neighbours k among which SMOTE and its relatives interpolate; 5 in Chawla et al. 2002 and in the library. At "
        "most the smallest class's number of images less one. NearMiss keeps its 3",
        low=1,
        high=50,
    ),
}


def resampler(name: str, counts: np.ndarray, neighbours: int, seed: int) -> Any:
    """The sampler called `name`, one of :data:`RESAMPLERS`, for classes of these sizes.

    Parameters
    ----------
    name : str
    counts : int array [C]
        Images per class; classes without images don't count.
    neighbours : int
        k of the samplers that interpolate.
    seed : int
        Its `random_state`, if it has one.
    """
    kind, options, within = _ALL[name]
    smallest = max(1, int(counts[counts > 0].min()) - 1)
    found = {n: min(_NEIGHBOURS.get(n, {}).get(kind, neighbours), smallest) for n in within}
    if kind in ("BorderlineSMOTE", "SVMSMOTE"):
        # of any class, to tell which images lie at a border
        options = {**options, "m_neighbors": min(10, int(counts.sum()) - 1)}
    if kind == "InstanceHardnessThreshold":
        options = {**options, "cv": max(2, min(5, int(counts.max())))}
    if name in _COMBINED:
        return _build(kind, seed, smote=_build("SMOTE", seed, **found))
    return _build(kind, seed, **options, **found)


def _build(name: str, seed: int, /, **options: Any) -> Any:
    try:
        from imblearn import combine, over_sampling, under_sampling  # here, so that other methods do without it
    except ImportError as error:
        raise missing_library("resampling needs imbalanced-learn", error, install="'imbalanced-learn>=0.14'") from error
    modules = (over_sampling, combine, under_sampling)
    sampler = next(getattr(module, name) for module in modules if hasattr(module, name))(**options)
    return sampler.set_params(random_state=seed) if "random_state" in sampler.get_params() else sampler


def resampled(
    name: str, rows: np.ndarray, labels: np.ndarray, *, neighbours: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Resampled rows [M, D], labels [M], and the positions [M] they were taken from (None if rows were synthesised).

    Raises
    ------
    SpecError
        The sampler can't work on these rows; the message is the library's.
    """
    doubled = np.arange(len(labels))
    if _ALL[name][2]:
        lone = np.flatnonzero(np.bincount(labels) == 1)
        doubled = np.concatenate([doubled, np.flatnonzero(np.isin(labels, lone))])
    counts = np.bincount(labels[doubled])
    sampler = resampler(name, counts, neighbours, seed)
    try:
        new, new_labels = sampler.fit_resample(rows[doubled], labels[doubled])
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        if name in ("kmeans_smote", "adasyn"):
            warnings.warn(f"{type(sampler).__name__} can't resample these classes, SMOTE does: {reason}", stacklevel=2)
            return resampled("smote", rows, labels, neighbours=neighbours, seed=seed)
        raise SpecError(
            f"{type(sampler).__name__} can't resample these classes: {reason}",
            where=f"sampler={name}, images per class {counts.tolist()}",
            hint="smote, random_oversample and random_undersample work on any classes",
        ) from error
    taken = getattr(sampler, "sample_indices_", None)
    emptied = np.isin(labels, np.setdiff1d(labels, new_labels))
    new, new_labels = np.concatenate([new, rows[emptied]]), np.concatenate([new_labels, labels[emptied]])
    return new, new_labels, None if taken is None else np.concatenate([doubled[taken], np.flatnonzero(emptied)])
