"""What a stage trains and how: frozen and fresh parts, the optimiser, the schedule, the average of weights."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fer_bench.contract.method import Method, Stage
from fer_bench.errors import TrainingError
from fer_bench.rng import seed_all
from fer_bench.training.recipe import Recipe


def _named_under(model: nn.Module, prefixes: Iterable[str]) -> Iterable[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        if any(name == p or name.startswith(p + ".") for p in prefixes):
            yield name, module


def _check_prefixes(model: nn.Module, prefixes: Iterable[str], stage: Stage) -> None:
    known = {n for n, _ in model.named_modules()}
    for prefix in prefixes:
        if prefix not in known:
            top = sorted(n for n, _ in model.named_children())
            raise TrainingError(f"the model has no part '{prefix}'", where=f"stage '{stage.name}'", hint=", ".join(top))


def reinitialise(model: nn.Module, stage: Stage, seed: int) -> None:
    """Reset the parts that a stage names, from the run's own stream."""
    if not stage.reinit:
        return
    _check_prefixes(model, stage.reinit, stage)
    seed_all(seed, "reinit", stage.name)
    for _, module in _named_under(model, stage.reinit):
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()


def freeze(model: nn.Module, stage: Stage) -> None:
    """Take the gradients from the parts that a stage names."""
    _check_prefixes(model, stage.freeze, stage)
    for _, module in _named_under(model, stage.freeze):
        for parameter in module.parameters():
            parameter.requires_grad_(False)


def train_mode(model: nn.Module, stage: Stage) -> None:
    """Training mode, but for the frozen parts."""
    model.train()
    for _, module in _named_under(model, stage.freeze):
        module.eval()  # a frozen part's BatchNorm statistics must not drift either


def make_optimizer(method: Method, model: nn.Module, recipe: Recipe, stage: Stage) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum or AdamW, over the method's own parameter groups or the usual two."""
    groups = method.param_groups(model, stage) or decay_groups(model, recipe.weight_decay)
    # a group of the method's own that names no decay gets the recipe's, not the optimiser's
    common: dict[str, Any] = {
        "lr": recipe.lr,
        "weight_decay": recipe.weight_decay,
        "fused": method.ctx.device.type == "cuda",
    }
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=(recipe.momentum, 0.999), **common)
    return torch.optim.SGD(groups, momentum=recipe.momentum, nesterov=recipe.momentum > 0, **common)


def decay_groups(model: nn.Module, decay: float) -> list[dict]:
    """Weights decay; biases, norms and other vectors do not."""
    learning = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [g for g in groups if g["params"]]


def ungrouped(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Weights of the model that no group of the optimiser holds: frozen ones, or those that a method leaves out."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return [p for p in model.parameters() if id(p) not in held]


def learning_rate(recipe: Recipe, stage: Stage, at: float, epochs: int) -> float:
    """Linear warm-up, then to zero by a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983) or a line, or constant.

    `at` counts epochs of the stage, with fractions. The warm-up of a short stage is cut to a fifth of it. With a line
    the schedule is a triangle, as in the one-cycle policy (Smith 2018, arXiv 1803.09820).
    """
    peak = recipe.lr * stage.lr_scale
    warm = min(recipe.warmup_epochs, epochs / 5)
    if at < warm:
        return peak * max(at / warm, 0.01)
    if recipe.schedule == "constant":
        return peak
    done = (at - warm) / max(epochs - warm, 1e-9)
    if recipe.schedule == "linear":
        return peak * (1 - done)
    return float(peak * 0.5 * (1 + np.cos(np.pi * done)))


class Ema:
    """An exponential moving average of weights; buffers are copied. Early steps use a shorter memory.

    The decay at step t is min(decay, (1 + t) / (10 + t)), as in TensorFlow's and timm's averages.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay, self.steps = copy.deepcopy(model), decay, 0
        self.model.requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the model's present weights into the average."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        mine: list[Tensor] = [p.detach() for p in self.model.parameters()]
        theirs: list[Tensor] = [p.detach() for p in model.parameters()]
        torch._foreach_lerp_(mine, theirs, 1 - decay)
        for own, new in zip(self.model.buffers(), model.buffers(), strict=True):
            own.copy_(new)
