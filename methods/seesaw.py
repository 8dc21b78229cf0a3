"""Seesaw loss: negatives of rare and of confused classes are re-balanced."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fer_bench import Batch, Float, Method, MethodCard, Output, Param

from ._shared.compose import COMPOSE, Composable
from ._shared.losses import expected_losses, losses_by_label

FLOOR = 0.01
"""The least probability of the label that the compensation divides by, as in mmdetection."""

card = MethodCard(
    name="seesaw",
    title="Seesaw loss",
    paper="Wang et al., Seesaw Loss for Long-Tailed Instance Segmentation, CVPR 2021",
    year=2021,
    url="https://arxiv.org/abs/2008.10032",
    family="loss",
    changes="the logit of another class j than the label y gets log S_yj: (N_j/N_y)^p where j has been seen less often "
    "than y, and (p_j/p_y)^q where j is the likelier one. N counts the training images drawn so far",
    deviations=(
        "the classification part alone: no objectness branch, and the usual linear head in place of the normalised one",
        "with label smoothing, votes or mixup: the expected loss over the labels of the target; what is counted is "
        "each image's own hard label",
        "a class that has not been seen counts as seen once",
        "agrees with open-mmlab/mmdetection (08282a6, mmdet/models/losses/seesaw_loss.py): counts include the present "
        "batch, S has no gradient, and p_y is at least 0.01 where it divides",
    ),
    params={
        **COMPOSE,
        "p": Param(
            0.8,
            "exponent of the mitigation by counts; 0.8 is the paper's, 0 turns it off",
            low=0.0,
            high=5.0,
            space=Float(0.0, 1.6),
        ),
        "q": Param(
            2.0,
            "exponent of the compensation by probabilities; 2 is the paper's, 0 turns it off",
            low=0.0,
            high=5.0,
            space=Float(0.0, 3.0),
        ),
    },
)


class Seesaw(Composable, Method):
    """Counts what it has seen, and adjusts the negatives of each label."""

    card = card
    seen: Tensor | None = None

    def on_batch(self, batch: Batch) -> Batch:
        """The batch, mixed if asked; its labels are counted here, once even where a step looks twice."""
        self.seen = self.counted(batch.y) + F.one_hot(batch.y, self.ctx.num_classes).sum(0)
        return super().on_batch(batch)

    def counted(self, like: Tensor) -> Tensor:
        """Labels seen so far, int64 [C], on the device of a tensor."""
        if self.seen is None:
            return torch.zeros(self.ctx.num_classes, dtype=torch.int64, device=like.device)
        return self.seen.to(like.device)

    def criterion(self, output: Output, target: Tensor) -> Tensor:
        """Seesaw loss of each image [B]."""
        seen = self.counted(output.logits)
        return seesaw_losses(output.logits, target, seen, self.params["p"], self.params["q"])

    def state_dict(self) -> dict[str, Any]:
        """The counts."""
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The same, restored."""
        self.seen = state["seen"]


def seesaw_losses(logits: Tensor, target: Tensor, seen: Tensor, p: float, q: float) -> Tensor:
    """Cross-entropy of z_j + log S_yj, float32 [B], in logarithms throughout.

    Parameters
    ----------
    seen : int64 tensor [C]
        Labels seen so far.
    """
    log_seen = seen.clamp_min(1).to(torch.float32).log()
    mitigation = p * (log_seen[None, :] - log_seen[:, None]).clamp_max(0)  # [label, class]
    log_p = F.log_softmax(logits.detach().float(), dim=1)
    label = log_p.clamp_min(math.log(FLOOR))
    compensation = q * (log_p[:, None, :] - label[:, :, None]).clamp_min(0)  # [image, label, class]; 0 at the label
    return expected_losses(losses_by_label(logits, mitigation + compensation), target)
