"""The synthetic faces: what the table says is what the pixels show."""

import hashlib
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_bench.contract.card_reader import read_card
from fer_bench.data.store import write_store
from fer_bench.datasets import synthetic
from fer_bench.datasets._synthetic.action_units import (
    COLUMNS,
    EXPRESSIONS,
    UNITS,
    draw_units,
)
from fer_bench.datasets._synthetic.faces import CAPTURE, IDENTITY, draw_faces, draw_values
from fer_bench.datasets.synthetic import FER2013, LEAST, Synthetic, allocate, card, class_counts
from fer_bench.errors import DataError, SpecError
from fer_bench.rng import numpy_generator
from tests.datasets.conftest import drawn

STILL = {"bias": 1.0, "contrast": 1.0, "blur": 0.0, "noise": 0.0, "cover": -1.0, "zoom": 1.06, "light_y": 0.0}


def prototype(expression: str, strength: float = 1.0) -> np.ndarray:
    """Every unit of `expression` at its mean intensity times `strength`; int64 [units], 0 to 100."""
    means = [EXPRESSIONS[expression].get(unit, (0.0, 0.0))[1] for unit in UNITS]
    return np.rint(100 * strength * np.asarray(means)).astype(np.int64)


def middle_values(table: dict[str, tuple], n: int) -> dict[str, np.ndarray]:
    """The middle of every range: an average person, or a frontal picture without noise or blur."""
    fixed = STILL if table is CAPTURE else {"beard": -1.0, "glasses": -1.0}
    return {name: np.full(n, fixed.get(name, (low + high) / 2)) for name, (low, high) in table.items()}


@pytest.fixture(scope="module")
def faces():
    return drawn(size=1600, seed=5)


# --- the plan --------------------------------------------------------------------------------------------------------


def test_card_is_a_literal_of_a_built_in_set():
    read = read_card(Path(synthetic.__file__))
    assert read == card
    assert read.built_in
    assert read.classes == tuple(EXPRESSIONS) == ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def test_counts_of_the_card_are_those_of_the_default_size():
    assert {k: tuple(v) for k, v in class_counts(card.params["size"].default).items()} == dict(card.counts)
    assert [sum(v) for v in card.counts.values()] == [4800, 1603, 3263]


def test_rarest_class_has_fifty_test_images_and_half_as_many_for_validation():
    counts = class_counts(card.params["size"].default)
    assert min(counts["test"]) == counts["test"][1] == 50
    assert min(counts["val"]) == counts["val"][1] == 25


@given(least=st.integers(0, 200), spare=st.integers(0, 3_000), balance=st.sampled_from(("fer2013", "uniform")))
def test_test_and_validation_never_fall_below_what_is_asked_for(least, spare, balance):
    # FER2013 has 55 of 3589 test images of disgust, and 56 of 3589 of validation
    smallest = 28 + max(28, math.ceil(math.ceil(least / 2) * 3589 / 56)) + max(28, math.ceil(least * 3589 / 55))
    counts = class_counts(smallest + spare, balance, least)
    assert min(counts["test"]) >= least
    assert min(counts["val"]) >= least / 2
    with pytest.raises(DataError, match="too few"):
        class_counts(smallest - 1, balance, least)


def test_small_sets_say_which_size_or_least_test_would_do():
    with pytest.raises(DataError) as caught:
        Synthetic({"size": 300}).read(None)
    # 28 + 1603 + 3263: four of each class, 25 / 56 of 3589 and 50 / 55 of 3589, rounded up
    assert caught.value.hint == "least_test=50 needs size=4894 or more, or give least_test=0"
    assert Synthetic({"size": 4894}).read(None).layout == "drawn"


def test_fer2013s_size_gives_fer2013s_counts():
    assert {k: tuple(v) for k, v in class_counts(35887).items()} == FER2013


def test_default_classes_are_within_rounding_of_fer2013():
    for split, counts in class_counts(9666).items():
        exact = np.asarray(FER2013[split]) * sum(counts) / sum(FER2013[split])
        assert np.abs(np.asarray(counts) - exact).max() < 1


def test_allocation_by_hand():
    # 10 over 5:3:1 is 5.56, 3.33, 1.11: the whole parts leave one over, and 5.56 has the largest remainder
    assert allocate(10, (5, 3, 1), 0) == [6, 3, 1]
    # the last part may not fall below 2, so 8 are left for 5:3
    assert allocate(10, (5, 3, 1), 2) == [5, 3, 2]


@given(
    weights=st.lists(st.integers(1, 10_000), min_size=1, max_size=9),
    least=st.integers(0, 6),
    spare=st.integers(0, 5_000),
)
def test_allocation_sums_to_the_total_and_keeps_minimum_and_order(weights, least, spare):
    total = least * len(weights) + spare
    parts = allocate(total, weights, least)
    assert sum(parts) == total
    assert min(parts) >= least
    for a, b in zip(np.argsort(weights)[:-1], np.argsort(weights)[1:], strict=True):
        assert parts[a] <= parts[b] or weights[a] == weights[b]


