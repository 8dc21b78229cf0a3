"""Reports on two classes, on classes of equal count, and on classes without test images."""

from __future__ import annotations

import numpy as np
import pytest

from fer_bench.reports.facts.across import RARE, load_comparison
from fer_bench.reports.facts.response import load_response
from fer_bench.reports.pages import across
from fer_bench.reports.pages import response as response_page
from fer_bench.reports.render.markdown import page as markdown
from fer_bench.reports.sections import (
    minority,
)

# toy data: angry 300 train / 50 test (middle), disgust 40 / 20 (tail), happy 900 / 100 (head)
BASE = (40, 8, 90)


@pytest.fixture
def two(bench):
    """Smiles are the minority: 300 of 1,200 training and 40 of 132 test images."""
    bench.classes, bench.train, bench.test = ("smile", "other"), (300, 900), (40, 92)
    bench.labels = np.repeat([0, 1], [40, 92])
    return bench


def test_of_two_classes_the_minority_is_the_tail_and_the_majority_the_head(two):
    numbers = two.numbers(two.study_of({"better": (36, 80), "base": (20, 85)}))
    assert dict(numbers.groups.members) == {"head": (1,), "tail": (0,)}
    page = two.page(numbers)
    text = two.section(page, "Gains on minority classes")
    assert "`better` helps the rare expressions (smile): +40.0 [" in text
    assert "| `better` | head (mean) | −5.4 [" in text
    assert "(head: 900 training images; tail: 300 training images)" in text
    assert "the frequent classes (other) −5.4 [" in two.section(page, "Answer")
    assert minority.draw_tradeoff(numbers) is not None


def test_two_classes_have_response_curves_of_a_head_and_a_tail(two):
    result = []
    for profile, train in (("exp:3", [300, 900]), ("exp:30", [30, 900])):
        counts = {"counts": {"train": train, "val": [40, 92], "test": [40, 92]}}
        runs = [
            two.run(label, 0, hits, spec={"profile": profile}, data=counts)
            for label, hits in (("base", (20, 85)), ("other", (30, 80)))
        ]
        result.append(two.study(runs, ["base", "other"], name=profile.replace(":", "-")))
    response = load_response(two.ledger, result)
    assert response.measures == ("head", "tail", "mean")
    text = markdown(response_page.page(response, "x"))
    assert "Recall of the tail classes in % (smile)" in text
    assert "Accuracy in % (share of all test images)" in text


def test_two_classes_have_a_tail_over_several_data_sets(two):
    studies = []
    for name in ("toy", "faces"):
        facts = {
            "dataset": name,
            "fingerprint": name,
            "protocol": two.data()["protocol"] | {"name": f"{name}/official"},
        }
        runs = [
            two.run(label, 0, hits, spec={"dataset": name}, data=facts)
            for label, hits in (("base", (20, 85)), ("other", (30, 80)))
        ]
        studies.append(two.study(runs, ["base", "other"], name=name, dataset=name))
    comparison = load_comparison(two.ledger, studies, draws=50)
    assert comparison.entries[0].value("other", RARE) == pytest.approx(0.75)
    text = markdown(across.page(comparison, "x"))
    assert "recall of the frequent classes −5.4 (toy) and −5.4 (faces) points" in text
    assert "accuracy +3.8 (toy) and +3.8 (faces) points" in text


def test_classes_of_equal_count_are_not_called_the_rarest(bench):
    bench.train = (100, 100, 100)
    page = bench.page(bench.numbers(bench.study_of({"better": (40, 18, 90), "base": BASE}, 1)))
    assert (
        "in recall of *angry* (100 training and 50 test images), the first of 3 equally frequent classes"
        in bench.section(page, "Answer")
    )
    bench.train = (40, 40, 900)
    text = bench.section(bench.page(bench.numbers(bench.study_of({"b": (40, 18, 90), "base": BASE}, 1))), "Answer")
    assert "the first of the 2 rarest classes" in text


def test_a_class_without_test_images_is_named_and_spoken_of_nowhere(bench):
    bench.test = (50, 0, 100)
    bench.labels = np.repeat([0, 2], [50, 100])
    numbers = bench.numbers(bench.study_of({"better": (48, 0, 90), "base": (30, 0, 90)}))
    assert numbers.headline == ("recall:angry", "mean_recall")
    assert dict(numbers.groups.members) == {"head": (2,), "tail": (0,)}
    text = bench.section(bench.page(numbers), "Answer")
    assert "the rarest class with test images, *angry* (300 training and 50 test images)" in text
    assert "*disgust* has no test images, so means over classes leave it out." in text


def test_with_one_class_to_test_nothing_is_said_of_chance(two):
    two.labels = np.zeros(40, int)
    numbers = two.numbers(two.study_of({"better": (36, 0), "base": (20, 0)}))
    page = two.page(numbers)
    assert "only one class has test images" in two.section(page, "Gains on minority classes")
    assert "Fewer than two classes have test images" in two.section(page, "Overall scores")
    assert "collapsed" not in two.section(page, "Answer")
