"""Prediction and the batch-invariance probe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fer_bench.dataplane import prepare
from fer_bench.errors import TrainingError
from fer_bench.method import Method
from fer_bench.recipe import Recipe
from fer_bench.rng import numpy_generator

EVAL_BATCH = 512


@dataclass(frozen=True)
class Predictions:
    """Logits float32 [n, K] and, where the model gives them, features float32 [n, D]."""

    logits: np.ndarray
    features: np.ndarray | None


@contextmanager
def evaluating(model: nn.Module, recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Evaluation mode, no gradients, the recipe's precision; the model's mode is restored at the end."""
    modes = {m: m.training for m in model.modules()}
    model.eval()
    try:
        with torch.inference_mode(), autocast(recipe, device):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """bfloat16 autocast if the recipe asks for it."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bf16")


def predict(method: Method, model: nn.Module, images: Tensor, recipe: Recipe, *, estimator: bool = False,
            batch: int = EVAL_BATCH, features: bool = False) -> Predictions:  # fmt: skip
    """Predict uint8 images [n, C, H, W] on the device, in their order.

    With `estimator`, the method's fitted estimator scores the extracted features in place of the network's head.
    Features are collected on request only.
    """
    logits, collected = [], []
    with evaluating(model, recipe, images.device):
        for part in images.split(batch):
            x = prepare(part, recipe.image_size)
            if estimator:
                collected.append(method.extract(model, x).float())
                continue
            output = method.predict(model, x)
            logits.append(output.logits.float())
            if features and output.features is not None:
                collected.append(output.features.float())
    kept = torch.cat(collected).cpu().numpy() if collected else None
    if estimator:
        assert kept is not None
        return Predictions(np.asarray(method.predict_estimator(kept), dtype=np.float32), kept)
    return Predictions(torch.cat(logits).cpu().numpy(), kept)


def check_logits(logits: np.ndarray, n: int, classes: int, owner: str) -> None:
    """Raise TrainingError unless logits are finite and of shape [n, classes]."""
    if logits.shape != (n, classes):
        raise TrainingError(f"'{owner}' predicts an array of shape {logits.shape}, expected ({n}, {classes})")
    if not np.isfinite(logits).all():
        raise TrainingError(f"'{owner}' predicts values that are not finite", hint="try a lower lr, or precision fp32")


def probe(method: Method, model: nn.Module, images: Tensor, labels: np.ndarray, recipe: Recipe, *, seed: int,
          estimator: bool = False, adjust: bool = False) -> dict[str, Any]:  # fmt: skip
    """Predict the same images alone, in other batch sizes and in other orders, and compare.

    A prediction that moves depends on the other images of its batch: the method is transductive. The probe runs in
    float32 without TF32, where rounding moves logits by about 1e-5 of their spread.

    Returns
    -------
    dict
        ``transductive`` (bool), ``images``, ``tolerance`` and one entry a check with the largest difference of a logit
        and the number of predicted classes that changed.
    """
    exact = type(recipe)(**{**recipe.to_dict(), "precision": "fp32"})
    rng = numpy_generator(seed, "probe")
    n = len(images)

    def logits(order: np.ndarray, batch: int) -> np.ndarray:
        index = torch.as_tensor(order, device=images.device)
        found = predict(method, model, images[index], exact, estimator=estimator, batch=batch, features=adjust)
        out = np.empty((n, found.logits.shape[1]), np.float64)
        out[order] = method.adjust(found.logits, found.features) if adjust else found.logits
        return out

    in_order = np.arange(n)
    trials = {
        "alone": (in_order, 1),
        "batches of 7": (in_order, 7),
        "batches of 64": (in_order, 64),
        "random order, batches of 64": (rng.permutation(n), 64),
        "sorted by class, batches of 64": (np.argsort(labels, kind="stable"), 64),
    }
    with _no_tf32(), torch.compiler.set_stance("force_eager"):
        base = logits(in_order, EVAL_BATCH)
        checks = [_compare(name, base, lambda t=trial: logits(*t)) for name, trial in trials.items()]  # type: ignore[misc]
    tolerance = 1e-3 * max(float(base.std()), 1e-3)
    moved = any(c["max_difference"] is None or c["max_difference"] > tolerance for c in checks)
    return {"transductive": moved, "images": n, "tolerance": tolerance, "checks": checks}


def _compare(name: str, base: np.ndarray, again: Callable[[], np.ndarray]) -> dict[str, Any]:
    """One check. A method that can't predict in some batch at all depends on it: it is flagged, and the run is kept."""
    try:
        other = again()
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        return {"name": name, "max_difference": None, "flipped": None, "error": told}
    flipped = int((other.argmax(1) != base.argmax(1)).sum())
    return {"name": name, "max_difference": float(np.abs(other - base).max()), "flipped": flipped}


@contextmanager
def _no_tf32() -> Iterator[None]:
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn
