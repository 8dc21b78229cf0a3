"""Evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode: BatchNorm's statistics stay, and dropout does nothing. The mode of each part is restored."""
    modes = {module: module.training for module in model.modules()}
    if any(modes.values()):  # setting the mode of every part takes as long as a small network takes for an image
        model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            if module.training != mode:
                module.training = mode
