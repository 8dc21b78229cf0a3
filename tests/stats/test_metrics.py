"""Metrics, and the groups of classes that some of them speak of."""

from __future__ import annotations

import itertools
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_bench.errors import PluginError, UnknownNameError
from fer_bench.stats import class_groups, metrics
from fer_bench.stats.metrics import METRICS, Answers, Metric, MetricContext, Registry, evaluate

FER2013 = np.array([3995, 436, 4097, 7215, 4830, 3171, 4965])  # angry disgust fear happy sad surprise neutral


def accuracy(predictions, labels, context):
    return (predictions == labels).mean(1)


CONTEXT = MetricContext(classes=("a", "b", "c"), train_counts=np.array([300, 40, 900]))


def test_fer2013_has_three_heads_two_middles_and_two_tails():
    # Happy, neutral, sad: 17010 of 28709 = 59 %. Disgust and surprise: 13 %; with angry it would be 26 %.
    groups = class_groups.head_middle_tail(FER2013)
    assert dict(groups.members) == {"head": (3, 6, 4), "middle": (2, 0), "tail": (5, 1)}
    assert groups.ranges["tail"] == "436 to 3,171 training images"


def test_raf_db_has_a_long_tail():
    # Happy and neutral: 7296 of 12271. Fear, anger, disgust: 1703 = 13.9 %; with surprise 24 %.
    counts = np.array([1290, 281, 717, 4772, 1982, 705, 2524])  # surprise fear disgust happy sad anger neutral
    assert dict(class_groups.head_middle_tail(counts).members) == {"head": (3, 6), "middle": (4, 0), "tail": (2, 5, 1)}


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12))
def test_every_class_is_in_one_group_none_is_empty_and_equals_stay_together(counts):
    counts = np.array(counts)
    groups = class_groups.head_middle_tail(counts)
    different = len(set(counts.tolist()))
    if different < 2:
        assert "have the same number of training images" in groups.reason or "only one class" in groups.reason
        assert not groups.members
        return
    assert list(groups.members) == (["head", "middle", "tail"] if different > 2 else ["head", "tail"])
    assert sorted(i for members in groups.members.values() for i in members) == list(range(len(counts)))
    parts = [[counts[i] for i in members] for members in groups.members.values()]
    assert all(min(left) > max(right) for left, right in itertools.pairwise(parts))


def test_of_two_classes_the_majority_is_the_head_and_the_minority_the_tail():
    groups = class_groups.head_middle_tail(np.array([300, 900]))
    assert dict(groups.members) == {"head": (1,), "tail": (0,)}
    assert dict(groups.ranges) == {"head": "900 training images", "tail": "300 training images"}


def test_a_step_profile_has_a_head_and_a_tail():
    assert dict(class_groups.head_middle_tail(np.array([100, 10, 100, 10, 100])).members) == {
        "head": (0, 2, 4),
        "tail": (1, 3),
    }


@pytest.mark.parametrize(
    ("counts", "tested", "reason"),
    [
        ([70, 70], [1, 1], "all classes have the same number of training images"),
        ([70, 70, 9], [1, 1, 0], "all classes with test images have the same number of training images"),
        ([300, 900], [0, 1], "only one class has test images"),
        ([300, 900], [0, 0], "no class has test images"),
    ],
)
def test_no_groups_where_nothing_tells_classes_apart(counts, tested, reason):
    groups = class_groups.head_middle_tail(np.array(counts), np.array(tested, bool))
    assert (groups.reason, dict(groups.members)) == (reason, {})


def test_a_class_without_test_images_is_in_no_group():
    # Without the 40 of class b, the tail of 1,300 images is the class of 100: 7.7 %.
    groups = class_groups.head_middle_tail(np.array([300, 40, 900, 100]), np.array([1, 0, 1, 1], bool))
    assert dict(groups.members) == {"head": (2,), "middle": (0,), "tail": (3,)}
    context = MetricContext(
        classes=("a", "b", "c", "d"), train_counts=np.array([300, 40, 900, 100]), tested=np.array([1, 0, 1, 1], bool)
    )
    labels, predictions = np.array([0, 2, 3, 3]), np.array([[0, 2, 3, 0]])
    assert evaluate(METRICS["tail_recall"], Answers(predictions), labels, context).values.tolist() == [0.5]


def test_one_huge_class_leaves_a_middle_and_a_tail():
    assert dict(class_groups.head_middle_tail(np.array([50, 3, 2, 1])).members) == {
        "head": (0,),
        "middle": (1,),
        "tail": (2, 3),
    }


def test_many_medium_few_only_where_they_tell_classes_apart():
    groups = class_groups.many_medium_few(np.array([101, 100, 20, 19]))
    assert dict(groups.members) == {"many": (0,), "medium": (1, 2), "few": (3,)}
    assert (
        class_groups.many_medium_few(FER2013).reason
        == "every class is one of 'many' (limits: 100 and 20 training images)"
    )
    two = class_groups.many_medium_few(np.array([500, 50]))
    assert list(two.members) == ["many", "medium"]


