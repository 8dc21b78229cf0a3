"""What a training is made of: how it is carried out, what it works on, what it has reached, and who watches.

This module imports no torch, so that the process that starts trainings need not either.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_bench.base.memory import IMAGES
from fer_bench.errors import TrainingError, unknown

if TYPE_CHECKING:
    import torch
    from torch import nn

    from fer_bench.contract.batch import Context, TrainView
    from fer_bench.contract.method import Method
    from fer_bench.contract.streamed import Images
    from fer_bench.training.recipe import Recipe

FORMAT = 2  # of checkpoints, snapshots, stage folds and the mark of a finished training; files of another are not read


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """How a run is carried out; none of it takes part in the run's id."""

    device: str = "auto"
    compile: bool | None = None
    deterministic: bool = False
    checkpoint_seconds: float = 30.0
    threads: int = 0
    images: str = "auto"  # one of IMAGES
    beside: int = 1  # runs that share the device's memory, this one included
    memory: int = 0  # bytes of main memory that are this one's share; 0: what is free

    def __post_init__(self) -> None:
        if self.images not in IMAGES:
            raise unknown("place of images", self.images, IMAGES, where="--images")

    def resolve(self) -> torch.device:
        """The device to use: the given one, or CUDA where there is one.

        Raises
        ------
        TrainingError
            There is no such device here.
        """
        import torch

        name = self.device
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if name.startswith("cuda") and not torch.cuda.is_available():
            raise TrainingError("no CUDA device is available", where=f"--device {name}", next="--device cpu")
        try:
            return torch.device(name)
        except RuntimeError as error:
            raise TrainingError(f"unknown device '{name}'", hint="auto, cpu, cuda, cuda:1") from error


class Listener:
    """What a caller may watch of a training. The base does nothing."""

    def start(self, epochs: int, steps: int, done: int) -> None:
        """Training starts, or goes on after `done` of `epochs` epochs of `steps` steps."""

    def step(self, images: int, steps: int = 1) -> None:
        """Another `steps` steps over `images` images in all are done."""

    def epoch(self, entry: Mapping[str, Any]) -> None:
        """An epoch is done and scored; may raise PrunedTrial."""

    def note(self, text: str) -> None:
        """Something about how the training is carried out is worth knowing."""

    def warn(self, text: str) -> None:
        """Something is worth telling that does not stop the training."""
        warnings.warn(text, stacklevel=2)

    def close(self) -> None:
        """Training has ended, one way or another."""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Validation images (uint8 [n, C, H, W]) and labels [n]: the harness's, never a method's."""

    images: Images
    labels: np.ndarray


@dataclass(kw_only=True)
class Job:
    """Everything :func:`fer_bench.training.fit.fit` needs.

    `keeps` says of an epoch, counted from 0 over all stages, whether its snapshot and checkpoint are written. An epoch
    that leaves none can be neither scored nor resumed from, but what the training ends in is the same.
    """

    method: Method
    model: nn.Module
    ctx: Context
    recipe: Recipe
    runtime: Runtime
    view: TrainView
    val: Fold
    work: Path
    listener: Listener = field(default_factory=Listener)
    keeps: Callable[[int], bool] = lambda epoch: True


@dataclass
class Progress:
    """What has been reached; everything here goes into the checkpoint."""

    stage: int = 0
    epoch: int = 0
    epoch_in_stage: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    predictions: list[np.ndarray] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)
    resumed: int = 0


def snapshot_file(work: Path, epoch: int) -> Path:
    """What is evaluated after `epoch`: weights and method state, before any read-out adjustment is fitted."""
    return work / f"snapshot_{epoch:04d}.pt"


def logits_file(work: Path, epoch: int) -> Path:
    """Validation's logits after `epoch`, before any read-out adjustment: float32 [n, K]."""
    return work / f"validation_{epoch:04d}.npy"


def fitted_file(work: Path, epoch: int) -> Path:
    """The same with its read-out adjustment fitted; only of methods that have one."""
    return work / f"fitted_{epoch:04d}.pt"


def ready_file(work: Path, epoch: int) -> Path:
    """What the test is scored with: a snapshot, with its read-out adjustment fitted where the method has one."""
    fitted = fitted_file(work, epoch)
    return fitted if fitted.exists() else snapshot_file(work, epoch)
