"""The ensembles of imbalanced-learn on deep features: each member sees balanced classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from fer_bench import Method, MethodCard, Param, missing_library

from ._shared.estimators import FittedLast, all_classes

KINDS = ("balanced_random_forest", "easy_ensemble", "rusboost", "balanced_bagging")

card = MethodCard(
    name="imblearn_ensemble",
    title="Balanced ensembles on deep features (imbalanced-learn)",
    paper="Chen et al., Using Random Forest to Learn Imbalanced Data, 2004; Liu et al., Exploratory Undersampling for "
    "Class-Imbalance Learning, IEEE TSMC-B 2009; Seiffert et al., RUSBoost, IEEE TSMC-A 2010",
    year=2004,
    url="https://jmlr.org/papers/v18/16-365.html",
    family="ensemble",
    changes="after the usual training, an ensemble on the features of the training images takes the place of the "
    "network's classifier; each of its members is fitted on classes undersampled to the size of the smallest",
    deviations=(
        "the members are those of imbalanced-learn: trees in the forest and in bagging, AdaBoost of decision stumps in "
        "easy_ensemble, stumps in rusboost; Liu et al. add up the stumps' scores over all members, the library takes "
        "the mean of the members' probabilities",
        "features are those of unaugmented images, by the network of the last epoch",
        "a class without training images is never predicted",
    ),
    calibration="probabilities are shares of votes of balanced members, as if all classes were equally frequent; a "
    "share of 0 counts as 1e-6",
    also_known={
        "balanced_random_forest": "kind=balanced_random_forest",
        "easy_ensemble": "kind=easy_ensemble",
        "rusboost": "kind=rusboost",
    },
    params={
        "kind": Param(
            "balanced_bagging",
            "which ensemble of the library; bagging of ten trees is the quickest to fit and to keep",
            choices=KINDS,
        ),
        "members": Param(
            0,
            "number of members; 0 for the default of the kind: 100 trees in the forest, 10 in easy_ensemble and "
            "balanced_bagging, 50 in rusboost, as in the library",
            low=1,
            high=200,
            special=(0,),
        ),
        "depth": Param(
            0,
            "depth of trees; 0 for the default of the kind: unbounded in forest and bagging, 1 in the boosted ones",
            low=1,
            high=64,
            special=(0,),
        ),
    },
)


class ImblearnEnsemble(FittedLast, Method):
    """The trunk of plain cross-entropy, and an ensemble on its features."""

    card = card

    def fit_estimator(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Fit the ensemble on features [N, D]."""
        kind, members, depth = (self.params[name] for name in ("kind", "members", "depth"))
        self.estimator = ensemble(kind, members, depth, self.seed_of("ensemble")).fit(features, labels)

    def predict_estimator(self, features: np.ndarray) -> np.ndarray:
        """Logarithms of the members' mean probabilities [n, C]."""
        shares = self.estimator.predict_proba(features)
        return all_classes(np.log(np.maximum(shares, 1e-6)), self.estimator.classes_, self.ctx.num_classes)


def ensemble(kind: str, members: int, depth: int, seed: int) -> Any:
    """The unfitted ensemble. What is resampled, and how, is said in full: the library's defaults have changed."""
    try:
        from imblearn import ensemble as made
    except ImportError as error:
        raise missing_library("ensembles need imbalanced-learn", error, install="'imbalanced-learn>=0.14'") from error
    from sklearn.ensemble import AdaBoostClassifier
    from sklearn.tree import DecisionTreeClassifier

    if kind == "balanced_random_forest":
        # Chen et al. 2004: each tree draws as many images of every class as the smallest has, with replacement
        balanced = {"sampling_strategy": "all", "replacement": True, "bootstrap": False}
        return made.BalancedRandomForestClassifier(
            members or 100, max_depth=depth or None, random_state=seed, **balanced
        )  # fmt: skip
    tree = DecisionTreeClassifier(max_depth=depth or (None if kind == "balanced_bagging" else 1))
    if kind == "rusboost":
        return made.RUSBoostClassifier(tree, n_estimators=members or 50, random_state=seed)
    if kind == "easy_ensemble":
        return made.EasyEnsembleClassifier(members or 10, AdaBoostClassifier(tree), random_state=seed)
    return made.BalancedBaggingClassifier(tree, members or 10, random_state=seed)
