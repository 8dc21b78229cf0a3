"""Relative Uncertainty Learning: pairs of features are mixed by how uncertain the network is about each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fer_bench import Batch, Choice, Classifier, LossOut, Method, MethodCard, Output, Param, Stage, Trunk, to_device

from ._shared.compose import SAMPLER, WEIGHTS
from ._shared.cross_entropy import ComposableCrossEntropy
from ._shared.groups import scaled_groups
from ._shared.layers import BatchNorm
from ._shared.maps import map_shape

card = MethodCard(
    name="rul",
    title="Relative Uncertainty Learning (RUL)",
    paper="Zhang et al., Relative Uncertainty Learning for Facial Expression Recognition, NeurIPS 2021",
    year=2021,
    url="https://proceedings.neurips.cc/paper/2021/hash/9332c513ef44b682e9347822c2e457ac-Abstract.html",
    family="noisy labels",
    changes="each image's features are mixed with another one's by their uncertainties, u_i/(u_i+u_j) and "
    "u_j/(u_i+u_j); the mixture is to be classified as both labels. Predictions read the features alone",
    deviations=(
        "agrees with the authors' code (zyh-uaiaaaa/Relative-Uncertainty-Learning, commit 63b73f2) on the same heads; "
        "the shares are computed from the logarithms of the uncertainties",
        "a batch of one image is normalised by the running statistics",
        "training accuracy is that of unmixed features",
        "head_lr = 1 in place of the code's 10: its trunk is pretrained on faces (MS-Celeb ResNet-18), and only the "
        "classifier starts from nothing",
        "224 pixels, Adam, exponential decay, noise and erasing are the study's recipe",
    ),
    params={
        **SAMPLER,
        **WEIGHTS,
        "features": Param(64, "dimensions of the features μ; 64 in the code", low=2, high=4096),
        "dropout": Param(0.4, "dropout before both heads; 0.4 in the code", low=0.0, high=0.9),
        "head_lr": Param(
            1.0,
            "factor on the classifier's learning rate; the code has 10 (2e-3 beside 2e-4) behind a pretrained trunk",
            low=0.01,
            high=100.0,
            space=Choice((1.0, 10.0)),
        ),
    },
    needs=("feature map",),
)


def _read_map(shape: tuple[int, int, int], features: int, dropout: float) -> nn.Sequential:
    """BatchNorm, dropout, one linear layer over the whole map, BatchNorm: [B, D, h, w] -> [B, features]."""
    channels, height, width = shape
    return nn.Sequential(
        nn.BatchNorm2d(channels, eps=2e-5, affine=False),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(channels * height * width, features),
        BatchNorm(features, eps=2e-5),
    )


class UncertaintyClassifier(Classifier):
    """A trunk whose map is read twice: as features μ and as the logarithm of their variances."""

    def __init__(self, trunk: Trunk, num_classes: int, shape: tuple[int, int, int], features: int, dropout: float):
        super().__init__(trunk, num_classes)
        self.head = nn.Linear(features, num_classes)
        self.mu = _read_map(shape, features, dropout)
        self.log_var = _read_map(shape, features, dropout)

    def forward(self, x: Tensor) -> Output:
        """Logits of μ, μ as features, and in training the log of the mean variance ("log_uncertainty") [B]."""
        fmap = self.trunk.body.forward_features(x)
        with torch.autocast(x.device.type, enabled=False):
            mu = self.mu(fmap.float())
            extra = {}
            if self.training:
                log_var = self.log_var(fmap.float())
                extra["log_uncertainty"] = log_var.logsumexp(1) - torch.tensor(log_var.shape[1]).log()
        return Output(logits=self.classify(mu), features=mu, fmap=fmap, extra=extra)


class RUL(ComposableCrossEntropy, Method):
    """Half the loss of each label of a pair, on features mixed by relative uncertainty."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """A trunk with two heads on its map; SpecError where it has none."""
        trunk = backbone()
        shape = map_shape(trunk, self.ctx.image_shape, card.name)
        return UncertaintyClassifier(
            trunk, self.ctx.num_classes, shape, self.params["features"], self.params["dropout"]
        )

    def param_groups(self, model: nn.Module, stage: Stage) -> list[dict[str, Any]] | None:
        """The classifier at a learning rate of its own."""
        decay = self.ctx.recipe.get("weight_decay", 0.0)
        return scaled_groups(model, {"head": self.params["head_lr"]}, decay) if self.params["head_lr"] != 1 else None

    def training_step(self, model: Any, batch: Batch) -> LossOut:
        """Loss of the mixed features under both labels; `output` is that of the unmixed ones."""
        output = model(batch.x)
        order = to_device(torch.randperm(len(batch.y), generator=self.generator("pairs")), batch.y.device)
        mixed = mixed_by_uncertainty(output.features, output.extra["log_uncertainty"], order)
        logits = Output(logits=model.classify(mixed))
        soft = None if batch.soft is None else batch.soft[order]
        other = batch.with_(y=batch.y[order], soft=soft, index=batch.index[order])
        total = 0.5 * self.batch_loss(logits, batch) + 0.5 * self.batch_loss(logits, other)
        return LossOut(total=total, output=output)


def mixed_by_uncertainty(mu: Tensor, log_uncertainty: Tensor, order: Tensor) -> Tensor:
    """u_i / (u_i + u_j) μ_i + u_j / (u_i + u_j) μ_j with j = order[i]; of μ [B, F] and log u [B]."""
    share = torch.sigmoid(log_uncertainty - log_uncertainty[order])[:, None]
    return share * mu + (1 - share) * mu[order]
