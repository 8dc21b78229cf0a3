"""Samplers and ensembles of imbalanced-learn: the same as calling the library, fit for small classes, and kept."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from imblearn.combine import SMOTEENN
from imblearn.ensemble import BalancedRandomForestClassifier
from imblearn.over_sampling import ADASYN, SMOTE, BorderlineSMOTE, KMeansSMOTE
from imblearn.under_sampling import EditedNearestNeighbours, NearMiss, RandomUnderSampler
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from fer_bench import TrainView
from fer_bench.errors import SpecError
from fer_bench.methods._shared.estimators import all_classes
from fer_bench.methods._shared.resampling import RESAMPLERS, resampled, resampler
from fer_bench.methods.imblearn_ensemble import KINDS, ImblearnEnsemble
from fer_bench.methods.imblearn_features import ImblearnFeatures
from fer_bench.methods.imblearn_pixels import ImblearnPixels
from fer_bench.training.plain import pack, unpack

COUNTS = (40, 25, 12, 8)


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def cloud(counts=COUNTS, size=6, seed=0):
    """Overlapping clouds of points, one a class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    rows = np.random.default_rng(seed).normal(0, 1, (len(labels), size)) + 0.5 * labels[:, None]
    return rows.astype(np.float32), labels


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("smote", SMOTE(k_neighbors=5, random_state=7)),
        ("borderline_smote_2", BorderlineSMOTE(kind="borderline-2", random_state=7)),
        ("adasyn", ADASYN(n_neighbors=5, random_state=7)),
        ("smote_enn", SMOTEENN(smote=SMOTE(k_neighbors=5, random_state=7), random_state=7)),
        ("random_undersample", RandomUnderSampler(random_state=7)),
        ("near_miss_2", NearMiss(version=2)),
    ],
)
def test_rows_are_those_of_the_library_called_directly(name, theirs):
    rows, labels = cloud()
    expected, expected_labels = theirs.fit_resample(rows, labels)
    new, new_labels, taken = resampled(name, rows, labels, neighbours=5, seed=7)
    np.testing.assert_array_equal(new, expected)
    np.testing.assert_array_equal(new_labels, expected_labels)
    if taken is not None:
        np.testing.assert_array_equal(rows[taken], new)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("random_oversample", [40] * 4),
        ("smote", [40] * 4),
        ("random_undersample", [8] * 4),
        ("near_miss_1", [8] * 4),
        ("cluster_centroids", [8] * 4),
    ],
)
def test_class_sizes_after_resampling(name, expected):
    _, labels, _ = resampled(name, *cloud(), neighbours=5, seed=0)
    assert np.bincount(labels).tolist() == expected


@pytest.mark.parametrize("name", sorted({*RESAMPLERS} - {"instance_hardness"}))
@pytest.mark.parametrize("counts", [(40, 25, 12, 3), (40, 25, 12, 1), (40, 25, 0, 2)])
def test_small_classes_are_no_obstacle(name, counts):
    rows, labels = cloud(counts)
    new, new_labels, taken = resampled(name, rows, labels, neighbours=5, seed=0)
    assert len(new) == len(new_labels)
    assert set(new_labels) <= {c for c, n in enumerate(counts) if n}
    assert taken is None or (labels[taken] == new_labels).all()


def test_neighbours_are_as_many_as_the_smallest_class_allows():
    assert resampler("smote", np.array([40, 4]), 5, 0).k_neighbors == 3
    assert resampler("smote", np.array([40, 0, 9]), 5, 0).k_neighbors == 5
    assert resampler("smote_tomek", np.array([40, 2]), 5, 0).smote.k_neighbors == 1
    assert resampler("near_miss_3", np.array([40, 3]), 5, 0).n_neighbors == 2
    assert resampler("near_miss_1", np.array([40, 30]), 5, 0).n_neighbors == 3, "NearMiss keeps its own number"


def test_a_lone_image_is_repeated_not_invented():
    rows, labels = cloud((10, 1))
    new, new_labels, _ = resampled("smote", rows, labels, neighbours=5, seed=0)
    assert (new_labels == 1).sum() == 10
    np.testing.assert_allclose(new[new_labels == 1], np.repeat(rows[-1:], 10, axis=0), rtol=1e-6)


def test_smote_takes_the_place_of_a_sampler_that_finds_nothing_to_build_on():
    rows, labels = cloud((40, 4))
    with pytest.raises(RuntimeError, match="No clusters"):
        KMeansSMOTE(random_state=0, k_neighbors=3).fit_resample(rows, labels)
    expected, _, _ = resampled("smote", rows, labels, neighbours=5, seed=0)
    with pytest.warns(UserWarning, match="KMeansSMOTE can't resample these classes, SMOTE does: No clusters"):
        new, _, _ = resampled("kmeans_smote", rows, labels, neighbours=5, seed=0)
    np.testing.assert_array_equal(new, expected)


def test_a_class_that_would_be_emptied_stays():
    # each image of the middle class has its nearest neighbours in the others
    rows = np.array([[0.0], [0.1], [0.2], [1.0], [1.1], [1.2], [0.6], [0.61]] * 2, np.float32)
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 3] * 2)
    labels[6::8] = 2
    rows = np.concatenate([rows, [[0.3], [0.9]]])
    labels = np.concatenate([labels, [2, 2]])
    _, theirs = EditedNearestNeighbours().fit_resample(rows, labels)
    assert 2 not in theirs, "the library leaves none"
    new, kept, taken = resampled("edited_nn", rows, labels, neighbours=5, seed=0)
    np.testing.assert_array_equal(rows[taken], new)
    assert (kept == 2).sum() == 4
    assert all((kept == c).sum() == (theirs == c).sum() for c in (0, 1, 3))


