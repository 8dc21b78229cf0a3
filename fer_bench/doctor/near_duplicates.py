"""Find images of the same photograph: blurred, shifted, recompressed, lighter or darker, slightly recropped.

Every image becomes a grey thumbnail of 48x48 pixels (a grey 48-pixel image is used as it is). The search has two steps:

1. *Candidates.* The low frequencies of the thumbnail's inner 40x40 window, without their mean over the set, are
   compared with those of every other thumbnail at nine offsets of the window. This is done in blocks of matrix
   products, so memory grows with the number of images, not with its square.
2. *Verification*, at the best shift of up to ``REACH`` pixels in each direction. Half of a pair's score is the
   correlation of the smoothed images after subtracting the mean of each 9x9 neighbourhood, which leaves brows, lids,
   lips and hair. The other half is the mean cosine of the phase differences of their plane waves, which are insensitive
   to blur and lighting (phase-only correlation, Kuglin & Hines 1975). The score must reach ``THRESHOLD``.

The result does not depend on a machine's rounding: pixels, features and waves are integers small enough that every sum
is exact, in whatever order a library adds; the rest are single divisions and square roots, which IEEE 754 defines.

Measured by injection into FER2013 (250 copies of each kind among 12,000 images): it finds all copies blurred by up to
1.5 pixels (standard deviation), saved as JPEG of quality 20 or more, with noise of 10 grey levels, half the contrast,
gamma 0.6 or half the resolution, and at least 99 of 100 copies shifted by up to 3 pixels in each direction, with the
border filled or extended. Inspected by eye, all of 28 random pairs in each score band from 0.77 up show the same
photograph. The threshold is higher because drawings share outlines: of 18 million pairs of drawn faces, about 30 pass.

Limits: mirrored copies, rotations of 5 degrees, scalings by 7 %, shifts of more than 3 of 48 pixels, heavy clipping and
blur of 2 pixels are partly or completely missed. Pictures of the same person taken within a second may be reported,
because they can hardly be distinguished from copies; so may some drawings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fer_bench.data.store import Store

if TYPE_CHECKING:
    from PIL import Image

SIDE = 48
REACH = 3  # pixels of the thumbnail by which copies may be shifted
THRESHOLD = 0.85  # mean of the correlation and of the phases' agreement
COSINES = (0.78, 0.82, 0.86, 0.90)  # least cosine of the low frequencies for a pair to be verified
CROWD = 40  # with more candidates per image, the next higher cosine is used: in drawings all heads look alike
LIKELY = 0.60  # least correlation over a quarter of the pixels for all of them to be compared
HASH_DISTANCE = 2

MARGIN = REACH + 1  # thumbnail pixels around the window: one for the smoothing
WINDOW = SIDE - 2 * MARGIN
POOL, WAVES = 4, 8  # the window is averaged over 4x4 pixels, then 8x8 of its 10x10 cosine waves are kept
UNIT = 2048  # length of a feature vector: products stay below 2**24, where float32 counts exactly
RADIUS = 4  # of the neighbourhood whose mean is subtracted
OFFSETS = [(dy, dx) for dy in (-2, 0, 2) for dx in (-2, 0, 2)]
BLOCK = 1024
BATCH = 256


Progress = Callable[[str, float], object]
"""Called with what is being done, and the share of it that is done (0 to 1)."""


def no_progress(what: str, done: float) -> None:
    """Ignore progress."""


@dataclass(frozen=True)
class Looks:
    """Features of the images of some rows.

    Attributes
    ----------
    spread : int64 [n]
        Largest minus smallest value, in the channel with the widest range.
    thumbs : uint8 [n, 48, 48]
    hashes : uint64 [n]
        Perceptual hash: whether each of the 8x8 lowest cosine waves of a 32x32 thumbnail exceeds their median.
    """

    spread: np.ndarray
    thumbs: np.ndarray
    hashes: np.ndarray


@dataclass(frozen=True)
class Pairs:
    """Verified pairs: positions ``first < second`` (int64 [n]) and their `score` (float64 [n], 4 decimals)."""

    first: np.ndarray
    second: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.first)

    def only(self, which: np.ndarray) -> Pairs:
        """The pairs selected by a mask (bool [n])."""
        return Pairs(self.first[which], self.second[which], self.score[which])


def look(store: Store, rows: np.ndarray, progress: Progress = no_progress) -> Looks:
    """Compute the features of the images of `rows`, a block at a time."""
    parts = []
    for k in range(0, len(rows), BLOCK):
        parts.append(_look(store.images(rows[k : k + BLOCK])))
        progress("reading the images", min(1.0, (k + BLOCK) / len(rows)))
    return Looks(*(np.concatenate(p) for p in zip(*parts, strict=True)))


def _look(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low, high = images.min((2, 3)).astype(np.int64), images.max((2, 3)).astype(np.int64)
    pictures = [_grey(image) for image in images]
    thumbs = images[:, 0] if images.shape[1:] == (1, SIDE, SIDE) else _resized(pictures, SIDE, "BOX")
    return (high - low).max(1), thumbs, _hashes(_resized(pictures, 32, "LANCZOS"))


def _grey(image: np.ndarray) -> Image.Image:
    """Grey PIL picture of uint8 [C, H, W]: the first of fewer than three channels, otherwise from three colours."""
    from PIL import Image

    if len(image) < 3:
        return Image.fromarray(image[0])
    return Image.fromarray(np.ascontiguousarray(image[:3].transpose(1, 2, 0))).convert("L")


def _resized(pictures: list, side: int, filter_name: str) -> np.ndarray:
    from PIL import Image

    method = Image.Resampling[filter_name]
    return np.stack([np.asarray(p.resize((side, side), method), dtype=np.uint8) for p in pictures])


def _hashes(small: np.ndarray) -> np.ndarray:
    from scipy.fft import dct  # late: runs import this module, and few of them look for duplicates

    waves = dct(dct(small.astype(np.float64), axis=1), axis=2)[:, :8, :8].reshape(-1, 64)
    bits = waves > np.median(waves, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)


def close_hashes(hashes: np.ndarray, distance: int = HASH_DISTANCE, progress: Progress = no_progress) -> int:
    """Number of pairs of perceptual hashes (uint64 [n]) that differ in at most `distance` bits."""
    pairs = 0
    for k in range(0, len(hashes), BLOCK):
        mine = hashes[k : k + BLOCK, None]
        for j in range(k, len(hashes), BLOCK):
            near = np.bitwise_count(mine ^ hashes[j : j + BLOCK]) <= distance
            pairs += int(np.triu(near, 1).sum() if j == k else near.sum())
        left = max(0, len(hashes) - k - BLOCK)
        progress("comparing perceptual hashes", 1 - (left / len(hashes)) ** 2)
    return pairs


def near_duplicates(thumbs: np.ndarray, together: np.ndarray | None = None, progress: Progress = no_progress) -> Pairs:
    """Find the pairs of thumbnails that show the same photograph.

    Parameters
    ----------
    thumbs : uint8 [n, 48, 48]
        Distinct images that are not constant; see :func:`look`.
    together : int64 [n], optional
        Images with the same number are not compared with each other; -1 means no number.
    progress : callable, optional

    Returns
    -------
    Pairs
        Sorted by `second`, then `first`.
    """
    bands = _bands(thumbs)
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for first, second, offset, share in _candidates(thumbs):
        if together is not None:
            apart = (together[first] != together[second]) | (together[first] < 0)
            first, second = first[apart], second[apart]
        likely = _correlation(bands, first, second, offset, step=2)[0] >= LIKELY
        parts.append(_verified(thumbs, bands, first[likely], second[likely], offset))
        progress("comparing the images with each other", share)
    first, second, score = (np.concatenate(part) for part in zip(*parts, strict=True))
    return _best(first, second, score)


def _verified(
    thumbs: np.ndarray, bands: np.ndarray, first: np.ndarray, second: np.ndarray, offset: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs that pass, and their scores."""
    correlation, shift = _correlation(bands, first, second, offset)
    keep = correlation >= 2 * THRESHOLD - 1  # the phases can't make up for less
    first, second, correlation, shift = first[keep], second[keep], correlation[keep], shift[keep]
    score = np.round((correlation + _phase_agreement(thumbs, first, second, shift)) / 2, 4)
    keep = score >= THRESHOLD
    return first[keep], second[keep], score[keep]


