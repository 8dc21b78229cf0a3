"""Values on their way from the CPU to the device, which is not waited for.

A plain copy from the CPU waits until the device has done all that it was asked to do before: once in every step, it
keeps a GPU from being asked ahead.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device, without waiting for it: for draws of a CPU generator in a training step.

    CUDA copies from page-locked memory, which torch keeps until the copy is done. Apple's GPUs may read the memory
    after it has been given up, so that there the copy is waited for.
    """
    source = tensor.pin_memory() if device.type == "cuda" and tensor.device.type == "cpu" else tensor
    return source.to(device, non_blocking=device.type != "mps")


def constant(values: np.ndarray, device: torch.device) -> Tensor:
    """Values that are the same in every step, such as class weights, as float32 on a device; copied there once.

    The tensor is the caller's own: it may be changed in place.
    """
    array = np.asarray(values)
    return _kept(array.tobytes(), array.dtype.str, array.shape, device).clone()


@lru_cache(maxsize=64)
def _kept(data: bytes, dtype: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
    array = np.frombuffer(data, dtype).reshape(shape).astype(np.float32)
    with torch.inference_mode(False):  # a tensor made inside could take no part in training later
        return torch.from_numpy(array).to(device)
