"""Hand-made features against plain loops, and the machine on them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from fer_bench.methods._shared.descriptors import grey, hog, lbp, uniform_bins
from fer_bench.methods.hog_svm import HogSvm


def picture(side=24, seed=0):
    image = np.random.default_rng(seed).integers(0, 256, (side, side)).astype(np.float64)
    image[:9, :9] = 7.0  # a patch without any gradient
    return image


def slow_hog(image, cell=8, bins=9):
    """Dalal & Triggs, pixel by pixel, in float64."""
    height, width = image.shape
    rows, columns = height // cell, width // cell
    cells = np.zeros((rows, columns, bins))
    for i in range(rows * cell):
        for j in range(columns * cell):
            down = image[i + 1, j] - image[i - 1, j] if 0 < i < height - 1 else 0.0
            right = image[i, j + 1] - image[i, j - 1] if 0 < j < width - 1 else 0.0
            degrees = math.degrees(math.atan2(down, right)) % 180.0
            cells[i // cell, j // cell, min(int(degrees / (180 / bins)), bins - 1)] += math.hypot(down, right)
    parts = []
    for i in range(rows - 1):
        for j in range(columns - 1):
            v = cells[i : i + 2, j : j + 2].ravel() / cell**2
            v = np.minimum(v / np.sqrt((v**2).sum() + 1e-10), 0.2)
            parts.append(v / np.sqrt((v**2).sum() + 1e-10))
    return np.concatenate(parts)


def slow_lbp(image, cell=8):
    """Uniform patterns, pixel by pixel: the 58 with at most two changes in order of their numbers, then the rest."""
    circles = [[(code >> k) & 1 for k in range(8)] for code in range(256)]
    uniform = [code for code, circle in enumerate(circles) if sum(circle[k] != circle[k - 1] for k in range(8)) <= 2]
    assert len(uniform) == 58
    padded = np.pad(image, 1, mode="edge")
    n = len(image) // cell
    counts = np.zeros((n, n, 59))
    for i in range(n * cell):
        for j in range(n * cell):
            around = [padded[i, j], padded[i, j + 1], padded[i, j + 2], padded[i + 1, j + 2], padded[i + 2, j + 2],
                      padded[i + 2, j + 1], padded[i + 2, j], padded[i + 1, j]]  # fmt: skip
            code = sum(int(value >= image[i, j]) << k for k, value in enumerate(around))
            counts[i // cell, j // cell, uniform.index(code) if code in uniform else 58] += 1
    return counts.ravel() / cell**2


@pytest.mark.parametrize("side", [24, 29])
def test_gradients_are_counted_as_pixel_by_pixel(side):
    image = picture(side)
    ours = hog(torch.from_numpy(image)[None].float())[0]
    assert ours.shape == (2 * 2 * 36,)
    np.testing.assert_allclose(ours.numpy(), slow_hog(image), atol=1e-5)


def test_patterns_are_counted_as_pixel_by_pixel():
    image = picture()
    ours = lbp(torch.from_numpy(image)[None].float())[0]
    assert ours.shape == (9 * 59,)
    np.testing.assert_allclose(ours.numpy(), slow_lbp(image), atol=1e-6)
    assert sorted(set(uniform_bins())) == list(range(59))


def test_a_face_of_48_pixels_has_as_many_numbers_as_the_card_says():
    images = torch.rand(2, 48, 48)
    assert (hog(images).shape, lbp(images).shape) == ((2, 900), (2, 2124))


def test_brightness_and_contrast_change_nothing():
    image = torch.from_numpy(picture())[None].float()
    for features in (hog, lbp):
        torch.testing.assert_close(features((image / 255 - 0.5) / 0.25), features(image), atol=1e-5, rtol=0)


def test_colours_become_grey():
    assert grey(torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)).item() == pytest.approx(
        0.299 + 2 * 0.587 + 3 * 0.114
    )


def test_features_are_resized_and_joined(make_method):
    x = torch.rand(2, 3, 30, 30)
    both = make_method(HogSvm).extract(None, x)
    assert both.shape == (2, 3024)
    assert torch.equal(both[:, :900], make_method(HogSvm, {"features": "hog"}).extract(None, x))
    assert make_method(HogSvm, {"size": 0, "features": "hog"}).extract(None, x).shape == (2, 2 * 2 * 36)


def test_it_is_the_machine_of_scikit_learn_and_needs_no_network(fit_small):
    run = fit_small(HogSvm, {"size": 0})
    assert not list(run.model.parameters())
    assert [entry["stage"] for entry in run.history] == ["estimator"]
    features = run.method.extract(None, (run.view.images.float() / 255 - 0.5) / 0.25).numpy()
    scaler = StandardScaler().fit(features)
    theirs = LinearSVC(C=0.01, class_weight="balanced", dual="auto", random_state=run.method.seed_of("svm"))
    expected = theirs.fit(scaler.transform(features), run.view.labels).decision_function(scaler.transform(run.features))
    np.testing.assert_allclose(run.logits, expected, atol=1e-4)
    assert (run.logits.argmax(1) == run.val_labels).mean() > 0.5, "the bars of the classes are easy to tell apart"


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_two_classes_and_a_third_without_images(make_method, kernel):
    rows = np.random.default_rng(0).normal(0, 1, (20, 5)) + 3 * (np.arange(20) % 2)[:, None]
    method = make_method(HogSvm, {"kernel": kernel, "strength": 1.0}, counts=(10, 10, 0))
    method.fit_estimator(rows, np.arange(20) % 2)
    scores = method.predict_estimator(rows)
    assert (scores[:, 2] == -100).all()
    assert (scores.argmax(1) == np.arange(20) % 2).all()
