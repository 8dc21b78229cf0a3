"""Prediction by the harness."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fer_bench.contract.method import Insight, Method, checked_insight
from fer_bench.contract.modes import evaluation_mode
from fer_bench.contract.streamed import Images
from fer_bench.errors import TrainingError
from fer_bench.training.dataplane import prepare
from fer_bench.training.recipe import Recipe

EVAL_BATCH = 512


@dataclass(frozen=True)
class Predictions:
    """Logits float32 [n, K] and, where the model gives them, features float32 [n, D]."""

    logits: np.ndarray
    features: np.ndarray | None


@contextmanager
def evaluating(model: nn.Module, recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Evaluation mode, no gradients, the recipe's precision; the model's mode is restored at the end."""
    with evaluation_mode(model), torch.inference_mode(), autocast(recipe, device):
        yield


def autocast(recipe: Recipe, device: torch.device) -> torch.autocast:
    """bfloat16 autocast if the recipe asks for it."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bf16")


def predict(method: Method, model: nn.Module, images: Images, recipe: Recipe, *, estimator: bool = False,
            batch: int = EVAL_BATCH, features: bool = False) -> Predictions:  # fmt: skip
    """Predict uint8 images [n, C, H, W], on the device or streamed, in their order.

    With `estimator`, the method's fitted estimator scores the extracted features in place of the network's head.
    Features are collected on request only. If the recipe says `test_flip`, logits and features are the means of those
    of an image and of its mirror image.
    """
    logits, collected = [], []
    with evaluating(model, recipe, images.device):
        for part in images.split(batch):
            x = prepare(part, recipe.image_size)
            sides = [x, x.flip(-1)] if recipe.test_flip else [x]
            if estimator:
                collected.append(_mean([method.extract(model, side) for side in sides]))
                continue
            outputs = [method.predict(model, side) for side in sides]
            logits.append(_mean([output.logits for output in outputs]))
            if features and (found := [o.features for o in outputs if o.features is not None]):
                collected.append(_mean(found))
    kept = torch.cat(collected).cpu().numpy() if collected else None
    if estimator:
        assert kept is not None
        return Predictions(np.asarray(method.predict_estimator(kept), dtype=np.float32), kept)
    return Predictions(torch.cat(logits).cpu().numpy(), kept)


def _mean(parts: list[Tensor]) -> Tensor:
    """The mean of tensors in float32."""
    return parts[0].float() if len(parts) == 1 else torch.stack([part.float() for part in parts]).mean(0)


def insight_of(method: Method, model: nn.Module, images: Tensor, recipe: Recipe) -> Insight:
    """What a method tells of one batch of uint8 images [n, C, H, W] on the device; TrainingError for wrong shapes."""
    with evaluating(model, recipe, images.device):
        return checked_insight(method.insight(model, prepare(images, recipe.image_size)), len(images), method)


def class_dtype(classes: int) -> type:
    """The smallest integer type that holds a class position."""
    return np.uint8 if classes <= 256 else np.uint16


def check_logits(logits: np.ndarray, n: int, classes: int, owner: str) -> None:
    """Raise TrainingError unless logits are finite and of shape [n, classes]."""
    if logits.shape != (n, classes):
        raise TrainingError(f"'{owner}' predicts an array of shape {logits.shape}, expected ({n}, {classes})")
    if not np.isfinite(logits).all():
        raise TrainingError(f"'{owner}' predicts values that are not finite", hint="try a lower lr, or precision fp32")


def adjusts(method: type[Method]) -> bool:
    """Whether a method changes logits after the network; a fixed change needs no :meth:`Method.fit_posthoc`."""
    return any(getattr(method, hook) is not getattr(Method, hook) for hook in ("fit_posthoc", "adjust"))


def adjusted(method: Method, logits: np.ndarray, features: np.ndarray | None) -> np.ndarray:
    """Logits after the method's own adjustment."""
    changed = np.asarray(method.adjust(logits, features))
    check_logits(changed, len(logits), method.ctx.num_classes, f"{method.card.name}.adjust")
    return changed


def predict_exactly(method: Method, model: nn.Module, images: Tensor, recipe: Recipe, *, batch: int,
                    estimator: bool = False, adjust: bool = False) -> np.ndarray:  # fmt: skip
    """Logits float32 [n, K] of `images` in float32 without TF32, for the probe; adjusted if `adjust`.

    Estimators and adjustments get the images of one batch at a time too: over all of them, what they read of the other
    images would be the same in every pass.
    """
    exact = type(recipe)(**{**recipe.to_dict(), "precision": "fp32"})
    parts = []
    with _plain_kernels(), torch.compiler.set_stance("force_eager"), evaluation_mode(model):
        for some in images.split(batch):
            predicted = predict(method, model, some, exact, estimator=estimator, batch=batch, features=adjust)
            logits = method.adjust(predicted.logits, predicted.features) if adjust else predicted.logits
            parts.append(np.asarray(logits, dtype=np.float32))
    return np.concatenate(parts)


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """A GPU's kernels without TF32, and without trials of all kernels on every new size of batch: they take seconds."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32 = cudnn.allow_tf32 = cudnn.benchmark = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before
