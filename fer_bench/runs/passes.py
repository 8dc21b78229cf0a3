"""The passes of one process of the probe (:mod:`fer_bench.runs.probe`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fer_bench.base.files import write_array
from fer_bench.errors import FerBenchError
from fer_bench.rng import seed_all
from fer_bench.runs.order import Order
from fer_bench.runs.probe import PROCESSES, order_of


def run_passes(order: Order, images: int, logits_of: Callable[[np.ndarray, int], np.ndarray]) -> None:
    """Carry out the passes of one process, and leave the logits of each in the work folder.

    A pass that ends with an error of the method's is reported to the driver, and the next one begins.

    Parameters
    ----------
    images : int
        Number n of images.
    logits_of : callable
        Given an order of the images (int64 [n]) and the size of batches, their logits in this order, float32 [n, K].
    """
    number = order.given["number"]
    seed_all(order.spec.seed, "probe", number)  # a prediction that draws numbers moves too
    first = None
    for k, (name, batch) in enumerate(PROCESSES[number]):
        places = order_of(name, images, order.spec.seed, first)
        try:
            logits = logits_of(places, batch)
        except FerBenchError:
            raise
        except Exception as error:
            order.line.tell("failed_pass", number=k, error=f"{type(error).__name__}: {error}")
            continue
        restored = np.empty_like(logits)
        restored[places] = logits
        first = restored if first is None else first
        write_array(order.record.work / f"probe_{number}_{k}.npy", restored)
