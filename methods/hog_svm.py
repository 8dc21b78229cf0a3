"""Histograms of gradients and binary patterns, and a support vector machine: no network at all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import Float, Method, MethodCard, Param, Stage, Trunk

from ._shared.descriptors import grey, hog, lbp
from ._shared.estimators import FittedLast, all_classes

card = MethodCard(
    name="hog_svm",
    title="HOG and LBP features with a support vector machine",
    paper="Dalal and Triggs, Histograms of Oriented Gradients for Human Detection, CVPR 2005; Shan et al., Facial "
    "Expression Recognition Based on Local Binary Patterns, Image and Vision Computing 27(6), 2009",
    year=2005,
    url="https://doi.org/10.1109/CVPR.2005.177",
    family="classical",
    changes="no network: hand-made features of each image, standardised, and a support vector machine",
    deviations=(
        "each pixel's gradient votes for one bin of one cell, as in scikit-image; the paper spreads it over neighbours",
        "binary patterns compare the 8 neighbours on the 3x3 square, in cells of 8x8 pixels; Shan et al. take a circle "
        "of radius 2 in 42 regions and weigh the regions",
        "one machine a class against the others (linear), or one a pair of classes (rbf)",
        "backbone, epochs, batch size, learning rate and augmentation of the recipe have no effect",
        "a class without training images is never predicted",
    ),
    calibration="scores are distances from the separating planes, not probabilities",
    also_known={"lbp_svm": "features=lbp"},
    params={
        "features": Param(
            "hog+lbp", "hand-made features; of 48 pixels 900 numbers (hog), 2124 (lbp) or both",
            choices=("hog+lbp", "hog", "lbp"),
        ),
        "size": Param(
            48, "side to which images are resized first, in pixels; FER2013's own. 0 for none", low=16, high=512,
            special=(0,),
        ),
        "kernel": Param(
            "linear", "linear, or rbf on 256 principal components; rbf takes a time ∝ N²", choices=("linear", "rbf")
        ),
        "strength": Param(
            0.01,
            "inverse strength of the penalty, scikit-learn's C; for rbf, 1 to 10 is usual",
            low=1e-6,
            high=1e4,
            space=Float(1e-3, 10.0, log=True),
        ),
        "balanced": Param(True, "whether the penalty of an error is weighted by N/(C n_c)"),
    },
)  # fmt: skip


class HogSvm(FittedLast, Method):
    """An estimator on hand-made features."""

    card = card

    def stages(self) -> list[Stage]:
        """The estimator alone."""
        return [Stage(name="estimator", kind="estimator")]

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """No network; a module without weights in its place."""
        return nn.Identity()

    def extract(self, model: nn.Module, x: Tensor) -> Tensor:
        """Features [B, D] of images [B, C, H, W]."""
        with torch.autocast(x.device.type, enabled=False):
            size = self.params["size"]
            if size and x.shape[2:] != (size, size):
                x = F.interpolate(x.float(), (size, size), mode="bilinear", antialias=True)
            kinds, images = self.params["features"].split("+"), grey(x)
            return torch.cat([{"hog": hog, "lbp": lbp}[kind](images) for kind in kinds], dim=1)

    def fit_estimator(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Standardise, reduce for rbf, and fit on features [N, D]."""
        from sklearn.decomposition import PCA
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVC, LinearSVC

        weights, seed = "balanced" if self.params["balanced"] else None, self.seed_of("svm")
        if self.params["kernel"] == "linear":
            steps = [LinearSVC(C=self.params["strength"], class_weight=weights, dual="auto", random_state=seed)]
        else:
            steps = [
                PCA(min(256, *features.shape), random_state=seed),
                SVC(C=self.params["strength"], class_weight=weights),
            ]
        self.estimator = make_pipeline(StandardScaler(), *steps).fit(features, labels)

    def predict_estimator(self, features: np.ndarray) -> np.ndarray:
        """Distances from the separating planes [n, C]."""
        scores = self.estimator.decision_function(features)
        return all_classes(scores, self.estimator.classes_, self.ctx.num_classes)