def _best(first: np.ndarray, second: np.ndarray, score: np.ndarray) -> Pairs:
    """Each pair once, with its best score."""
    order = np.lexsort((-score, first, second))
    first, second, score = first[order], second[order], score[order]
    new = np.ones(len(first), dtype=bool)
    new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    return Pairs(first[new], second[new], score[new])


def _candidates(thumbs: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, tuple[int, int], float]]:
    """Pairs (first < second) whose low frequencies agree, the offset of the second one's window, and the share done."""
    blocks = [slice(k, k + BLOCK) for k in range(0, len(thumbs), BLOCK)]
    plain = np.concatenate([_waves(thumbs[b], (0, 0)) for b in blocks]) if blocks else np.empty((0, 1))
    mean = np.floor(plain.sum(0) / max(1, len(plain)))
    features = _unit(plain - mean).astype(np.float32)
    least = _candidate_cosine(features) * UNIT**2
    tile = np.empty((BLOCK, BLOCK), dtype=np.float32)
    for j, columns in enumerate(blocks):
        for number, offset in enumerate(OFFSETS):
            shifted = _unit(_waves(thumbs[columns], offset) - mean).astype(np.float32)
            hits = []
            for rows in blocks[: j + 1]:
                mine = features[rows]
                product = np.matmul(mine, shifted.T, out=tile[: len(mine), : len(shifted)])
                hits.append(np.flatnonzero(product >= least) + rows.start * len(shifted))
            first, second = np.divmod(np.concatenate(hits), len(shifted))
            second += columns.start
            done = j * (j + 1) / 2 + (j + 1) * (number + 1) / len(OFFSETS)
            share = done / (len(blocks) * (len(blocks) + 1) / 2)
            yield first[first < second], second[first < second], offset, share


