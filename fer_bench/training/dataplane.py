"""The data plane: images live on the device as uint8; batches are gathered and augmented there.

Nothing is decoded in the loop. Images that don't fit on the device are streamed: the pixels of the next batches are
read while one is trained on. All else is the same, so the batches are bitwise those of images in memory.

All random numbers of an epoch (order, flips, shifts, angles, erased rectangles) are drawn at its start on the CPU from
named streams and moved to the device in one copy, so the same seed gives the same batches on CPU and GPU, and an epoch
can be replayed from its number alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fer_bench.contract.batch import Augment, Batch, StreamSpec, TrainView
from fer_bench.contract.streamed import StreamedImages
from fer_bench.errors import TrainingError
from fer_bench.rng import numpy_generator, torch_generator
from fer_bench.training.recipe import Recipe

MEAN, STD = 0.5, 0.25  # grey faces lie near these; one constant for all sets keeps every run comparable


def augment_of(recipe: Recipe) -> Augment:
    """The augmentation a recipe asks for."""
    return Augment(
        flip=recipe.flip, shift=recipe.shift, rotate=recipe.rotate, scale=recipe.scale, erase=recipe.erase
    )  # fmt: skip


@dataclass(frozen=True)
class Draws:
    """The random numbers of `n` images.

    Either an affine matrix [n, 2, 3], or whole moves [n, 3]: mirrored or not, pixels down, pixels to the right from
    which an output pixel is taken. And a rectangle [n, 4] to erase.
    """

    theta: Tensor | None
    moves: Tensor | None
    box: Tensor | None

    def part(self, where: slice) -> Draws:
        """The draws of some of the images."""
        return Draws(*(None if t is None else t[where] for t in (self.theta, self.moves, self.box)))

    def to(self, device: torch.device) -> Draws:
        """Copied to a device."""
        return Draws(*(None if t is None else t.to(device) for t in (self.theta, self.moves, self.box)))


def draw(
    augment: Augment, n: int, shape: tuple[int, ...], generator: torch.Generator, strength: Tensor | None = None
) -> Draws:
    """Draw the augmentation of `n` images of `shape` (C, H, W) on the CPU; `strength` [n] as in `StreamSpec`.

    The matrix maps output to input coordinates as :func:`torch.nn.functional.affine_grid` wants it. Shifts are whole
    pixels; without rotation and scaling there is no matrix, and pixels are moved as they are.
    """
    _, height, width = shape
    u = torch.rand(10, n, generator=generator, dtype=torch.float64)
    factor = 1.0 if strength is None else strength.double()
    u[5] /= factor  # as good as a factor on the probability of an erased rectangle; none at strength 0
    mirrored = u[0] < augment.flip
    right, down = (torch.round((2 * v - 1) * augment.shift * factor) for v in (u[3], u[4]))
    theta = moves = None
    if augment.rotate or augment.scale:
        sign = torch.where(mirrored, -1.0, 1.0).double()
        angle = (2 * u[1] - 1) * math.radians(augment.rotate) * factor
        size = 1 / (1 + (2 * u[2] - 1) * (augment.scale * factor))
        cos, sin = angle.cos() * size, angle.sin() * size
        across = [cos * sign, -sin * height / width, right * 2 / width]
        along = [sin * sign * width / height, cos, down * 2 / height]
        theta = torch.stack(across + along, dim=1).reshape(n, 2, 3).float()
    elif augment.shift or augment.flip:
        moves = torch.stack([mirrored, down, right], dim=1).to(torch.int32)
    return Draws(theta, moves, _boxes(augment, u[5:], height, width) if augment.erase else None)


def _boxes(augment: Augment, u: Tensor, height: int, width: int) -> Tensor:
    """Rectangles (top, bottom, left, right) after Zhong et al. 2020 (arXiv 1708.04896), empty where none is erased."""
    low, high = augment.erase_area
    area = low + (high - low) * u[1]
    aspect = torch.exp((2 * u[4] - 1) * math.log(3.0))
    h = torch.clamp((area * aspect).sqrt() * height, 1, height).floor()
    w = torch.clamp((area / aspect).sqrt() * width, 1, width).floor()
    top, left = ((height - h + 1) * u[2]).floor(), ((width - w + 1) * u[3]).floor()
    on = (u[0] < augment.erase).double()
    return torch.stack([top, top + h * on, left, left + w * on], dim=1).to(torch.int16)


def to_float(images: Tensor, mean: float = MEAN, std: float = STD) -> Tensor:
    """uint8 [B, C, H, W] as normalised float32."""
    return images.float().mul_(1 / (255 * std)).sub_(mean / std)


def apply(x: Tensor, draws: Draws) -> Tensor:
    """Augment normalised images [B, C, H, W]; erased pixels become 0, the mean grey."""
    if draws.theta is not None:
        grid = _grid(draws.theta, *x.shape[2:])
        x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    elif draws.moves is not None:
        x = _moved(x, draws.moves)
    if draws.box is not None:
        box = draws.box[:, :, None]
        rows = torch.arange(x.shape[2], device=x.device)
        cols = torch.arange(x.shape[3], device=x.device)
        inside = ((rows >= box[:, 0]) & (rows < box[:, 1]))[:, :, None] & ((cols >= box[:, 2]) & (cols < box[:, 3]))[
            :, None
        ]
        x = x.masked_fill(inside[:, None], 0.0)
    return x


def _grid(theta: Tensor, height: int, width: int) -> Tensor:
    """Sampling positions [B, H, W, 2] of affine matrices, as ``F.affine_grid(..., align_corners=False)`` gives them.

    That is a matrix product in float32, which a GPU may round to ten bits (TF32): positions would be off by hundredths
    of a pixel. Sums and products of single numbers are rounded alike on every device; quotients are not.
    """
    x, y = ((2 * torch.arange(n, device=theta.device) + 1) * (1 / n) - 1 for n in (width, height))
    across = theta[:, None, :, 0] * x[:, None]  # [B, W, 2]
    along = theta[:, None, :, 1] * y[:, None] + theta[:, None, :, 2]  # [B, H, 2]
    return across[:, None] + along[:, :, None]


def _moved(x: Tensor, moves: Tensor) -> Tensor:
    """Images mirrored and shifted by whole pixels, the border repeated; no value changes."""
    height, width = x.shape[2:]
    mirrored, down, right = moves.long().T[:, :, None]
    rows = (torch.arange(height, device=x.device) + down).clamp(0, height - 1)
    columns = torch.arange(width, device=x.device)
    columns = (torch.where(mirrored == 1, width - 1 - columns, columns) + right).clamp(0, width - 1)
    image = torch.arange(len(x), device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)


def check_positions(positions: np.ndarray, n: int, where: str) -> None:
    """Raise TrainingError unless `positions` is a vector of positions in a fold of `n` images."""
    given = np.asarray(positions)
    if given.ndim != 1 or len(given) == 0 or given.dtype.kind not in "iu" or given.min() < 0 or given.max() >= n:
        what = f"{given.dtype} of shape {given.shape}" + (f", {given.min()} to {given.max()}" if given.size else "")
        raise TrainingError(f"expected positions (integers) within 0..{n - 1}, not {what}", where=where)


def prepare(images: Tensor, image_size: int) -> Tensor:
    """Normalise and resize images for a network, without augmentation; channels_last."""
    return _resize(to_float(images), image_size).contiguous(memory_format=torch.channels_last)


def _resize(x: Tensor, size: int) -> Tensor:
    if size and tuple(x.shape[-2:]) != (size, size):
        x = F.interpolate(x, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return x


@dataclass
class _Stream:
    """One stream during one epoch: positions, draws of each view, batch size, strength of each image's augmentation."""

    positions: np.ndarray
    index: Tensor  # the same on the device
    draws: list[Draws]
    size: int
    strength: Tensor | None

    def part(self, step: int) -> slice:
        """The positions of one step's batch."""
        return slice(step * self.size, (step + 1) * self.size)


