"""Does a classifier look at the image at all? Two tests against baselines that do not, and a mark for collapse.

Two baselines need no image: always predicting the same class, and guessing with the class shares of the training set.
Whatever ignores the image predicts class c for the same share of every class. So its mean-class accuracy over C tested
classes is at most 1 / C, for both baselines and for all others; and its accuracy is at most that of the best constant
prediction, the share of the most frequent test class, which no guess exceeds. A method is *above chance* if one of two
one-sided tests says so at 5 % after Holm's correction for the two:

- Mean-class accuracy against 1 / C, by permutation (Ojala and Garriga 2010, their first test): how often do shuffled
  labels agree as well with the predictions? All trainings keep their predictions and meet the same shuffled labels, so
  nothing is assumed about how trainings depend on each other. If none of them looks at the image, they differ in
  nothing else that matters here, so the test also holds for other trainings. Balanced accuracy has this chance level
  for any class sizes (Brodersen et al. 2010). Exact even for a class of one image; constant predictions have p = 1.
- Accuracy against the best constant prediction, the no-information rate (Kuhn 2008), by a score test (Wilson 1927):
  z = (p - p0) / sqrt(p0 (1 - p0) / n), where n = 1 + p (1 - p) / V and V is the crossed variance of the mean over seeds
  and images (:mod:`fer_bench.stats.crossed_errors`), with the degrees of freedom of the part of V due to images.

Images of one sampling unit (of one person, or the copies of one image in several folds) are shuffled together where
they are all of one class, and within the unit where they are not.

A significant test says that there is an effect, not that it is large. A training has *collapsed* if it predicts one
class for 90 % of the images or more, with all classes weighted equally. Its mean-class accuracy is then within ten
points of 1 / C. A good classifier never meets this criterion, however rare the other classes are.

References
----------
M. Ojala, G. Garriga (2010), Permutation tests for studying classifier performance, JMLR 11.
B. Phipson, G. Smyth (2010), Permutation p-values should never be zero, Statistical Applications in Genetics and
Molecular Biology 9.
K. Brodersen, C. S. Ong, K. Stephan, J. Buhmann (2010), The balanced accuracy and its posterior distribution, ICPR.
M. Kuhn (2008), Building predictive models in R using the caret package, Journal of Statistical Software 28(5).
E. B. Wilson (1927), Probable inference, the law of succession, and statistical inference, JASA 22.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import special

from fer_bench.rng import numpy_generator
from fer_bench.stats.confusion import Margins, confusion_matrix, mean_known, ratio
from fer_bench.stats.crossed_errors import Jackknife
from fer_bench.stats.intervals import effective_images, holm
from fer_bench.stats.sampling import Truth

COLLAPSED = 0.9  # share of one predicted class from which a training has collapsed
ALPHA = 0.05
PERMUTATIONS = 499  # of the labels: no p-value is below 1 in 500


@dataclass(frozen=True, kw_only=True)
class ChanceTest:
    """A score against that of a baseline that ignores the image; `p` is one-sided, after Holm's correction."""

    value: float
    baseline: float
    p: float

    @property
    def significant(self) -> bool:
        """Whether the score is significantly above the baseline."""
        return self.p < ALPHA


@dataclass(frozen=True, kw_only=True, eq=False)
class Chance:
    """What separates a method's predictions from those that ignore the image.

    Attributes
    ----------
    mean_recall, accuracy : ChanceTest or None
        None where fewer than two classes have test images, so that the question can't be tested.
    dominant_share : ndarray [S]
        For each training, the largest share of one predicted class, averaged over true classes.
    dominant_class : ndarray [S]
        The class that is predicted so often.
    crossed : bool
        Whether the trainings cross seeds with several subsets of the training images.
    """

    mean_recall: ChanceTest | None
    accuracy: ChanceTest | None
    dominant_share: np.ndarray
    dominant_class: np.ndarray
    crossed: bool = False

    @property
    def testable(self) -> bool:
        """Whether at least two classes have test images."""
        return self.mean_recall is not None

    @property
    def above(self) -> bool:
        """Whether the method is significantly above chance; True where that can't be tested."""
        return not self.testable or any(t is not None and t.significant for t in (self.mean_recall, self.accuracy))

    @property
    def collapsed(self) -> np.ndarray:
        """Which trainings [S] have collapsed; none where chance can't be tested."""
        return (self.dominant_share >= COLLAPSED) & self.testable

    @property
    def doubtful(self) -> bool:
        """Whether a training has collapsed, or the method is not above chance."""
        return not self.above or bool(self.collapsed.any())

    @property
    def collapsed_into(self) -> frozenset[int]:
        """The classes that collapsed trainings predict."""
        return frozenset(self.dominant_class[self.collapsed].tolist())


