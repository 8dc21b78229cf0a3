"""What a method costs beside plain cross-entropy: time of training, memory of a step, weights, state."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fer_bench.base.scratch import scratch
from fer_bench.conformance.promise import DoesNotApply
from fer_bench.conformance.world import RECIPE, Watch, World
from fer_bench.contract.batch import LossOut
from fer_bench.contract.cards import MethodCard
from fer_bench.contract.method import Method
from fer_bench.contract.plugins import Plugin, Plugins
from fer_bench.contract.sources import Tree
from fer_bench.training.plain import pack

ROUNDS = 5
EPOCHS = 10  # of the recipe by which stages are weighed
COUNTS = (32, 16, 12, 4)  # four steps an epoch


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a method takes beside plain cross-entropy, on the kit's ResNet, with 64 images in batches of 16.

    Attributes
    ----------
    time : float
        CPU seconds of the steps of all its stages under a recipe of ten epochs, over those of plain cross-entropy.
    kept : float
        Bytes that its largest training step keeps for the backward pass, over those of plain cross-entropy.
    weights : float
        Numbers in its parameters and buffers, over those of a plain network.
    state : int
        Bytes of ``state_dict()``, which a plain network has none of.
    """

    time: float
    kept: float
    weights: float
    state: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def cost(plugin: Plugin[MethodCard], available: Plugins, *, rounds: int = ROUNDS) -> Cost:
    """Measure a method in this process, in turn with plain cross-entropy. Bytes are exact; times are the least of all.

    Raises
    ------
    DoesNotApply
        It trains nothing by gradient descent.
    """
    if plugin.card.readout_of:
        raise DoesNotApply("it trains no network of its own")
    with scratch() as folder:
        own = World(plugin=plugin, plugins=available, folder=folder / "own")
        if not own.has_steps:
            raise DoesNotApply("no stage trains by gradient descent")
        here = Tree(Path(__file__).parent, "fer_bench.conformance")
        card = replace(Method.card, needs=own.card.needs)
        base = _Plain(
            plugin=Plugin("methods", card, Path(__file__), __name__, "built in", here), plugins=available,
            folder=folder / "plain",
        )  # fmt: skip
        meters = [(_measured(base), _measured(own)) for _ in range(rounds)]
    plain, method = meters[-1]
    return Cost(
        time=_seconds(own, [m for _, m in meters]) / _seconds(base, [m for m, _ in meters]),
        kept=method.kept / plain.kept,
        weights=method.weights / plain.weights,
        state=method.state,
    )


def _seconds(world: World, meters: Sequence[_Meter]) -> float:
    """What the stages of a method would take with a recipe of ten epochs: the least time of an epoch of each."""
    gradient = [stage for stage in world.stages if stage.kind == "gradient"]
    return sum(min(m.seconds[s.name] for m in meters) * s.length(EPOCHS) for s in gradient)


class _Plain(World):
    """The contract's own defaults."""

    @property
    def cls(self) -> type[Method]:  # type: ignore[override]
        """Plain cross-entropy."""
        return Method


@dataclass
class _Meter(Watch):
    """Times the steps of every epoch, and counts what autograd keeps of each."""

    seconds: dict[str, float] = field(default_factory=dict)  # of an epoch of each stage
    kept: int = 0
    weights: int = 0
    state: int = 0
    _started: float = 0.0
    _storages: dict[int, int] = field(default_factory=dict)

    def over(self, method: Method, model: nn.Module) -> None:
        """Wrap the hooks of one instance."""
        step, begin, end = method.training_step, method.on_epoch_start, method.on_epoch_end
        own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}

        def training_step(network: nn.Module, batch: Any) -> LossOut:
            with self._counting(own):
                made = step(network, batch)
            self.kept = max(self.kept, sum(self._storages.values()))
            return made

        def on_epoch_start(epoch: int, network: nn.Module) -> None:
            self._started = time.process_time()
            begin(epoch, network)

        def on_epoch_end(epoch: int, stats: Mapping[str, float]) -> None:
            end(epoch, stats)
            spent = time.process_time() - self._started
            stage = method.moment[0]
            self.seconds[stage] = min(spent, self.seconds.get(stage, spent))

        vars(method).update(training_step=training_step, on_epoch_start=on_epoch_start, on_epoch_end=on_epoch_end)

    def _counting(self, own: set[int]) -> AbstractContextManager[Any]:
        """While it is open, the storages that autograd keeps are noted, without the weights and each one once."""
        self._storages = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                self._storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        return torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)


def _measured(world: World) -> _Meter:
    meter = _Meter()
    trained = world.train(world.fold(COUNTS), recipe=replace(RECIPE, epochs=1), watch=meter)
    meter.weights = sum(v.numel() for v in trained.job.model.state_dict().values())
    meter.state = _bytes(pack(trained.job.method.state_dict()))
    return meter


def _bytes(value: Any) -> int:
    """Bytes of the tensors and texts of a packed state; eight for a number."""
    if isinstance(value, Mapping):
        return sum(_bytes(v) for v in value.values())
    if isinstance(value, (list, tuple)):
        return sum(map(_bytes, value))
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return len(value) if isinstance(value, str) else 8 * isinstance(value, (int, float))
