"""No step of a training waits for the device: seen on a CPU, with tensors that pretend to lie on another device."""

from __future__ import annotations

import contextlib
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fer_bench.conformance.world import RECIPE, World
from fer_bench.contract import transfer
from fer_bench.contract.plugins import plugins
from fer_bench.contract.transfer import constant, to_device
from fer_bench.training import fit as loop
from fer_bench.training.job import Job, Listener, Runtime

METHODS = sorted(name for name, plugin in plugins().methods.items() if plugin.origin == "built in")
DEVICE = torch.device("meta")  # stands for a GPU: torch lets code of Python answer for tensors of this device
BY_NATURE = {
    "feature_space_augmentation": "how many rare images a batch holds decides the shape of what is made for them",
    "m2m": "how many images of a batch are translated decides the shape of what is translated",
    "rsg": "how many frequent and rare images a batch holds decides how many are generated",
    "unimix": "partners are drawn on the CPU, in proportion to the sizes of the classes in the batch",
}
"""Methods whose steps may wait, and why."""

aten = torch.ops.aten
COUNTING = {aten.nonzero.default, aten.masked_select.default, aten._unique2.default, aten.bincount.default}
COUNTING |= {aten.unique_dim.default, aten.repeat_interleave.Tensor, aten.multinomial.default, aten.equal.default}
INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
waits: Counter[str] = Counter()


class Far(Tensor):
    """A tensor that says it lies on DEVICE, and computes on the CPU."""

    near: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, near: Tensor) -> Far:
        far = Tensor._make_wrapper_subclass(
            cls, near.size(), strides=near.stride(), storage_offset=near.storage_offset(), dtype=near.dtype,
            device=DEVICE,
        )  # fmt: skip
        far.near = near
        return far

    def __repr__(self) -> str:
        return f"Far({self.near})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return compute(func, args, kwargs or {})


class Pretend(TorchDispatchMode):
    """Sees every operation, also those that make tensors from nothing."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return compute(func, args, kwargs or {})


def compute(func: Any, args: tuple, kwargs: dict) -> Any:
    """The result of an operation, on the device that it would lie on; what would wait for the device is noted."""
    found: list[Tensor] = []
    near_args = [near(a, found) for a in args]
    near_kwargs = {k: near(v, found) for k, v in kwargs.items()}
    far = [t for t in found if isinstance(t, Far)]
    to = kwargs.get("device")
    stays_far = bool(far) if to is None else torch.device(to) == DEVICE
    if to is not None and stays_far:
        near_kwargs["device"] = "cpu"
    if (reason := waiting(func, args, kwargs, found, far)) is not None:
        waits[f"{reason}, {place()}"] += 1
    result = func(*near_args, **near_kwargs)
    if not stays_far or func is aten._local_scalar_dense.default:
        return result
    same = {id(t.near): t for t in far}  # an operation in place returns what it was given
    return wrapped(result, same)


def near(value: Any, found: list[Tensor]) -> Any:
    """An argument with what lies on DEVICE taken to the CPU; all tensors in it are added to `found`."""
    if isinstance(value, Tensor):
        found.append(value)
        return value.near if isinstance(value, Far) else value
    return type(value)(near(v, found) for v in value) if isinstance(value, (list, tuple)) else value


def wrapped(result: Any, same: dict[int, Far]) -> Any:
    """The result with its tensors on DEVICE."""
    if isinstance(result, Tensor):
        return same[id(result)] if id(result) in same else Far(result)
    return type(result)(wrapped(r, same) for r in result) if isinstance(result, (list, tuple)) else result


def waiting(func: Any, args: tuple, kwargs: dict, found: list[Tensor], far: list[Far]) -> str | None:
    """Why the CPU would wait for the device here, or None."""
    if func is aten._to_copy.default or func is aten.copy_.default:
        target = args[0] if func is aten.copy_.default else kwargs.get("device")
        goes = isinstance(target, Far) or target == DEVICE
        comes = bool(far) and isinstance(args[-1], Far)
        if goes and not comes and not (kwargs.get("non_blocking") or (len(args) > 2 and args[2])):
            return "copied to the device"
        return "copied from the device" if comes and target is not None and not goes else None
    if not far:
        return None
    if func is aten._local_scalar_dense.default:
        return "read as a number"
    if func in COUNTING:
        return f"its shape is counted ({func})"
    if func in INDEXING and isinstance(args[0], Far):
        index = [i for i in args[1] if i is not None]
        if not all(isinstance(i, Far) for i in index):
            return "an index is copied to the device"
        return "a mask is counted" if any(i.dtype == torch.bool for i in index) else None
    if any(t.ndim and not isinstance(t, Far) for t in found):
        return f"tensors of two devices meet ({func})"
    scalar_condition = func is aten.where.self and len(far) < len(found)
    return "a number is copied to the device" if scalar_condition else None


def place() -> str:
    """Where in the project's sources the present call stands."""
    root = Path(loop.__file__).parents[2]
    own = [f for f in traceback.extract_stack() if Path(f.filename).is_relative_to(root) and __file__ != f.filename]
    own = [f for f in own if ".venv" not in f.filename]
    return f"{Path(own[-1].filename).relative_to(root)}:{own[-1].lineno}" if own else "outside"


class BetweenSteps(Listener):
    """Keeps what was noted from the end of one step to that of the next one of the same epoch."""

    def __init__(self) -> None:
        self.kept: Counter[str] = Counter()
        self.inside = False

    def step(self, images: int, steps: int = 1) -> None:
        if self.inside:
            self.kept.update(waits)
        waits.clear()
        self.inside = True

    def epoch(self, entry: Any) -> None:
        self.inside = False


