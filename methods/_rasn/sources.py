"""Where the affinity of an image comes from: other images of the batch, class prototypes, learned atoms, or itself.

A source maps features x [B, C, H, W] to an affinity that broadcasts over them. Sources of a mean give every image the
same one. Those that recall give each image its own: what it draws on depends on its features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fer_bench import SpecError


class MeanAffinity(nn.Module):
    """A mean over the batch in training, and a stored one in evaluation.

    Parameters
    ----------
    shape : (C, H, W)
    kind : {"batch_mean", "ema", "class_balanced_mean", "leave_one_out"}
    momentum : float
        Of the stored mean: Â <- momentum·Â + (1 - momentum)·A; the first batch sets it.
    evaluate : {"frozen_ema", "train_set_mean", "test_batch"}
        "test_batch" takes the mean of the test batch, to measure what that leak is worth.
    """

    ema: Tensor
    train_mean: Tensor
    updates: Tensor

    def __init__(self, shape: Sequence[int], *, kind: str, momentum: float, evaluate: str) -> None:
        super().__init__()
        self.kind, self.momentum, self.evaluate = kind, momentum, evaluate
        self.register_buffer("ema", torch.zeros(1, *shape))
        self.register_buffer("train_mean", torch.zeros(1, *shape))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Affinity [1, C, H, W] ([B, C, H, W] for leave_one_out in training); training updates the stored mean."""
        if not self.training:
            stored = self.ema if self.evaluate == "frozen_ema" else self.train_mean
            return x.mean(0, keepdim=True) if self.evaluate == "test_batch" else stored
        mean = x.mean(0, keepdim=True)
        if self.kind == "class_balanced_mean":
            mean = (x * balanced_shares(y)[:, None, None, None]).sum(0, keepdim=True)
        rate = torch.where(self.updates == 0, 1.0, 1.0 - self.momentum)
        running = self.ema.clone().lerp(mean, rate)
        self.ema.copy_(running.detach())
        self.updates += 1
        if self.kind == "ema":
            return running
        if self.kind == "leave_one_out":  # alone in its batch, a sample has no others: zero
            return (x.sum(0, keepdim=True) - x) / max(1, len(x) - 1)
        return mean

    def remember(self, sums: Tensor, counts: Tensor) -> None:
        """Set the mean of the training fold from sums [K, C, H, W] over the images of each class, and their numbers."""
        if self.kind == "class_balanced_mean":
            present = counts > 0
            self.train_mean.copy_((sums[present] / counts[present, None, None, None]).mean(0, keepdim=True))
        else:
            self.train_mean.copy_(sums.sum(0, keepdim=True) / counts.sum())


def as_vectors(shape: Sequence[int]) -> tuple[int, ...]:
    """Shape (d, H, W) in which a map is read: as it is, or as one vector where it has one channel."""
    return (math.prod(shape), 1, 1) if shape[0] == 1 else tuple(shape)


def _axes(entries: Tensor) -> str:
    """Axes of entries for einsum."""
    return "sd" if entries.ndim == 2 else "sdhw"


