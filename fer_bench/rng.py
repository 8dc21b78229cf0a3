"""Named random streams: every draw in the project comes from ``(seed, name, ...)``, hashed.

A stream depends on its names alone, not on what was drawn before. So a new draw in one place moves nothing elsewhere,
and a resumed epoch replays exactly the numbers it would have had.
"""

from __future__ import annotations

import hashlib
import random
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def stream_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream `names` of the run seed `seed` (SHA-256, stable across platforms)."""
    key = "/".join([str(int(seed)), *map(str, names)])
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") >> 1


def numpy_generator(seed: int, *names: str | int) -> np.random.Generator:
    """A PCG64 generator for the named stream."""
    return np.random.Generator(np.random.PCG64(stream_seed(seed, *names)))


def torch_generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU generator for the named stream; device code copies its draws, so CPU and GPU see the same ones."""
    import torch

    return torch.Generator().manual_seed(stream_seed(seed, *names))


@cache
def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def seed_all(seed: int, *names: str | int) -> None:
    """Seed every global generator: the harness draws from torch's only, but a method's library may use the others."""
    import torch

    value = stream_seed(seed, *names)
    if _has_gpu():
        torch.manual_seed(value)
    else:  # without this, torch notes the call stack for a GPU that may come: 5 ms, and memory that is never freed
        torch.default_generator.manual_seed(value)
    np.random.seed(value % 2**32)  # noqa: NPY002
    random.seed(value)