def _candidate_cosine(features: np.ndarray) -> float:
    """The lowest cosine that gives at most CROWD candidates per image, estimated from a sample of the images."""
    sample = features[:: -(-len(features) // (2 * BLOCK))] if len(features) else features
    product = sample @ sample.T
    for cosine in COSINES:
        others = int((product >= cosine * UNIT**2).sum()) - len(sample)
        if others / 2 / max(1, len(sample)) ** 2 * len(OFFSETS) * len(features) <= CROWD:
            break
    return cosine


def _waves(thumbs: np.ndarray, offset: tuple[int, int]) -> np.ndarray:
    """Low cosine waves of the window at `offset`, as integers in vectors of length UNIT; float64 [n, 63].

    A wave is weighted by the square root of its frequency: faces differ least in the lowest ones.
    """
    window = _window(thumbs, *offset).reshape(len(thumbs), WINDOW // POOL, POOL, WINDOW // POOL, POOL)
    pooled = window.sum((2, 4), dtype=np.float64)
    return _unit(np.rint((_COSINES.T @ pooled @ _COSINES) * _WEIGHTS / 1024).reshape(len(thumbs), -1)[:, 1:])


def _cosines() -> np.ndarray:
    places = (np.arange(WINDOW // POOL) + 0.5) / (WINDOW // POOL)
    waves = np.cos(np.pi * places[:, None] * np.arange(WAVES))
    waves[:, 0] *= np.sqrt(0.5)
    return np.rint(64 * waves)


_COSINES = _cosines()
_WEIGHTS = np.sqrt(np.sqrt(np.add.outer(np.arange(WAVES) ** 2, np.arange(WAVES) ** 2)))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Integer vectors scaled to length UNIT and rounded; zero vectors stay zero."""
    length = np.sqrt((vectors * vectors).sum(1, keepdims=True))
    return np.rint(UNIT * vectors / np.where(length, length, 1))


def _window(thumbs: np.ndarray, dy: int, dx: int) -> np.ndarray:
    return thumbs[:, MARGIN + dy : MARGIN + dy + WINDOW, MARGIN + dx : MARGIN + dx + WINDOW]


def _bands(thumbs: np.ndarray) -> np.ndarray:
    """Smoothed thumbnails minus the mean of their neighbourhood, in 1/20 grey levels; int16 [n, 48, 48]."""
    out = np.empty(thumbs.shape, dtype=np.int16)
    for k in range(0, len(thumbs), BATCH):
        grey = thumbs[k : k + BATCH].astype(np.int32)
        smooth = _along_both(grey, (1, 2, 1))
        around = _along_both(smooth, (1,) * (2 * RADIUS + 1))
        out[k : k + BATCH] = ((2 * RADIUS + 1) ** 2 * smooth - around) // 64
    return out


def _along_both(images: np.ndarray, kernel: tuple[int, ...]) -> np.ndarray:
    """Integer images [n, 48, 48] filtered along rows and columns; border pixels are repeated."""
    reach = len(kernel) // 2
    for _ in range(2):
        padded = np.pad(images, ((0, 0), (reach, reach), (0, 0)), mode="edge")
        summed = np.zeros_like(images)
        for k, weight in enumerate(kernel):
            summed += weight * padded[:, k : k + SIDE]
        images = summed.transpose(0, 2, 1)
    return images


def _correlation(
    bands: np.ndarray, first: np.ndarray, second: np.ndarray, offset: tuple[int, int], step: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Best correlation of each pair at `offset` or one pixel beside it.

    With a `step` of 2, every other pixel of every other line is used.

    Returns
    -------
    float64 [n], int64 [n, 2]
        The correlation, and the shift (down, right) at which it is reached.
    """
    shifts = np.asarray([(offset[0] + dy, offset[1] + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
    best, where = np.empty(len(first)), np.empty(len(first), dtype=np.int64)
    for k in range(0, len(first), BATCH):
        image, other = bands[first[k : k + BATCH]], bands[second[k : k + BATCH]]
        centre = _flat(image, (0, 0), step)
        values = _pearson(centre, [_flat(other, shift, step) for shift in shifts])
        where[k : k + BATCH], best[k : k + BATCH] = values.argmax(0), values.max(0)
    return best, shifts[where]


def _flat(images: np.ndarray, shift: Sequence[int], step: int = 1) -> np.ndarray:
    window = _window(images, *shift)[:, ::step, ::step]
    return window.reshape(len(window), -1).astype(np.float64)


def _pearson(image: np.ndarray, others: list[np.ndarray]) -> np.ndarray:
    """Correlations of the rows of `image` [n, pixels] with those of each of the `others`; float64 [others, n]."""
    size, total = image.shape[1], image.sum(1)
    variance = size * np.einsum("kp,kp->k", image, image) - total**2
    values = np.empty((len(others), len(image)))
    for k, other in enumerate(others):
        other_total = other.sum(1)
        square = variance * (size * np.einsum("kp,kp->k", other, other) - other_total**2)
        covariance = size * np.einsum("kp,kp->k", image, other) - total * other_total
        values[k] = covariance / np.sqrt(np.where(square > 0, square, 1))
    return values


def _phase_agreement(thumbs: np.ndarray, first: np.ndarray, second: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Mean cosine of the phase difference over all waves, with `second` shifted by `shift`; float64 [n]."""
    out = np.empty(len(first))
    for k in range(0, len(first), BATCH):
        image, other = thumbs[first[k : k + BATCH]], thumbs[second[k : k + BATCH]]
        moved = [_flat(one[None], by)[0] for one, by in zip(other, shift[k : k + BATCH], strict=True)]
        (re, im), (re2, im2) = _spectrum(_flat(image, (0, 0))), _spectrum(np.stack(moved))
        length = np.sqrt(re * re + im * im) * np.sqrt(re2 * re2 + im2 * im2)
        cosine = (re * re2 + im * im2) / np.where(length > 0, length, 1)
        out[k : k + BATCH] = np.rint(2**20 * cosine).sum(1) / (2**20 * cosine.shape[1])
    return out


def _spectrum(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (flat - 128) @ _REAL, (flat - 128) @ _IMAGINARY


def _plane_waves() -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of 2 to 8 waves a window in all directions under a Hann window, in 1/1024; [pixels, waves]."""
    across, down = (k.ravel() for k in np.meshgrid(np.arange(-8, 9), np.arange(9)))
    length = across**2 + down**2
    picked = (length >= 4) & (length <= 64) & ((down > 0) | (across > 0))
    y, x = (k.ravel() for k in np.mgrid[:WINDOW, :WINDOW])
    angle = 2 * np.pi * (y[:, None] * down[picked] + x[:, None] * across[picked]) / WINDOW
    taper = np.outer(np.hanning(WINDOW + 2)[1:-1], np.hanning(WINDOW + 2)[1:-1]).reshape(-1, 1)
    return np.rint(1024 * taper * np.cos(angle)), np.rint(1024 * taper * np.sin(angle))


_REAL, _IMAGINARY = _plane_waves()


def components(first: np.ndarray, second: np.ndarray, n: int) -> np.ndarray:
    """Numbers of the connected components of `n` nodes under the given edges; int64 [n]."""
    edges = coo_array((np.ones(len(first), dtype=np.int8), (first, second)), shape=(n, n))
    return connected_components(edges, directed=False)[1].astype(np.int64)