@given(size=st.integers(84, 20_000), balance=st.sampled_from(("fer2013", "uniform")))
def test_every_size_fills_every_class_of_every_split(size, balance):
    counts = class_counts(size, balance, 0)
    assert sum(map(sum, counts.values())) == size
    assert min(map(min, counts.values())) >= LEAST


def test_uniform_balance_has_equal_classes():
    assert class_counts(700, "uniform", 0)["train"] == [80] * 7


def test_balance_does_not_move_images_between_splits():
    natural, uniform = class_counts(9666), class_counts(9666, "uniform")
    assert [sum(v) for v in natural.values()] == [sum(v) for v in uniform.values()]


def test_too_few_images_are_refused():
    with pytest.raises(SpecError, match="out of range"):
        Synthetic({"size": 83})


def test_a_source_is_refused(tmp_path):
    with pytest.raises(DataError, match="drawn, not read"):
        Synthetic().read(tmp_path)


# --- the drawing -----------------------------------------------------------------------------------------------------


def test_one_seed_gives_the_same_bytes_everywhere():
    # Only exactly rounded operations touch the pixels, so this digest holds on every machine.
    images = drawn(size=84, seed=0)["images"]
    assert images.shape == (84, 1, 48, 48)
    assert images.dtype == np.uint8
    assert hashlib.sha256(images.tobytes()).hexdigest()[:16] == "0df1c61994452624"


def test_default_train_pictures_are_those_of_earlier_versions():
    # Digest of the first two blocks at the commit before `shared` and `least_test`, when the default size was 6000.
    chunks = itertools.islice(Synthetic().read(None).chunks(), 2)
    images = np.concatenate([chunk.images for chunk in chunks])
    assert images.shape == (1024, 1, 48, 48)
    assert hashlib.sha256(images.tobytes()).hexdigest()[:16] == "a1cb4ae8da5f23ee"


def test_seeds_name_different_sets():
    one, other = drawn(size=84, seed=0), drawn(size=84, seed=1)
    assert not np.array_equal(one["images"], other["images"])
    assert not np.array_equal(one["labels"], other["labels"])


@pytest.mark.parametrize("short", [1, 63, 64, 100])
def test_a_picture_does_not_depend_on_those_after_it(short):
    def first(n):
        labels = np.arange(130)[:n] % 7
        units = draw_units(labels, numpy_generator(0, "units"))
        who = draw_values(IDENTITY, n, numpy_generator(0, "who"))
        how = draw_values(CAPTURE, n, numpy_generator(0, "how"))
        return draw_faces(units, who, how, numpy_generator(0, "noise"))

    assert np.array_equal(first(130)[:short], first(short))


def test_other_image_sizes_show_the_same_face():
    units = prototype("surprise")[None]
    who, how = middle_values(IDENTITY, 1), middle_values(CAPTURE, 1)
    small = draw_faces(units, who, how, numpy_generator(0), size=48)[0, 0].astype(float)
    large = draw_faces(units, who, how, numpy_generator(0), size=96)[0, 0].astype(float)
    assert np.abs(large.reshape(48, 2, 48, 2).mean((1, 3)) - small).mean() < 3


def test_no_image_is_constant_and_none_occurs_twice(faces):
    flat = faces["images"].reshape(len(faces["images"]), -1)
    assert flat.std(1).min() > 3
    assert len(np.unique(flat, axis=0)) == len(flat)


def test_people_stay_in_one_split(faces):
    people = {s: set(faces["subject"][faces["split"] == s]) for s in ("train", "val", "test")}
    assert not people["train"] & (people["val"] | people["test"])
    assert not people["val"] & people["test"]
    _, pictures = np.unique(faces["subject"], return_counts=True)
    assert pictures.max() <= synthetic.PER_PERSON
    assert pictures.mean() > 7


def test_order_does_not_tell_the_label(faces):
    train = faces["labels"][faces["split"] == "train"]
    quarters = [np.bincount(q, minlength=7) / len(q) for q in np.array_split(train, 4)]
    assert np.ptp(quarters, axis=0).max() < 0.1


def test_label_noise_moves_train_labels_only_and_keeps_the_counts():
    noisy = drawn(size=400, label_noise=0.5)
    wrong = noisy["labels"] != noisy["shown"]
    assert 0.2 < wrong[noisy["split"] == "train"].mean() < 0.5
    assert not wrong[noisy["split"] != "train"].any()
    assert np.array_equal(np.bincount(noisy["labels"]), np.bincount(noisy["shown"]))
    assert np.array_equal(noisy["images"], drawn(size=400)["images"])