def taken_far(model: nn.Module) -> None:
    """Replace the weights and buffers of a network by such that pretend to lie on DEVICE."""
    moved: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                far = nn.Parameter(Far(weight.detach()), requires_grad=weight.requires_grad)
                module._parameters[name] = moved.setdefault(id(weight), far)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = Far(buffer)


@pytest.fixture
def pretending(monkeypatch):
    """Torch where it asks for the kind of a device, or takes a short cut past the operations."""

    def made_near(make: Any) -> Any:
        def made(data: Any, *, device: Any = None, **kwargs: Any) -> Tensor:
            tensor = data if isinstance(data, Far) else make(data, **kwargs)
            return tensor if device is None else tensor.to(device)

        return made

    for name in ("tensor", "as_tensor"):
        monkeypatch.setattr(torch, name, made_near(getattr(torch, name)))
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())
    monkeypatch.setattr(torch, "inference_mode", lambda on=True: torch.set_grad_enabled(not on))
    load, save = loop.load_fold, loop.save_fold
    monkeypatch.setattr(loop, "load_fold", lambda file, device: load(file, torch.device("cpu")))
    monkeypatch.setattr(loop, "save_fold", lambda file, made: save(file, replace(made, images=near(made.images, []))))
    torch.set_num_threads(1)
    waits.clear()
    yield
    transfer._kept.cache_clear()


def small_job(name: str, folder: Path, listener: Listener) -> Job | None:
    """A training of a method, two steps an epoch; None where it takes no steps."""
    available = plugins()
    plugin = available.method(name)
    world = World(plugin=plugin, plugins=available, folder=folder)
    if plugin.card.readout_of or not world.has_steps:
        return None
    recipe = replace(RECIPE, epochs=1, batch_size=8)
    return world.job(world.fold((8, 4, 2, 2)), recipe=recipe, listener=listener)


@pytest.mark.slow
@pytest.mark.training
@pytest.mark.parametrize("name", sorted(set(METHODS) - set(BY_NATURE)))
def test_a_step_of_a_built_in_method_does_not_wait_for_the_device(name, tmp_path, pretending):
    listener = BetweenSteps()
    if (job := small_job(name, tmp_path, listener)) is None:
        return
    job.method.ctx = job.ctx = replace(job.ctx, device=DEVICE)
    taken_far(job.model)
    job.view = replace(job.view, images=Far(job.view.images))
    job.val = replace(job.val, images=Far(job.val.images[:4]), labels=job.val.labels[:4])
    with Pretend():
        loop.fit(job)
    assert listener.kept == {}


def test_what_waits_for_the_device_is_noted(pretending):
    x, y = Far(torch.arange(6.0).reshape(3, 2)), Far(torch.tensor([0, 1, 1]))
    waiting_ones = {
        "read as a number": lambda: float(x.sum()),
        "copied from the device": lambda: y.cpu(),
        "copied to the device": lambda: torch.tensor([1.0, 2.0], device=x.device),
        "a mask is counted": lambda: x[y > 0],
        "an index is copied to the device": lambda: x[torch.tensor([0, 2])],
        "its shape is counted (aten.nonzero.default)": lambda: y.nonzero(),
        "its shape is counted (aten.bincount.default)": lambda: torch.bincount(y, minlength=3),
        "tensors of two devices meet (aten.mul.Tensor)": lambda: x * torch.ones(3, 2),
    }
    with Pretend():
        for reason, call in waiting_ones.items():
            waits.clear()
            call()
            assert [note.rsplit(",", 1)[0] for note in waits] == [reason]


def test_what_does_not_wait_for_the_device_is_right_and_not_noted(pretending):
    x, y = Far(torch.arange(6.0).reshape(3, 2)), Far(torch.tensor([0, 1, 1]))
    with Pretend():
        weights = constant(np.array([1.0, 3.0]), x.device)  # the first time it is copied
        waits.clear()
        found = [
            (constant(np.array([1.0, 3.0]), x.device)[y], [1.0, 3.0, 3.0]),
            (to_device(torch.tensor([2, 0]), x.device), [2, 0]),
            (torch.where(y == 0, 0.5, 1.0), [0.5, 1.0, 1.0]),
            (x.masked_fill(y[:, None] == 1, 0.0).sum(1), [1.0, 0.0, 0.0]),
            (torch.nn.functional.one_hot(y, 2).sum(0), [1, 2]),
        ]
    assert waits == {}
    assert weights.near.tolist() == [1.0, 3.0]
    assert [far.near.tolist() for far, _ in found] == [expected for _, expected in found]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_does_not_wait_for_a_gpu(tmp_path, monkeypatch):
    left, opened = [0], loop.DataPlane.epoch

    def epoch(plane: Any, *args: Any) -> Any:
        left[0], batches = opened(plane, *args)
        return left[0], batches

    class Strict(Listener):
        """From the end of the first step of an epoch to that of the last one, waiting is an error."""

        def step(self, images: int, steps: int = 1) -> None:
            left[0] -= 1
            torch.cuda.set_sync_debug_mode("error" if left[0] else "default")

    monkeypatch.setattr(loop.DataPlane, "epoch", epoch)
    device, failed = Runtime(device="cuda").resolve(), {}
    for name in set(METHODS) - set(BY_NATURE):
        if (job := small_job(name, tmp_path / name, Strict())) is None:
            continue
        job.method.ctx = job.ctx = replace(job.ctx, device=device)
        job.model.to(device)
        job.view = replace(job.view, images=job.view.images.to(device))
        job.val = replace(job.val, images=job.val.images.to(device))
        try:
            loop.fit(job)
        except RuntimeError as error:
            failed[name] = error
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert failed == {}
