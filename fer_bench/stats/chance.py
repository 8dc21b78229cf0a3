"""Does a classifier look at the image at all? Two tests against rivals that do not, and a mark of collapse.

Two rivals need no image: to answer always the same class, and to guess with the classes' shares in training. Whatever
ignores the image answers class c to the same share of every class, so its mean-class accuracy over C tested classes is
1 / C at most, for both rivals and for all others; and its accuracy is at most that of the best constant answer, the
share of the most frequent class of the test, which no guess exceeds. A method is called *above chance* if one of two
one-sided tests says so, at 5 % after Holm's correction for the two:

- Mean-class accuracy against 1 / C, by permutation (Ojala and Garriga 2010, their first test): how often do shuffled
  labels agree as well with the answers? All trainings keep their answers and meet the same shuffled labels, so nothing
  is assumed of how trainings depend on each other. If none of them looks at the image, they differ by nothing else that
  matters here, so that this also speaks of other trainings. Balanced accuracy has this level whatever the class sizes
  (Brodersen et al. 2010). Exact for a class of one image; answers that never vary have p = 1.
- Accuracy against that of the best constant answer, the no-information rate (Kuhn 2008), by a score test (Wilson 1927):
  z = (p - p0) / sqrt(p0 (1 - p0) / n), where n = 1 + p (1 - p) / V and V is the crossed variance of the mean over seeds
  and images (:mod:`fer_bench.stats.crossed_errors`), with the degrees of freedom that V owes to images.

Images that belong together (of one person, or one image in several folds) are shuffled together where they are all of
one class, and within the person where they are not.

A significant test says that there is something, not that there is much. So a training is said to have *collapsed* by
what it does: if it gives one answer to 90 % of the images or more, every class counting alike. Its mean-class accuracy
is then within ten points of 1 / C. A good classifier is never caught by this, however rare the other classes are.

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
from fer_bench.stats.confusion import Margins, confusions, mean_known, ratio
from fer_bench.stats.crossed_errors import Jackknife
from fer_bench.stats.intervals import holm, images_of

COLLAPSED = 0.9  # share of one answer from which a training has collapsed
ALPHA = 0.05
DRAWS = 499  # of shuffled labels: no p-value is below 1 in 500


@dataclass(frozen=True, kw_only=True)
class Against:
    """One score against that of a rival who ignores the image; `p` is one-sided, after Holm's correction."""

    value: float
    rival: float
    p: float

    @property
    def won(self) -> bool:
        """Whether the score is shown to be more than the rival's."""
        return self.p < ALPHA


@dataclass(frozen=True, kw_only=True, eq=False)
class Chance:
    """What tells a method's answers from those that ignore the image.

    Attributes
    ----------
    mean_recall, accuracy : Against or None
        None where fewer than two classes have test images: then nothing tells whether answers look at them.
    leaning : ndarray [S]
        Of each training the largest share of one answer, the mean over classes.
    answer : ndarray [S]
        The class that is answered so.
    """

    mean_recall: Against | None
    accuracy: Against | None
    leaning: np.ndarray
    answer: np.ndarray

    @property
    def known(self) -> bool:
        """Whether the test set can tell."""
        return self.mean_recall is not None

    @property
    def above(self) -> bool:
        """Whether the method is shown to look at the image; True where the test set can't tell."""
        return not self.known or any(t is not None and t.won for t in (self.mean_recall, self.accuracy))

    @property
    def collapsed(self) -> np.ndarray:
        """Which trainings [S] have collapsed; none where the test set can't tell."""
        return (self.leaning >= COLLAPSED) & self.known

    @property
    def doubtful(self) -> bool:
        """Whether a training has collapsed, or the method is not shown to look at the image."""
        return not self.above or bool(self.collapsed.any())

    @property
    def collapsed_into(self) -> frozenset[int]:
        """The classes that collapsed trainings answer."""
        return frozenset(self.answer[self.collapsed].tolist())


def against_chance(
    sample: Jackknife,
    labels: np.ndarray,
    predictions: np.ndarray,
    classes: int,
    clusters: np.ndarray | None = None,
    draws: int = DRAWS,
) -> Chance:
    """Test a method against answers that ignore the image.

    Parameters
    ----------
    sample : Jackknife
        Its ``mean_recall`` and ``accuracy``.
    labels : ndarray [n]
        True classes.
    predictions : ndarray [S, n]
        Predicted classes of S seeds; -1 where an image was not seen.
    classes : int
        Number of classes C.
    clusters : ndarray [n], optional
        Images that belong together.
    """
    sizes = Margins.counted(labels, predictions, classes).true
    shares = np.stack([_shares(labels, of, classes) for of in predictions])
    leaning, answer = shares.max(-1), shares.argmax(-1)
    tested = (sizes > 0).sum(-1)
    if tested.min() < 2:
        return Chance(mean_recall=None, accuracy=None, leaning=leaning, answer=answer)
    constant = float(ratio(sizes.max(-1), sizes.sum(-1)).mean())
    ps = holm([_shuffled(labels, predictions, classes, clusters, draws), _score_test(sample, "accuracy", constant)])
    value = {name: sample.estimates[name].value for name in ("mean_recall", "accuracy")}
    return Chance(
        mean_recall=Against(value=value["mean_recall"], rival=float((1 / tested).mean()), p=float(ps[0])),
        accuracy=Against(value=value["accuracy"], rival=constant, p=float(ps[1])),
        leaning=leaning,
        answer=answer,
    )


def _shares(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """How often one training gives each answer [C], the mean over classes; one matrix is in memory at a time."""
    matrix = confusions(labels, predicted[None], classes)[0]
    return mean_known(ratio(matrix, matrix.sum(-1, keepdims=True) + 0 * matrix).T)


def _score_test(sample: Jackknife, name: str, rival: float) -> float:
    """The one-sided p-value of a mean over seeds against `rival`, 0 < `rival` < 1."""
    estimate = sample.estimates[name]
    images, varies = images_of(sample, name)
    z = round((estimate.value - rival) / (rival * (1 - rival) / images) ** 0.5, 9)
    freedom = estimate.freedom_for(0.0) if varies else np.inf
    return float(special.ndtr(-z) if np.isinf(freedom) else special.stdtr(freedom, -z))


def _shuffled(
    labels: np.ndarray, predictions: np.ndarray, classes: int, clusters: np.ndarray | None, draws: int
) -> float:
    """The share of shuffled labels that agree as well with the answers in mean-class accuracy, true ones counted."""
    units = np.arange(len(labels)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
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

    true = agreement(labels)
    as_good = sum(agreement(given) >= true for given in _shuffles(labels, units, draws))
    return (1 + as_good) / (1 + draws)


def _shuffles(labels: np.ndarray, groups: np.ndarray, draws: int) -> Iterator[np.ndarray]:
    """Labels in random order within each group."""
    rng = numpy_generator(0, "chance")
    order = np.argsort(groups, kind="stable")
    alone = not groups.any()
    for _ in range(draws):
        if alone:
            yield rng.permutation(labels)
            continue
        out = np.empty_like(labels)
        out[order] = labels[np.lexsort((rng.random(len(labels)), groups))]
        yield out


def guess_by(prior: np.ndarray, sizes: np.ndarray) -> float:
    """Accuracy to expect of answers drawn with the shares `prior` [C], whatever the image, on `sizes` [C] images."""
    return float(np.dot(prior / np.sum(prior), sizes / np.sum(sizes)))
