"""What counts tell of the order of labels, and what a reader is told of it."""

from itertools import permutations

import numpy as np
import pytest

from fer_bench.contract.plugins import plugins
from fer_bench.data.label_order import Order, describe_mapping, label_order, suspicion

CARDS = {name: plugins().dataset_card(name) for name in ("fer2013", "ferplus", "rafdb", "affectnet", "expw", "ckplus")}


def known(name: str) -> np.ndarray:
    """Images by split and class, as the card of a data set knows them."""
    return np.array(list((CARDS[name].shares or CARDS[name].counts).values()))


def fitted(name: str, observed: np.ndarray) -> Order:
    return label_order(observed, known(name), CARDS[name].classes, CARDS[name].orders)


def drawn(name: str, images: int, rng: np.random.Generator) -> np.ndarray:
    """So many images of a set, drawn without replacement."""
    counts = known(name)
    return rng.multivariate_hypergeometric(counts.ravel(), min(images, counts.sum())).reshape(counts.shape)


def manifest(name: str, observed: np.ndarray, labels: dict[str, str] | None = None) -> dict:
    card = CARDS[name]
    splits = card.shares or card.counts
    return {
        "classes": list(card.classes),
        "counts": dict(zip(splits, observed.tolist(), strict=True)),
        "label_names": list((labels or {}).items()),
    }


@pytest.mark.parametrize("name", CARDS)
def test_true_counts_keep_the_cards_order(name):
    order = fitted(name, known(name))
    assert (order.is_cards, order.exact, order.misfit) == (True, True, pytest.approx(0, abs=1e-12))


@pytest.mark.parametrize("name", CARDS)
def test_every_exchange_of_two_classes_of_a_whole_set_is_found(name):
    count = len(CARDS[name].classes)
    for a in range(count):
        for b in range(a):
            positions = np.arange(count)
            positions[[a, b]] = b, a
            assert fitted(name, known(name)[:, positions]).positions == tuple(positions)


def test_every_order_of_a_whole_set_is_found():
    counts = known("rafdb")
    wrong = [p for p in permutations(range(7)) if fitted("rafdb", counts[:, p]).positions != p]
    assert wrong == []


@pytest.mark.parametrize("images", [1, 7, 30, 100, 300, 1000, 5000])
@pytest.mark.parametrize("name", CARDS)
def test_a_part_of_a_true_set_gives_no_alarm(name, images):
    rng = np.random.default_rng(images)
    assert all(fitted(name, drawn(name, images, rng)).is_cards for _ in range(40))


