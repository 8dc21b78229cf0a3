"""What a process of a run is given: its order, the line to its driver, and the method, imported under guard."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from fer_bench.contract.batch import Context
from fer_bench.contract.card_reader import read_card
from fer_bench.contract.cards import Card, MethodCard
from fer_bench.contract.method import Method
from fer_bench.contract.plugins import Plugin
from fer_bench.contract.sources import Tree
from fer_bench.contract.streamed import Images
from fer_bench.data.store import Store
from fer_bench.errors import SpecError
from fer_bench.record.ledger import RunWriter
from fer_bench.runs.images import Choice, choose, load, stream
from fer_bench.runs.spec import RunSpec
from fer_bench.seal import Guard
from fer_bench.training.job import Runtime

Arrays = Mapping[str, np.ndarray]


class Line(Protocol):
    """A process's line to its driver."""

    def tell(self, kind: str, **message: Any) -> None:
        """Send a message."""

    def ask(self, kind: str, **message: Any) -> Any:
        """Send a message and wait for the reply."""


@dataclass(frozen=True)
class Order:
    """What a process is asked to do; plain data, made by :mod:`fer_bench.runs.executor`.

    `open` holds what must be closed when the process has done it.
    """

    given: Mapping[str, Any]
    arrays: Arrays
    line: Line
    open: ExitStack = field(default_factory=ExitStack, compare=False)

    @cached_property
    def spec(self) -> RunSpec:
        """The run."""
        return RunSpec.from_dict(self.given["spec"])

    @cached_property
    def runtime(self) -> Runtime:
        """How it is carried out."""
        return Runtime(**self.given["runtime"])

    @property
    def record(self) -> RunWriter:
        """The run's record."""
        return RunWriter(Path(self.given["record"]))

    @cached_property
    def plugin(self) -> Plugin[Card]:
        """The method's plug-in."""
        return plugin_of(self.given["plugin"])

    def images(self, parts: Mapping[str, np.ndarray], device: torch.device) -> dict[str, Images]:
        """Images of the store rows of each part, uint8 [n, C, H, W]: on the device, or streamed from the store.

        Raises
        ------
        ChangedStoreError
            The store has changed since the driver opened it.
        OutOfMemoryError
            They don't fit in the memory that they were to be in.
        SpecError
            They are to be streamed, and the method needs them in memory.
        """
        state, shape = self.given["store"], self.given["shape"]
        store = Store(Path(state["path"]), {"fingerprint": state["fingerprint"]}, state["states"])
        size = sum(map(len, parts.values())) * math.prod(shape)
        runtime = self.runtime
        choice = choose(runtime.images, size, device, beside=runtime.beside, memory=runtime.memory)
        needs_all = choice.streamed and "train" in parts and self._needs_memory
        if needs_all:  # it is not refused for its share alone: it may still fit into what is free
            choice = choose(runtime.images, size, device)
        if not choice.streamed:
            return {name: load(store, rows, device, choice) for name, rows in parts.items()}
        if needs_all:
            raise _needs_memory(self.spec.method, choice)
        self.line.tell("note", text=f"images of {' and '.join(parts)} are streamed from disk: {choice.reason}")
        return stream(store, parts, device, self.open)

    @property
    def _needs_memory(self) -> bool:
        """Whether the method must have all its training images in memory."""
        card = self.plugin.card
        return isinstance(card, MethodCard) and "memory" in card.needs

    def method(self, device: torch.device) -> Method:
        """The method, imported under guard, with its context."""
        guard(self)
        method: Method = self.plugin.load()(self.spec.params)
        given = self.given
        method.ctx = context_of(self.spec, given["shape"], given["classes"], given["counts"], device)
        return method


def context_of(
    spec: RunSpec, shape: Sequence[int], classes: Sequence[str], counts: Sequence[int], device: torch.device
) -> Context:
    """What the method of a run is told: stored images have the shape (C, H, W), training classes these counts."""
    channels, height, width = shape
    size = spec.recipe.image_size
    return Context(
        classes=tuple(classes),
        counts=np.asarray(counts, dtype=np.int64),
        image_shape=(channels, size or height, size or width),
        stored_shape=(channels, height, width),
        seed=spec.seed,
        epochs=spec.recipe.epochs,
        batch_size=spec.recipe.batch_size,
        device=device,
        recipe=spec.recipe.to_dict(),
    )


def plugin_of(given: Mapping[str, Any]) -> Plugin[Card]:
    """The plug-in that :func:`fer_bench.runs.readout.plugin_facts` describes."""
    path, tree = Path(given["path"]), Tree(Path(given["tree"][0]), given["tree"][1])
    return Plugin("methods", read_card(path, tree), path, given["module"], given["origin"], tree)


def _needs_memory(method: str, choice: Choice) -> SpecError:
    return SpecError(
        f"'{method}' needs all training images in memory, and they are to be streamed: {choice.reason}",
        hint="a smaller `size` of the data set, an imbalance profile with fewer images, or a machine with more memory",
        next="the same command with --images memory",
    )


def guard(order: Order) -> None:
    """Refuse the test's files from here on."""
    noted: set[tuple[str, str]] = set()

    def report(event: str, file: str) -> None:
        if (event, file) not in noted:
            noted.add((event, file))
            order.line.tell("blocked", event=event, file=file)

    Guard(order.arrays["guarded"], order.given["folders"], order.given["record"], report).close()