# --- the units, in the table -----------------------------------------------------------------------------------------


def mean_of(faces, unit, *names):
    rows = np.isin(faces["labels"], [card.classes.index(n) for n in names])
    return faces[unit][rows].mean()


def test_units_are_recorded_from_0_to_100(faces):
    table = np.stack([faces[name] for name in COLUMNS])
    assert table.dtype == np.int64
    assert table.min() == 0
    assert 90 < table.max() <= 100
    assert COLUMNS[0] == "au01"
    assert COLUMNS[16:] == ("au26", "au14", "au19", "au38")
    assert not table[17:].any()  # units of no prototype


@pytest.mark.parametrize(
    ("unit", "sharing"),
    [
        ("au01", ("fear", "surprise", "sad")),
        ("au02", ("fear", "surprise")),
        ("au05", ("fear", "surprise", "angry")),
        ("au04", ("fear", "angry", "sad", "disgust")),
        ("au15", ("sad", "disgust")),
        ("au06", ("happy",)),
        ("au09", ("disgust",)),
        ("au20", ("fear",)),
    ],
)
def test_expressions_share_the_units_emfacs_gives_them(faces, unit, sharing):
    others = [c for c in card.classes if c not in sharing]
    weakest = min(mean_of(faces, unit, c) for c in sharing)
    assert weakest > 3 * max(mean_of(faces, unit, c) for c in others)


def test_no_unit_always_gives_its_expression_away(faces):
    for expression, made in EXPRESSIONS.items():
        rows = faces["labels"] == card.classes.index(expression)
        for unit in made:
            assert (faces[f"au{unit:02d}"][rows] < 15).any(), (expression, unit)


# --- the units, in the pixels ----------------------------------------------------------------------------------------


def average_face(**units):
    """An average person, lit from the front, without noise; float [48, 48]. Row 24 is the middle of the head."""
    row = np.asarray([[units.get(name, 0) for name in COLUMNS]])
    who, how = middle_values(IDENTITY, 1), middle_values(CAPTURE, 1)
    return draw_faces(row, who, how, numpy_generator(0, "unused"))[0, 0].astype(float)


def darkest_row(image, rows, columns):
    return rows[0] + int(image[slice(*rows), slice(*columns)].mean(1).argmin())


def test_average_face_is_symmetric():
    face = average_face()
    middle = face[14:40, 12:36]  # strands of hair run one way; the face itself does not
    assert np.abs(middle - middle[:, ::-1]).max() <= 2


def test_jaw_drop_opens_a_dark_mouth():
    mouth = np.s_[36:43, 20:28]
    assert average_face(au26=80)[mouth].mean() < 0.6 * average_face()[mouth].mean()


# On the average face the right brow runs over columns 28 to 36 and rows 12 to 15, under hair that ends in row 9 at its
# inner end and in row 11 at its outer one; the eye is in rows 18 to 21.
@pytest.mark.parametrize(
    ("unit", "end", "other"),
    [("au01", ((10, 18), (28, 31)), ((12, 18), (35, 37))), ("au02", ((12, 18), (34, 37)), ((10, 18), (28, 29)))],
)
def test_brow_raisers_lift_their_own_end_of_the_brow(unit, end, other):
    rest, raised = average_face(), average_face(**{unit: 80})
    assert darkest_row(raised, *end) <= darkest_row(rest, *end) - 1
    assert abs(darkest_row(raised, *other) - darkest_row(rest, *other)) <= 1


def test_pressed_lips_leave_no_line_beside_the_mouth():
    assert np.abs(average_face(au23=100, au24=100) - average_face())[35:39, 34:38].max() <= 2


def test_brow_lowerer_sinks_the_inner_brow_and_furrows_between():
    rest, frown = average_face(), average_face(au04=90)
    assert darkest_row(frown, (9, 18), (28, 31)) >= darkest_row(rest, (9, 18), (28, 31)) + 1
    assert frown[14:18, 22:26].mean() < rest[14:18, 22:26].mean() - 8


def test_upper_lid_raiser_shows_more_white_and_tightener_less():
    def white(face):
        return (face[16:22, 27:36] > 172).sum()  # brighter than any skin there

    assert white(average_face(au05=90)) > white(average_face()) > white(average_face(au07=90))


def corner_row(face):
    """Row of the mouth's line at its right corner, columns 30 and 31."""
    return darkest_row(face, (31, 43), (30, 32))


def test_corners_rise_with_a_smile_and_fall_with_the_depressor():
    assert corner_row(average_face(au12=80)) < corner_row(average_face()) < corner_row(average_face(au15=80))


