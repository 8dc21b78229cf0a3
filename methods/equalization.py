"""Softmax equalization loss: rare classes are not always pushed down as negatives."""

from __future__ import annotations

import torch
from torch import Tensor

from fer_bench import Float, Method, MethodCard, Output, Param, to_device

from ._shared.compose import COMPOSE, Composable
from ._shared.losses import expected_losses, losses_by_label

card = MethodCard(
    name="equalization",
    title="Softmax equalization loss (EQL)",
    paper="Tan et al., Equalization Loss for Long-Tailed Object Recognition, CVPR 2020",
    year=2020,
    url="https://arxiv.org/abs/2003.05176",
    family="loss",
    changes="a class whose share of the training images is below a threshold drops out of the softmax of images of "
    "other classes with probability γ, so that they do not push it down",
    deviations=(
        "the threshold is the one that BagofTricks-LT uses for CIFAR-10-LT; the paper's are for 100 and more classes. "
        "On FER2013 it makes disgust the only rare class, on RAF-DB fear",
        "with label smoothing, votes or mixup: the expected loss over the labels of the target, the draws shared",
        "a class without training images never drops out: only negatives can hold it down",
        "the authors release the sigmoid form for detection only; the softmax form agrees with "
        "github.com/zhangyongshun/BagofTricks-LT (ce7859a), which draws for each image and class",
    ),
    params={
        **COMPOSE,
        "gamma": Param(
            0.9,
            "probability γ of dropping out; 0.9 in BagofTricks-LT, 0 is cross-entropy. At 1 nothing but the absence of "
            "positives holds rare classes down",
            low=0.0,
            high=1.0,
            space=Float(0.5, 0.99),
        ),
        "threshold": Param(
            0.05,
            "share λ of the training images below which a class is rare; 0.05 suits about 7 classes (a third of 1/C)",
            low=0.0,
            high=1.0,
            space=Float(0.02, 0.15),
        ),
    },
    also_known={"eql": "", "softmax_eql": ""},
)


class Equalization(Composable, Method):
    """Negatives of rare classes are ignored, most of the time."""

    card = card

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Cross-entropy of each image [B] without the rare classes that were drawn."""
        z = output.logits
        draws = torch.rand(z.shape, generator=self.generator("equalization"))
        shares = torch.as_tensor(self.ctx.counts / self.ctx.counts.sum())
        rare = (shares > 0) & (shares < self.params["threshold"])
        dropped = (draws < self.params["gamma"]) & rare
        return expected_losses(losses_by_label(z, dropping(to_device(dropped, z.device))), target)


def dropping(dropped: Tensor) -> Tensor:
    """Shifts [B, C, C] by image, label and class: -inf for the classes dropped [B, C], unless they are the label."""
    others = ~torch.eye(dropped.shape[1], dtype=torch.bool, device=dropped.device)
    shift = torch.zeros((), device=dropped.device)
    return torch.where(dropped[:, None, :] & others, shift - torch.inf, shift)