def test_every_metric_gives_one_number_per_seed_or_one_per_seed_and_class():
    rng = np.random.default_rng(0)
    labels, answers = rng.integers(0, 3, 60), Answers.of_logits(rng.normal(size=(4, 60, 3)).astype(np.float32))
    context = MetricContext(classes=("a", "b", "c"), train_counts=np.array([300, 10, 40]))
    for metric in METRICS:
        result = evaluate(metric, answers, labels, context)
        assert result.reason == ""
        assert result.values.shape == ((4, 3) if metric.kind == "class" else (4,))
        assert np.isfinite(result.values).all(), metric.name


def test_recall_of_the_tail_is_that_of_its_classes():
    labels, predictions = np.array([0, 0, 1, 1, 2, 2]), np.array([[0, 0, 1, 0, 2, 2]])
    result = evaluate(METRICS["tail_recall"], Answers(predictions), labels, CONTEXT)
    assert result.values.tolist() == [0.5]  # class b alone


def test_a_metric_that_can_not_be_computed_says_why():
    labels, answers = np.array([0, 1, 2]), Answers(np.array([[0, 1, 2]]))
    reasons = {
        "ece": "the logits were not kept",
        "few_recall": "no class is 'few'",
        "many_recall": "",
    }
    for name, reason in reasons.items():
        result = evaluate(METRICS[name], answers, labels, CONTEXT)
        assert result.reason == reason
        assert (result.values is None) == bool(reason)
    unknown = MetricContext(classes=("a", "b", "c"))
    for name in ("tail_recall", "few_recall", "accuracy_train", "macro_f1_backward50"):
        assert "not known" in evaluate(METRICS[name], answers, labels, unknown).reason
    assert evaluate(METRICS["accuracy_uniform"], answers, labels, unknown).values.tolist() == [1.0]


def test_shifted_shares_weigh_the_recalls():
    # Recalls 1, .5, 0; training shares 300, 40, 900 of 1240.
    labels, predictions = np.array([0, 0, 1, 1, 2, 2]), np.array([[0, 0, 1, 0, 1, 1]])
    answers = Answers(predictions)
    result = evaluate(METRICS["accuracy_train"], answers, labels, CONTEXT).values[0]
    assert result == pytest.approx((300 + 0.5 * 40) / 1240)
    # Backward: the rarest, b, has the largest share: b : a : c = 1 : 50^-.5 : 1/50
    shares = np.array([50**-0.5, 1.0, 0.02])
    result = evaluate(METRICS["accuracy_backward50"], answers, labels, CONTEXT).values[0]
    assert result == pytest.approx((shares * [1, 0.5, 0]).sum() / shares.sum())


def test_answers_from_logits_mark_what_was_not_seen():
    logits = np.array([[[0.0, 1.0], [np.nan, np.nan]]])
    assert Answers.of_logits(logits).predictions.tolist() == [[1, -1]]


def test_a_new_metric_is_an_entry():
    registry = Registry()
    metric = registry.add(Metric(name="always", title="Always one", compute=lambda p, labels, c: np.ones(len(p))))
    assert registry["always"] is metric
    assert [c.name for c in registry] == ["always"]
    assert registry.add(metric) is metric  # the same again changes nothing
    result = evaluate(metric, Answers(np.zeros((2, 1), int)), np.zeros(1, int), CONTEXT)
    assert result.values.tolist() == [1.0, 1.0]


def test_bad_metrics_are_refused_by_name():
    registry = Registry(METRICS)
    with pytest.raises(PluginError, match="two metrics are called 'accuracy'"):
        registry.add(Metric(name="accuracy", title="Mine", compute=accuracy))
    with pytest.raises(PluginError, match="needs 'pixels'"):
        registry.add(Metric(name="mine", title="Mine", compute=accuracy, needs="pixels"))
    with pytest.raises(PluginError, match="is not a metric"):
        registry.add("accuracy")
    with pytest.raises(UnknownNameError, match="did you mean 'mean_recall'"):
        registry["mean_recal"]


def test_a_metric_that_fails_or_gives_another_shape_is_named():
    answers, labels = Answers(np.zeros((2, 1), int)), np.zeros(1, int)
    with pytest.raises(PluginError, match="'wrong' returned the shape \\(1,\\), not \\(2,\\)"):
        evaluate(Metric(name="wrong", title="", compute=lambda p, labels, c: np.ones(1)), answers, labels, CONTEXT)
    with pytest.raises(PluginError, match="'broken' failed: ZeroDivisionError"):
        evaluate(Metric(name="broken", title="", compute=lambda p, labels, c: 1 / 0), answers, labels, CONTEXT)


def test_installed_packages_offer_metrics_and_a_broken_one_breaks_nothing(monkeypatch, tmp_path):
    module = tmp_path / "offered_metrics.py"
    module.write_text(
        "from fer_bench import Metric\n"
        "def compute(predictions, labels, context):\n"
        "    return (predictions == labels).mean(1)\n"
        "one = Metric(name='one', title='One', compute=compute)\n"
        "two = [Metric(name='two', title='Two', compute=compute)]\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    values = ("offered_metrics:one", "offered_metrics:two", "no_such_module:x")
    points = [EntryPoint(f"p{i}", value, metrics.ENTRY_POINTS) for i, value in enumerate(values)]
    monkeypatch.setattr(metrics, "entry_points", lambda group: points)
    registry = Registry()
    for _ in range(2):  # twice, as when two commands run in one process
        broken = metrics.discover(registry)
        assert [c.name for c in registry] == ["one", "two"]
        assert ["'p2' can't be used: ModuleNotFoundError" in str(b) for b in broken] == [True]
