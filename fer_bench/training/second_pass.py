"""A second look at a batch with other weights, for sharpness-aware methods: it leaves nothing but gradients behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from fer_bench.contract.method import Method
from fer_bench.errors import TrainingError


def looks_twice(method: Method) -> bool:
    """Whether a method has a backward pass of its own; only then are the generators' states kept at each step."""
    return type(method).backward is not Method.backward


class SecondPass:
    """What :meth:`fer_bench.Method.backward` gets as `shifted`.

    Parameters
    ----------
    model : Module
    autocast : context manager
        The precision in which training steps run; a second pass runs in the same.
    generator : Generator
        That of the batch.

    It is made before the first pass, so that it knows the state of the generators from which that one draws: the
    batch's, and torch's, from which dropout draws.
    """

    def __init__(self, model: nn.Module, autocast: AbstractContextManager, generator: torch.Generator):
        self.model, self.autocast, self.generator = model, autocast, generator
        self.devices = sorted({p.device for p in model.parameters() if p.device.type == "cuda"}, key=str)
        self.before = self._states()
        self.inside = False

    def _states(self) -> list[Tensor]:
        own = [self.generator.get_state(), torch.get_rng_state()]
        return own + [torch.cuda.get_rng_state(d) for d in self.devices]

    def _set(self, states: Sequence[Tensor]) -> None:
        self.generator.set_state(states[0])
        torch.set_rng_state(states[1])
        for device, state in zip(self.devices, states[2:], strict=True):
            torch.cuda.set_rng_state(state, device)

    @contextmanager
    def __call__(self, shifts: Sequence[Tensor | None]) -> Iterator[None]:
        """Move the weights by `shifts`, one for each of ``model.parameters()``, and take them back bitwise.

        Raises
        ------
        TrainingError
            There are more or fewer shifts than parameters, or another context is open.
        """
        parameters = list(self.model.parameters())
        if len(shifts) != len(parameters):
            raise TrainingError(f"{len(shifts)} shifts for {len(parameters)} parameters", where="backward", hint=(
                "one for each of model.parameters(), None for those that stay"))  # fmt: skip
        if self.inside:
            raise TrainingError("shifted(...) inside shifted(...)", where="backward", hint="add the shifts up")
        moved = [(p, s) for p, s in zip(parameters, shifts, strict=True) if s is not None]
        weights = [p.detach().clone() for p, _ in moved]
        buffers = [(b, b.detach().clone()) for b in self.model.buffers()]
        after = self._states()
        with torch.no_grad():
            for p, s in moved:
                p.add_(s)
        self._set(self.before)
        self.inside = True
        try:
            with self.autocast:
                yield
        finally:
            self.inside = False
            self._set(after)
            with torch.no_grad():
                for (p, _), was in zip(moved, weights, strict=True):
                    p.copy_(was)
                for buffer, was in buffers:
                    buffer.copy_(was)
