"""Near-duplicates: what counts as a copy is found, nothing else is, and blocks change nothing."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from fer_bench import Chunk, DatasetCard, Reading
from fer_bench.data.store import write_store
from fer_bench.doctor import near_duplicates
from fer_bench.doctor.near_duplicates import Pairs, close_hashes, components, look


def pictures(n: int, seed: int = 0, side: int = 48) -> np.ndarray:
    """Smooth random images, uint8 [n, side, side]: no two are alike."""
    noise = np.random.default_rng(seed).normal(size=(n, side, side))
    smooth = sum(s * gaussian_filter(noise, (0, s, s)) for s in (1, 2, 4, 7))
    return np.clip(128 + 45 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def moved(image: np.ndarray, down: int, right: int, mode: str) -> np.ndarray:
    padded = np.pad(image, 3, mode=mode)
    return padded[3 - down : 51 - down, 3 - right : 51 - right]


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def rounded(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


COPIES = {
    "blurred": lambda i: rounded(gaussian_filter(i.astype(float), 1.0)),
    "blurred more": lambda i: rounded(gaussian_filter(i.astype(float), 1.5)),
    "brighter": lambda i: rounded(0.7 * i + 60),
    "darker": lambda i: rounded(0.5 * i),
    "gamma": lambda i: rounded(255 * (i / 255) ** 0.7),
    "compressed": lambda i: jpeg(i, 40),
    "noisy": lambda i: rounded(i + np.random.default_rng(9).normal(0, 8, i.shape)),
    "halved": lambda i: np.asarray(Image.fromarray(i).resize((24, 24), 2).resize((48, 48), 2)),
    "moved and blurred": lambda i: rounded(gaussian_filter(moved(i, 2, -3, "edge").astype(float), 1.0)),
}


def pair_set(pairs: Pairs) -> set[tuple[int, int]]:
    return set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


def test_different_images_are_no_pairs():
    assert len(near_duplicates.near_duplicates(pictures(400))) == 0


@pytest.mark.parametrize("kind", COPIES)
def test_changed_copy_is_found_and_nothing_else(kind):
    images = pictures(60)
    copies = np.stack([COPIES[kind](i) for i in images[:20]])
    pairs = near_duplicates.near_duplicates(np.concatenate([images, copies]))
    assert pair_set(pairs) == {(k, 60 + k) for k in range(20)}


@pytest.mark.parametrize("mode", ["edge", "constant"])
def test_copy_moved_by_up_to_three_pixels_is_found_in_every_direction(mode):
    shifts = [(y, x) for y in range(-3, 4) for x in range(-3, 4) if (y, x) != (0, 0)]
    images = pictures(len(shifts), seed=3)
    copies = np.stack([moved(i, *shift, mode) for i, shift in zip(images, shifts, strict=True)])
    pairs = near_duplicates.near_duplicates(np.concatenate([images, copies]))
    assert pair_set(pairs) == {(k, len(shifts) + k) for k in range(len(shifts))}


def test_blocks_change_nothing(monkeypatch):
    images = np.concatenate([pictures(40), [COPIES["blurred"](i) for i in pictures(40)]])
    whole = near_duplicates.near_duplicates(images)
    monkeypatch.setattr(near_duplicates, "BLOCK", 7)
    monkeypatch.setattr(near_duplicates, "BATCH", 3)
    monkeypatch.setattr(near_duplicates, "_candidate_cosine", lambda features: 0.78)
    parts = near_duplicates.near_duplicates(images)
    assert len(whole) == 40
    for name in ("first", "second", "score"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name))


def test_score_does_not_depend_on_the_order_in_which_numbers_are_added():
    images = np.concatenate([pictures(30), [COPIES["noisy"](i) for i in pictures(30)]])
    features = near_duplicates._unit(near_duplicates._waves(images, (0, 0)))
    for order in (np.arange(63), np.arange(63)[::-1], np.random.default_rng(0).permutation(63)):
        single = np.zeros((60, 60), dtype=np.float32)
        for k in order:
            single += np.outer(features[:, k], features[:, k]).astype(np.float32)
        assert np.array_equal(single, features @ features.T)  # float64 on the right: exact by its width


def test_images_kept_together_are_not_compared_unless_their_number_is_minus_one():
    images = np.concatenate([pictures(4), [COPIES["blurred"](i) for i in pictures(4)]])
    together = np.array([0, 1, 2, -1, 0, 5, 2, -1])
    assert pair_set(near_duplicates.near_duplicates(images, together)) == {(1, 5), (3, 7)}


def test_pairs_of_nothing_and_of_one_image_are_none():
    for n in (0, 1):
        assert len(near_duplicates.near_duplicates(pictures(1)[:n])) == 0


def test_a_crowd_of_alike_images_raises_the_cosine_of_candidates():
    rng = np.random.default_rng(0)
    apart = near_duplicates._unit(rng.normal(size=(300, 63))).astype(np.float32)
    alike = near_duplicates._unit(rng.normal(size=63) + 0.4 * rng.normal(size=(300, 63))).astype(np.float32)
    assert near_duplicates._candidate_cosine(apart) == 0.78
    assert near_duplicates._candidate_cosine(alike) > 0.78


def test_correlation_is_pearsons():
    rng = np.random.default_rng(0)
    image, other = rng.integers(-99, 99, (2, 5, 30)).astype(float)
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(image, other, strict=True)]
    assert near_duplicates._pearson(image, [other])[0] == pytest.approx(expected, abs=1e-12)


def test_phases_of_an_image_agree_with_its_own_and_not_with_the_negative():
    images = np.concatenate([pictures(5), 255 - pictures(5)])
    still = np.zeros((5, 2), dtype=int)
    same = near_duplicates._phase_agreement(images, np.arange(5), np.arange(5), still)
    negative = near_duplicates._phase_agreement(images, np.arange(5), np.arange(5, 10), still)
    assert same == pytest.approx(1.0, abs=1e-6)
    assert negative == pytest.approx(-1.0, abs=1e-2)


def test_close_hashes_counts_pairs_at_most_two_bits_apart(monkeypatch):
    hashes = np.random.default_rng(1).integers(0, 2**63, 90, dtype=np.uint64)
    hashes[40:60] = hashes[:20] ^ np.uint64(0b101)
    hashes[60:70] = hashes[:10] ^ np.uint64(0b111000)
    values = [int(h) for h in hashes]
    expected = sum((a ^ b).bit_count() <= 2 for k, a in enumerate(values) for b in values[k + 1 :])
    assert expected == 20
    assert close_hashes(hashes) == expected
    monkeypatch.setattr(near_duplicates, "BLOCK", 11)
    assert close_hashes(hashes) == expected


def test_components_join_what_is_linked():
    numbers = components(np.array([0, 1, 4]), np.array([1, 2, 5]), 6)
    assert [numbers[0] == numbers[k] for k in range(6)] == [True, True, True, False, False, False]
    assert numbers[4] == numbers[5] != numbers[3]


CARD = DatasetCard(name="toy", title="Toy", classes=("a",), protocols=())


def stored(folder, images: np.ndarray):
    n = len(images)
    chunk = Chunk(images=images, labels=np.zeros(n, int), split=["x"] * n, source=[""] * n)
    return write_store(folder, CARD, Reading(layout="l", summary="", files=[], chunks=lambda: iter([chunk])))


def test_grey_48_pixel_image_is_its_own_thumbnail(tmp_path):
    images = pictures(3)[:, None]
    images[2] = 7
    seen = look(stored(tmp_path, images), np.array([2, 0]))
    assert np.array_equal(seen.thumbs, images[[2, 0], 0])
    assert seen.spread.tolist() == [0, int(images[0].max()) - int(images[0].min())]


@pytest.mark.parametrize(("channels", "side"), [(3, 100), (1, 24), (4, 48)])
def test_copies_are_found_in_colour_and_at_other_sizes(tmp_path, channels, side):
    grey = pictures(12, side=side)
    images = np.stack([grey // (1 + c % 2) for c in range(channels)], axis=1)
    images = np.concatenate([images, np.roll(images[:6], 1, axis=3) // 2 + 40])
    seen = look(stored(tmp_path, images), np.arange(18))
    assert seen.thumbs.shape == (18, 48, 48)
    assert pair_set(near_duplicates.near_duplicates(seen.thumbs)) == {(k, 12 + k) for k in range(6)}


def test_perceptual_hash_is_the_one_of_imagehash(tmp_path):
    """The values are those of ``imagehash.phash`` (ImageHash 4.3.2)."""
    y, x = np.mgrid[:48, :48]
    images = np.stack([y**2 * (x + k) // (7 * k) % 256 for k in (1, 2, 3)]).astype(np.uint8)[:, None]
    hashes = look(stored(tmp_path, images), np.arange(3)).hashes
    assert [f"{h:016x}" for h in hashes.tolist()] == ["80010a3f7f7f7075", "82010f7f7f7a6047", "80013f7f7c7043cf"]
