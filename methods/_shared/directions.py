"""Von Mises-Fisher distributions on the sphere: normalising constants, concentrations, and estimates for classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

CONCENTRATED = 1e5
"""Largest concentration κ, as in the authors' code of ProCo: a class whose embeddings are all but equal has infinite κ.
"""

# Polynomials u_k(t) of Debye's expansion (DLMF 10.41.10): exponents and coefficients, over a common denominator.
DEBYE = (
    (24, {1: 3, 3: -5}),
    (1152, {2: 81, 4: -462, 6: 385}),
    (414720, {3: 30375, 5: -369603, 7: 765765, 9: -425425}),
    (39813120, {4: 4465125, 6: -94121676, 8: 349922430, 10: -446185740, 12: 185910725}),
)


def log_bessel(kappa: Tensor, dim: int) -> Tensor:
    """log(I_ν(κ) κ^-ν) with ν = dim / 2 - 1, of the shape and type of `kappa`.

    By Debye's expansion, uniform in κ (DLMF 10.41.3), in which the powers of κ cancel: it is finite at κ = 0, and
    never leaves the logarithm. Its relative error is below 1e-6 from 16 dimensions on, 1e-11 from 128.

    Parameters
    ----------
    kappa : float64 tensor
        Concentrations, 0 or more.
    dim : int
        Dimension of the embeddings, at least 8.
    """
    nu = dim / 2 - 1
    s = (1 + (kappa / nu) ** 2).sqrt()
    series = torch.zeros_like(s)
    for k, (bottom, polynomial) in enumerate(DEBYE, 1):
        for power, a in polynomial.items():
            series = series + a / (bottom * nu**k) * s**-power
    constant = -nu * math.log(nu) - 0.5 * math.log(2 * math.pi * nu)
    return nu * (s - torch.log1p(s)) - 0.5 * s.log() + torch.log1p(series) + constant


def concentration(length: Tensor, dim: int) -> Tensor:
    """κ = p R / (1 - R²) from the length R of a mean embedding, 0 to :data:`CONCENTRATED`."""
    return (dim * length / (1 - length**2).clamp_min(1e-12)).clamp(0.0, CONCENTRATED)


class Directions(nn.Module):
    """Mean embeddings of classes, over the last epoch and the present one.

    The means that are read started with the last epoch; a second set starts afresh with each epoch and takes their
    place at its end. So estimates are neither older than two epochs nor made of a handful of images. A class that has
    not been seen yet has the mean 0: any direction is as likely as another.
    """

    means: Tensor
    seen: Tensor

    def __init__(self, classes: int, dim: int):
        super().__init__()
        self.register_buffer("means", torch.zeros(2, classes, dim))
        self.register_buffer("seen", torch.zeros(2, classes))

    @torch.no_grad()
    def turn(self) -> None:
        """Start an epoch: the means of the last one are read, and new ones begin."""
        self.means[0], self.seen[0] = self.means[1], self.seen[1]
        self.means[1], self.seen[1] = 0.0, 0.0

    @torch.no_grad()
    def add(self, z: Tensor, y: Tensor) -> None:
        """Take embeddings [B, D] with labels [B] into both sets."""
        hot = nn.functional.one_hot(y, self.seen.shape[1]).float()
        count = hot.sum(0)
        with torch.autocast(z.device.type, enabled=False):
            mean = hot.T @ z.detach().float() / count.clamp_min(1)[:, None]
        share = count / (count + self.seen).clamp_min(1)
        self.means.lerp_(mean.expand_as(self.means), share[:, :, None])
        self.seen.add_(count)

    def log_expected(self, z: Tensor, temperature: float) -> Tensor:
        """log E exp(z · x / τ) over embeddings x of each class, float32 [B, C] (Du et al. 2024, eq. 14).

        With x of a von Mises-Fisher distribution of direction μ and concentration κ, that is the difference of
        :func:`log_bessel` at ‖κμ + z/τ‖ and at κ.
        """
        dim = z.shape[1]
        kind = torch.float32 if z.device.type == "mps" else torch.float64  # Apple's GPUs have no float64
        mean = self.means[0].to(kind)
        length = mean.norm(dim=1)
        kappa = concentration(length, dim)
        direction = mean / length.clamp_min(1e-12)[:, None]
        with torch.autocast(z.device.type, enabled=False):
            w = z.to(kind) / temperature
            squared = kappa**2 + 2 * kappa * (w @ direction.T) + (w**2).sum(1, keepdim=True)
            moved = squared.clamp_min(1e-12).sqrt()
            return (log_bessel(moved, dim) - log_bessel(kappa, dim)).float()
