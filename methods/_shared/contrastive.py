"""Contrastive learning: embeddings, the views that they compare, and losses over pairs of images.

Similarities and losses are float32 under any autocast: with a temperature of 0.05, bfloat16 would round logits of 20 to
multiples of 1/16.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import Augment, Classifier, Context, Param, Trunk, to_device

from .decoupled import SECOND_STAGE
from .layers import BatchNorm

NEVER = -1e30
"""Added to a logit, it takes it out of a softmax; unlike -inf it leaves a finite gradient where nothing else is in."""

AUGMENT = {
    "augment": Param(
        "strong",
        "augmentation of the compared views; strong: flip 0.5, shifts by an eighth of the side, rotation by 15 "
        "degrees, scaling by 0.2, erasing 0.5; recipe: the study's, as for every other image",
        choices=("strong", "recipe"),
    ),
}

HEAD_STAGE = {
    **SECOND_STAGE,
    "second.lr": Param(
        10.0,
        "factor on the recipe's learning rate in the second stage; 10 in Khosla et al.'s code for CIFAR-10 (0.5, then "
        "5): a fresh linear layer on features that no classifier has shaped needs large steps",
        low=0.001,
        high=100.0,
    ),
}
"""The second stage of methods whose first one trains no classifier."""


def compared_view(kind: str, ctx: Context) -> Augment | None:
    """Augmentation of the views that are compared; None for the recipe's.

    Shifts go up to an eighth of the image, in pixels of the stored one: it is resized afterwards.
    The papers crop, change colours and blur. A crop of a 48-pixel face can lose the mouth, and grey faces have no
    colours, so the strong form moves and erases instead.
    """
    side = (ctx.stored_shape or ctx.image_shape)[1]
    return Augment(flip=0.5, shift=side / 8, rotate=15.0, scale=0.2, erase=0.5) if kind == "strong" else None


class Projector(nn.Module):
    """Embeddings of length 1: linear, (BatchNorm,) ReLU, linear, in float32."""

    def __init__(self, in_features: int, out_features: int, *, normalised: bool = False, hidden: int | None = None):
        super().__init__()
        hidden = hidden or in_features
        norm = [BatchNorm(hidden)] if normalised else []
        self.layers = nn.Sequential(nn.Linear(in_features, hidden), *norm, nn.ReLU(), nn.Linear(hidden, out_features))

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings float32 [B, out_features] of features [B, in_features]."""
        with torch.autocast(features.device.type, enabled=False):
            return F.normalize(self.layers(features.float()), dim=1)


class ContrastiveClassifier(Classifier):
    """A classifier with a projector beside its head; evaluation reads the head alone."""

    def __init__(self, trunk: Trunk, num_classes: int, projector: Projector, head: nn.Module | None = None):
        super().__init__(trunk, num_classes)
        self.projector = projector
        if head is not None:
            self.head: nn.Module = head


def similarities(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """a_i · b_k / τ, float32 [A, B], of embeddings [A, D] and [B, D]."""
    with torch.autocast(a.device.type, enabled=False):
        return a.float() @ b.float().T / temperature


def contrast(logits: Tensor, positives: Tensor, bias: Tensor) -> Tensor:
    """-Σ_k w_ik (s_ik - log Σ_a exp(s_ia + b_ia)) / Σ_k w_ik of each anchor [A].

    Parameters
    ----------
    logits : float tensor [A, M]
        s, similarities over the temperature.
    positives : tensor [A, M]
        w, weights of positives, 0 for all others. An anchor without positives has the loss 0.
    bias : float tensor [A, M]
        b: 0 for members of the denominator, :data:`NEVER` for all that is not in it.
    """
    weights = positives.float()
    total = weights.sum(1)
    log_q = logits - torch.logsumexp(logits + bias, dim=1, keepdim=True)
    mean = (weights * log_q).sum(1) / torch.where(total > 0, total, 1.0)
    return -torch.where(total > 0, mean, 0.0)


def not_self(anchors: int, members: int, device: torch.device) -> Tensor:
    """True where member k is not anchor i itself, bool [A, M]; anchor i is member i."""
    return torch.arange(anchors, device=device)[:, None] != torch.arange(members, device=device)


def supervised_contrast(z: Tensor, y: Tensor, temperature: float, positives: Tensor | None = None) -> Tensor:
    """Supervised contrastive loss of each embedding [N] (Khosla et al. 2020, eq. 2).

    Parameters
    ----------
    z : float tensor [N, D]
        Embeddings of length 1, all views of all images.
    y : int64 tensor [N]
    temperature : float
        τ. The authors' code multiplies the loss by τ / 0.07 besides.
    positives : bool tensor [N, N], optional
        Which pairs are drawn together; all other images of the class by default.
    """
    others = not_self(len(z), len(z), z.device)
    positives = (y[:, None] == y) & others if positives is None else positives
    return contrast(similarities(z, z, temperature), positives, torch.where(others, 0.0, NEVER))


def some_positives(y: Tensor, images: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """The other views of each image and up to `k` random other images of its class, bool [N, N] (Kang et al. 2021).

    `images` [N] numbers the images, so that views of one have the same number. Each embedding draws for itself.
    """
    own = (images[:, None] == images) & not_self(len(y), len(y), y.device)
    candidates = (y[:, None] == y) & (images[:, None] != images)
    drawn = to_device(torch.rand(candidates.shape, generator=generator), y.device).masked_fill(~candidates, -1.0)
    best = drawn.topk(min(k, len(y)), dim=1).indices
    return own | (torch.zeros_like(own).scatter(1, best, True) & candidates)


def balanced_contrast(z: Tensor, y: Tensor, prototypes: Tensor, temperature: float) -> Tensor:
    """Balanced contrastive loss of each embedding [N] (Zhu et al. 2022, eqs. 7 and 8).

    With S_j the embeddings of class j in the batch and its prototype, without the anchor itself, the denominator is
    Σ_j (1/|S_j|) Σ_{k in S_j} exp(z_i · z_k / τ): every class has the same weight in it. The prototype makes sure that
    every anchor has a positive and every class a member.

    Parameters
    ----------
    z, y : tensors [N, D], [N]
    prototypes : float tensor [C, D]
        Embeddings of length 1.
    """
    classes = torch.arange(len(prototypes), device=y.device)
    labels = torch.cat([y, classes])
    others = not_self(len(z), len(labels), z.device)
    same = (y[:, None] == labels) & others
    sizes = F.one_hot(labels, len(prototypes)).sum(0)[labels] - same.long()
    bias = torch.where(others, -sizes.float().log(), NEVER)
    return contrast(similarities(z, torch.cat([z, prototypes]), temperature), same, bias)