def test_lip_stretcher_widens_the_mouth():
    def width(face):
        line = face[34:39].min(0)
        return (line < line.max() - 45).sum()

    assert width(average_face(au20=90)) >= width(average_face()) + 2


def test_dimpler_darkens_a_spot_beside_each_corner():
    change = average_face(au14=90) - average_face()
    assert change[33:42, 31:36].min() < -25
    assert change[33:42, 12:17].min() < -25
    assert np.abs(change[:30]).max() == 0
    assert np.abs(change[33:42, 20:28]).max() == 0


def test_tongue_is_bright_below_the_line_of_the_lips():
    below = np.s_[38:41, 22:26]
    assert average_face(au19=60)[below].mean() > average_face()[below].mean() + 20


def test_nostril_dilator_darkens_the_foot_of_the_nose_alone():
    change = average_face(au38=80) - average_face()
    assert change[27:32, 20:28].mean() < -6
    assert np.abs(change[:22]).max() == 0
    assert np.abs(change[36:]).max() == 0


def test_nose_wrinkler_draws_lines_across_the_root():
    root = np.s_[18:25, 22:26]
    rest, wrinkled = average_face()[root].mean(1), average_face(au09=90)[root].mean(1)
    assert np.abs(np.diff(wrinkled)).sum() > 2 * np.abs(np.diff(rest)).sum()


# --- what can be learned ---------------------------------------------------------------------------------------------


def balanced_recall(features, faces):
    """Mean recall on val and test of a linear model trained on train, classes weighing the same."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.metrics import balanced_accuracy_score

    train, test = faces["split"] == "train", faces["split"] != "train"
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3, priors=np.full(7, 1 / 7))
    model.fit(features[train], faces["labels"][train])
    return balanced_accuracy_score(faces["labels"][test], model.predict(features[test]))


def test_units_tell_expressions_apart_but_not_perfectly(faces):
    units = np.stack([faces[name] for name in COLUMNS], 1) / 100
    assert 0.6 < balanced_recall(units, faces) < 0.97


def test_pixels_alone_beat_chance_for_a_linear_model(faces):
    halved = faces["images"].reshape(-1, 24, 2, 24, 2).mean((2, 4)).reshape(-1, 576)
    assert balanced_recall(halved, faces) > 1.7 / 7


def test_faces_go_through_the_store_unchanged(tmp_path):
    dataset = Synthetic({"size": 140, "seed": 3, "least_test": 0})
    store = write_store(tmp_path, card, dataset.read(None), dataset.params)
    fresh = drawn(size=140, seed=3)
    assert np.array_equal(store.images(np.arange(140)), fresh["images"])
    table = store.columns("label", "split", "subject", "shown", *COLUMNS)
    assert np.array_equal(table["label"], fresh["labels"])
    assert np.array_equal(table["subject"], fresh["subject"])
    assert all(np.array_equal(table[name], fresh[name]) for name in COLUMNS)
    assert store.classes == card.classes
    again = write_store(tmp_path / "again", card, dataset.read(None))
    assert again.fingerprint == store.fingerprint
    other = write_store(tmp_path / "other", card, Synthetic({"size": 140, "seed": 4, "least_test": 0}).read(None))
    assert other.fingerprint != store.fingerprint


def test_unit_columns_are_named_after_the_units():
    assert tuple(f"au{u:02d}" for u in UNITS) == COLUMNS
    assert prototype("happy")[UNITS.index(12)] > prototype("happy", 0.5)[UNITS.index(12)] > 0


@pytest.mark.parametrize(
    ("unit", "region"), [("au01", "brows"), ("au04", "brows"), ("au05", "eyes"), ("au38", "nose"), ("au25", "mouth")]
)
def test_what_an_action_unit_changes_lies_in_its_region(unit: str, region: str):
    """Of 40 people seen from the front, with and without the unit: most of the difference lies where it should."""
    rng = np.random.default_rng(0)
    identity = draw_values(IDENTITY, 40, rng)
    identity["glasses"][:] = -1.0
    capture = {name: np.full(40, sum(ends) / 2) for name, ends in CAPTURE.items()}
    capture |= {name: np.full(40, -1.0) for name in ("noise", "blur", "cover")}
    units = np.zeros((40, len(COLUMNS)), np.int64)
    still = draw_faces(units, identity, capture, rng)
    units[:, COLUMNS.index(unit)] = 100
    moved = np.abs(draw_faces(units, identity, capture, rng).astype(float) - still).sum((0, 1))
    regions = Synthetic().face_regions(48, 48)
    assert list(regions) == ["brows", "eyes", "nose", "mouth"]
    assert max(sum(mask.astype(int) for mask in regions.values()).ravel()) == 1
    shares = {name: moved[mask].sum() / moved.sum() for name, mask in regions.items()}
    assert max(shares, key=shares.get) == region
    assert shares[region] > 0.6
