"""Any sampler of imbalanced-learn on deep features, then a linear classifier."""

from __future__ import annotations

import numpy as np

from fer_bench import Float, Method, MethodCard, Param

from ._shared.estimators import FittedLast, all_classes
from ._shared.resampling import NEIGHBOURS, RESAMPLERS, resampled

card = MethodCard(
    name="imblearn_features",
    title="Resampled deep features (imbalanced-learn) and a linear classifier",
    paper="Lemaître et al., Imbalanced-learn: A Python Toolbox to Tackle the Curse of Imbalanced Datasets in Machine "
    "Learning, JMLR 18(17), 2017; SMOTE: Chawla et al., JAIR 16, 2002",
    year=2017,
    url="https://jmlr.org/papers/v18/16-365.html",
    family="resampling",
    changes="after the usual training, the features of the training images are standardised and resampled, and a "
    "logistic regression on them takes the place of the network's classifier",
    deviations=(
        "the number of neighbours is at most the smallest class's number of images less one; a class with one image is "
        "doubled for samplers that look for neighbours within classes",
        "where kmeans_smote finds no dense cluster of a class, or adasyn nothing to start from, smote takes its place, "
        "with a warning; a class that a cleaning sampler would empty stays as it is",
        "features are those of unaugmented images, by the network of the last epoch",
        "a class without training images is never predicted",
    ),
    also_known={
        "smote": "",
        "borderline_smote": "sampler=borderline_smote_1",
        "adasyn": "sampler=adasyn",
        "smote_enn": "sampler=smote_enn",
        "near_miss": "sampler=near_miss_1",
    },
    params={
        "sampler": Param("smote", "sampler of imbalanced-learn", choices=RESAMPLERS),
        **NEIGHBOURS,
        "pca": Param(
            0,
            "principal components that features are reduced to before resampling; 0 for none. 128 makes the samplers "
            "bearable that compare all pairs of images (condensed_nn, one_sided_selection, edited_nn and relatives)",
            low=1,
            high=4096,
            special=(0,),
        ),
        "strength": Param(
            1.0,
            "inverse strength of the regression's penalty, scikit-learn's C",
            low=1e-6,
            high=1e6,
            space=Float(1e-3, 1e2, log=True),
        ),
    },
)


class ImblearnFeatures(FittedLast, Method):
    """The trunk of plain cross-entropy, and a regression on resampled features."""

    card = card

    def fit_estimator(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Standardise, reduce, resample, fit; on features [N, D]."""
        from sklearn.decomposition import PCA
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        size = min(self.params["pca"], *features.shape)
        steps = [StandardScaler(), *([PCA(size, random_state=self.seed_of("pca"))] if size else [])]
        before = make_pipeline(*steps)
        rows, classes, _ = resampled(
            self.params["sampler"], before.fit_transform(features), labels,
            neighbours=self.params["neighbours"], seed=self.seed_of("resample"),
        )  # fmt: skip
        regression = LogisticRegression(C=self.params["strength"], max_iter=1000, tol=1e-3).fit(rows, classes)
        self.estimator = make_pipeline(*steps, regression)

    def predict_estimator(self, features: np.ndarray) -> np.ndarray:
        """Log-probabilities [n, C]."""
        with np.errstate(divide="ignore"):  # a probability of 0 gets the lowest score
            scores = self.estimator.predict_log_proba(features)
        return all_classes(scores, self.estimator.classes_, self.ctx.num_classes)
