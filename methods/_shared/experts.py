"""Several networks or branches that answer together."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import Branches, Choice, Output, Param, Trunk

OWN = {
    "own": Param(
        2,
        "how many of the four stages of the backbone each expert has for itself; 4: whole networks. 1 to 3 need a "
        "backbone that can be divided (ResNet, RegNet, ConvNeXt, EfficientNet, vision transformer)",
        choices=(1, 2, 3, 4),
        space=Choice((1, 2)),
    ),
}
COUNT = {
    "experts": Param(3, "number of experts; 3 in most results of the paper", low=2, high=10, space=Choice((2, 3, 4))),
}


class Networks(nn.Module):
    """`n` whole trunks side by side; what :class:`fer_bench.Branches` is to trunks with a common first part."""

    def __init__(self, backbone: Callable[[], Trunk], n: int):
        super().__init__()
        trunks = [backbone() for _ in range(n)]
        self.num_features = trunks[0].num_features
        self.trunks = nn.ModuleList(trunks)

    def forward(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Map and pooled features of images `x` [B, C, H, W] in each."""
        return [trunk(x) for trunk in self.trunks]


class Experts(nn.Module):
    """Experts with a head each, that answer together.

    Parameters
    ----------
    backbone : callable
        What :meth:`fer_bench.Method.build_model` is given.
    n : int
        Number of experts.
    own : int
        Stages that each has for itself, 1 to 4; 4 are whole networks.
    head : callable
        Makes a head, from features [B, D] to logits [B, K], of the number D.
    average : {"logits", "probabilities", "log_probabilities"}
        What is averaged over experts.

    Raises
    ------
    SpecError
        `own` is less than 4, and it isn't known how to divide the backbone.
    """

    def __init__(self, backbone: Callable[[], Trunk], n: int, own: int, head: Callable[[int], nn.Module],
                 average: str = "logits"):  # fmt: skip
        super().__init__()
        self.branches = Networks(backbone, n) if own == 4 else Branches(backbone, n, own=own)
        self.heads = nn.ModuleList(head(self.branches.num_features) for _ in range(n))
        self.average = average

    def forward(self, x: Tensor) -> Output:
        """Joint logits [B, K], features of all experts [B, n D], and ``extra["experts"]``, logits [B, n, K]."""
        return self.together([features for _, features in self.branches(x)])

    def apart(self, views: Sequence[Tensor]) -> Output:
        """As calling it, but each expert sees images of its own [B, C, H, W]; only whole networks can."""
        return self.together([trunk(x)[1] for trunk, x in zip(self.branches.trunks, views, strict=True)])

    def together(self, features: Sequence[Tensor]) -> Output:
        """The joint output, of the features [B, D] of each expert."""
        logits = torch.stack([answer(head, f) for head, f in zip(self.heads, features, strict=True)], dim=1)
        return Output(logits=self.joined(logits), features=torch.cat(list(features), dim=1), extra={"experts": logits})

    def joined(self, logits: Tensor) -> Tensor:
        """Logits [B, K] of those of all experts [B, n, K]; of averaged probabilities their logarithms."""
        if self.average == "logits":
            return logits.mean(1)
        log_p = F.log_softmax(logits, dim=2)
        if self.average == "log_probabilities":
            return log_p.mean(1)
        return log_p.logsumexp(1) - math.log(logits.shape[1])


def answer(head: nn.Module, features: Tensor) -> Tensor:
    """Logits [B, K] of features [B, D], in float32 under any autocast, as :class:`fer_bench.Classifier` has them."""
    with torch.autocast(features.device.type, enabled=False):
        return head(features.float())


def each(output: Output) -> list[Output]:
    """An output for each expert, with its logits [B, K]."""
    return [Output(logits=logits) for logits in output.extra["experts"].unbind(1)]
