"""Sharpness-aware training: where the loss near the present weights is highest, to first order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor, nn

from fer_bench import Batch, Float, LossOut, Method, Output, Param

from .compose import COMPOSE

ETA = 0.01
"""η of Kwon et al. 2021: the least size of |w| + η, so that weights of 0 can move as well."""

SHARPNESS = {
    **COMPOSE,
    "tau": Param(
        0.0,
        "τ of the logit-adjusted loss, the cross-entropy of logits + τ log π (Menon et al. 2021); 0 is cross-entropy",
        low=0.0,
        high=4.0,
        space=Float(0.0, 2.0),
    ),
}
"""Parameters of every sharpness-aware method but its radius ρ."""

Grads = list[Tensor | None]
Shifted = Callable[[Sequence[Tensor | None]], AbstractContextManager[None]]
"""What :meth:`fer_bench.Method.backward` gets to look at other weights."""


def gradients(model: nn.Module) -> Grads:
    """Copies of the parameters' gradients, in their order; None where there is none."""
    return [None if p.grad is None else p.grad.detach().clone() for p in model.parameters()]


def add_gradients(model: nn.Module, more: Grads) -> None:
    """Add gradients to those of the parameters."""
    for p, g in zip(model.parameters(), more, strict=True):
        if g is not None:
            p.grad = g if p.grad is None else p.grad + g


def norm(grads: Grads) -> Tensor:
    """Euclidean norm of all gradients together, a float32 scalar; 0 without any."""
    norms = [g.float().norm() for g in grads if g is not None]
    return torch.stack(norms).norm() if norms else torch.zeros(())


def ascent(model: nn.Module, rho: float, *, adaptive: bool = False) -> Grads:
    """Shifts of the parameters by ρ g / ‖g‖, with g their present gradients (Foret et al. 2021, eq. 2).

    Parameters
    ----------
    model : Module
    rho : float
        ρ, the Euclidean length of all shifts together.
    adaptive : bool
        Shifts ρ T²g / ‖Tg‖ instead (ASAM, Kwon et al. 2021, eq. 3). T is |w| + η for tensors called weight, those of
        normalisation among them, and 1 for the others, as in the authors' code.

    Returns
    -------
    list of tensor or None
        One for each of ``model.parameters()``, None for those without a gradient. Without any slope all are 0.
    """
    named = list(model.named_parameters())
    scales: list[Tensor | float] = [
        p.detach().abs() + ETA if adaptive and "weight" in name.rpartition(".")[2] else 1.0 for name, p in named
    ]
    scaled: Grads = [
        None if p.grad is None else p.grad.detach() * t for (_, p), t in zip(named, scales, strict=True)
    ]  # fmt: skip
    factor = rho / norm(scaled).clamp_min(1e-12)
    return [None if g is None else g * t * factor.to(g.device) for g, t in zip(scaled, scales, strict=True)]


def split_loss(method: Method, output: Output, batch: Batch, share: np.ndarray) -> LossOut:
    """The loss of a batch in two parts: "flat" has the share r_y of each image's loss, "plain" the rest.

    ``total`` is :meth:`fer_bench.Method.batch_loss`. `share` is r_c in [0, 1] for each class [C]; an image with a soft
    label has its expected share.
    """
    losses, weights = method.criterion(output, batch.target), method.image_weights(batch)
    losses = losses if weights is None else losses * weights
    r = batch.expected(share)
    parts = {"plain": ((1 - r) * losses).mean(), "flat": (r * losses).mean()}
    return LossOut(total=parts["plain"] + parts["flat"], parts=parts, output=output)


def split_backward(method: Method, model: nn.Module, batch: Batch, loss: LossOut, shifted: Shifted, rho: float) -> None:
    """Leave the gradient ∇plain(w) + ∇flat(w + ρ ∇flat(w) / ‖∇flat(w)‖) of a :func:`split_loss` behind."""
    loss.parts["plain"].backward(retain_graph=True)
    plain = gradients(model)
    model.zero_grad(set_to_none=True)
    loss.parts["flat"].backward()
    with shifted(ascent(model, rho)):
        model.zero_grad(set_to_none=True)
        method.training_step(model, batch).parts["flat"].backward()
    add_gradients(model, plain)
