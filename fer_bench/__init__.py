"""fer-bench: a benchmarking and class-imbalance-study suite for facial expression recognition.

The names below are the public API, for methods, datasets and scripts. They are imported on first use, so that
``import fer_bench`` costs nothing and reading cards imports no torch. It sets how threads
wait, unless the user has (:func:`fer_bench.base.process.wait_passively`), which counts if torch is imported later.
"""

from importlib import import_module
from typing import Any

from fer_bench.base.process import wait_passively

__version__ = "0.1.0"

_PUBLIC = {
    "fer_bench.base.process": ("cores",),
    "fer_bench.conformance.check": ("conforms",),
    "fer_bench.contract.arms": ("Arm",),
    "fer_bench.contract.cards": ("DatasetCard", "Fetch", "MethodCard", "Protocol", "Relabelling"),
    "fer_bench.contract.params": ("Choice", "Float", "Int", "Param", "Scale"),
    "fer_bench.contract.dataset": ("Chunk", "Dataset", "Problems", "Reading"),
    "fer_bench.contract.batch": (
        "Augment",
        "Batch",
        "Context",
        "LossOut",
        "Output",
        "Resampled",
        "StreamSpec",
        "TrainView",
        "ValOutputs",
        "shuffle",
    ),
    "fer_bench.contract.method": ("Insight", "Method", "Stage"),
    "fer_bench.contract.modes": ("evaluation_mode",),
    "fer_bench.contract.plugins": ("load_plugin",),
    "fer_bench.contract.backbones": ("Classifier", "Trunk"),
    "fer_bench.contract.branches": ("Branches",),
    "fer_bench.contract.transfer": ("constant", "to_device"),
    "fer_bench.data.image_files": (
        "IMAGE_TREATMENTS",
        "ImageFit",
        "ImageHeader",
        "UnreadableImage",
        "decode_image",
        "image_header",
    ),
    "fer_bench.errors": ("ConformanceError", "DataError", "FerBenchError", "SpecError", "missing_library"),
    "fer_bench.inference.predict": ("predict",),
    "fer_bench.reports.facts.tidy": ("predictions", "results"),
    "fer_bench.rng": ("numpy_generator", "stream_seed", "torch_generator"),
    "fer_bench.stats.metrics": ("Metric", "MetricContext"),
}
wait_passively()
_HOME = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fer_bench' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
