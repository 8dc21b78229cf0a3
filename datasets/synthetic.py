"""Synthetic faces: seven expressions drawn from facial action units, with FER2013's names, order and imbalance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fer_bench import Chunk, DataError, Dataset, DatasetCard, Param, Protocol, Reading, numpy_generator

from ._synthetic.action_units import COLUMNS, MINORITY, draw_units, prototypes, shared_mass
from ._synthetic.faces import CAPTURE, IDENTITY, draw_faces, draw_values
from ._synthetic.regions import draw_regions

card = DatasetCard(
    name="synthetic",
    title="Faces drawn from facial action units",
    classes=("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
    protocols=(
        Protocol(
            name="official",
            train=("train",),
            val=("val",),
            test=("test",),
            title="train / val / test as FER2013's Training / PublicTest / PrivateTest; people don't cross splits",
        ),
    ),
    counts={
        "train": (668, 73, 685, 1206, 808, 530, 830),
        "val": (209, 25, 221, 400, 292, 185, 271),
        "test": (447, 50, 480, 799, 540, 378, 569),
    },
    layouts={"drawn": "nothing to read: the images are drawn from the seed"},
    paper="Ekman, Friesen & Hager 2002, Facial Action Coding System; Friesen & Ekman 1983, EMFACS",
    licence="drawn by this project's own code; no person is shown",
    get="built in: fer-bench data prepare synthetic",
    params={
        "size": Param(9666, "images in all splits together; 35887 gives FER2013's very counts", low=84, high=1_000_000),
        "least_test": Param(
            50,
            "fewest test images of the rarest class, and half as many for validation; both splits grow as a whole, at "
            "the cost of train; 0: four of every class are enough",
            low=0,
            high=100_000,
        ),
        "balance": Param("fer2013", "class proportions", choices=("fer2013", "uniform")),
        "shared": Param(
            0.3,
            "share of disgust's action units that other classes have too, by probability times intensity; 0.3: EMFACS",
            low=0.0,
            high=1.0,
        ),
        "seed": Param(0, "names another set of people, expressions and pictures", low=0, high=2_147_483_647),
        "image_size": Param(48, "side of the images in pixels", low=24, high=256),
        "label_noise": Param(0.0, "share of train labels that are shuffled among themselves", low=0.0, high=1.0),
    },
    built_in=True,
    image="48x48 grey",
)

# Goodfellow et al. 2013 (arXiv 1307.0414), counted in the files: Training, PublicTest, PrivateTest.
FER2013 = {
    "train": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "val": (467, 56, 496, 895, 653, 415, 607),
    "test": (491, 55, 528, 879, 594, 416, 626),
}
LEAST = 4  # images of each class in each split
PER_PERSON = 8  # images, on average
BLOCK = 512  # rows that share their random streams


def allocate(total: int, weights: Sequence[float], least: int | Sequence[int]) -> list[int]:
    """Split `total` in proportion to `weights` by largest remainders, giving every part at least `least`.

    Parts that would fall below their `least` get exactly that; the others share the rest. Ties go to the first part.

    Raises
    ------
    DataError
        `total` is less than all parts' `least` together.
    """
    lowest = [least] * len(weights) if isinstance(least, int) else list(least)
    if total < sum(lowest):
        raise DataError(f"{total} images are too few", where="synthetic[size]", hint=f"at least {sum(lowest)}")
    small: set[int] = set()
    while True:
        rest = total - sum(lowest[k] for k in small)
        open_weight = sum(w for k, w in enumerate(weights) if k not in small)
        shares = [lowest[k] if k in small else rest * w / open_weight for k, w in enumerate(weights)]
        below = {k for k, share in enumerate(shares) if share < lowest[k]} - small
        if not below:
            break
        small |= below
    parts = [int(share) for share in shares]
    order = sorted(range(len(parts)), key=lambda k: parts[k] - shares[k])
    for k in order[: total - sum(parts)]:
        parts[k] += 1
    return parts


def split_sizes(size: int, least_test: int) -> list[int]:
    """Images of train, val and test: in FER2013's proportions, or more for test and val at the cost of train.

    In FER2013's proportions of classes, the rarest has `least_test` images of the test and half as many of val.

    Raises
    ------
    DataError
        `size` leaves too few images for train.
    """
    lowest = [LEAST * len(card.classes)] * len(FER2013)
    for k, (split, least) in enumerate(zip(FER2013, (0, -(-least_test // 2), least_test), strict=True)):
        row = FER2013[split]
        lowest[k] = max(lowest[k], -(-least * sum(row) // min(row)))
    if size < sum(lowest):
        wanted = f"least_test={least_test} needs size={sum(lowest)} or more"
        hint = f"{wanted}, or give least_test=0" if least_test else wanted
        raise DataError(f"{size} images are too few", where="synthetic[size]", hint=hint)
    return allocate(size, [sum(row) for row in FER2013.values()], lowest)


def class_counts(size: int, balance: str = "fer2013", least_test: int = 50) -> dict[str, list[int]]:
    """Images per class in every split: FER2013's own proportions, split by split, or equal ones."""
    sizes = split_sizes(size, least_test)
    weights = FER2013 if balance == "fer2013" else dict.fromkeys(FER2013, (1,) * len(card.classes))
    return {split: allocate(n, weights[split], LEAST) for split, n in zip(FER2013, sizes, strict=True)}


