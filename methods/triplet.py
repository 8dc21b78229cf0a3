"""Triplet loss beside cross-entropy: features of one expression nearer to one another than to any other's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer_bench import Batch, Choice, Float, LossOut, Method, MethodCard, Param

from ._shared.compose import SAMPLER, WEIGHTS
from ._shared.cross_entropy import ComposableCrossEntropy

card = MethodCard(
    name="triplet",
    title="Triplet loss with mining in the batch",
    paper="Schroff et al., FaceNet: A Unified Embedding for Face Recognition and Clustering, CVPR 2015; hard mining: "
    "Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, 2017",
    year=2015,
    url="https://arxiv.org/abs/1503.03832",
    family="loss",
    changes="plus λ max(0, d(a, p) - d(a, n) + α) of squared distances between features of length 1, for anchors, "
    "positives and negatives found in the batch; the classifier is trained as usual",
    deviations=(
        "the paper trains the triplet loss alone and compares distances; here it stands beside cross-entropy, as "
        "expression recognition uses it",
        "semi_hard: each positive pair with the nearest negative beyond it, and with the farthest negative where none "
        "is beyond, as TensorFlow Addons has it; the paper leaves that case open",
        "hard: Hermans et al., on squared distances of unit features and with FaceNet's margin, where they have plain "
        "distances and a soft margin",
        "batches are the recipe's; the paper's hold 40 faces of each person. An anchor without a second image of its "
        "class, or without another class, has no triplet",
        "labels are compared, so votes count as their most frequent one; images are not mixed",
    ),
    params={
        **SAMPLER,
        **WEIGHTS,
        "weight": Param(
            1.0,
            "λ on the triplet loss; a guess, since the papers have no cross-entropy beside it",
            low=0.0,
            high=100.0,
            space=Float(0.01, 10.0, log=True),
        ),
        "margin": Param(
            0.2,
            "α, in squared distance of unit features, which is 0 to 4; 0.2 in the paper",
            low=0.0,
            high=4.0,
            space=Float(0.1, 1.0),
        ),
        "mining": Param(
            "semi_hard",
            "which triplets; semi_hard: each positive pair with the nearest negative beyond it (FaceNet); hard: each "
            "anchor's farthest positive and nearest negative (Hermans et al.)",
            choices=("semi_hard", "hard"),
            space=Choice(("semi_hard", "hard")),
        ),
    },
)


class Triplet(ComposableCrossEntropy, Method):
    """Cross-entropy and triplets."""

    card = card

    def training_step(self, model: nn.Module, batch: Batch) -> LossOut:
        """Loss of one batch."""
        output = model(batch.x)
        distances = squared_distances(output.features)
        mine = hard_triplets if self.params["mining"] == "hard" else semi_hard_triplets
        parts = {
            "ce": self.batch_loss(output, batch),
            "triplet": mine(distances, batch.y, self.params["margin"]),
        }
        return LossOut(total=parts["ce"] + self.params["weight"] * parts["triplet"], parts=parts, output=output)


def squared_distances(features: Tensor) -> Tensor:
    """‖u_i - u_j‖² = 2 - 2 cos of features [B, D] brought to length 1, float32 [B, B]."""
    with torch.autocast(features.device.type, enabled=False):
        unit = F.normalize(features.float(), dim=1)
        return 2 - 2 * (unit @ unit.T)


def _pairs(y: Tensor) -> tuple[Tensor, Tensor]:
    """Which pairs are of one class (other than an image with itself), and which of two, bool [B, B] each."""
    same = y[:, None] == y[None, :]
    return same & ~torch.eye(len(y), dtype=torch.bool, device=y.device), ~same


def hard_triplets(distances: Tensor, y: Tensor, margin: float) -> Tensor:
    """Mean over anchors of max(0, farthest positive - nearest negative + margin); 0 where there is no triplet."""
    positive, negative = _pairs(y)
    farthest = distances.masked_fill(~positive, -1.0).amax(1)
    nearest = distances.masked_fill(~negative, 5.0).amin(1)
    complete = (positive.any(1) & negative.any(1)).float()
    return ((farthest - nearest + margin).clamp_min(0.0) * complete).sum() / complete.sum().clamp_min(1)


def semi_hard_triplets(distances: Tensor, y: Tensor, margin: float) -> Tensor:
    """Mean over positive pairs of max(0, d(a, p) - d(a, n) + margin), n the nearest negative with d(a, n) > d(a, p).

    Where no negative is farther than the positive, n is the farthest one. 0 where there is no triplet.
    """
    positive, negative = _pairs(y)
    ordered = distances.masked_fill(~negative, 5.0).sort(dim=1).values  # negatives first, by distance
    place = torch.searchsorted(ordered.detach(), distances.detach().contiguous(), right=True)
    last = negative.sum(1, keepdim=True) - 1
    beyond = ordered.gather(1, torch.minimum(place, last.clamp_min(0)))
    complete = (positive & (last >= 0)).float()
    return ((distances - beyond + margin).clamp_min(0.0) * complete).sum() / complete.sum().clamp_min(1)
