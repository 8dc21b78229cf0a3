"""Several networks or branches that answer together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

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
        self.trunks = nn.ModuleList(backbone() for _ in range(n))
        self.num_features: int = self.trunks[0].num_features

    def forward(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Map and pooled features of images `x` [B, C, H, W] in each."""
        return [trunk(x) for trunk in self.trunks]


class Experts(nn.Module):
    """Experts with a head each; their logits are averaged.

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

    Raises
    ------
    SpecError
        `own` is less than 4, and it isn't known how to divide the backbone.
    """

    def __init__(self, backbone: Callable[[], Trunk], n: int, own: int, head: Callable[[int], nn.Module]):
        super().__init__()
        self.branches = Networks(backbone, n) if own == 4 else Branches(backbone, n, own=own)
        self.heads = nn.ModuleList(head(self.branches.num_features) for _ in range(n))

    def forward(self, x: Tensor) -> Output:
        """Mean logits [B, K], features of all experts [B, n D], and ``extra["experts"]``, logits [B, n, K]."""
        features = [features for _, features in self.branches(x)]
        logits = torch.stack([answer(head, f) for head, f in zip(self.heads, features, strict=True)], dim=1)
        return Output(logits=logits.mean(1), features=torch.cat(features, dim=1), extra={"experts": logits})


def answer(head: nn.Module, features: Tensor) -> Tensor:
    """Logits [B, K] of features [B, D], in float32 under any autocast, as :class:`fer_bench.Classifier` has them."""
    with torch.autocast(features.device.type, enabled=False):
        return head(features.float())


def each(output: Output) -> list[Output]:
    """An output for each expert, with its logits [B, K]."""
    return [Output(logits=logits) for logits in output.extra["experts"].unbind(1)]
