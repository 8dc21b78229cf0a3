"""The method contract: the one class that every method derives from.

The defaults are plain cross-entropy. A new loss overrides :meth:`Method.criterion`; class or sample weights
:meth:`Method.image_weights`; a new sampler :meth:`Method.streams`; a two-stage method :meth:`Method.stages`; and so on.
Hooks run in this order::

    build_model -> on_fit_start
      for each stage:  resample | fit_estimator | generate | on_stage_start
        for each epoch:  on_epoch_start
          for each batch:  on_batch -> training_step (criterion, image_weights) -> backward -> grad_hook -> on_step_end
          on_epoch_end -> before_eval -> predict (validation, by the harness)
    for each epoch that may be selected:  load_state_dict -> fit_posthoc -> adjust (validation)

A hook sees the training fold through ``self.ctx`` and the :class:`TrainView` it is given. Validation is scored by the
harness. The test is predicted in a fresh process, by a new instance of the method that has been given the weights and
what :meth:`Method.state_dict` returned, and none of the training hooks (:mod:`fer_bench.seal`)::

    build_model -> load_state_dict -> predict (test, by the harness) -> adjust

:meth:`Method.insight` is asked after a run, for pictures (``fer-bench explain``); no number of a run depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench.contract.backbones import Classifier, Trunk
from fer_bench.contract.batch import (
    Batch,
    Context,
    LossOut,
    Output,
    Params,
    Resampled,
    StreamSpec,
    TrainView,
    ValOutputs,
)
from fer_bench.contract.cards import MethodCard
from fer_bench.errors import SpecError, TrainingError

Shifted = Callable[[Sequence[Tensor | None]], AbstractContextManager[None]]
"""Shifts [one for each parameter of the model, None for none] -> a context in which the weights are moved by them."""

STAGE_KINDS = ("gradient", "resample", "estimator", "generate")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One step of a method.

    Parameters
    ----------
    name : str
    kind : {"gradient", "resample", "estimator", "generate"}
        "gradient" trains by gradient descent; "resample" replaces the training fold through
        :meth:`Method.resample`; "generate" replaces it through :meth:`Method.generate` using the trained model;
        "estimator" fits :meth:`Method.fit_estimator` on features of the training fold.
    epochs : int or float or None
        A number of epochs (int), a share of the recipe's epochs (float), or the recipe's (None).
    freeze : tuple of str
        Prefixes of parameter names that do not learn; their BatchNorm layers stay in evaluation mode.
    reinit : tuple of str
        Prefixes of modules that are re-initialised when the stage starts.
    lr_scale : float
        Factor on the recipe's learning rate.
    """

    name: str = "train"
    kind: str = "gradient"
    epochs: int | float | None = None
    freeze: tuple[str, ...] = ()
    reinit: tuple[str, ...] = ()
    lr_scale: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in STAGE_KINDS:
            raise SpecError(f"stage '{self.name}' has unknown kind '{self.kind}'", hint=", ".join(STAGE_KINDS))
        if self.epochs is not None and self.epochs <= 0:
            raise SpecError(f"stage '{self.name}' can't last {self.epochs} epochs", hint="None: the recipe's epochs")

    def length(self, recipe_epochs: int) -> int:
        """Epochs of this stage; 0 for stages that do not train by gradient."""
        if self.kind != "gradient":
            return 0
        if self.epochs is None:
            return recipe_epochs
        return self.epochs if isinstance(self.epochs, int) else max(1, round(self.epochs * recipe_epochs))


@dataclass(frozen=True, kw_only=True)
class Insight:
    """What a trained method can tell of how it sees a batch of images, for ``fer-bench explain``.

    Attributes
    ----------
    maps : mapping of str to tensor [B, h, w]
        Where the network looks, by name: finite and not negative, on any scale. A map may be of any size; it is
        stretched over the image.
    shares : tensor [B, S], optional
        What each image draws on: not negative, rows sum to 1.
    sources : tuple of str
        Names of the S sources, such as class names or "atom 3".
    """

    maps: Mapping[str, Tensor] = field(default_factory=dict)
    shares: Tensor | None = None
    sources: tuple[str, ...] = ()