class Synthetic(Dataset):
    """Faces whose expressions share action units, so that which classes are related is known.

    The counts fix a plan: the expression and the person of every row, shuffled. A row's picture then depends on the
    plan and on its place in its split alone, through streams named by split and block: it is the same however many
    rows are drawn after it. The table keeps each unit's intensity (``au01`` ..., 0 to 100) and, as ``shown``, the
    expression that was drawn, which differs from the label where there is label noise.
    """

    card = card

    def read(self, source: Path | None) -> Reading:
        """The drawing, ready to start; `source` must be None."""
        if source is not None:
            raise DataError("synthetic faces are drawn, not read", where=str(source), hint="give no path")
        counts = class_counts(*(self.params[name] for name in ("size", "balance", "least_test")))
        mass = shared_mass(MINORITY, prototypes(self.params["shared"]))
        summary = f"{self.params['size']} faces drawn from action units, seed {self.params['seed']}; "
        summary += f"{100 * mass:.0f} % of {MINORITY}'s action units are other classes' too"
        return Reading(layout="drawn", summary=summary, files=[], chunks=lambda: self._chunks(counts))

    def face_regions(self, height: int, width: int) -> Mapping[str, np.ndarray]:
        """Where brows, eyes, nose and mouth of an average person lie, looking straight ahead."""
        return draw_regions(height, width)

    def _chunks(self, counts: dict[str, list[int]]) -> Iterator[Chunk]:
        for split, per_class in counts.items():
            n = sum(per_class)
            expressions = np.repeat(np.arange(len(per_class)), per_class)
            self._rng("plan", split).shuffle(expressions)
            labels = self._noisy(expressions) if split == "train" else expressions
            people = -(-n // PER_PERSON)
            person = self._rng("people", split).permutation(n) % people
            identity = draw_values(IDENTITY, people, self._rng("identity", split))
            for start in range(0, n, BLOCK):
                rows = np.arange(start, min(start + BLOCK, n))
                who = {name: values[person[rows]] for name, values in identity.items()}
                yield self._draw(split, rows, expressions[rows], labels[rows], person[rows], who)

    def _draw(
        self,
        split: str,
        rows: np.ndarray,
        expressions: np.ndarray,
        labels: np.ndarray,
        person: np.ndarray,
        who: Mapping[str, np.ndarray],
    ) -> Chunk:
        block = int(rows[0]) // BLOCK
        units = draw_units(expressions, self._rng("units", split, block), self.params["shared"])
        capture = draw_values(CAPTURE, len(rows), self._rng("capture", split, block))
        noise = self._rng("noise", split, block)
        return Chunk(
            images=draw_faces(units, who, capture, noise, self.params["image_size"]),
            labels=labels,
            split=[split] * len(rows),
            source=[f"{split}/{k}" for k in rows],
            subject=[f"{split}-{k:05d}" for k in person],
            extra={**dict(zip(COLUMNS, units.T, strict=True)), "shown": expressions},
        )

    def _noisy(self, expressions: np.ndarray) -> np.ndarray:
        """A share of the labels shuffled among themselves, so that the class counts stay."""
        rng = self._rng("label_noise")
        picked = rng.permutation(len(expressions))[: round(self.params["label_noise"] * len(expressions))]
        labels = expressions.copy()
        labels[picked] = expressions[rng.permutation(picked)]
        return labels

    def _rng(self, *names: str | int) -> np.random.Generator:
        return numpy_generator(self.params["seed"], "synthetic", *names)
