"""Whether the backbones of a study take its images: tried in a process of its own before anything is trained."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Iterable
from typing import Any

from fer_bench.data.store import Store
from fer_bench.errors import TrainingError
from fer_bench.runs import forkserver
from fer_bench.runs.executor import Workplace
from fer_bench.runs.failures import error_of
from fer_bench.runs.spec import RunSpec


def check_backbones(specs: Iterable[RunSpec], work: Workplace) -> None:
    """Put two images through each backbone of `specs`, the runs that are still to be trained.

    Raises
    ------
    SpecError
        A backbone can't take its images; the message names a size that works.
    WeightsError
        Pretrained weights do not exist or can't be loaded.
    """
    tried: list[dict[str, Any]] = []
    for spec in specs:
        channels, height, width = Store.open(work.home.store(spec.dataset)).shape
        size = spec.recipe.image_size
        setting: dict[str, Any] = {"name": spec.backbone, "shape": [channels, size or height, size or width]}
        setting |= {"pretrained": spec.pretrained, "drop_rate": spec.recipe.drop_rate}
        if setting not in tried:
            _try(setting, work)
            tried.append(setting)


def _try(setting: dict[str, Any], work: Workplace) -> None:
    messages: dict[str, dict[str, Any]] = {}

    def hear(message: dict[str, Any]) -> None:
        messages[message.pop("kind")] = message

    order = {"setting": setting, "runtime": dataclasses.asdict(work.runtime)}
    status = forkserver.SERVER.call("try", order, {}, hear)
    if failure := messages.get("error"):
        raise error_of(failure)
    if status:
        hint = "the system may have run out of memory" if status == -signal.SIGKILL else "see its output"
        raise TrainingError(f"the process that tried backbone '{setting['name']}' ended with {status}", hint=hint)