class Method:
    """Plain cross-entropy; the base of every method.

    Subclasses set nothing but what they change. ``self.params`` holds the resolved parameters of the card,
    ``self.ctx`` the :class:`Context`, set by the harness before the first hook.
    """

    card: MethodCard = MethodCard(name="unnamed", title="")
    ctx: Context
    moment: tuple[str, int, int] = ("", 0, 0)
    """Stage, epoch and step that are being trained; set by the harness before each :meth:`training_step`."""

    def __init__(self, params: Mapping[str, Any] | None = None):
        self.params = Params(self.card.resolve({}) if params is None else params)

    # -- what is trained ---------------------------------------------------------------------------------------------

    def stages(self) -> list[Stage]:
        """The stages, in order. At least one must be of kind "gradient" or "estimator"."""
        return [Stage()]

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """The network. ``backbone()`` gives a fresh :class:`fer_bench.Trunk`; call it once a branch."""
        return Classifier(backbone(), self.ctx.num_classes)

    def streams(self, stage: Stage) -> dict[str, StreamSpec]:
        """Batch streams of a stage; "main" sets the epoch's length, the others cycle beside it in ``batch.aux``."""
        return {"main": StreamSpec()}

    def param_groups(self, model: nn.Module, stage: Stage) -> list[dict] | None:
        """Optimiser groups; None lets the harness split weights from biases and norms (which get no decay)."""
        return None

    # -- the training fold -------------------------------------------------------------------------------------------

    def resample(self, stage: Stage, view: TrainView) -> Resampled:
        """Replace the training fold in a "resample" stage."""
        return Resampled(index=np.arange(len(view)))

    def generate(self, stage: Stage, model: nn.Module, view: TrainView) -> Resampled:
        """Replace the training fold in a "generate" stage, using the trained model."""
        return Resampled(index=np.arange(len(view)))

    # -- hooks -------------------------------------------------------------------------------------------------------

    def on_fit_start(self, model: nn.Module, view: TrainView) -> None:
        """Called once, before the first stage (and again on resume, before the state is loaded)."""

    def on_stage_start(self, stage: Stage, model: nn.Module, view: TrainView) -> None:
        """Called when a stage starts; `view` is the fold as resampled so far."""

    def on_epoch_start(self, epoch: int, model: nn.Module) -> None:
        """Called before each epoch, counted from 0 over all stages."""

    def on_batch(self, batch: Batch) -> Batch:
        """Change a batch before the forward pass (mixup, pasting); draw from ``batch.generator``.

        The harness smooths the targets afterwards.
        """
        return batch

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """Loss of one batch; by default :meth:`batch_loss` on the first view."""
        output = model(batch.x)
        expected = (len(batch.y), self.ctx.num_classes)
        if tuple(output.logits.shape) != expected:
            raise TrainingError(
                f"the model of '{self.card.name}' gives logits of shape {tuple(output.logits.shape)}, not {expected}",
                where="build_model",
            )
        return LossOut(total=self.batch_loss(output, batch), output=output)

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Loss from the output and hard [B] or soft [B, K] targets; both must agree on one-hot targets.

        Either a scalar, the mean over images, or one value for each image [B], which :meth:`image_weights` needs. It
        must not weigh classes itself: smoothing gives every image a little of the target of every class, and a weight
        of the rarest class would multiply that share as well.
        """
        return F.cross_entropy(output.logits, target)

    def image_weights(self, batch: Batch) -> Tensor | None:
        """Weight of each image in the loss, float [B]; None weighs all alike.

        ``batch.expected(class_weights)`` weighs images by the classes of their labels before smoothing. The loss is
        Σ_i w_i l_i / B; a method that divides by the weights of the batch instead returns w / mean(w).
        """
        return None

    def batch_loss(self, output: Output, batch: Batch) -> Tensor:
        """Scalar: the mean over images of :meth:`criterion` times :meth:`image_weights`; not to be overridden.

        A training step with several outputs or streams calls it for each.
        """
        return self.weighted_mean(self.criterion(output, batch.target), batch)

    def weighted_mean(self, losses: Tensor, batch: Batch) -> Tensor:
        """Scalar: the mean over images of `losses` [B] times :meth:`image_weights`; not to be overridden.

        Raises
        ------
        TrainingError
            Images have weights, but there is no loss for each.
        """
        weights = self.image_weights(batch)
        if weights is None:
            return losses.mean() if losses.ndim else losses
        if losses.shape != weights.shape or losses.ndim != 1:
            raise TrainingError(
                f"the criterion of '{self.card.name}' gives a loss of shape {tuple(losses.shape)} for image weights of "
                f"shape {tuple(weights.shape)}",
                where="criterion",
                hint="return one value for each image, as F.cross_entropy(..., reduction='none') does",
            )
        return (weights * losses).mean()

    def generator(self, *names: str | int) -> torch.Generator:
        """A CPU generator for draws inside :meth:`training_step` and :meth:`criterion`, the same for the same step.

        It depends on the seed, the stage, the epoch, the step and the names alone. So a resumed run repeats its draws,
        and a second pass over a batch (:meth:`backward`) meets the same noise as the first.
        """
        return self.ctx.generator("step", *self.moment, *names)

    def backward(self, model: nn.Module, batch: Batch, loss: LossOut, shifted: Shifted) -> None:
        """Leave the gradient of the step in the parameters' ``grad``; by default that of the loss.

        Sharpness-aware methods look at the loss at other weights as well::

            loss.total.backward()
            shifts = [rho * p.grad / norm if p.grad is not None else None for p in model.parameters()]
            with shifted(shifts):
                model.zero_grad()
                self.training_step(model, batch).total.backward()

        Inside ``shifted(...)``, the weights are moved, and dropout, the batch's generator and :meth:`generator` repeat
        the draws of the first pass. After it, the weights and all buffers (BatchNorm's running statistics among them)
        are bitwise what they were before it: the second pass leaves nothing behind but gradients. The context may be
        entered several times, but not within itself.
        """
        loss.total.backward()

    def grad_hook(self, model: nn.Module) -> None:
        """Called after the backward pass, before clipping and the optimiser's step."""

    def on_step_end(self, model: nn.Module, batch: Batch, loss: LossOut) -> None:
        """Called after the optimiser's step (queues, centres, running counts)."""

    def on_epoch_end(self, epoch: int, stats: Mapping[str, float]) -> None:
        """Called after each epoch with training statistics only."""

    # -- reading out -------------------------------------------------------------------------------------------------

    def before_eval(self, model: nn.Module, batches: Callable[[], Iterable[Batch]]) -> None:
        """Called before each evaluation; ``batches()`` iterates the training fold once, unaugmented, in order."""

    def predict(self, model: nn.Module, x: Tensor) -> Output:
        """Output for images `x` [B, C, H, W]; each image must be read alone, or the probe flags the method."""
        return model(x)

    def fit_posthoc(self, model: nn.Module, val: ValOutputs) -> None:
        """Fit a read-out adjustment on validation outputs of one epoch, and keep it in the state.

        Called for each epoch that may be selected, after the weights and the state of that epoch have been loaded.
        """

    def adjust(self, logits: np.ndarray, features: np.ndarray | None) -> np.ndarray:
        """Adjusted logits [n, K], each row from its own row alone. Always called after :meth:`fit_posthoc`."""
        return logits

    def insight(self, model: nn.Module, x: Tensor) -> Insight:
        """Where the network looks in images `x` [B, C, H, W], and what it draws on; nothing by default.

        `model` is in evaluation mode, and gradients are off. Each image is to be read alone.
        """
        return Insight()

    def extract(self, model: nn.Module, x: Tensor) -> Tensor:
        """Features [B, D] that an estimator stage is fitted on; by default the model's pooled features."""
        features = self.predict(model, x).features
        if features is None:
            raise SpecError(f"{self.card.name} has an estimator stage but its model gives no features")
        return features

    def fit_estimator(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Fit a classical estimator on features [N, D] in an "estimator" stage."""
        raise TrainingError(f"{self.card.name} has an estimator stage but no fit_estimator")

    def predict_estimator(self, features: np.ndarray) -> np.ndarray:
        """Scores [n, K] of the fitted estimator; they take the place of logits."""
        raise TrainingError(f"{self.card.name} has an estimator stage but no predict_estimator")

    # -- state -------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything beyond the model's weights that a resumed run, or the process that scores the test, needs.

        Plain data only (:func:`fer_bench.training.plain.pack`): tensors, arrays, numbers, strings, None, lists, tuples,
        sets and dicts of them, and fitted scikit-learn or imbalanced-learn estimators.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""


def checked(value: Any, kind: type, hook: str, method: Method) -> Any:
    """What a hook returned; raises TrainingError unless it is of the kind that the contract asks for."""
    if not isinstance(value, kind):
        what = f"{hook}() of '{method.card.name}' must return a {kind.__name__}, not {type(value).__name__}"
        raise TrainingError(what, where=hook, hint="does it end without `return`?" if value is None else None)
    if isinstance(value, LossOut) and (value.total.numel() != 1 or not value.total.requires_grad):
        what = f"the loss of '{method.card.name}' must be one number that depends on the learning weights"
        actual = f"shape {tuple(value.total.shape)}, requires_grad {value.total.requires_grad}"
        several = "; self.batch_loss(output, batch) takes the mean" if value.total.numel() != 1 else ""
        raise TrainingError(what, where=hook, hint=f"it has {actual}{several}")
    return value


def checked_insight(value: Any, images: int, method: Method) -> Insight:
    """What :meth:`Method.insight` returned for `images` images.

    Raises
    ------
    TrainingError
        It is no Insight, or its shapes or values are not what the class asks for.
    """
    insight: Insight = checked(value, Insight, "insight", method)
    for name, given in insight.maps.items():
        wrong = _wrong(given, f"[{images}, h, w]", lambda shape: len(shape) == 3 and shape[0] == images)
        if wrong:
            raise _no_insight(method, f"map '{name}' {wrong}")
    shares, sources = insight.shares, insight.sources
    if len(set(sources)) < len(sources):
        raise _no_insight(method, "two sources have the same name")
    if shares is None:
        if sources:
            raise _no_insight(method, f"it names {len(sources)} sources but gives no shares")
        return insight
    expected = (images, len(sources))
    if wrong := _wrong(shares, f"{list(expected)}, one column for each of `sources`", lambda shape: shape == expected):
        raise _no_insight(method, f"shares {wrong}")
    sums = shares.float().sum(1)
    if bool(((sums - 1).abs() > SHARE_TOLERANCE).any()):
        raise _no_insight(method, f"rows of shares must sum to 1; they sum to {sums.min():.4g} to {sums.max():.4g}")
    return insight


SHARE_TOLERANCE = 0.01  # of the sums of shares, which may be bfloat16


def _wrong(given: Any, expected: str, fits: Callable[[tuple[int, ...]], bool]) -> str:
    """What is wrong with a tensor of finite values that are not negative; empty if nothing is."""
    if not isinstance(given, Tensor):
        return f"must be a tensor, not {type(given).__name__}"
    if not fits(tuple(given.shape)):
        return f"has shape {list(given.shape)}, expected {expected}"
    if not bool(torch.isfinite(given).all()):
        return "has values that are not finite"
    return f"has negative values, down to {given.min():.3g}" if bool((given < 0).any()) else ""


def _no_insight(method: Method, what: str) -> TrainingError:
    return TrainingError(f"insight() of '{method.card.name}': {what}", where="insight")