def test_what_the_library_refuses_is_said_with_its_reason():
    rows, labels = cloud((2, 1))
    with pytest.raises(SpecError, match="EditedNearestNeighbours can't resample") as caught:
        resampled("edited_nn", rows, labels, neighbours=5, seed=0)
    assert "[2, 1]" in caught.value.where
    assert "random_oversample" in caught.value.hint


# -- on features -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pca", [0, 3])
def test_the_regression_is_fitted_on_resampled_standardised_features(make_method, pca):
    method = make_method(ImblearnFeatures, {"sampler": "smote", "pca": pca, "strength": 0.1}, counts=COUNTS)
    rows, labels = cloud()
    method.fit_estimator(rows, labels)
    scaler = StandardScaler().fit(rows)
    reduce = PCA(3, random_state=method.seed_of("pca")).fit(scaler.transform(rows)).transform if pca else np.asarray
    resampled_rows = SMOTE(random_state=method.seed_of("resample")).fit_resample(reduce(scaler.transform(rows)), labels)
    expected = LogisticRegression(C=0.1, max_iter=1000, tol=1e-3).fit(*resampled_rows)
    scores = expected.predict_log_proba(reduce(scaler.transform(rows)))
    np.testing.assert_allclose(method.predict_estimator(rows), scores, rtol=1e-5, atol=1e-6)


def test_classes_without_images_are_last():
    scores = all_classes(np.array([[-0.5, -900.0]]), np.array([0, 3]), 4)
    assert scores.tolist() == [[-0.5, -100.0, -100.0, -100.0]]
    assert all_classes(np.array([2.0, -1.0]), np.array([0, 1]), 2).tolist() == [[-2.0, 2.0], [1.0, -1.0]]


def test_features_are_those_of_the_trained_network(fit_small):
    run = fit_small(ImblearnFeatures)
    again = ImblearnFeatures(run.method.params)
    again.ctx = run.method.ctx
    again.load_state_dict(run.states[-1])
    np.testing.assert_array_equal(again.predict_estimator(run.features).astype(np.float32), run.logits)
    assert [entry["stage"] for entry in run.history] == ["train", "train", "estimator"]


# -- on pixels -------------------------------------------------------------------------------------------------------


def test_synthetic_images_are_those_of_smote_in_8_bit(make_method, faces):
    images, labels = faces((10, 6, 4))
    view = TrainView(images=images, labels=labels, num_classes=3)
    method = make_method(ImblearnPixels, counts=(10, 6, 4))
    made = method.resample(method.stages()[0], view)
    seed = int(method.ctx.numpy_rng("resample").integers(2**31 - 1))
    # of uint8 rows, whose differences wrap around, the library would make noise
    rows = images.flatten(1).numpy().astype(np.float64)
    expected, expected_labels = SMOTE(k_neighbors=3, random_state=seed).fit_resample(rows, labels)
    assert (made.images.dtype, made.index) == (torch.uint8, None)
    assert np.bincount(made.labels).tolist() == [10, 10, 10]
    np.testing.assert_array_equal(made.labels, expected_labels)
    assert np.abs(made.images.flatten(1).numpy() - expected).max() <= 0.501
    assert torch.equal(made.images[:20], images), "the real ones come first, as they were"


def test_chosen_images_keep_their_votes(make_method, faces):
    images, labels = faces((10, 6, 4))
    method = make_method(ImblearnPixels, {"sampler": "random_undersample"}, counts=(10, 6, 4))
    made = method.resample(method.stages()[0], TrainView(images=images, labels=labels, num_classes=3))
    assert made.images is None
    assert np.bincount(labels[made.index]).tolist() == [4, 4, 4]


def test_training_goes_through_the_resampled_images(fit_small):
    run = fit_small(ImblearnPixels, epochs=1)
    assert run.method.stages()[0].kind == "resample"
    assert run.logits.shape == (16, 4)


# -- ensembles -------------------------------------------------------------------------------------------------------


def test_the_forest_is_the_librarys(make_method):
    method = make_method(ImblearnEnsemble, {"kind": "balanced_random_forest", "members": 7}, counts=COUNTS)
    rows, labels = cloud()
    method.fit_estimator(rows, labels)
    theirs = BalancedRandomForestClassifier(
        7, sampling_strategy="all", replacement=True, bootstrap=False, random_state=method.seed_of("ensemble")
    ).fit(rows, labels)
    expected = np.log(np.maximum(theirs.predict_proba(rows), 1e-6))
    np.testing.assert_allclose(method.predict_estimator(rows), expected, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_an_ensemble_is_kept_as_plain_data(make_method, kind):
    method = make_method(ImblearnEnsemble, {"kind": kind, "members": 3}, counts=(40, 25, 0, 3))
    rows, labels = cloud((40, 25, 0, 3))
    method.fit_estimator(rows, labels)
    again = make_method(ImblearnEnsemble, {"kind": kind}, counts=(40, 25, 0, 3))
    again.load_state_dict(unpack(pack(method.state_dict())))
    scores = method.predict_estimator(rows)
    np.testing.assert_array_equal(again.predict_estimator(rows), scores)
    assert (scores[:, 2] == -100).all(), "a class without images"
    assert len(method.estimator.estimators_) == 3


def test_members_and_depth_can_be_chosen(make_method):
    method = make_method(ImblearnEnsemble, {"kind": "balanced_random_forest", "members": 2, "depth": 1}, counts=COUNTS)
    method.fit_estimator(*cloud())
    assert [tree.get_depth() for tree in method.estimator.estimators_] == [1, 1]
