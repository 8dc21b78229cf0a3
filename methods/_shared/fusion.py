"""Maps fused from two images: what is specific to the class of one, and what is generic in the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fer_bench import TrainView, to_device

from .maps import activation_maps


@dataclass(frozen=True, kw_only=True)
class Rare:
    """N positions, of which a share are images of rare classes, drawn uniformly, and the others of frequent ones."""

    frequent: tuple[int, ...]
    share: float

    def __call__(self, view: TrainView, epoch: int, rng: np.random.Generator) -> np.ndarray:
        """Positions int64 [N]; all of one group if the other has no images."""
        large = np.isin(view.labels, self.frequent)
        groups = [np.flatnonzero(of) for of in (~large, large)]
        wanted = rng.random(len(view)) < self.share
        picks = [rng.choice(of if len(of) else np.arange(len(view)), size=len(view)) for of in groups]
        return np.where(wanted, *picks).astype(np.int64)


def most_confused(scores: Tensor, number: int) -> Tensor:
    """Whether images of class d are among those most confused with class c, bool [c, d]; never d = c.

    Parameters
    ----------
    scores : tensor [C, C]
        Mean probabilities of each class (columns) on the images of each class (rows).
    number : int
        Classes that count as confused with another one.
    """
    others = scores.T.clone().fill_diagonal_(-1.0)
    best = others.topk(min(number, len(others) - 1), dim=1).indices
    return torch.zeros_like(others).scatter_(1, best, 1.0).bool()


def fused(
    mine: tuple[Tensor, Tensor],
    theirs: tuple[Tensor, Tensor],
    head: nn.Linear,
    limits: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """New maps [n, D, h, w] of the classes of `mine`: a random share of positions from each of two maps.

    Parameters
    ----------
    mine, theirs : (maps [n, D, h, w], labels [n])
        Of the first, positions that are specific to its class count, of the second, generic ones; others are 0.
    head : nn.Linear
        Gives the class activation maps.
    limits : (float, float)
        Activations above the first are specific, those below the second generic.
    generator : torch.Generator
        On the CPU.
    """
    specific, generic = activations(*mine, head) > limits[0], activations(*theirs, head) < limits[1]
    chance = torch.rand(len(specific), 1, 1, 1, generator=generator)
    first = torch.rand(specific.shape, generator=generator) > chance
    return torch.where(to_device(first, specific.device), mine[0] * specific, theirs[0] * generic)


def activations(fmap: Tensor, y: Tensor, head: nn.Linear) -> Tensor:
    """Class activation of each image's own class, negative ones as 0, brought to 0 to 1 over the map, [n, 1, h, w]."""
    maps = activation_maps(fmap, head)[torch.arange(len(y), device=y.device), y].relu().flatten(1)
    low, high = maps.min(1, keepdim=True).values, maps.max(1, keepdim=True).values
    return ((maps - low) / (high - low).clamp_min(1e-12)).unflatten(1, fmap.shape[2:])[:, None]