def against_chance(
    sample: Jackknife, truth: Truth, predictions: np.ndarray, permutations: int = PERMUTATIONS
) -> Chance:
    """Test a method against predictions that ignore the image.

    Parameters
    ----------
    sample : Jackknife
        The method's ``mean_recall`` and ``accuracy``.
    truth : Truth
        The test set.
    predictions : ndarray [S, n]
        Predicted classes of S seeds; -1 where a seed has not seen an image.
    """
    sizes = Margins.count(truth.labels, predictions, truth.classes).support
    shares = np.stack([_predicted_shares(truth, predicted) for predicted in predictions])
    dominant_share, dominant_class = shares.max(-1), shares.argmax(-1)
    tested = (sizes > 0).sum(-1)
    if tested.min() < 2:
        return Chance(
            mean_recall=None, accuracy=None, dominant_share=dominant_share, dominant_class=dominant_class,
            crossed=sample.subsets is not None,
        )  # fmt: skip
    constant = float(ratio(sizes.max(-1), sizes.sum(-1)).mean())
    ps = holm([_permutation_test(truth, predictions, permutations), _score_test(sample, "accuracy", constant)])
    value = {name: sample.estimates[name].value for name in ("mean_recall", "accuracy")}
    return Chance(
        mean_recall=ChanceTest(value=value["mean_recall"], baseline=float((1 / tested).mean()), p=float(ps[0])),
        accuracy=ChanceTest(value=value["accuracy"], baseline=constant, p=float(ps[1])),
        dominant_share=dominant_share,
        dominant_class=dominant_class,
        crossed=sample.subsets is not None,
    )


def _predicted_shares(truth: Truth, predicted: np.ndarray) -> np.ndarray:
    """How often one training predicts each class [C], averaged over true classes; one matrix is in memory at a time."""
    matrix = confusion_matrix(truth.labels, predicted, truth.classes)
    return mean_known(ratio(matrix, matrix.sum(-1, keepdims=True) + 0 * matrix).T)


def _score_test(sample: Jackknife, name: str, baseline: float) -> float:
    """The one-sided p-value of a mean over seeds against `baseline`, 0 < `baseline` < 1."""
    estimate = sample.estimates[name]
    images, varies = effective_images(sample, name)
    z = round((estimate.value - baseline) / (baseline * (1 - baseline) / images) ** 0.5, 9)
    df = estimate.df_for(0.0) if varies else np.inf
    return float(special.ndtr(-z) if np.isinf(df) else special.stdtr(df, -z))


def _permutation_test(truth: Truth, predictions: np.ndarray, permutations: int) -> float:
    """Share of shuffled labels with at least the mean-class accuracy of the true ones, which are counted as well."""
    labels, units, classes = truth.labels, truth.units, truth.classes
    answers = np.stack([(predictions == c).mean(0) for c in range(classes)], axis=1)  # [n, C]
    seen = (predictions >= 0).mean(0)
    first = np.unique(units, return_index=True)[1]
    if (labels == labels[first][units]).all():  # each unit is of one class: whole units change their class
        answers = np.stack([np.bincount(units, answers[:, c]) for c in range(classes)], axis=1)
        seen, labels, units = np.bincount(units, seen), labels[first], np.zeros(len(first), int)
    place = np.arange(len(labels))

    def agreement(given: np.ndarray) -> float:
        hits = np.bincount(given, answers[place, given], minlength=classes)
        return round(float(mean_known(ratio(hits, np.bincount(given, seen, minlength=classes)))), 9)

    observed = agreement(labels)
    as_good = sum(agreement(given) >= observed for given in _shuffles(labels, units, permutations))
    return (1 + as_good) / (1 + permutations)


def _shuffles(labels: np.ndarray, groups: np.ndarray, number: int) -> Iterator[np.ndarray]:
    """Labels in random order within each group."""
    rng = numpy_generator(0, "chance")
    order = np.argsort(groups, kind="stable")
    alone = not groups.any()
    for _ in range(number):
        if alone:
            yield rng.permutation(labels)
            continue
        out = np.empty_like(labels)
        out[order] = labels[np.lexsort((rng.random(len(labels)), groups))]
        yield out


def guess_accuracy(prior: np.ndarray, sizes: np.ndarray) -> float:
    """Expected accuracy of random predictions with the class shares `prior` [C] on `sizes` [C] test images."""
    return float(np.dot(prior / np.sum(prior), sizes / np.sum(sizes)))
