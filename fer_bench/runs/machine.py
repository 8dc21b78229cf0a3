"""What this machine can compute on. A process of the fork server looks, so that the driver need not import torch."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from fer_bench.errors import TrainingError
from fer_bench.runs import forkserver


@dataclass(frozen=True)
class Machine:
    """Number of CUDA devices, whether there is an Apple GPU, and what multiplies bf16 natively."""

    gpus: int
    apple: bool
    gpu_bf16: bool
    cpu_bf16: bool

    def has_gpu(self, device: str) -> bool:
        """Whether trainings on `device` use a CUDA GPU."""
        return self.gpus > 0 and device not in ("cpu", "mps")

    def fast_precision(self, device: str) -> str:
        """bf16 where the hardware multiplies it natively, otherwise fp32."""
        return "bf16" if (self.gpu_bf16 if self.has_gpu(device) else self.cpu_bf16) else "fp32"

    def check(self, device: str) -> None:
        """Raise TrainingError where this machine lacks the device."""
        kind, _, number = device.partition(":")
        if kind == "cuda" and not self.gpus:
            raise TrainingError("no CUDA device is available", where=f"--device {device}", next="--device cpu")
        if kind == "cuda" and int(number or 0) >= self.gpus:
            raise TrainingError(f"there is no {device} on this machine", hint=f"cuda:0 to cuda:{self.gpus - 1}")
        if kind == "mps" and not self.apple:
            raise TrainingError("this machine has no Apple GPU", where=f"--device {device}", hint="auto or cpu")


@functools.cache
def this_machine() -> Machine:
    """This machine; asked once.

    Raises
    ------
    TrainingError
        torch could not be imported, or ended the process that looks.
    """
    messages: list[dict[str, Any]] = []
    status = forkserver.SERVER.call("look", {}, {}, messages.append)
    for message in messages:
        if message.pop("kind") == "machine":
            return Machine(**message)
    raise TrainingError(f"the process that looks for a GPU ended with {status}", hint="see its output")