class Recall(nn.Module):
    """Recall by attention: A_i = Σ_s softmax_s(x_i · E_s / √d) E_s over entries E_s, at every position of the map.

    The features of a position, d = C numbers, are compared with those of each entry. A map of one channel (that of ARM)
    is read as one vector of d = H·W numbers.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = as_vectors(shape)

    def entries(self) -> tuple[Tensor, Tensor | None]:
        """Entries [S, d, H, W], or [S, d] for every position, and which of them exist [S]; None: all."""
        raise NotImplementedError

    def weights(self, x: Tensor) -> Tensor:
        """What each position draws on, [B, S, H, W]; sums to 1 over S."""
        entries, exists = self.entries()
        likeness = torch.einsum(f"bdhw,{_axes(entries)}->bshw", x.reshape(-1, *self.shape), entries)
        likeness = likeness / math.sqrt(self.shape[0])
        if exists is not None:
            likeness = likeness.masked_fill(~exists[None, :, None, None], -1e9)
        return likeness.softmax(1)

    def recall(self, x: Tensor) -> Tensor:
        """Affinity, the shape of `x` [B, C, H, W]."""
        entries, _ = self.entries()
        return torch.einsum(f"bshw,{_axes(entries)}->bdhw", self.weights(x), entries).reshape(x.shape)

    def shares(self, x: Tensor) -> Tensor:
        """What each image draws on, [B, S]: the mean over its positions."""
        return self.weights(x).mean((2, 3))


class Prototypes(Recall):
    """Running means of each class's features.

    They are read before the present batch enters, and pass no gradient, so no label reaches the logits of its own
    image. Each class has the same say, however frequent it is. A class that has not been seen is left out; before the
    first batch there is nothing to recall, and the affinity is zero.

    Parameters
    ----------
    shape : (C, H, W)
    num_classes : int
    momentum : float
        Of each class: P_c <- momentum·P_c + (1 - momentum)·(mean of its images in the batch); its first ones set it.
    evaluate : {"frozen_ema", "train_set_mean"}
    """

    running: Tensor
    seen: Tensor
    train_means: Tensor
    train_seen: Tensor

    def __init__(self, shape: Sequence[int], num_classes: int, *, momentum: float, evaluate: str) -> None:
        super().__init__(shape)
        self.momentum, self.evaluate = momentum, evaluate
        self.register_buffer("running", torch.zeros(num_classes, *self.shape))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))
        self.register_buffer("train_means", torch.zeros(num_classes, *self.shape))
        self.register_buffer("train_seen", torch.zeros(num_classes, dtype=torch.bool))

    def entries(self) -> tuple[Tensor, Tensor | None]:
        """The prototypes [K, d, H, W] and which classes have one."""
        if not self.training and self.evaluate == "train_set_mean":
            return self.train_means, self.train_seen
        return self.running.clone(), self.seen  # a copy: the update must not change what this step's gradient needs

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Affinity, the shape of `x` [B, C, H, W]; in training, labels `y` [B] say whose mean an image enters."""
        affinity = self.recall(x)
        if self.training:
            self._update(x.detach(), labels_of(y, "class_prototypes"))
        return affinity

    def _update(self, x: Tensor, y: Tensor) -> None:
        member = (y[None, :] == torch.arange(len(self.seen), device=y.device)[:, None]).to(x.dtype)
        counts = member.sum(1)
        means = (member @ x.flatten(1) / counts.clamp(min=1)[:, None]).reshape(self.running.shape)
        rate = torch.where(self.seen, 1.0 - self.momentum, 1.0) * (counts > 0)
        self.running.lerp_(means, rate[:, None, None, None])
        self.seen |= counts > 0

    def remember(self, sums: Tensor, counts: Tensor) -> None:
        """Set the class means of the training fold from sums [K, C, H, W] over images, and their numbers [K]."""
        means = sums / counts.clamp(min=1)[:, None, None, None]
        self.train_means.copy_(means.reshape(self.train_means.shape))
        self.train_seen.copy_(counts > 0)


class Dictionary(Recall):
    """Learned atoms that belong to no class, like action units: a rare class can be written in what others taught.

    Parameters
    ----------
    shape : (C, H, W)
    atoms : int
        Number M of atoms, each of d numbers, the same at every position.
    """

    def __init__(self, shape: Sequence[int], atoms: int) -> None:
        super().__init__(shape)
        self.atoms = nn.Parameter(torch.randn(atoms, self.shape[0]))

    def entries(self) -> tuple[Tensor, Tensor | None]:
        """The atoms [M, d]."""
        return self.atoms, None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Affinity, the shape of `x` [B, C, H, W]."""
        return self.recall(x)


class Own(nn.Module):
    """Nothing is shared: an image's own features stand where the affinity would. The control for extra capacity.

    Parameters
    ----------
    shape : (C, H, W)
    atoms : int
        0: the features themselves. M: Wᵀ W x with W [M, d], as many weights as a dictionary of M atoms.
    """

    def __init__(self, shape: Sequence[int], atoms: int = 0) -> None:
        super().__init__()
        self.shape = as_vectors(shape)
        width = self.shape[0]
        self.weight = nn.Parameter(torch.randn(atoms, width) / math.sqrt(width)) if atoms else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """What stands for the affinity, the shape of `x` [B, C, H, W]."""
        if self.weight is None:
            return x
        inner = torch.einsum("bdhw,md->bmhw", x.reshape(-1, *self.shape), self.weight)
        return torch.einsum("bmhw,md->bdhw", inner, self.weight).reshape(x.shape)


def make_source(
    kind: str, shape: Sequence[int], num_classes: int, *, momentum: float, atoms: int, evaluate: str
) -> nn.Module:
    """The source named `kind`, a share.source other than none; `evaluate` is an eval.affinity other than none."""
    match kind:
        case "class_prototypes":
            return Prototypes(shape, num_classes, momentum=momentum, evaluate=evaluate)
        case "dictionary":
            return Dictionary(shape, atoms)
        case "own":
            return Own(shape)
        case "own_projection":
            return Own(shape, atoms)
    return MeanAffinity(shape, kind=kind, momentum=momentum, evaluate=evaluate)


def labels_of(y: Tensor | None, source: str) -> Tensor:
    """Labels [B] of a training batch; SpecError where there are none."""
    if y is None:
        raise SpecError(f"share.source={source} needs the labels of a training batch", where="method rasn")
    return y


def balanced_shares(y: Tensor | None) -> Tensor:
    """Weights [B] that turn a sum over samples into the mean, over classes present, of class means."""
    y = labels_of(y, "class_balanced_mean")
    weights = 1.0 / (y[:, None] == y[None, :]).sum(1).float()
    return weights / weights.sum()