@pytest.mark.parametrize("images", [7, 30, 100, 300, 1000, 5000])
@pytest.mark.parametrize("name", CARDS)
def test_balanced_and_capped_parts_give_no_alarm(name, images):
    rng = np.random.default_rng(images)
    counts, classes = known(name), len(CARDS[name].classes)
    for _ in range(40):
        even = rng.multinomial(images, np.full(classes, 1 / classes), size=len(counts))
        assert fitted(name, even).is_cards
        assert fitted(name, np.minimum(counts, rng.integers(1, images))).is_cards
        assert fitted(name, np.minimum(drawn(name, images, rng), max(2, images // 5))).is_cards


def test_an_oversampled_class_and_a_missing_one_give_no_alarm():
    counts = known("fer2013")
    more = counts.copy()
    more[0, 1] *= 9  # as in a copy of FER2013 that is handed on
    assert fitted("fer2013", more).is_cards
    for k in range(7):
        less = counts.copy()
        less[:, k] = 0
        assert fitted("fer2013", less).is_cards


# images from which on nearly every part of that size shows the alphabetical order
@pytest.mark.parametrize(
    ("name", "images"), [("fer2013", 2000), ("rafdb", 300), ("ferplus", 100), ("affectnet", 500), ("expw", 300)]
)
def test_alphabetical_numbers_are_found_in_a_part_of_a_set(name, images):
    rng = np.random.default_rng(0)
    classes = CARDS[name].classes
    alphabetical = [classes.index(c) for c in sorted(classes)]
    for _ in range(20):
        order = fitted(name, drawn(name, images, rng)[:, alphabetical])
        assert (order.name, order.positions) == ("alphabetical", tuple(alphabetical))


@pytest.mark.parametrize("name", ["fer2013", "rafdb", "affectnet", "expw"])
def test_every_numbering_that_a_card_names_is_found_by_its_name(name):
    card = CARDS[name]
    for other, order in card.orders.items():
        positions = [card.classes.index(c) for c in order]
        result = fitted(name, (known(name) * 0.9).astype(int)[:, positions])
        assert (result.name, result.positions) == (other, tuple(positions))


@pytest.mark.parametrize("name", CARDS)
def test_the_orders_of_a_card_name_each_class_once(name):
    for other, order in CARDS[name].orders.items():
        assert sorted(order) == sorted(CARDS[name].classes), other


def test_counts_that_fit_another_order_up_to_some_missing_images_are_told_with_their_misfit():
    positions = [0, 1, 2, 3, 6, 4, 5]  # alphabetical
    observed = known("fer2013")[:, positions] - 7
    order = fitted("fer2013", observed)
    assert (order.name, order.exact) == ("alphabetical", False)
    shares = known("fer2013") / known("fer2013").sum(1, keepdims=True)
    by_hand = np.abs(observed - observed.sum(1, keepdims=True) * shares[:, positions]).sum() / 2 / observed.sum()
    assert order.misfit == pytest.approx(by_hand)
    assert order.card_misfit == pytest.approx(0.0618, abs=2e-3)  # (135 + 1659 + 1794) / 2 / 28709 in Training


def test_one_image_that_changed_its_class_is_no_other_order():
    card = plugins().dataset_card("jaffe")
    counts = np.array(list(card.counts.values()))
    counts[0, 0] += 1
    counts[0, 3] -= 1  # 30 angry and 31 happy have become 31 and 30
    assert label_order(counts, np.array(list(card.counts.values())), card.classes).is_cards


def test_the_better_order_is_told_with_the_parameter_that_takes_it():
    card = CARDS["rafdb"]
    alphabetical = [card.classes.index(c) for c in sorted(card.classes)]
    numbers = {str(k): name for k, name in enumerate(card.classes, 1)}
    result = suspicion(card, manifest("rafdb", known("rafdb")[:, alphabetical], numbers))
    assert result.title == "The labels look alphabetical: the counts fit that order exactly"
    assert result.order == "anger,disgust,fear,happy,neutral,sad,surprise"
    assert result.lines[0] == "images labelled surprise are as many as expected for anger"
    assert result.lines[-1] == f"if so, prepare the data again with --dataset-set classes={result.order}"


def test_the_parameter_is_told_by_the_sources_own_numbers():
    card = CARDS["rafdb"]
    read = ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise")  # numbers 0 .. 6, by the parameter
    true = ("neutral", "happy", "surprise", "sad", "anger", "disgust", "fear")  # they are FER+'s
    positions = [card.classes.index(true[read.index(c)]) for c in card.classes]
    result = suspicion(
        card, manifest("rafdb", known("rafdb")[:, positions], {str(k): name for k, name in enumerate(read)})
    )
    assert result.order == ",".join(true)


def test_a_source_that_names_its_classes_is_told_apart():
    card = CARDS["rafdb"]
    words = {f"{name}_folder": name for name in card.classes}
    result = suspicion(card, manifest("rafdb", known("rafdb")[:, ::-1], words))
    assert result.order == ""
    assert "the source itself names its classes" in result.lines[-1]


def test_splits_of_other_names_are_compared_together():
    card = CARDS["fer2013"]
    counts = known("fer2013").sum(0)
    whole = {"classes": list(card.classes), "counts": {"all": counts.tolist()}, "label_names": []}
    assert suspicion(card, whole) is None
    assert suspicion(card, {**whole, "counts": {"all": counts[[0, 1, 2, 3, 6, 4, 5]].tolist()}}) is not None


def test_splits_whose_shares_are_not_published_do_not_count():
    card = CARDS["affectnet"]
    val = {"val": [500] * 8}
    counts = dict(zip(card.shares, known("affectnet").tolist(), strict=True))
    assert suspicion(card, {"classes": list(card.classes), "counts": counts | val, "label_names": []}) is None


def test_classes_beyond_the_cards_are_left_out_and_other_classes_are_not_judged():
    card = CARDS["ckplus"]
    counts = [*known("ckplus")[0].tolist(), 327]
    assert suspicion(card, {"classes": [*card.classes, "neutral"], "counts": {"all": counts}}) is None
    assert suspicion(card, {"classes": ["a", "b"], "counts": {"all": [1, 9000]}}) is None


def test_what_was_read_is_told_by_the_sources_labels():
    result = describe_mapping(
        {
            "classes": ["sad", "happy", "calm"],
            "counts": {"train": [1000, 1, 0], "test": [234, 0, 0]},
            "label_names": [["10", "sad"], ["2", "happy"], ["3", "odd"], ["joy", "happy"], ["calm", "calm"]],
        }
    )
    assert result == "calm (no images), 2 and joy = happy (1 image), 3 = odd (left out), 10 = sad (1,234 images)"


def test_without_labels_of_the_source_the_stores_numbers_are_told():
    result = describe_mapping({"classes": ["a", "b"], "counts": {"x": [2, 0]}})
    assert result == "0 = a (2 images), 1 = b (no images)"


def test_images_without_a_label_are_told_too():
    result = describe_mapping({"classes": ["a"], "counts": {"x": [2], "y": [1]}, "shape": [1003, 1, 8, 8]})
    assert result == "0 = a (3 images); 1,000 without a label"


def test_many_classes_are_not_all_told():
    result = describe_mapping({"classes": [f"c{k}" for k in range(100)], "counts": {"x": [1] * 100}})
    assert result.endswith("23 = c23 (1 image) and 76 more")