class DataPlane:
    """Batches of a training fold.

    Parameters
    ----------
    view : TrainView
        The fold; its images lie on the device, or come there batch by batch.
    recipe : Recipe
    seed : int
        The run's seed; orders and augmentation come from its streams `data` and `augment`.
    """

    def __init__(self, view: TrainView, recipe: Recipe, seed: int):
        self.view, self.recipe, self.seed = view, recipe, seed
        self.device = view.images.device
        self.labels = torch.as_tensor(view.labels, device=self.device)
        self.groups = None if view.groups is None else torch.as_tensor(view.groups, device=self.device)
        self.soft = None if view.soft is None else torch.as_tensor(view.soft, device=self.device)

    def epoch(self, streams: Mapping[str, StreamSpec], stage: str, epoch: int) -> tuple[int, Iterator[Batch]]:
        """The number of steps of an epoch, and its batches. "main" sets the length; other streams cycle."""
        if "main" not in streams:
            raise TrainingError("streams() must hold a stream called 'main'", where=f"stage '{stage}'")
        main = self._open("main", streams["main"], stage, epoch, None)
        steps = max(1, len(main.positions) // main.size)
        aux = {n: self._open(n, s, stage, epoch, steps) for n, s in streams.items() if n != "main"}
        return steps, self._batches(main, aux, stage, epoch, steps)

    def _open(self, name: str, spec: StreamSpec, stage: str, epoch: int, steps: int | None) -> _Stream:
        rng = numpy_generator(self.seed, "data", stage, name, epoch)
        drawn = np.asarray(spec.sampler(self.view, epoch, rng))
        check_positions(drawn, len(self.view), f"the sampler of stream '{name}', stage '{stage}'")
        positions = drawn.astype(np.int64)
        size = min(spec.batch_size or self.recipe.batch_size, len(positions))
        if steps is not None:  # an auxiliary stream: repeat until it lasts
            positions = np.resize(positions, steps * size)
        strength = None
        if spec.strength is not None:
            strength = self._strength(spec, positions, epoch, (stage, name))
        draws = [
            draw(augment, len(positions), tuple(self.view.images.shape[1:]),
                 torch_generator(self.seed, "augment", stage, name, epoch, v), strength).to(self.device)
            for v, augment in enumerate(self._augments(spec, f"stream '{name}', stage '{stage}'"))
        ]  # fmt: skip
        strength = None if strength is None else strength.float().to(self.device)
        return _Stream(positions, torch.from_numpy(positions).to(self.device), draws, size, strength)

    def _augments(self, spec: StreamSpec, where: str) -> list[Augment]:
        """The augmentation of each view."""
        given = [spec.augment] * spec.views if isinstance(spec.augment, Augment | None) else list(spec.augment)
        if len(given) != spec.views:
            raise TrainingError(f"{len(given)} augmentations for {spec.views} views", where=where, hint="one for each")
        return [augment_of(self.recipe) if one is None else one for one in given]

    def _strength(self, spec: StreamSpec, positions: np.ndarray, epoch: int, names: tuple[str, str]) -> Tensor:
        """Factors float64 [n] on the augmentation of the drawn images."""
        assert spec.strength is not None
        rng = numpy_generator(self.seed, "strength", *names, epoch)
        factors = np.asarray(spec.strength(self.view, positions, epoch, rng), dtype=np.float64)
        if factors.shape != positions.shape or not np.isfinite(factors).all() or (factors < 0).any():
            raise TrainingError(
                f"the strength of {len(positions)} images must be as many finite numbers from 0 up, not an array of "
                f"shape {factors.shape}",
                where=f"strength of stream '{names[1]}', stage '{names[0]}'",
            )
        return torch.from_numpy(factors)

    def _batches(self, main: _Stream, aux: dict[str, _Stream], stage: str, epoch: int, steps: int) -> Iterator[Batch]:
        pixels = self._pixels([main, *aux.values()], steps)
        for step in range(steps):
            # hashing a stream's seed each step costs 20 µs, against 1 ms and more for the step itself
            generator = torch_generator(self.seed, "step", stage, epoch, step)
            batch = self._batch(main, next(pixels), step, epoch, generator)
            batch.aux = {n: self._batch(s, next(pixels), step, epoch, generator) for n, s in aux.items()}
            yield batch

    def _pixels(self, streams: Sequence[_Stream], steps: int) -> Iterator[Tensor]:
        """The uint8 images of every batch of an epoch: step after step, those of each stream."""
        images = self.view.images
        turns = ((stream, stream.part(step)) for step in range(steps) for stream in streams)
        if isinstance(images, StreamedImages):
            return images.batches(stream.positions[where] for stream, where in turns)
        return (images.index_select(0, stream.index[where]) for stream, where in turns)

    def _batch(self, stream: _Stream, pixels: Tensor, step: int, epoch: int, generator: torch.Generator) -> Batch:
        where = stream.part(step)
        index, x = stream.index[where], to_float(pixels)
        views = [self._finish(apply(x, d.part(where))) for d in stream.draws]
        return Batch(
            views=views,
            y=self.labels[index],
            soft=None if self.soft is None else self.soft[index],
            groups=None if self.groups is None else self.groups[index],
            strength=None if stream.strength is None else stream.strength[where],
            index=index,
            generator=generator,
            epoch=epoch,
            step=step,
        )

    def _finish(self, x: Tensor) -> Tensor:
        return _resize(x, self.recipe.image_size).contiguous(memory_format=torch.channels_last)

    def clean(self) -> Iterator[Batch]:
        """The fold once, in order, without augmentation."""
        size = max(self.recipe.batch_size, 256)
        parts = torch.arange(len(self.view), device=self.device).split(size)
        for step, (index, pixels) in enumerate(zip(parts, self.view.images.split(size), strict=True)):
            x = prepare(pixels, self.recipe.image_size)
            generator = torch_generator(self.seed, "clean", step)
            yield Batch(views=[x], y=self.labels[index], index=index, generator=generator, step=step)
