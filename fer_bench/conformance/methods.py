"""All promises of methods, in the order in which they are checked: what fails cheaply is told first."""

from __future__ import annotations

from fer_bench.conformance import batch_promises, method_cards, sealed, training_promises, variant_promises
from fer_bench.conformance.cost import Cost, cost
from fer_bench.conformance.promise import Promise
from fer_bench.conformance.world import World

__all__ = ["PROMISES", "Cost", "World", "cost"]

PROMISES: tuple[Promise[World], ...] = (
    *method_cards.PROMISES,
    *training_promises.PROMISES,
    *batch_promises.PROMISES,
    *training_promises.AFTER_CLASSES,
    *variant_promises.PROMISES,
    *sealed.PROMISES,
)
