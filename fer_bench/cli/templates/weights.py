"""Class weights: images of rare classes count more."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from fer_bench import Batch, Choice, Method, MethodCard, Output, Param

card = MethodCard(
    name="new_method",
    title="New method",
    paper="Cui et al., Class-balanced loss based on effective number of samples, CVPR 2019",
    year=2019,
    url="https://arxiv.org/abs/1901.05555",
    family="reweighting",
    changes="each image has the weight (1 - β) / (1 - β^n) of its class with n images; over classes the sum is C",
    deviations=("a class without training images has the weight of one with a single image",),
    params={
        "beta": Param(
            0.9999,
            "β; 0: equal weights, near 1: inverse frequency; 0.9999 is the paper's value for most data sets",
            low=0.0,
            high=0.999999,
            space=Choice((0.9, 0.99, 0.999, 0.9999)),
        )
    },
)


class NewMethod(Method):
    """Cross-entropy of each image, times the weight of its class."""

    card = card

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """One value for each image [B]."""
        return F.cross_entropy(output.logits.float(), target, reduction="none")

    def image_weights(self, batch: Batch) -> Tensor:
        """One weight for each image [B]."""
        beta = self.params["beta"]
        weights = (1 - beta) / (1 - beta ** self.ctx.counts.clip(min=1))
        return batch.expected(weights * self.ctx.num_classes / weights.sum())
