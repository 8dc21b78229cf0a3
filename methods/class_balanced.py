"""Class-balanced losses: weights by the effective number of images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import Batch, Choice, Classifier, Float, Method, MethodCard, Output, Param, Trunk

from ._shared.compose import MIX, SAMPLER, Composable
from ._shared.losses import effective_weights, soft_targets

card = MethodCard(
    name="class_balanced",
    title="Class-balanced loss (effective number of samples)",
    paper="Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019",
    year=2019,
    url="https://arxiv.org/abs/1901.05555",
    family="reweighting",
    changes="each image's loss has the weight (1 - β) / (1 - β^n) of its class, Σ_c w_c = C; the loss is softmax or "
    "sigmoid cross-entropy or the sigmoid focal loss. Weights with the softmax focal loss: baseline_focal",
    deviations=(
        "label smoothing comes after the weights: an image has the weight of its label, and soft labels their expected "
        "weight; the authors train without smoothing",
        "a soft target of a sigmoid form is one binary target for each class, q_k against 1 - q_k",
        "a class without training images gets weight 0",
        "formulas, the bias of -log(C - 1) and the division by B are those of github.com/richardaecn/"
        "class-balanced-loss (0ab6eb7); warm-up is left to the recipe",
    ),
    calibration="the sigmoid forms train one yes-or-no decision for each class; a softmax over their logits was never "
    "trained, so confidences mean little before they are recalibrated",
    params={
        **SAMPLER,
        **MIX,
        "beta": Param(
            0.9999,
            "β of the effective number; the paper searches 0.9, 0.99, 0.999 and 0.9999. At 0.99 or less nothing "
            "changes on FER2013 or RAF-DB, where every class has hundreds of images. 0 gives equal weights",
            low=0.0,
            high=0.999999,
            space=Choice((0.99, 0.999, 0.9999)),
        ),
        "loss": Param(
            "softmax",
            "softmax or sigmoid cross-entropy, or the focal loss, which is the sigmoid one here; the paper chooses by "
            "data set, and later papers compare with softmax",
            choices=("softmax", "sigmoid", "focal"),
            space=Choice(("softmax", "sigmoid", "focal")),
        ),
        "gamma": Param(
            1.0,
            "γ of the focal loss; the authors' script has 1, the paper searches 0.5, 1 and 2. Only with loss=focal",
            low=0.0,
            high=10.0,
            space=Float(0.5, 2.0),
        ),
        "weights.from": Param(
            0.0,
            "share of the epochs after which the weights count: 0 as in the paper, 0.8 for the deferred re-weighting "
            "(DRW) of Cao et al. 2019",
            low=0.0,
            high=1.0,
        ),
    },
    also_known={"cb_focal": "loss=focal"},
)


class ClassBalanced(Composable, Method):
    """Weights of classes that level off with their size."""

    card = card

    def build_model(self, backbone: Callable[[], Trunk]) -> nn.Module:
        """The usual network; sigmoid forms start at p = 1/C for every class (section 4 of the paper)."""
        model = Classifier(backbone(), self.ctx.num_classes)
        if self.params["loss"] != "softmax":
            nn.init.constant_(model.head.bias, -float(torch.tensor(self.ctx.num_classes - 1.0).log()))
        return model

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Loss of each image [B]."""
        if self.params["loss"] == "softmax":
            return F.cross_entropy(output.logits.float(), target, reduction="none")
        return sigmoid_focal_losses(output.logits, target, self.params["gamma"] * (self.params["loss"] == "focal"))

    def image_weights(self, batch: Batch) -> Tensor | None:
        """The weight of each image's class [B], from the chosen epoch on; for soft labels its expected value."""
        if batch.epoch < self.ctx.epoch_after(self.params["weights.from"]):
            return None
        return batch.expected(effective_weights(self.ctx.counts, self.params["beta"]))


def sigmoid_focal_losses(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Σ_k [q_k (1 - p_k)^γ (-log p_k) + (1 - q_k) p_k^γ (-log(1 - p_k))], p = sigmoid(z), float32 [B].

    At γ = 0 it is the binary cross-entropy, summed over classes. (1 - p)^γ is exp(γ log(1 - p)), which keeps the
    gradient finite where p is 1.
    """
    z = logits.float()
    q = soft_targets(target, z.shape[1])
    log_p, log_miss = F.logsigmoid(z), F.logsigmoid(-z)
    return -(q * (gamma * log_miss).exp() * log_p + (1 - q) * (gamma * log_p).exp() * log_miss).sum(1)
