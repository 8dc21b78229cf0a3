"""A moving average of a network that trains beside it, and a queue of what it made of past images (He et al. 2020)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class MomentumCopy(nn.Module):
    """A copy of a module that never learns, but follows it.

    It is part of the model, so checkpoints hold it. Evaluation leaves it alone. Its BatchNorm layers see their own
    images: the statistics are its own. Where evaluated weights are an average over steps, the copy's are averaged
    once more, which nobody reads.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False)

    def forward(self, x: Tensor) -> Any:
        """What the copy gives for `x`."""
        return self.module(x)

    @torch.no_grad()
    def follow(self, module: nn.Module, momentum: float) -> None:
        """Weights m w' + (1 - m) w, with those of the copied module w."""
        mine = [p.detach() for p in self.module.parameters()]
        theirs = [p.detach() for p in module.parameters()]
        torch._foreach_lerp_(mine, theirs, 1 - momentum)


class Queue(nn.Module):
    """The last `size` embeddings and their labels; the oldest go first.

    Places that have not been filled yet have the label -1.
    """

    vectors: Tensor
    labels: Tensor
    place: Tensor

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.register_buffer("vectors", torch.zeros(size, dim))
        self.register_buffer("labels", torch.full((size,), -1))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    def entries(self) -> tuple[Tensor, Tensor]:
        """Copies of the embeddings [size, dim] and labels [size], in no particular order."""
        return self.vectors.clone(), self.labels.clone()

    @torch.no_grad()
    def add(self, vectors: Tensor, labels: Tensor) -> None:
        """Put embeddings [B, dim] and labels [B] in, of more than `size` the last ones."""
        size = len(self.labels)
        vectors, labels = vectors[-size:].float(), labels[-size:]
        at = (self.place + torch.arange(len(labels), device=labels.device)) % size
        self.vectors[at], self.labels[at] = vectors, labels
        self.place.copy_((self.place + len(labels)) % size)
